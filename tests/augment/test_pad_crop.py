"""Random crop as a policy against a loop over pixels, and the law of its shifts."""

import pytest
import torch
from scipy.stats import chi2

from hf_transinv.augment.policies.pad_crop import PadCrop


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def pixels(batch=12, side=16):
    return torch.rand(batch, 3, side, side, generator=seeded(), dtype=torch.float64)


def slow_shift(image, down, right):
    """The image moved by whole pixels, zeros where nothing was."""
    moved = torch.zeros_like(image)
    _, height, width = image.shape
    for y in range(height):
        for x in range(width):
            if 0 <= y + down < height and 0 <= x + right < width:
                moved[:, y, x] = image[:, y + down, x + right]
    return moved


def test_values():
    """16 pixels have a border of 2."""
    images = pixels()
    draws = PadCrop().draw(images.shape, seeded(1))
    expected = [
        slow_shift(image, top - 2, left - 2)
        for image, top, left in zip(images, draws.top.tolist(), draws.left.tolist(), strict=True)
    ]
    assert torch.equal(PadCrop()(images, draws), torch.stack(expected))


def test_all_shifts_are_equally_likely_and_none_is_mirrored():
    n = 16_200
    draws = PadCrop().draw((n, 3, 32, 32), seeded())
    counts = (9 * draws.top + draws.left).bincount()
    assert len(counts) == 81 and not draws.flip.any()
    assert ((counts - n / 81) ** 2 / (n / 81)).sum() < chi2.ppf(0.999, 80)


def test_parts_are_the_whole_and_the_images_stay():
    images, policy = pixels(), PadCrop()
    kept, draws = images.clone(), policy.draw(images.shape, seeded(2))
    parts = [policy(images[part], draws[part]) for part in (slice(0, 5), slice(5, 12))]
    assert torch.equal(torch.cat(parts), policy(images, draws)) and torch.equal(images, kept)
    assert not torch.equal(policy(images, draws), policy(images, policy.draw(images.shape, seeded(3))))


@pytest.mark.parametrize("side", [2, 8])
def test_gradients(side):
    images = pixels(3, side).requires_grad_()
    draws = PadCrop().draw(images.shape, seeded())
    assert torch.autograd.gradcheck(lambda x: PadCrop()(x, draws), [images])
