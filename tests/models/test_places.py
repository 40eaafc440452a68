"""Where people's models lie, and what their config.json says in which order."""

import json
import logging
import shutil

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from hf_transinv.errors import InputError
from hf_transinv.models import location, open_classifier


def is_same(classifier, network):
    return all(torch.equal(classifier.network.state_dict()[key], value) for key, value in network.state_dict().items())


@pytest.mark.parametrize("name", ["~/models/{}", "local-dir:~/models/{}", "{home}/models/{}"])
def test_the_home_folder_is_known(timm_folder, tmp_path, monkeypatch, name):
    folder, network = timm_folder
    shutil.move(folder, tmp_path / "models" / "mine")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert is_same(open_classifier(name.format("mine", home=tmp_path)), network)


def test_the_home_folder_behind_an_architecture(timm_folder, tmp_path, monkeypatch):
    folder, network = timm_folder
    (folder / "config.json").unlink()
    monkeypatch.setenv("HOME", str(tmp_path))
    assert is_same(open_classifier(f"wrn10_1_cifar:~/{folder.name}"), network)


@pytest.mark.parametrize("spelled", ["./{}", "{}", "local-dir:{}", "../here/{}"])
@pytest.mark.parametrize("name", ["parquet", "vit", "timm", "user/model"])
def test_a_folder_is_opened_whatever_its_name(timm_folder, tmp_path, monkeypatch, spelled, name):
    folder, network = timm_folder
    here = tmp_path / "here"
    shutil.copytree(folder, here / name)
    monkeypatch.chdir(here)
    assert is_same(open_classifier(spelled.format(name)), network)


def test_a_folder_called_like_an_architecture_is_said_not_to_be_taken(timm_folder, tmp_path, monkeypatch, caplog):
    folder, network = timm_folder
    shutil.move(folder, tmp_path / "test_resnet")
    monkeypatch.chdir(tmp_path)
    with caplog.at_level(logging.WARNING):
        taken = open_classifier("test_resnet", pretrained=False)
    assert taken.network.pretrained_cfg["architecture"] == "test_resnet"
    assert "timm's architecture is taken, not the folder of that name here: ./test_resnet" in caplog.text
    assert is_same(open_classifier("./test_resnet"), network)


def test_the_models_in_a_folder_of_checkpoints_are_named(timm_folder, tmp_path):
    folder, _ = timm_folder
    shutil.move(folder, tmp_path / "run" / "checkpoint-500")
    with pytest.raises(InputError, match=rf"models in its folders: give one, such as {tmp_path}/run/checkpoint-500"):
        open_classifier(str(tmp_path / "run"))


def test_an_adapter_is_called_one(timm_folder):
    folder, _ = timm_folder
    (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")
    with pytest.raises(InputError, match=r"is an adapter \(LoRA\).*merge_and_unload"):
        open_classifier(str(folder))


def with_labels(folder, target, id2label, **fields):
    """A copy of a transformers folder with a head for these labels."""
    shutil.copytree(folder, target)
    config = json.loads((target / "config.json").read_text())
    config |= {"id2label": id2label, "label2id": {name: int(key) for key, name in id2label.items()}, **fields}
    (target / "config.json").write_text(json.dumps(config))
    weights = load_file(target / "model.safetensors")
    count = len(id2label)
    weights["classifier.weight"] = torch.randn(count, 16, generator=torch.Generator().manual_seed(0))
    weights["classifier.bias"] = torch.zeros(count)
    save_file(weights, target / "model.safetensors", {"format": "pt"})
    return target


@pytest.mark.parametrize("order", [sorted(range(12), key=str), list(range(12)), list(reversed(range(12)))])
def test_numbers_say_which_class_is_which_not_their_order(vit_folder, tmp_path, order):
    names = [f"kind {letter}" for letter in "abcdefghijkl"]
    folder = with_labels(vit_folder, tmp_path / "many", {str(number): names[number] for number in order})
    assert open_classifier(str(folder)).label_names == names


def test_numbers_that_are_no_columns_are_refused(vit_folder, tmp_path):
    folder = with_labels(vit_folder, tmp_path / "from_one", {str(number): f"k{number}" for number in range(1, 4)})
    with pytest.raises(InputError, match=r"id2label of .* numbers its 3 classes \[1, 2, 3\].*expected 0, 1, 2"):
        open_classifier(str(folder))


def test_several_labels_per_image_are_said(vit_folder, tmp_path, caplog):
    names = {str(number): f"k{number}" for number in range(3)}
    folder = with_labels(vit_folder, tmp_path / "many", names, problem_type="multi_label_classification")
    with caplog.at_level(logging.WARNING):
        open_classifier(str(folder))
    assert "trained for several labels per image" in caplog.text


@pytest.mark.parametrize("mark", [{"image_size": 64}, {"image_size": "64"}, {"image_size": 0}, {}, "x", None])
def test_the_size_that_an_export_records(timm_folder, mark):
    folder, _ = timm_folder
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"hf_transinv": mark}))
    assert open_classifier(str(folder)).image_size == (64 if mark == {"image_size": 64} else 32)
    assert timm.create_model(f"local-dir:{folder}", pretrained=True).num_classes == 3


def test_which_of_two_models_of_one_name_is_read_is_said(timm_folder, tmp_path, monkeypatch, caplog):
    """A shipped configuration names model_cards/NAME: read from anywhere, unless there is such a folder here."""
    folder, network = timm_folder
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    location._say_shipped.cache_clear()  # it speaks once in a process
    with caplog.at_level(logging.INFO):
        open_classifier("model_cards/digits_elastic")
        assert "no folder here: the copy that comes with the library is read" in caplog.text
        shutil.copytree(folder, "model_cards/digits_light")
        assert is_same(open_classifier("model_cards/digits_light"), network)
    here = tmp_path / "elsewhere" / "model_cards" / "digits_light"
    assert f"the folder here is read, {here}, not the copy that comes with the library" in caplog.text
