"""An exported student, loaded by somebody else's code: timm and transformers give its logits to the bit."""

import copy
import json

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors import safe_open

from hf_transinv.errors import InputError
from hf_transinv.hub.export import export_classifier
from hf_transinv.models import Classifier, open_classifier

NAMES = ["ant", "bee", "cat", "dog", "elk"]


def images():
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def in_own_memory(network):
    """transformers leaves weights mapped to the file, unaligned, where other kernels may round the last bit."""
    return copy.deepcopy(network)


def trained(name="wrn10_1_cifar", **kwargs):
    """A student with statistics of its own and BatchNorm buffers that are not those of birth."""
    torch.manual_seed(0)
    opened = open_classifier(name, pretrained=False, num_classes=5, **kwargs)
    statistics = {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)}
    student = Classifier(
        opened.network, num_classes=5, input_size=opened.input_size, label_names=NAMES, source=name, **statistics
    )
    student.train()(images())
    return student.eval()


@pytest.mark.parametrize("name", ["wrn10_1_cifar", "resnet20_cifar", "test_vit", "test_resnet.r160_in1k"])
def test_timm_loads_it_to_the_bit(tmp_path, name):
    student = trained(name)
    folder = export_classifier(student, tmp_path / "runs" / "student", card="---\ntags: [x]\n---\n# Card\n")
    network = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    x = images()
    assert torch.equal(network(student.prepare(x)), student(x))
    config = network.pretrained_cfg
    assert tuple(config["mean"]) == (0.1, 0.2, 0.3) and tuple(config["std"]) == (0.4, 0.5, 0.6)
    assert tuple(config["input_size"]) == (3, *student.input_size) and config["crop_pct"] == 1.0
    assert config["tag"] == "transinv" and config["label_names"] == NAMES
    assert (folder / "README.md").read_text().endswith("# Card\n")
    assert sorted(file.name for file in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    assert [file.name for file in folder.parent.iterdir()] == ["student"]


def test_our_own_door_opens_it(tmp_path):
    student = trained()
    reopened = open_classifier(str(export_classifier(student, tmp_path / "student"))).eval()
    assert reopened.label_names == NAMES and reopened.input_size == (32, 32)
    assert torch.equal(reopened(images()), student(images()))


def test_transformers_pipeline_shows_the_label_names(tmp_path):
    from transformers import AutoModelForImageClassification, pipeline

    student = trained()
    folder = export_classifier(student, tmp_path / "student")
    loaded = in_own_memory(AutoModelForImageClassification.from_pretrained(folder).eval())
    x = images()
    assert torch.equal(loaded(student.prepare(x)).logits, student(x))
    pixels = (images()[0] * 255).byte()
    answers = pipeline("image-classification", model=str(folder))(Image.fromarray(pixels.permute(1, 2, 0).numpy()))
    expected = student(pixels[None] / 255).softmax(1)[0]
    assert [answer["label"] for answer in answers] == [NAMES[index] for index in expected.argsort(descending=True)]
    np.testing.assert_allclose([a["score"] for a in answers], sorted(expected.tolist(), reverse=True), rtol=1e-4)


def test_config_is_what_other_code_expects(tmp_path):
    folder = export_classifier(trained(), tmp_path / "student", tag="mine", extra={"teachers": ["ema"]})
    config = json.loads((folder / "config.json").read_text())
    assert config["architecture"] == "wrn10_1_cifar" and config["num_classes"] == 5
    assert config["label_names"] == NAMES
    assert "num_classes" not in config["model_args"]
    cut = {"image_size": 32, "eval_crop_pct": 1.0, "interpolation": "bilinear"}
    assert config["hf_transinv"] == {"format": 1, **cut, "teachers": ["ema"]}
    assert config["pretrained_cfg"]["tag"] == "mine"
    assert (folder / "model.safetensors").stat().st_mode == (folder / "config.json").stat().st_mode


def test_channels_last_student_is_left_as_it_is(tmp_path):
    student = trained().to(memory_format=torch.channels_last).train()
    state = {name: value.clone() for name, value in student.state_dict().items()}
    config = copy.deepcopy(student.network.pretrained_cfg)
    folder = export_classifier(student, tmp_path / "student")
    assert student.training and student.network.pretrained_cfg == config
    assert student.network.stem.conv.weight.is_contiguous(memory_format=torch.channels_last)
    with safe_open(str(folder / "model.safetensors"), framework="pt") as file:
        assert set(file.keys()) == {name.removeprefix("network.") for name in state}
        assert all(torch.equal(file.get_tensor(name), state[f"network.{name}"]) for name in file.keys())  # noqa: SIM118


def test_replaces_an_older_export_of_ours(tmp_path):
    first, second = trained(), trained("resnet20_cifar")
    export_classifier(first, tmp_path / "student", card="old")
    export_classifier(second, tmp_path / "student")
    assert sorted(file.name for file in (tmp_path / "student").iterdir()) == ["config.json", "model.safetensors"]
    assert open_classifier(str(tmp_path / "student")).network.pretrained_cfg["architecture"] == "resnet20_cifar"
    assert [file.name for file in tmp_path.iterdir()] == ["student"]


@pytest.mark.parametrize("config", [None, "{}", "{"])
def test_never_overwrites_a_foreign_folder(tmp_path, config):
    (tmp_path / "precious.txt").write_text("mine")
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    before = sorted(file.name for file in tmp_path.iterdir())
    with pytest.raises(InputError, match="not an export"):
        export_classifier(trained(), tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == before


def test_a_failed_export_leaves_the_older_one(tmp_path):
    folder = export_classifier(trained(), tmp_path / "student", extra={"run": 1})
    with pytest.raises(TypeError, match="JSON serializable"):
        export_classifier(trained(), folder, extra={"run": object()})
    assert json.loads((folder / "config.json").read_text())["hf_transinv"]["run"] == 1
    assert [file.name for file in tmp_path.iterdir()] == ["student"]


def test_transformers_network_is_saved_as_transformers_saves(tmp_path):
    from transformers import (
        AutoImageProcessor,
        AutoModelForImageClassification,
        ViTConfig,
        ViTForImageClassification,
        ViTImageProcessor,
    )

    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    ViTForImageClassification(ViTConfig(image_size=30, patch_size=10, **sizes)).save_pretrained(tmp_path / "vit")
    ViTImageProcessor(size={"height": 30, "width": 30}).save_pretrained(tmp_path / "vit")
    student = open_classifier(str(tmp_path / "vit"), num_classes=5, label_names=NAMES).eval()
    folder = export_classifier(student, tmp_path / "student", card="# Card\n", extra={"seed": 3})
    loaded = in_own_memory(AutoModelForImageClassification.from_pretrained(folder).eval())
    x = images()
    assert torch.equal(loaded(student.prepare(x)).logits, in_own_memory(student)(x))
    assert list(loaded.config.id2label.values()) == NAMES
    assert dict(AutoImageProcessor.from_pretrained(folder).size).get("shortest_edge") == 30
    assert student.network.config.id2label != loaded.config.id2label
    assert torch.equal(in_own_memory(open_classifier(str(folder)).eval())(x), in_own_memory(student)(x))
    export_classifier(student, folder)
    assert not (folder / "README.md").exists()
