"""A student that was fine-tuned at another size than its checkpoint's, loaded by plain timm and transformers."""

import json

import pytest
import timm
import torch
from PIL import Image

from hf_transinv.hub.export import export_classifier
from hf_transinv.models import open_classifier
from tests.hub.test_export import in_own_memory

VIT = {"img_size": 64, "depth": 2, "embed_dim": 24, "num_heads": 2}
SWIN = {"img_size": 64, "window_size": 2, "embed_dim": 8, "depths": (2, 2), "num_heads": (2, 2)}
CONVNEXT = {"depths": (1, 1, 1, 1), "dims": (8, 8, 8, 8)}
NAMES = ["ant", "bee", "cat"]
SIDE = 96
IMAGES = torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


def as_pil(image):
    return Image.fromarray((image * 255).round().byte().permute(1, 2, 0).numpy())


@pytest.fixture(
    params=[
        ("vit_tiny_patch16_224", VIT),
        ("swin_tiny_patch4_window7_224", SWIN),
        ("convnextv2_atto", CONVNEXT),
        ("test_vit", {}),
    ]
)
def student(request, tmp_path):
    """As a run has it: pretrained, for 96 px, with a new head and drop rates of its own."""
    name, arguments = request.param
    torch.manual_seed(0)
    timm.models.save_for_hf(timm.create_model(name, **arguments), tmp_path / "before", safe_serialization=True)
    options = {"num_classes": 3, "label_names": NAMES, "model_args": {"drop_path_rate": 0.3}}
    return open_classifier(str(tmp_path / "before"), input_size=SIDE, **options).eval()


def test_timm_and_our_door_open_it_at_that_size(student, tmp_path):
    folder = export_classifier(student, tmp_path / "student", image_size=128)
    network = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    assert torch.equal(network(student.prepare(IMAGES)), student(IMAGES))
    data = timm.data.resolve_model_data_config(network)
    assert (
        data["input_size"] == (3, SIDE, SIDE)
        and timm.data.resolve_model_data_config(network, use_test_size=True) == data
    )
    config = json.loads((folder / "config.json").read_text())
    assert config["pretrained_cfg"]["input_size"] == [3, SIDE, SIDE] and not config["pretrained_cfg"].get("pool_size")
    is_built_for_it = hasattr(network, "set_input_size")
    assert config["model_args"].get("img_size") == ([SIDE, SIDE] if is_built_for_it else None)
    assert "drop_path_rate" not in config["model_args"]
    again = open_classifier(str(folder)).eval()
    assert again.input_size == (SIDE, SIDE) == again.published.size and again.label_names == NAMES
    assert again.image_size == 128  # of the images that evaluate.py makes, as those of the run
    assert torch.equal(again(IMAGES), student(IMAGES))


def test_transformers_opens_it_at_that_size(student, tmp_path):
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    folder = export_classifier(student, tmp_path / "student")
    loaded = in_own_memory(AutoModelForImageClassification.from_pretrained(folder).eval())
    given = AutoImageProcessor.from_pretrained(folder)(as_pil(IMAGES[0]), return_tensors="pt")["pixel_values"]
    assert given.shape[-2:] == (SIDE, SIDE)
    assert torch.equal(loaded(student.prepare(IMAGES)).logits, student(IMAGES))


def test_it_is_fine_tuned_again_at_a_third_size(student, tmp_path):
    folder = export_classifier(student, tmp_path / "student")
    larger = open_classifier(str(folder), input_size=128).eval()
    again = export_classifier(larger, tmp_path / "larger")
    assert larger.input_size == (128, 128) and larger.image_size == 128
    assert torch.equal(open_classifier(str(again)).eval()(IMAGES), larger(IMAGES))


def test_a_network_of_transformers(tmp_path):
    from transformers import (
        AutoImageProcessor,
        AutoModelForImageClassification,
        ViTConfig,
        ViTForImageClassification,
        ViTImageProcessor,
    )

    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    ViTForImageClassification(ViTConfig(image_size=32, patch_size=8, **sizes)).save_pretrained(tmp_path / "before")
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path / "before")
    options = {"num_classes": 3, "label_names": NAMES, "input_size": SIDE, "grad_checkpointing": True}
    student = open_classifier(str(tmp_path / "before"), **options).eval()
    folder = export_classifier(student, tmp_path / "student", image_size=128)
    loaded = in_own_memory(AutoModelForImageClassification.from_pretrained(folder).eval())
    assert torch.equal(loaded(student.prepare(IMAGES)).logits, in_own_memory(student)(IMAGES))
    assert loaded.config.image_size == SIDE and not any(
        getattr(module, "gradient_checkpointing", False) for module in loaded.modules()
    )
    given = AutoImageProcessor.from_pretrained(folder)(as_pil(IMAGES[0]), return_tensors="pt")["pixel_values"]
    assert given.shape[-2:] == (SIDE, SIDE)
    again = open_classifier(str(folder)).eval()
    assert again.input_size == (SIDE, SIDE) == again.published.size and again.image_size == 128
    assert torch.equal(in_own_memory(again)(IMAGES), in_own_memory(student)(IMAGES))
