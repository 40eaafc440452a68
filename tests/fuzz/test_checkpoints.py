"""Model folders, checkpoints and records that were damaged or made up: loaded, or refused with the reason."""

import hashlib
import json
import math
import shutil
import struct
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hf_transinv.augment.learned import AugmentationConfig, AugmentationPanel
from hf_transinv.augment.primitives import PrimitiveConfig
from hf_transinv.augment.saving import load_augmentation, save_augmentation
from hf_transinv.errors import InputError
from hf_transinv.hub.card import render_card
from hf_transinv.models.classifier import Classifier, open_classifier
from hf_transinv.models.conv_vae import ConvVAE, VAEConfig, load_vae, save_vae
from hf_transinv.record import Metrics, RunRecord, read_metrics
from hf_transinv.training.checkpointing import load_state, save_state
from tests.fuzz import STRANGE, damaged_bytes, damaged_json, examples, result_or_error
from tests.hub.test_card import record
from tests.launching import tiny_vit_folder
from tests.tiny_run import tiny_trainer
from tests.training.test_checkpointing import TRAINING, modules


@pytest.fixture(scope="module")
def timm_model(tmp_path_factory):
    return tiny_vit_folder(tmp_path_factory.mktemp("timm"), ["ant", "bee"])


@pytest.fixture(scope="module")
def transformers_model(tmp_path_factory):
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    folder = tmp_path_factory.mktemp("transformers")
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    ViTForImageClassification(ViTConfig(image_size=8, patch_size=4, **sizes)).save_pretrained(folder)
    ViTImageProcessor(size={"height": 8, "width": 8}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def augmentation(tmp_path_factory):
    folder = tmp_path_factory.mktemp("augmentation")
    config = AugmentationConfig(primitive=PrimitiveConfig(latent_dim=2, hidden_dim=2))
    return save_augmentation(AugmentationPanel(2, config), ["a", "b"], folder)


@pytest.fixture(scope="module")
def vae(tmp_path_factory):
    size = VAEConfig(vae_latent_channels=1, vae_width=2, vae_halvings=1)
    return save_vae(ConvVAE(size), tmp_path_factory.mktemp("vae") / "vae", {})


def rewritten(folder: Path, name: str, content: bytes | object) -> Path:
    """A copy of a folder beside it, with other content in one file."""
    copied = folder.with_name(folder.name + "_changed")
    shutil.rmtree(copied, ignore_errors=True)
    shutil.copytree(folder, copied)
    (copied / name).write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return copied


def changed_file(data: st.DataObject, folder: Path, names: list[str]) -> Path:
    """A copy of a folder in which one of these files is damaged: its bytes, or what the JSON says."""
    name = data.draw(st.sampled_from(names))
    content = (folder / name).read_bytes()
    if name.endswith(".json") and data.draw(st.integers(0, 4)):
        return rewritten(folder, name, data.draw(damaged_json(json.loads(content))))
    return rewritten(folder, name, data.draw(damaged_bytes(content)))


def check_classifier(found: Classifier | InputError) -> None:
    """Whatever was opened answers, with as many numbers as it says."""
    if isinstance(found, InputError):
        return
    assert found.label_names is None or len(found.label_names) == found.num_classes
    with torch.no_grad():
        assert found.eval()(torch.rand(1, 3, 9, 9)).shape == (1, found.num_classes)


@examples(40)
@given(st.data())
def test_timm_folders(timm_model, data):
    folder = changed_file(data, timm_model, ["config.json", "config.json", "model.safetensors"])
    num_classes = data.draw(st.sampled_from([None, 3]))
    found = result_or_error(lambda: open_classifier(str(folder), num_classes=num_classes))
    check_classifier(found)


@examples(25)
@given(st.data())
def test_transformers_folders(transformers_model, data):
    files = ["config.json", "config.json", "preprocessor_config.json", "model.safetensors"]
    folder = changed_file(data, transformers_model, files)
    check_classifier(result_or_error(lambda: open_classifier(str(folder))))


@examples(25)
@given(st.data())
def test_augmentations_and_vaes(augmentation, vae, data):
    folder, load, weights = data.draw(
        st.sampled_from(
            [
                (augmentation, load_augmentation, "augmentation.safetensors"),
                (vae, load_vae, "model.safetensors"),
            ]
        )
    )
    changed = changed_file(data, folder, ["config.json", weights])
    result_or_error(lambda: load(changed))


ABSURD = [90_000, 10**8, 2**62]  # the first one a size that a network could have


@pytest.mark.parametrize("value", ABSURD)
@pytest.mark.parametrize("pretrained", [True, False])
@pytest.mark.parametrize(
    "key",
    [("model_args", "num_classes"), ("model_args", "embed_dim"), ("model_args", "depth"), ("model_args", "img_size")],
)
def test_a_config_of_timm_that_asks_for_memory(timm_model, key, value, pretrained):
    if not pretrained and value < 10**8:
        pytest.skip("fits into memory")
    config = json.loads((timm_model / "config.json").read_text())
    place = config
    for name in key[:-1]:
        place = place[name]
    place[key[-1]] = value
    with pytest.raises(InputError) as refused:
        open_classifier(str(rewritten(timm_model, "config.json", config)), pretrained=pretrained)
    assert len(str(refused.value)) < 5000


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("num_labels", 10**8), ("num_labels", 2**62), ("hidden_size", 90_000), ("hidden_size", 10**8)),
        *(("num_hidden_layers", 90_000), ("num_hidden_layers", 10**8), ("image_size", 90_000), ("image_size", 10**8)),
    ],
)
def test_a_config_of_transformers_that_asks_for_memory(transformers_model, key, value):
    config = json.loads((transformers_model / "config.json").read_text()) | {key: value}
    with pytest.raises(InputError):
        open_classifier(str(rewritten(transformers_model, "config.json", config)))


