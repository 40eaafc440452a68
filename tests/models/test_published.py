"""The preprocessing of a timm checkpoint, how it differs from the default one, and momenta of TensorFlow."""

import io
import json
import logging

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_model_data_config

from hf_transinv.data.decoding import decode_image, fit
from hf_transinv.data.evaluation_cut import EvaluationCut
from hf_transinv.errors import InputError
from hf_transinv.models import Classifier, open_classifier
from hf_transinv.models.description import what_differs
from tests.models.families import tiny_folder, tiny_processor


def picture(height=61, width=47):
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, height, width), dtype=np.uint8))


def as_pil(image):
    return Image.fromarray(image.permute(1, 2, 0).numpy())


def saved(folder, architecture="test_resnet", cfg=(), **arguments):
    """A timm checkpoint whose pretrained_cfg says `cfg`."""
    torch.manual_seed(0)
    network = timm.create_model(architecture, num_classes=3, **arguments)
    network.pretrained_cfg = {**network.pretrained_cfg, "input_size": (3, 32, 32), **dict(cfg)}
    timm.models.save_for_hf(network, folder, safe_serialization=True)
    return folder, network.eval()


CONFIGS = [
    {"crop_pct": 0.875},
    {"crop_pct": 0.9, "interpolation": "bicubic"},
    {"crop_pct": 0.8, "crop_mode": "squash"},
    {"crop_pct": 1.0, "crop_mode": "border", "mean": (0.3, 0.4, 0.5), "std": (0.2, 0.2, 0.3)},
    {"crop_pct": 0.875, "test_input_size": (3, 48, 48), "test_crop_pct": 0.95},
    {"input_size": (3, 32, 64)},
    {"input_size": (3, 64, 32), "crop_mode": "squash"},
    {"input_size": (3, 32, 64), "crop_mode": "border", "crop_pct": 0.9},
    *({"interpolation": name} for name in ("nearest", "lanczos", "box", "hamming")),
]


@pytest.mark.parametrize("cfg", CONFIGS, ids=str)
@pytest.mark.parametrize("shape", [(61, 47), (47, 61), (100, 40), (32, 32)])
@torch.inference_mode()
def test_as_timm_validates(tmp_path, cfg, shape):
    folder, network = saved(tmp_path / "timm", cfg=cfg)
    classifier = open_classifier(str(folder)).eval()
    transform = create_transform(**resolve_model_data_config(network, use_test_size=True), is_training=False)
    expected = transform(as_pil(picture(*shape)))[None]
    published = classifier.take_published()
    assert classifier.input_size == published.size == tuple(expected.shape[-2:])
    seen = classifier.prepare(published(picture(*shape))[None] / 255)
    assert torch.equal(seen, expected)
    assert torch.equal(classifier.network(seen), network(expected))


def test_a_grey_network_as_timm_validates(tmp_path):
    """timm's validate.py opens pictures as L where the network takes one channel."""
    cfg = {"input_size": (1, 32, 32), "mean": (0.4,), "std": (0.2,)}
    folder, network = saved(tmp_path / "timm", cfg=cfg, in_chans=1)
    classifier = open_classifier(str(folder)).eval()
    transform = create_transform(**resolve_model_data_config(network, use_test_size=True), is_training=False)
    seen = classifier.prepare(classifier.take_published()(picture())[None] / 255)
    torch.testing.assert_close(seen, transform(as_pil(picture()).convert("L"))[None], rtol=1e-5, atol=1e-6)


def test_the_size_a_network_was_built_for(tmp_path):
    """timm's own validation would take the architecture's 160 px, which this network refuses."""
    network = timm.create_model("test_vit", img_size=48, num_classes=4)
    timm.models.save_for_hf(network, tmp_path / "vit", safe_serialization=True)
    published = open_classifier(str(tmp_path / "vit")).take_published()
    assert published.size == (48, 48) and published(picture()).shape == (3, 48, 48)


def test_a_filter_that_torch_does_not_have_is_said(tmp_path, caplog):
    folder, _ = saved(tmp_path / "timm", cfg={"interpolation": "lanczos"})
    with caplog.at_level(logging.WARNING):
        assert open_classifier(str(folder)).interpolation == "bicubic"
    assert "resizes by lanczos; here images of another size are resized by bicubic" in caplog.text


@pytest.mark.parametrize(
    ("cfg", "said"),
    [
        *(
            ({"interpolation": name}, f"resizes by '{name}'; expected one of nearest")
            for name in ("mitchell", "random")
        ),
        ({"crop_pct": 1e-5}, "crop_pct 1e-05.*expected at most 16384"),
    ],
)
def test_what_timm_cannot_prepare_is_refused(tmp_path, cfg, said):
    folder, _ = saved(tmp_path / "timm", cfg=cfg)
    with pytest.raises(InputError, match=said):
        open_classifier(str(folder))


def test_nearest_takes_pillows_pixels(tmp_path):
    folder, _ = saved(tmp_path / "timm", cfg={"interpolation": "nearest"})
    classifier = open_classifier(str(folder))
    expected = np.asarray(as_pil(picture()).resize((32, 32), Image.Resampling.NEAREST)) / 255
    seen = classifier.resized(picture()[None].double() / 255)[0].permute(1, 2, 0)
    np.testing.assert_allclose(seen.numpy(), expected, atol=1e-12)


