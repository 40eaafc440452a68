"""Noises: gaussian_noise, shot_noise and impulse_noise."""

import math
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hf_transinv.augment.corruptions.common import draw, per_image
from hf_transinv.augment.corruptions.severities import Scalars


def gaussian_noise(images: Tensor, constants: Scalars, index: Tensor, generator: torch.Generator) -> Tensor:
    """Add normal noise of the severity's standard deviation to every value."""
    return images + per_image(constants, index) * draw(torch.randn, tuple(images.shape), images, generator)


def _poisson_weights(photons: float) -> tuple[Tensor, Tensor]:
    """The Poisson distributions of the counts at each of 256 levels.

    Args:
        photons: mean count at the brightest level.

    Returns:
        The smallest count listed for each level, [256], and the probabilities of the counts from there on, [256, n].
        The probability of the other counts is below 1e-9.
    """
    mean = torch.arange(256, dtype=torch.float64)[:, None] * (photons / 255)
    counts = torch.arange(int(photons + 7 * math.sqrt(photons)) + 10, dtype=torch.float64)
    weights = torch.exp(torch.xlogy(counts, mean) - mean - torch.lgamma(counts + 1))
    first = (weights.cumsum(dim=1) < 1e-10).sum(dim=1)
    longest = int(((weights.cumsum(dim=1) < 1 - 1e-10).sum(dim=1) + 1 - first).max())
    listed = first[:, None] + torch.arange(longest)
    weights = F.pad(weights, (0, longest)).gather(1, listed)
    return first, weights / weights.sum(dim=1, keepdim=True)


def alias_table(weights: Tensor) -> tuple[Tensor, Tensor]:
    """Walker's alias method: K outcomes become K equally likely cells of at most two outcomes each.

    Each step fills the cell with the smallest probability from the one with the largest.

    Args:
        weights: probabilities of the outcomes, float64 [n, K].

    Returns:
        `kept`, float64 [n, K], the probability that a cell gives its own outcome, and `other`, int64 [n, K], the
        outcome that it gives otherwise.
    """
    # numpy's argmin is many times faster than torch's.
    spare, row = weights.numpy() * weights.shape[1], np.arange(len(weights))
    kept, other = np.ones_like(spare), np.tile(np.arange(weights.shape[1]), (len(weights), 1))
    for _ in range(weights.shape[1]):
        poorest, richest = spare.argmin(axis=1), spare.argmax(axis=1)
        share = spare[row, poorest]
        lacks = share < 1
        kept[row[lacks], poorest[lacks]], other[row[lacks], poorest[lacks]] = share[lacks], richest[lacks]
        spare[row, poorest] = 1
        spare[row, richest] -= np.where(lacks, 1 - share, 0)
    return torch.from_numpy(kept), torch.from_numpy(other)


@lru_cache(maxsize=2)
def photon_tables(photons: tuple[float, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """The tables of shot noise for 5 severities and 256 levels, with K cells, K a power of 2.

    Args:
        photons: of the five severities.

    Returns:
        The smallest count, [5 * 256]; `kept` of `alias_table`, [5 * 256, K]; the difference between `other` and the
        cell's own count, [5 * 256, K].
    """
    listed = [_poisson_weights(own) for own in photons]
    cells = 1 << (max(weights.shape[1] for _, weights in listed) - 1).bit_length()
    padded = [F.pad(weights, (0, cells - weights.shape[1])) for _, weights in listed]
    kept, other = alias_table(torch.cat(padded))
    return torch.cat([first for first, _ in listed]).float(), kept.float(), (other - torch.arange(cells)).float()


def shot_noise(images: Tensor, constants: Scalars, index: Tensor, generator: torch.Generator) -> Tensor:
    """Replace every value x by Poisson(c x) / c, with c the severity's constant, the photons at full brightness.

    The counts are drawn on the generator's device. On the CPU they come from tables for 256 levels, several times
    faster than torch.poisson. As each is decided by one draw of 24 bits, counts rarer than 1e-7 may never occur.
    """
    photons = per_image(constants, index)
    if generator.device.type != "cpu":
        return torch.poisson((images * photons).to(generator.device), generator=generator).to(images.device) / photons
    first, kept, more = photon_tables(constants)
    row = (images * 255).round_().int().cpu().add_(256 * index.int().cpu().view(-1, 1, 1, 1)).flatten()
    cell = torch.rand(images.shape, generator=generator).flatten().mul_(kept.shape[1])
    own = cell.floor()
    place = row * kept.shape[1] + own.int()
    counts = first.index_select(0, row).add_(own)
    counts += more.view(-1).index_select(0, place) * (cell.sub_(own) >= kept.view(-1).index_select(0, place))
    return counts.view(images.shape).to(images.device) / photons


def impulse_noise(images: Tensor, constants: Scalars, index: Tensor, generator: torch.Generator) -> Tensor:
    """Set values to 0 or 1, each with half the severity's probability."""
    amount = per_image(constants, index)
    uniform = draw(torch.rand, tuple(images.shape), images, generator)
    return torch.where(uniform < amount, (uniform < amount / 2).to(images.dtype), images)
