"""Shared by the corruptions: the constants of each image's severity, random numbers, linear maps of rows."""

import math
from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor


@lru_cache(maxsize=256)
def constant(values: tuple, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """Numbers on a device, copied there once: a copy in each call would be waited for. Not to be written to."""
    return torch.tensor(values, dtype=dtype, device=device)


def per_image(values: tuple[float, ...], index: Tensor) -> Tensor:
    """The constant of each image's severity: 5 values, index [B] -> [B, 1, 1, 1]."""
    return constant(values, index.device, torch.float32)[index].view(-1, 1, 1, 1)


def most_of(values: tuple[int, ...], index: Tensor) -> int:
    """The largest of 5 whole numbers, one per severity, among the severities in `index` [B].

    On a GPU it is the largest of all five, since reading `index` would wait for the device.
    """
    return max(values) if index.device.type != "cpu" else max(values[severity] for severity in index.unique().tolist())


def draw(sample: Callable[..., Tensor], shape: tuple[int, ...], like: Tensor, generator: torch.Generator) -> Tensor:
    """Draw float32 by `sample` (torch.rand or torch.randn) on the generator's device; moved to that of `like`."""
    return sample(shape, generator=generator, device=generator.device).to(like.device)


def per_row(planes: Tensor, maps: Tensor) -> Tensor:
    """One linear map per image, applied to each row of its planes: [B, C, h, m], maps [B, n, m] -> [B, C, h, n]."""
    # Channels and rows in one axis: one product per image. Broadcasting would make one per plane, about twice as slow.
    return (planes.flatten(1, 2) @ maps.mT).unflatten(1, planes.shape[1:3])


@lru_cache(maxsize=16)
def smoothing_matrices(sigmas: tuple[float, ...], size: int, device: torch.device) -> Tensor:
    """Gaussian smoothing of a line, cut at 3 sigma and mirrored about its ends, as matrices: [5, size, size]."""
    matrices = torch.zeros(len(sigmas), size, size, dtype=torch.float64)
    rows = torch.arange(size)
    for matrix, sigma in zip(matrices, sigmas, strict=True):
        radius = int(3 * sigma + 0.5)
        offsets = torch.arange(-radius, radius + 1)
        taps = torch.softmax(-(offsets.double() ** 2) / (2 * max(sigma, 1e-6) ** 2), dim=0)
        folded = (rows[:, None] + offsets) % (2 * size)
        columns = torch.minimum(folded, 2 * size - 1 - folded)
        matrix.scatter_add_(1, columns, taps.expand(size, -1))
    return matrices.float().to(device)


@lru_cache(maxsize=32)
def clipped_zooms(factors: tuple[float, ...], size: int, device: torch.device) -> Tensor:
    """Zooms into the centre of a line of `size` values, by linear interpolation, as matrices: [factors, size, size].

    As `clipped_zoom` in the authors' scripts: scipy's zoom stretches the central n = ceil(size / factor) values to
    round(factor n), first to first and last to last. The central `size` of those are kept.
    """
    matrices = torch.zeros(len(factors), size, size, dtype=torch.float64)
    outputs = torch.arange(size)
    for matrix, factor in zip(matrices, factors, strict=True):
        kept = math.ceil(size / factor)
        stretched = round(kept * factor)
        position = (outputs + (stretched - size) // 2).double() * (kept - 1) / (stretched - 1)
        below = position.long().clamp_max(kept - 2)
        first = (size - kept) // 2 + below
        matrix[outputs, first] = 1 - (position - below)
        matrix[outputs, first + 1] = position - below
    return matrices.float().to(device)