class TestWhatDiffers:
    def test_nothing_when_the_checkpoint_says_the_same(self, tmp_path):
        folder, _ = saved(tmp_path / "timm", cfg={"crop_pct": 1.0, "interpolation": "bilinear"})
        classifier = open_classifier(str(folder))
        assert what_differs(classifier, EvaluationCut(32), keeps_size=False) is None
        assert what_differs(classifier, EvaluationCut(32), keeps_size=True) is None
        assert "centre crop 24, then 32x32 (bilinear);" in what_differs(
            classifier, EvaluationCut(24), keeps_size=False
        )

    @pytest.mark.parametrize(
        "cfg", [{"crop_pct": 0.875}, {"interpolation": "bicubic", "crop_pct": 1.0}, {"test_input_size": (3, 48, 48)}]
    )
    def test_a_crop_a_filter_or_a_size(self, tmp_path, cfg):
        folder, _ = saved(tmp_path / "timm", cfg={"crop_pct": 1.0, "interpolation": "bilinear", **cfg})
        said = what_differs(open_classifier(str(folder)), EvaluationCut(32), keeps_size=False)
        assert said.startswith(
            "Measured with the shorter side to 32 px, centre crop 32; the checkpoint's own protocol"
        )
        assert said.endswith("--protocol published.") and all(
            str(value) in said for value in cfg.values() if value != (3, 48, 48)
        )

    def test_a_squash_of_squares_is_none(self, tmp_path):
        folder = tiny_folder("vit", tmp_path / "vit", tiny_processor("ViTImageProcessor"))
        classifier = open_classifier(str(folder))
        assert what_differs(classifier, EvaluationCut(64), keeps_size=True) is None
        assert "size 64x64, bilinear (ViTImageProcessor)" in what_differs(
            classifier, EvaluationCut(64), keeps_size=False
        )

    def test_what_cannot_be_had(self, tmp_path):
        classifier = open_classifier(str(tiny_folder("textnet", tmp_path / "textnet")))
        assert what_differs(classifier, EvaluationCut(64), keeps_size=False).endswith(
            "different sizes, which make no batch."
        )

    def test_a_network_made_by_hand_has_no_protocol(self):
        facts = {"num_classes": 2, "mean": [0.5] * 3, "std": [0.5] * 3, "input_size": (8, 8)}
        classifier = Classifier(torch.nn.Identity(), **facts)
        assert what_differs(classifier, EvaluationCut(8), keeps_size=False) is None
        with pytest.raises(InputError, match="not known"):
            classifier.take_published()


@pytest.mark.parametrize("quality", [40, 95])
def test_jpegs_are_decoded_as_pillow_decodes_them(quality):
    """On which the equality with the libraries' own validation rests, image by image."""
    for subsampling in (0, 1, 2):
        file = io.BytesIO()
        as_pil(fit(picture(), 96)).save(file, "JPEG", quality=quality, subsampling=subsampling)
        expected = np.asarray(Image.open(io.BytesIO(file.getvalue())).convert("RGB"))
        assert np.array_equal(decode_image(file.getvalue(), "here").permute(1, 2, 0).numpy(), expected)


class TestMomentum:
    @pytest.mark.parametrize(
        ("name", "momentum"), [("mobilenet_v1", 0.0003), ("mobilenet_v2", 0.003), ("efficientnet", 0.01)]
    )
    def test_one_batch_moves_the_statistics_by_its_share(self, tmp_path, caplog, name, momentum):
        with caplog.at_level(logging.WARNING):
            classifier = open_classifier(str(tiny_folder(name, tmp_path / name)))
        assert f"train with 1 - m: {momentum:g}" in caplog.text
        layer = next(module for module in classifier.modules() if isinstance(module, torch.nn.BatchNorm2d))
        before, seen = layer.running_mean.clone(), []
        layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].mean((0, 2, 3))))
        classifier.train()(torch.rand(4, 3, 64, 64))
        torch.testing.assert_close(layer.running_mean, (1 - momentum) * before + momentum * seen[0])

    @pytest.mark.parametrize("momentum", [0.01, 0.1, 0.5, 1.0, None])
    def test_pytorchs_own_stay(self, tmp_path, momentum):
        from hf_transinv.models.batch_norm import correct_momentum

        layer = torch.nn.BatchNorm2d(3, momentum=momentum)
        correct_momentum(torch.nn.Sequential(layer), "here")
        assert layer.momentum == momentum

    def test_of_timms_arguments(self, tmp_path):
        network = timm.create_model("test_efficientnet", num_classes=3, bn_momentum=0.99)
        timm.models.save_for_hf(network, tmp_path / "timm", safe_serialization=True)
        assert json.loads((tmp_path / "timm" / "config.json").read_text())["model_args"]["bn_momentum"] == 0.99
        layers = [m for m in open_classifier(str(tmp_path / "timm")).modules() if isinstance(m, torch.nn.BatchNorm2d)]
        assert layers and all(layer.momentum == 0.01 for layer in layers)
