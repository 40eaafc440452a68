"""PRIME against its equations, pixel by pixel; and that what is drawn has the distributions they name."""

import math
from functools import partial

import pytest
import torch

from hf_transinv.augment.policies.prime import COLOUR, DEPTH, NOTHING, SPATIAL, SPECTRAL, WIDTH, Prime
from tests.oracles import prime as oracle


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def photographs(count=6, height=9, width=12):
    """Smooth enough that a rounding of places is none of values."""
    small = torch.rand(count, 3, 4, 4, generator=seeded())
    return torch.nn.functional.interpolate(small, (height, width), mode="bilinear").double()


def change_of(draws, image, chain, step):
    """One transformation as a function of an image, [C, H, W] in NumPy; None: there is none."""
    at = image, chain, step
    if draws.family[at] == SPATIAL:
        return partial(
            oracle.spatial,
            **dict(zip(("along_x", "along_y"), draws.fields[draws.field_row[at]].double().numpy(), strict=True)),
        )
    if draws.family[at] == SPECTRAL:
        return partial(oracle.spectral, kernel=draws.kernels[at].double().numpy())
    if draws.family[at] == COLOUR:
        return partial(
            oracle.colour, first=int(draws.frequency[at]), coefficients=draws.coefficients[at].double().numpy()
        )
    return None


def test_images_are_the_mixtures_of_their_chains():
    images = photographs()
    draws = Prime().draw(tuple(images.shape), seeded(1))
    found = Prime()(images, draws)
    for index, image in enumerate(images.numpy()):
        chains = [[change_of(draws, index, chain, step) for step in range(DEPTH)] for chain in range(WIDTH)]
        given = [[change for change in chain if change] for chain in chains]
        assert all(len(chain) >= 1 for chain in given)
        expected = oracle.mixture(image, given, draws.weights[index].double().numpy(), float(draws.share[index]))
        torch.testing.assert_close(found[index], torch.from_numpy(expected), rtol=0, atol=2e-6)
    assert {int(family) for family in draws.family.flatten()} == {SPATIAL, SPECTRAL, COLOUR, NOTHING}


def test_single_precision_and_channels_last_give_the_same():
    images = photographs(24)
    draws = Prime().draw(tuple(images.shape), seeded(1))
    found = Prime()(images.float().contiguous(memory_format=torch.channels_last), draws)
    assert found.dtype == torch.float32 and found.min() >= 0 and found.max() <= 1
    # A phase of colour of up to 100 pi turns the rounding of a value into 1e-4 of a wave.
    assert (found - Prime()(images, draws)).abs().mean() < 1e-4


def test_parts_of_a_batch_are_what_they_are_within_it():
    images = photographs(8)
    draws = Prime().draw(tuple(images.shape), seeded(2))
    whole = Prime()(images, draws)
    parts = torch.cat([Prime()(images[own], draws[own]) for own in (slice(0, 3), slice(3, 8))])
    torch.testing.assert_close(parts, whole)


def test_chains_weights_and_share_are_distributed_as_said():
    draws = Prime().draw((4000, 3, 32, 32), seeded())
    depth = (draws.family != NOTHING).sum(-1)
    for length in (1, 2, 3):
        assert (depth == length).double().mean() == pytest.approx(1 / 3, abs=0.02)
    for family in (SPATIAL, SPECTRAL, COLOUR):
        assert (draws.family[..., 0] == family).double().mean() == pytest.approx(1 / 3, abs=0.02)
    torch.testing.assert_close(draws.weights.sum(1), torch.ones(4000))
    assert draws.weights[:, 0].var().item() == pytest.approx(2 / 36, rel=0.1)  # of Dirichlet(1, 1, 1)
    assert draws.share.mean() == pytest.approx(0.5, abs=0.02) and draws.share.var() == pytest.approx(1 / 12, rel=0.1)


@pytest.mark.parametrize("side", [32, 224])
def test_warps_move_by_as_much_of_the_picture_at_any_size_and_hardly_ever_fold(side):
    fields = Prime().draw((400, 3, side, side), seeded()).fields
    at, frequencies = torch.linspace(0, 1, 65).unsqueeze(1), math.pi * torch.arange(1, 21)
    waves, slopes = torch.sin(at * frequencies), torch.cos(at * frequencies) * frequencies
    moved = waves @ fields @ waves.T
    assert moved.square().sum(1).sqrt().mean() == pytest.approx(0.0224, abs=0.003)  # 0.7 of 32 pixels
    along_x, along_y = waves @ fields @ slopes.T, slopes @ fields @ waves.T
    area = (1 - along_x[:, 0]) * (1 - along_y[:, 1]) - along_y[:, 0] * along_x[:, 1]
    assert (area <= 0).float().mean() < 0.003  # of the places, over all pictures
    cut = (fields[:, 0, 0] != 0).sum(-1)
    assert cut.min() >= 2 and cut.max() == 20


def test_filters_and_curves_have_the_sizes_that_are_said():
    draws = Prime().draw((3000, 3, 32, 32), seeded())
    kernels = draws.kernels.flatten(0, 2).clone()
    kernels[:, 1, 1] -= 1
    assert kernels.mean().abs() < 0.02 and kernels.square().mean() == pytest.approx(16 / 3, rel=0.03)
    assert draws.frequency.min() == 1 and 80 < draws.frequency.max() <= 100
    assert draws.frequency.mean() == pytest.approx(25.75, rel=0.03)  # uniform below a cut that is uniform
    there = draws.coefficients[draws.coefficients != 0]
    assert there.square().mean() == pytest.approx(0.025, rel=0.03)
    last = draws.frequency + (draws.coefficients[..., 0, :] != 0).sum(-1) - 1
    assert last.max() <= 100
