"""FixedAug: what is drawn, the parameters of each level by hand, and the images pixel by pixel."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import chi2

from hf_transinv.augment.policies.fixed import LEVELS, FixedAug
from hf_transinv.augment.primitives import PAPER_PRIMITIVES as PRIMITIVES
from hf_transinv.augment.primitives import PrimitiveConfig
from tests.oracles import transinv as oracle

NAMES = tuple(PRIMITIVES)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def pixels(batch=16, size=8):
    return torch.rand(batch, 3, size, size, generator=seeded())


def slow(name, image, s, signs, noise):
    """One image [3, H, W] at strength s; signs of +1 and -1 choose the ends."""
    if name == "contrast_brightness":
        return oracle.contrast_brightness(image, 1 + 0.8 * s * signs[0], 0.5 * s * signs[1])
    if name == "geometric":
        a, b, x, c, d, y = (0.25 * s * sign for sign in signs)
        return oracle.warp_affine(image, [[1 + a, b, x], [c, 1 + d, y]])
    if name == "gaussian_blur":
        unit = (image.shape[-1] / 32) ** 2  # the variance is stated for 32 pixels
        return oracle.gaussian_blur(image, 1.8 * s * unit, 1 - s, math.ceil(3 * math.sqrt(1.8 * unit)))
    return oracle.gaussian_noise(image, 0.12 * s, noise)


def test_every_deformation_at_every_level():
    policy = FixedAug()
    images = pixels(4 * LEVELS)
    draws = policy.draw(images.shape, seeded(1))
    which = torch.arange(4).repeat_interleave(LEVELS)
    noise = torch.randn(LEVELS, 3, 8, 8, generator=seeded(2))
    rows = torch.where(which == 3, torch.arange(4 * LEVELS) - 3 * LEVELS, -1)
    level = torch.arange(1, LEVELS + 1).repeat(4)
    draws = type(draws)(which, level, draws.upward, noise, rows)
    found = policy(images, draws).double().numpy()
    for b, image in enumerate(images.double().numpy()):
        name, s = NAMES[which[b]], level[b].item() / 6
        signs = [1 if up else -1 for up in draws.upward[b].tolist()]
        expected = oracle.clamped(slow(name, image, s, signs, noise[rows[b]].double().numpy()))
        np.testing.assert_allclose(found[b], expected, atol=2e-5, err_msg=f"{name} at {s}")


@pytest.mark.parametrize(
    ("index", "upward", "expected"),
    [
        (0, [True, False], [1.4, -0.25]),
        (0, [False, True], [0.6, 0.25]),
        (1, [True, False, True, False, True, False], [0.125, -0.125, 0.125, -0.125, 0.125, -0.125]),
        (2, [True, True], [0.5, 0.9]),
        (2, [False, False], [0.5, 0.9]),
        (3, [False], [0.06]),
        (3, [True], [0.06]),
    ],
)
def test_parameters_half_way(index, upward, expected):
    coins = torch.tensor([upward + [True] * (6 - len(upward))])
    assert FixedAug().parameters(index, torch.tensor([3]), coins)[0].tolist() == pytest.approx(expected)


def test_options_are_the_primitives():
    policy = FixedAug(PrimitiveConfig(geometric_range=0.1, out_of_range="fold", padding_mode="border"))
    assert policy.parameters(1, torch.tensor([6]), torch.ones(1, 6, dtype=torch.bool))[0].tolist() == pytest.approx(
        [0.1] * 6
    )
    images = torch.full((1, 3, 8, 8), 0.9)
    draws = policy.draw(images.shape, seeded())
    draws = type(draws)(
        torch.tensor([0]), torch.tensor([6]), torch.ones(1, 6, dtype=torch.bool), *draws_without_noise()
    )
    torch.testing.assert_close(policy(images, draws), torch.full_like(images, 0.12))  # 1.8 x 0.9 + 0.5 = 2.12, folded
    draws = type(draws)(
        torch.tensor([1]), *(getattr(draws, name) for name in ("level", "upward")), *draws_without_noise()
    )
    torch.testing.assert_close(policy(images, draws), images)  # a flat image continues beyond its border


def draws_without_noise():
    return torch.empty(0, 3, 8, 8), torch.tensor([-1])


def test_draws_are_uniform():
    policy, n = FixedAug(), 12_000
    draws = policy.draw((n, 3, 1, 1), seeded())
    for values, known in ((draws.which, range(4)), (draws.level, range(1, 7)), (draws.which * 7 + draws.level, None)):
        counts = torch.stack([(values == value).sum() for value in known]) if known else values.bincount()
        counts = counts[counts > 0]
        assert len(counts) == (len(known) if known else 24)
        expected = n / len(counts)
        assert ((counts - expected) ** 2 / expected).sum() < chi2.ppf(0.999, len(counts) - 1)
    ups = draws.upward.double()
    assert ((ups.mean(0) - 0.5).abs() < 4 * 0.5 / math.sqrt(n)).all()
    assert (torch.corrcoef(ups.T) - torch.eye(6)).abs().max() < 4 / math.sqrt(n)


def test_replays_in_range_and_leaves_its_input_alone():
    policy, images = FixedAug(), pixels(64)
    kept, draws = images.clone(), policy.draw(images.shape, seeded())
    augmented = policy(images, draws)
    assert torch.equal(augmented, policy(images, draws)) and torch.equal(images, kept)
    assert augmented.min() >= 0 and augmented.max() <= 1 and augmented.dtype == images.dtype
    assert (augmented != images).flatten(1).any(1).all()


def test_parts_are_the_whole():
    policy, images = FixedAug(), pixels(20)
    draws = policy.draw(images.shape, seeded(3))
    whole = policy(images, draws)
    for cut in (1, 7, 19):
        parts = [policy(images[part], draws[part]) for part in (slice(0, cut), slice(cut, 20))]
        torch.testing.assert_close(torch.cat(parts), whole)
    torch.testing.assert_close(policy(images[6:10], draws[4:16][2:6]), whole[6:10])


def test_building_it_draws_nothing():
    before = torch.get_rng_state()
    FixedAug()
    assert torch.equal(torch.get_rng_state(), before)
