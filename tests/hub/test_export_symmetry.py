"""A picture goes through an export's own pipeline as it went through the evaluation that its card quotes."""

import json
import logging

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_model_data_config
from transformers import AutoImageProcessor, pipeline

from hf_transinv.data.decoding import fit
from hf_transinv.errors import InputError
from hf_transinv.hub.export import export_classifier
from hf_transinv.models import Classifier, open_classifier
from tests.models.families import SIDE, tiny_folder, tiny_processor

NAMES = ["ant", "bee", "cat"]

# What a checkpoint says of pictures that its successor must not inherit.
INHERITED = [
    {"crop_pct": 0.875, "interpolation": "bicubic"},
    {"crop_pct": 0.8, "crop_mode": "squash", "interpolation": "lanczos"},
    {"crop_mode": "border"},
    {"test_input_size": (3, 48, 48), "test_crop_pct": 0.95},
    {"label_names": ["x"] * 1000, "label_descriptions": {"x": "y"}, "num_classes": 1000},
]


def picture(height, width):
    generator = torch.Generator().manual_seed(height)
    coarse = torch.rand(1, 3, 5, 7, generator=generator)
    fine = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)
    return (255 * fine[0]).round().to(torch.uint8)


def as_pil(image):
    return Image.fromarray(image.permute(1, 2, 0).numpy())


def student_of(tmp_path, cfg, architecture="test_resnet", **arguments):
    torch.manual_seed(0)
    network = timm.create_model(architecture, num_classes=1000, **arguments)
    network.pretrained_cfg = {**network.pretrained_cfg, "input_size": (3, 32, 32), **cfg}
    timm.models.save_for_hf(network, tmp_path / "teacher", safe_serialization=True)
    student = open_classifier(str(tmp_path / "teacher"), num_classes=3, label_names=NAMES)
    student.train()(torch.rand(8, 3, 32, 32))
    return student.eval()


def evaluated(student, image, side):
    """What the evaluation shows the network of a decoded picture."""
    return student.prepare(fit(image, side)[None] / 255)


@pytest.mark.parametrize("cfg", INHERITED, ids="-".join)
@torch.inference_mode()
def test_timm_and_transformers_prepare_as_the_evaluation_did(tmp_path, cfg):
    student = student_of(tmp_path, cfg)
    folder = export_classifier(student, tmp_path / "student", image_size=32)
    network = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    classify = pipeline("image-classification", model=str(folder))
    for use_test_size in (False, True):
        data = resolve_model_data_config(network, use_test_size=use_test_size)
        assert data["input_size"] == (3, 32, 32) and data["crop_pct"] == 1.0 and data["crop_mode"] == "center"
        transform = create_transform(**data, is_training=False)
        for shape in ((32, 32), (61, 47), (35, 32), (64, 100)):
            own = evaluated(student, picture(*shape), 32)
            tolerance = 1e-6 if shape == (32, 32) else 1.01 / 255
            for given in (
                transform(as_pil(picture(*shape)))[None],
                classify.image_processor(as_pil(picture(*shape)))["pixel_values"],
            ):
                assert ((given - own).abs() * student.std).max() < tolerance
    answers = {answer["label"]: answer["score"] for answer in classify(as_pil(picture(32, 32)))}
    own = student(picture(32, 32)[None] / 255).softmax(1)[0]
    np.testing.assert_allclose([answers[name] for name in NAMES], own, rtol=1e-4)
    again = open_classifier(str(folder))
    assert again.label_names == NAMES and again.input_size == (32, 32) and again.interpolation == "bilinear"
    assert torch.equal(again.mean, student.mean) and torch.equal(again.std, student.std)


@pytest.mark.parametrize(("crop_pct", "interpolation"), [(0.875, "bilinear"), (0.9, "bicubic")])
def test_a_share_of_the_shorter_side_and_a_filter_are_written(tmp_path, crop_pct, interpolation):
    student = student_of(tmp_path, {})
    how = {"image_size": 32, "crop_pct": crop_pct, "interpolation": interpolation}
    folder = export_classifier(student, tmp_path / "student", **how)
    network = timm.create_model(f"local-dir:{folder}", pretrained=True)
    transform = create_transform(**resolve_model_data_config(network), is_training=False)
    processor = AutoImageProcessor.from_pretrained(folder)
    for shape in ((61, 47), (64, 100)):  # of which both libraries round the corner of the crop alike
        own = student.prepare(fit(picture(*shape), 32, crop_pct, interpolation)[None] / 255)
        for given in (
            transform(as_pil(picture(*shape)))[None],
            processor(as_pil(picture(*shape)), return_tensors="pt")["pixel_values"],
        ):
            assert ((given - own).abs() * student.std * 255).max() < 1.51


