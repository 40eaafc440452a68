"""All classes of image processors that an image classifier of transformers can have: followed exactly, or refused."""

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from transformers.models.auto.image_processing_auto import get_image_processor_class_from_name as class_named

from hf_transinv.errors import InputError
from hf_transinv.models import Classifier, open_classifier
from hf_transinv.models.processors import read_processor
from tests.models.families import (
    ARCHITECTURES,
    SIDE,
    TRANSFORMERS_4,
    by_torchvision,
    kind_of,
    own_processor,
    processors_of,
    tiny_folder,
    tiny_processor,
)

# Dialects of one class: what its fields may say besides the defaults.
_DIALECTS = {
    "ViTImageProcessor": [
        {"do_normalize": False},
        {"do_rescale": False, "image_mean": [120.0, 110.0, 100.0], "image_std": [60.0, 50.0, 40.0]},
        {"do_rescale": False, "do_normalize": False},
        {"rescale_factor": 1 / 127.5, "image_mean": [1.0, 1.0, 1.0], "image_std": [1.0, 1.0, 1.0]},
        {"size": {"height": SIDE, "width": SIDE // 2}},
        {"size": {"shortest_edge": SIDE}, "do_center_crop": True, "crop_size": {"height": 40, "width": 56}},
        {"size": {"height": 40, "width": 40}, "do_center_crop": True, "crop_size": {"height": SIDE, "width": SIDE}},
        {"do_resize": False, "do_center_crop": True, "crop_size": {"height": SIDE, "width": SIDE}},
        *({"resample": number} for number in (0, 1, 2, 3)),
    ],
    "ConvNextImageProcessor": [{"crop_pct": 0.7}, {"size": {"shortest_edge": 384}}],
    "DonutImageProcessor": [{"do_align_long_axis": True, "size": {"height": 40, "width": SIDE}}],
    "EfficientNetImageProcessor": [
        {"include_top": False},
        {"rescale_factor": 1 / 127.5, "rescale_offset": True},
        {"rescale_factor": 1 / 127.5, "rescale_offset": True, "include_top": False},
        {"rescale_factor": 1 / 127.5, "rescale_offset": True, "include_top": False, "do_normalize": False},
    ],
    "LevitImageProcessor": [{"size": {"height": SIDE, "width": SIDE}}],
    "MobileViTImageProcessor": [{"do_flip_channel_order": False}, {"crop_size": {"height": 80, "width": 80}}],
    "PerceiverImageProcessor": [{"crop_size": {"height": 80, "width": 80}}],
    "PoolFormerImageProcessor": [{"crop_pct": None}, {"crop_pct": 0.5, "size": {"height": SIDE, "width": SIDE}}],
    "PPLCNetImageProcessor": [{"resize_short": 80, "size_divisor": 7}],
}

REFUSED = {
    "Gemma3ImageProcessor": "num_crops",
    "ImageGPTImageProcessor": "input_ids",
    "Siglip2ImageProcessor": "pixel_attention_mask",
}
"""Class: what it gives to the network that is no picture."""

ELSEWHERE = {"TimmWrapperImageProcessor": "timm's networks are opened by timm: tests/models/test_published.py"}

NO_BATCH = {"TextNetImageProcessor": "different sizes"}
"""Classes whose colours are supported but not their whole preprocessing, and why."""


def classes():
    """Every class that an image classifier has by its type, of torchvision and of Pillow."""
    return sorted({own_processor("hgnet_v2")}.union(*map(processors_of, ARCHITECTURES)))


def picture(height=61, width=47):
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, height, width), dtype=np.uint8))


def as_pil(image):
    return Image.fromarray(image.permute(1, 2, 0).numpy())


def classifier_of(processor, **options):
    preprocessing = read_processor("m", processor, 3, options.pop("built_for", None))
    return Classifier(nn.Identity(), num_classes=2, **vars(replace(preprocessing, interpolation="bilinear")))


def is_understood(name, fields):
    """Of transformers 4, a ViT's knows height and width alone with Pillow, and none resizes by Lanczos without it."""
    if TRANSFORMERS_4 and name == "ViTImageProcessor":
        return "shortest_edge" not in fields.get("size", ()) and (fields.get("do_resize", True) or len(fields) == 1)
    return not (TRANSFORMERS_4 and name.endswith("Fast") and fields.get("resample") == 1)


