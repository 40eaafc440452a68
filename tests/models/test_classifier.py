"""A Classifier's resizing and normalisation, against Pillow and the formula."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from hf_transinv.errors import InputError
from hf_transinv.models.classifier import Classifier, resize

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)


def images(size=32, batch=2, seed=0):
    return torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(seed))


def flat_network(classes=4, size=8, channels=3):
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * size * size, classes))


def test_normalises_as_written():
    network = flat_network()
    classifier = Classifier(network, num_classes=4, mean=MEAN, std=STD, input_size=(8, 8))
    x = images(8)
    expected = (x - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    torch.testing.assert_close(classifier(x), network(expected))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "nearest"])
@pytest.mark.parametrize(("size", "target"), [(30, (12, 12)), (12, (32, 32)), (20, (24, 8))])
def test_resizes_like_pillow(interpolation, size, target):
    """To a level of 8 bits, which is what Pillow rounds to after either of its two passes."""
    levels = (255 * images(size, batch=1)).round()
    resample = Image.Resampling[interpolation.upper()]
    picture = Image.fromarray(levels[0].permute(1, 2, 0).to(torch.uint8).numpy()).resize(target[::-1], resample)
    expected = torch.from_numpy(np.array(picture)).permute(2, 0, 1).float()
    found = 255 * resize(levels / 255, target, interpolation)[0]
    assert (found - expected).abs().max() < (1e-3 if interpolation == "nearest" else 1.2)


def test_right_size_is_left_alone():
    x = images(8)
    assert resize(x, (8, 8), "bicubic") is x


def test_one_channel_network_sees_luminance():
    network = flat_network(channels=1)
    classifier = Classifier(network, num_classes=4, mean=(0.5,), std=(0.25,), input_size=(8, 8))
    x = images(8)
    grey = 0.299 * x[:, :1] + 0.587 * x[:, 1:2] + 0.114 * x[:, 2:]
    torch.testing.assert_close(classifier(x), network((grey - 0.5) / 0.25))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [6, 11])
def test_gradcheck_to_the_pixels(interpolation, size):
    classifier = Classifier(
        flat_network(), num_classes=4, mean=MEAN, std=STD, input_size=(8, 8), interpolation=interpolation
    ).double()
    # Away from 0 and 1, where bringing bicubic's overshoot back has a kink.
    x = (0.3 + 0.4 * images(size, batch=1).double()).requires_grad_()
    assert torch.autograd.gradcheck(classifier, (x,))


def test_keeps_channels_last_and_computes_in_float32():
    classifier = Classifier(flat_network(), num_classes=4, mean=MEAN, std=STD, input_size=(8, 8))
    x = images(16).to(memory_format=torch.channels_last)
    prepared = classifier.prepare(x.bfloat16())
    assert prepared.dtype == torch.float32
    assert classifier.prepare(x).is_contiguous(memory_format=torch.channels_last)


def test_statistics_stay_out_of_the_state():
    classifier = Classifier(flat_network(), num_classes=4, mean=MEAN, std=STD, input_size=(8, 8))
    assert all(key.startswith("network.") for key in classifier.state_dict())


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 1, 8, 8)])
def test_refuses_other_images(shape):
    classifier = Classifier(flat_network(), num_classes=4, mean=MEAN, std=STD, input_size=(8, 8))
    for bad in (torch.zeros(shape), torch.zeros(1, 3, 8, 8, dtype=torch.uint8)):
        with pytest.raises(InputError, match=r"expected float images \[B, 3, h, w\]"):
            classifier(bad)


def test_refuses_contradictions():
    facts = {"num_classes": 4, "mean": MEAN, "std": STD, "input_size": (8, 8)}
    with pytest.raises(InputError, match="3 label names"):
        Classifier(flat_network(), **facts, label_names=["a", "b", "c"])
    with pytest.raises(InputError, match="4 channels"):
        Classifier(flat_network(), **{**facts, "mean": (0.5,) * 4, "std": (0.5,) * 4})
    with pytest.raises(InputError, match="'area'"):
        Classifier(flat_network(), **facts, interpolation="area")