def test_pictures_that_the_network_enlarges(tmp_path, caplog):
    """Evaluated with pictures of 16 px: the network's own filter is what an export must say, and is said."""
    student = student_of(tmp_path, {"interpolation": "bicubic"})
    with caplog.at_level(logging.INFO):
        folder = export_classifier(student, tmp_path / "student", image_size=16)
    assert "images of 16 px, which the network resizes to 32x32 (bicubic)" in caplog.text
    network = timm.create_model(f"local-dir:{folder}", pretrained=True)
    transform = create_transform(**resolve_model_data_config(network), is_training=False)
    given = transform(as_pil(picture(16, 16)))[None]
    assert ((given - evaluated(student, picture(16, 16), 16)).abs() * student.std * 255).max() < 1.01
    assert open_classifier(str(folder)).interpolation == "bicubic"


@pytest.mark.parametrize("layout", ["timm", "transformers"])
def test_inputs_that_are_no_squares(tmp_path, layout):
    """The square that the evaluation cuts out is squashed; so does the export with pictures that are squares."""
    if layout == "timm":
        student = student_of(tmp_path, {"input_size": (3, 32, 64)})
    else:
        processor = tiny_processor("ViTImageProcessor", size={"height": 32, "width": 64})
        student = open_classifier(str(tiny_folder("resnet", tmp_path / "resnet", processor))).eval()
    assert student.input_size == (32, 64)
    folder = export_classifier(student, tmp_path / "student")
    square = picture(80, 80)
    if layout == "timm":
        network = timm.create_model(f"local-dir:{folder}", pretrained=True)
        given = create_transform(**resolve_model_data_config(network), is_training=False)(as_pil(square))[None]
    else:
        given = AutoImageProcessor.from_pretrained(folder)(as_pil(square), return_tensors="pt")["pixel_values"]
    own = student.prepare(square[None] / 255)
    assert given.shape == own.shape == (1, 3, 32, 64)
    assert ((given - own).abs() * student.std * 255).max() < 1.01
    assert open_classifier(str(folder)).input_size == (32, 64)


def test_what_no_library_can_say_is_refused(tmp_path):
    student = student_of(tmp_path, {})
    facts = {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6), "num_classes": 3, "channel_order": "bgr"}
    with pytest.raises(InputError, match="timm's layout has no channel order"):
        export_classifier(Classifier(student.network, **facts, input_size=(32, 32)), tmp_path / "student")
    opened = open_classifier(str(tiny_folder("resnet", tmp_path / "resnet")))
    facts |= {"input_size": (SIDE, 2 * SIDE), "image_processor": opened.image_processor}
    with pytest.raises(InputError, match=r"no image processor .*BGR, normalised, 64x128 px"):
        export_classifier(Classifier(opened.network, **facts), tmp_path / "student")
    assert not (tmp_path / "student").exists()


def test_the_teachers_processor_is_not_handed_on(tmp_path):
    """ViT's squashes; the evaluation did not."""
    student = open_classifier(str(tiny_folder("vit", tmp_path / "vit"))).eval()
    folder = export_classifier(student, tmp_path / "student")
    said = json.loads((folder / "preprocessor_config.json").read_text())
    assert said["size"] == {"shortest_edge": SIDE} and said["do_center_crop"] and said["resample"] == 2
    image = picture(SIDE, 3 * SIDE)
    given = AutoImageProcessor.from_pretrained(folder)(as_pil(image), return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(given, student.prepare(image[None, :, :, SIDE : 2 * SIDE] / 255))
    squashed = student.image_processor(as_pil(image), return_tensors="pt")["pixel_values"]
    assert (given - squashed).abs().max() > 0.5
