"""Random erasing: timm's rectangles, what they are filled with, and parts of a batch."""

import pytest
import timm.data.random_erasing
import torch
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from hf_transinv.data.erasing import RandomErasing, rectangles

CPU = torch.device("cpu")


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


class Replay:
    """Stands for the module `random` in timm: gives the numbers [4, B, attempts] of one image after another."""

    def __init__(self, numbers):
        self.numbers, self.image = numbers.double(), -1

    def random(self):
        self.image += 1
        self.calls = 0
        return 0.0

    def uniform(self, low, high):
        attempt, kind = divmod(self.calls, 2)
        self.calls += 1
        return low + (high - low) * self.numbers[kind, self.image, attempt].item()

    def randint(self, low, high):
        kind, self.placed = (2, True) if not getattr(self, "placed", False) else (3, False)
        number = self.numbers[kind, self.image, self.calls // 2 - 1].item()
        return low + int(number * (high - low + 1))


@pytest.mark.parametrize("size", [(32, 32), (8, 8), (40, 9)])
def test_the_rectangles_are_timms(monkeypatch, size):
    """On the last size many attempts are too wide, so that later ones count."""
    numbers = torch.rand(4, 200, 10, generator=seeded())
    monkeypatch.setattr(timm.data.random_erasing, "random", Replay(numbers))
    theirs = timm.data.random_erasing.RandomErasing(1.0, mode="const", device="cpu")
    erased = theirs(torch.ones(200, 3, *size)) == 0
    own = torch.zeros_like(erased)
    for image, (top, left, height, width) in zip(own, rectangles(numbers, size).tolist(), strict=True):
        image[:, top : top + height, left : left + width] = True
    assert torch.equal(own, erased)


def test_an_image_that_is_too_small_for_every_attempt_stays():
    numbers = torch.rand(4, 3, 10, generator=seeded())
    numbers[0] = 0.99
    numbers[1] = 0.999  # very tall
    assert not rectangles(numbers, (8, 64)).any()


@pytest.mark.parametrize("probability", [0.0, 0.25, 1.0])
def test_so_many_images_are_erased(probability):
    draws = RandomErasing(probability).draw((4000, 3, 8, 8), seeded(), CPU)
    assert abs((draws.boxes[:, 2] > 0).float().mean() - probability) < 0.03


def erased(mode, size=400):
    images = torch.full((size, 3, 16, 16), 0.25)
    erasing = RandomErasing(1.0, mode)
    draws = erasing.draw(images.shape, seeded(5), CPU)
    inside = torch.zeros(size, 16, 16, dtype=torch.bool)
    for one, (top, left, height, width) in zip(inside, draws.boxes.tolist(), strict=True):
        one[top : top + height, left : left + width] = True
    found = erasing(images, draws)
    assert (found.movedim(1, 3)[~inside] == 0.25).all()
    return found.movedim(1, 3)[inside], (images, erasing, draws, found)


def test_the_constant_is_the_mean_colour():
    filled, _ = erased("const")
    torch.testing.assert_close(filled, torch.tensor(IMAGENET_DEFAULT_MEAN).expand_as(filled))


def test_pixels_are_normal_and_clipped():
    filled, _ = erased("pixel")
    mean, std = torch.tensor(IMAGENET_DEFAULT_MEAN), torch.tensor(IMAGENET_DEFAULT_STD)
    expected = (mean + std * torch.randn(len(filled), 3, generator=seeded(9))).clamp(0, 1)
    assert filled.min() >= 0 and filled.max() <= 1
    torch.testing.assert_close(filled.mean(0), expected.mean(0), rtol=0, atol=0.02)
    torch.testing.assert_close(filled.std(0), expected.std(0), rtol=0, atol=0.02)


@pytest.mark.parametrize("mode", ["pixel", "const"])
def test_parts_are_erased_as_the_whole(mode):
    _, (images, erasing, draws, whole) = erased(mode, 8)
    for rows in (slice(0, 3), slice(3, 8)):
        assert torch.equal(erasing(images[rows], draws[rows]), whole[rows])