def followed():
    for name in classes():
        kind = kind_of(name)
        if kind not in REFUSED and kind not in ELSEWHERE:
            for fields in filter(partial(is_understood, name), [{}, *_DIALECTS.get(kind, [])]):
                yield pytest.param(name, fields, id=f"{name}-{fields}" if fields else name)


@pytest.mark.parametrize(("name", "fields"), list(followed()))
def test_same_pixels_as_the_processor(name, fields):
    """From a decoded picture to what the network sees; the colours on pictures that need no resizing as well."""
    processor = tiny_processor(name, **fields)
    classifier = classifier_of(processor)
    ready = picture(*classifier.input_size)
    if kind_of(name) in NO_BATCH:
        assert NO_BATCH[kind_of(name)] in classifier.published.obstacle
    else:
        for image in (picture(), picture(47, 61), picture(200, 90)):
            given = processor(as_pil(image), return_tensors="pt")["pixel_values"]
            assert given.shape[-2:] == classifier.input_size == classifier.published.size
            seen = classifier.prepare(classifier.published(image)[None] / 255)
            torch.testing.assert_close(seen, given.float(), rtol=1e-5, atol=1e-5)
    plain = {"do_resize": False, "do_center_crop": False, "do_pad": False, "do_thumbnail": False}
    given = processor(
        as_pil(ready), return_tensors="pt", **{key: plain[key] for key in plain if hasattr(processor, key)}
    )
    if given["pixel_values"].shape[-2:] == classifier.input_size:
        seen = classifier.prepare(ready[None] / 255)
        torch.testing.assert_close(seen, given["pixel_values"].float(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", sorted(name for name in classes() if kind_of(name) in REFUSED))
def test_what_is_no_picture_is_refused(name):
    kind = kind_of(name)
    fields = {"clusters": [[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]]} if kind.startswith("ImageGPT") else {}
    with pytest.raises(InputError, match=rf"{name}.*{REFUSED[kind]}.*choose another model"):
        read_processor("m", class_named(name)(**fields), 3, None)


def test_every_class_is_in_one_table():
    kinds = {kind_of(name) for name in classes()}
    newer = {"PPLCNetImageProcessor"} if TRANSFORMERS_4 else set()
    assert set(REFUSED) | set(ELSEWHERE) | set(NO_BATCH) | set(_DIALECTS) <= kinds | newer


@pytest.mark.parametrize(
    ("name", "fields", "order", "mean", "std"),
    [
        ("MobileViTImageProcessor", {}, "bgr", [0.0] * 3, [1.0] * 3),
        pytest.param(
            *("PPLCNetImageProcessor", {}, "bgr", [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
            marks=pytest.mark.skipif(TRANSFORMERS_4, reason="transformers 4 does not have it"),
        ),
        ("EfficientNetImageProcessor", {}, "rgb", [0.5] * 3, [0.25] * 3),
        (
            "EfficientNetImageProcessor",
            {"rescale_factor": 1 / 127.5, "rescale_offset": True, "do_normalize": False, "include_top": False},
            *("rgb", [0.5] * 3, [0.5] * 3),
        ),
        ("ViTImageProcessor", {"do_rescale": False, "do_normalize": False}, "rgb", [0.0] * 3, [1 / 255] * 3),
        ("CLIPImageProcessor", {}, "rgb", [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]),
    ],
)
def test_what_is_found(name, fields, order, mean, std):
    """By hand: (x - mean) / std of x in [0, 1], for example (2 x - 1) = (x - 0.5) / 0.5."""
    found = read_processor("m", tiny_processor(name, **fields), 3, None)
    assert found.channel_order == order
    np.testing.assert_allclose(found.mean, mean, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(found.std, std, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "fields", "obstacle"),
    [
        ("ViTImageProcessor", {"size": {"shortest_edge": SIDE}}, "different sizes"),
        ("ViTImageProcessor", {"size": {"max_height": SIDE, "max_width": SIDE}}, "different sizes"),
        ("ViTImageProcessor", {"size": {"shortest_edge": SIDE, "longest_edge": 2 * SIDE}}, "different sizes"),
        pytest.param(
            "CLIPImageProcessor",
            {"size": {"max_height": SIDE, "max_width": SIDE}, "do_center_crop": False, "do_pad": True}
            | {"pad_size": {"height": SIDE, "width": SIDE}},
            "fills borders after it has normalised",
            marks=pytest.mark.skipif(TRANSFORMERS_4, reason="transformers 4 fills no borders"),
        ),
        ("DINOv3ViTImageProcessor", {}, "resizes in floating point"),
    ],
)
def test_preprocessing_that_makes_no_8_bit_batch(name, fields, obstacle):
    """The colours are followed; the whole of it is not, and says why."""
    processor = tiny_processor(by_torchvision(name), **fields)
    classifier = classifier_of(processor)
    assert classifier.input_size == (SIDE, SIDE)
    with pytest.raises(InputError, match=rf"{obstacle}.*--protocol uniform"):
        classifier.take_published()
    grey = torch.full((3, SIDE, SIDE), 77, dtype=torch.uint8)
    given = processor(as_pil(grey), return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(classifier.prepare(grey[None] / 255), given, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "fields", "said"),
    [
        ("ViTImageProcessor", {"size": {"height": 90_000, "width": 8}}, "size 90000x8; expected sides from 1 to 4096"),
        ("PoolFormerImageProcessor", {"crop_pct": 1e-6}, "shortest_edge 224 and crop_pct 1e-06; expected sides"),
        ("ViTImageProcessor", {"do_resize": False}, "does not resize.*image_size"),
        ("ViTImageProcessor", {"image_std": [0.5, -0.5, 0.5]}, "more of the colours than a scale"),
        ("ViTImageProcessor", {"resample": 4}, "cannot prepare an image: .*for the modes"),
        ("ViTImageProcessor", {"size": {"longest_edge": 32}}, "cannot prepare an image: Size must contain"),
        ("VideoMAEImageProcessor", {}, r"makes \(1, 1, 3,"),
        ("SamImageProcessor", {}, "original_sizes"),
        ("SuperPointImageProcessor", {"do_grayscale": True}, "more of the colours than a scale"),
    ],
)
def test_what_cannot_be_right_is_refused(name, fields, said):
    processor = class_named(by_torchvision(name))(**fields)
    with pytest.raises(InputError, match=said):
        read_processor("m", processor, 3, None)


def test_a_processor_that_does_not_resize_takes_the_networks_size():
    classifier = classifier_of(tiny_processor("ViTImageProcessor", do_resize=False), built_for=(24, 24))
    assert classifier.input_size == (24, 24) and "different sizes" in classifier.published.obstacle


def test_one_channel():
    """A grey network is given the luminance, and its processor pictures of mode L."""
    name = by_torchvision("ViTImageProcessor")
    processor = tiny_processor(name, image_mean=[0.4], image_std=[0.2])
    classifier = Classifier(nn.Identity(), num_classes=2, **vars(read_processor("m", processor, 1, None)))
    given = processor(as_pil(picture()).convert("L"), return_tensors="pt")["pixel_values"]
    seen = classifier.prepare(classifier.published(picture())[None] / 255)
    assert given.shape == seen.shape == (1, 1, SIDE, SIDE)
    torch.testing.assert_close(seen, given, rtol=1e-5, atol=1e-5)
    # transformers 4 makes it three grey channels.
    with pytest.raises(InputError, match=r"cannot prepare an image of one channel|makes .* of one image"):
        read_processor("m", tiny_processor(name), 1, None)


@pytest.mark.parametrize("kept", [{}, {"feature_extractor_type": "ConvNextFeatureExtractor"}])
def test_an_old_file_takes_the_defaults_of_its_class(tmp_path, kept):
    """preprocessor_config.json of years ago: the class by its old name or not at all, and few of today's fields."""
    folder = tiny_folder("convnext", tmp_path / "convnext")
    (folder / "preprocessor_config.json").write_text(json.dumps({**kept, "size": SIDE, "do_resize": True}))
    classifier = open_classifier(str(folder))
    assert classifier.input_size == (SIDE, SIDE) and classifier.mean.flatten().tolist() == [0.5] * 3
    assert "crop_pct 0.875" in classifier.published.description
    given = class_named("ConvNextImageProcessor")(size={"shortest_edge": SIDE})(as_pil(picture()), return_tensors="pt")
    seen = classifier.prepare(classifier.published(picture())[None] / 255)
    torch.testing.assert_close(seen, given["pixel_values"], rtol=1e-5, atol=1e-5)


def test_gradients_reach_the_pixels_of_a_network_that_reads_bgr():
    classifier = classifier_of(tiny_processor("MobileViTImageProcessor"))
    images = torch.rand(1, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    classifier.input_size = (8, 8)
    classifier.double()
    assert torch.autograd.gradcheck(classifier.prepare, images)
    assert torch.equal(classifier.prepare(images), images.flip(1))