@pytest.mark.parametrize("name", ["augmentation", "vae"])
@pytest.mark.parametrize("value", ABSURD)
def test_other_configs_that_ask_for_memory(request, name, value):
    folder = request.getfixturevalue(name)
    config = json.loads((folder / "config.json").read_text())
    if name == "augmentation":
        config["augmentation"]["primitive"]["hidden_dim"] = value
    else:
        config["architecture"]["vae_width"] = value
    load = load_augmentation if name == "augmentation" else load_vae
    with pytest.raises(InputError):
        load(rewritten(folder, "config.json", config))


@pytest.mark.parametrize("place", ["config", "model_args"])
def test_numbers_of_classes_that_disagree_are_no_new_head(timm_model, place):
    config = json.loads((timm_model / "config.json").read_text())
    (config if place == "config" else config["model_args"])["num_classes"] = 3
    with pytest.raises(InputError, match=r"num_classes \d, and \d in its model_args"):
        open_classifier(str(rewritten(timm_model, "config.json", config)))


def test_weights_whose_header_claims_more_than_there_is(timm_model):
    header = {"a": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4 * 10**12]}}
    text = json.dumps(header).encode()
    for claimed in (len(text), 2**40, 2**63):
        folder = rewritten(timm_model, "model.safetensors", struct.pack("<Q", claimed) + text)
        with pytest.raises(InputError):
            open_classifier(str(folder))


# Checkpoints


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_state(tmp_path_factory.mktemp("checkpoints"), 7, modules(), TRAINING, keep=2)


def signed(folder: Path) -> Path:
    """The manifest says that everything is as it is, as somebody who means harm would have it."""
    manifest = json.loads((folder / "manifest.json").read_text())
    files = [path for path in folder.iterdir() if path.name != "manifest.json"]
    manifest["sha256"] = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


@examples(30)
@given(st.data(), st.booleans())
def test_checkpoints(checkpoint, data, is_signed):
    names = ["student.safetensors", "training.pt", *([] if is_signed else ["manifest.json"])]
    folder = changed_file(data, checkpoint, names)
    result_or_error(lambda: load_state(signed(folder) if is_signed else folder, modules()))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    trainer = tiny_trainer(folder, max_steps=2, save_steps=2, augment={"primitives": ("gaussian_noise",)})
    trainer.train()
    return trainer, folder / "checkpoints" / "step_00000002"


@examples(20)
@given(st.data())
def test_states_of_another_kind_are_refused_where_a_run_resumes(trained, data):
    trainer, saved = trained
    training = torch.load(saved / "training.pt", weights_only=True)
    folder = saved.with_name("step_00000009")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(saved, folder)
    torch.save(data.draw(damaged_json(training)), folder / "training.pt")
    result_or_error(lambda: trainer.resume(signed(folder)))


# Records


@examples(40)
@given(st.data())
def test_records(tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp()
    run = data.draw(damaged_json(record()))
    (folder / "run.json").write_text(json.dumps(run))
    read = result_or_error(lambda: RunRecord.read(folder))
    if not isinstance(read, InputError):
        card = result_or_error(lambda: render_card(read))
        assert isinstance(card, InputError) or card.startswith("---\n")


@examples(15)
@given(damaged_bytes(json.dumps(record()).encode()))
def test_damaged_records(tmp_path_factory, content):
    folder = tmp_path_factory.getbasetemp()
    (folder / "run.json").write_bytes(content)
    read = result_or_error(lambda: RunRecord.read(folder))
    if not isinstance(read, InputError):
        result_or_error(lambda: render_card(read))


@pytest.mark.parametrize("content", [b"[" * 100_000, b"null", b"[]", b'{"config": 3}', b'{"config": {}, "rows": []}'])
def test_records_that_are_none(tmp_path, content):
    (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(InputError, match="holds no run"):
        RunRecord.read(tmp_path)


@examples(30)
@given(
    st.lists(st.one_of(STRANGE.map(json.dumps), st.integers(0, 9).map(lambda step: f'{{"step": {step}}}')), max_size=5)
)
def test_metrics(tmp_path_factory, lines):
    path = tmp_path_factory.getbasetemp() / "metrics.jsonl"
    path.write_text("\n".join(lines))
    assert all(isinstance(line["step"], int) for line in read_metrics(path))
    Metrics(path, 5).append(step=6, loss=math.nan)
    assert [line["step"] for line in read_metrics(path)][-1] == 6
