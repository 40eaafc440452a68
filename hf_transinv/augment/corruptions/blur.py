"""Blurs: defocus_blur, glass_blur, motion_blur (with ImageMagick's blur along a line) and zoom_blur."""

import math
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hf_transinv.augment.corruptions.common import clipped_zooms, draw, most_of, per_image
from hf_transinv.augment.corruptions.severities import Rows
from hf_transinv.data.transfer import send

_LARGEST_RADIUS = 10  # of a disk of defocus_blur
_DOUBLINGS = 6  # a chain of more than 2^6 copies in glass_blur has a probability below 1e-15 per image
_LONGEST_LINE = 41  # taps of a motion blur: 2 * 20 + 1


@lru_cache(maxsize=16)
def _defocus_kernels(constants: tuple[tuple[float, float], ...], device: torch.device) -> Tensor:
    """The smoothed disks of the five severities, cut to the largest support: [5, 1, k, k]."""
    kernels = []
    for radius, sigma in constants:
        # The 8 and the two widths of the Gaussian are those of `disk` in the authors' scripts.
        reach, width = (8, 3) if radius <= 8 else (math.ceil(radius), 5)
        line = torch.arange(-reach, reach + 1, dtype=torch.float64)
        disk = (line[:, None] ** 2 + line**2 <= radius**2).double()
        offsets = torch.arange(width, dtype=torch.float64) - width // 2
        taps = torch.softmax(-(offsets**2) / (2 * sigma**2), dim=0)
        padded = F.pad((disk / disk.sum())[None, None], (width // 2,) * 4, mode="reflect")
        kernel = F.conv2d(padded, torch.outer(taps, taps)[None, None])
        kernels.append(F.pad(kernel, (_LARGEST_RADIUS - reach,) * 4))
    stacked = torch.cat(kernels).float()
    # Taps below 1e-7 are far below one level in 255 and would only widen the kernel.
    used = (stacked > 1e-7).any(dim=0)[0].any(dim=0).nonzero()
    inside = slice(int(used.min()), int(used.max()) + 1)
    return stacked[..., inside, inside].contiguous().to(device)


def defocus_blur(images: Tensor, constants: Rows, index: Tensor, generator: torch.Generator | None) -> Tensor:
    """Convolve each image with the smoothed disk of its severity, the border reflected. Nothing is drawn."""
    kernels = _defocus_kernels(constants, images.device)
    pad = kernels.shape[-1] // 2
    planes = F.pad(images, (pad,) * 4, mode="reflect").flatten(0, 1)
    weight = kernels[index].repeat_interleave(images.shape[1], dim=0)
    return F.conv2d(planes[None], weight, groups=len(planes)).view(images.shape)


def _smooth_along(axis: int, levels: Tensor, taps: Tensor) -> Tensor:
    """A symmetric filter along one axis, the edge replicated.

    Args:
        axis: 2 or 3.
        levels: [B, C, H, W].
        taps: weights of the pixel itself and of its neighbours 1 .. T - 1 pixels away, on either side, [B, T].
    """
    reach, size = taps.shape[1] - 1, levels.shape[axis]
    padded = F.pad(levels, (reach, reach, 0, 0) if axis == 3 else (0, 0, reach, reach), mode="replicate")
    weights = taps.T.reshape(-1, len(taps), 1, 1, 1)
    smooth = levels * weights[0]
    for away in range(1, reach + 1):
        neighbours = padded.narrow(axis, reach - away, size) + padded.narrow(axis, reach + away, size)
        smooth.addcmul_(neighbours, weights[away])
    return smooth


def _smoothed_levels(levels: Tensor, sigmas: tuple[float, ...], index: Tensor) -> Tensor:
    """Smooth as scikit-image's Gaussian (cut at 4 sigma, edge replicated), and truncate to whole levels.

    At 32 pixels a neighbour that is one level darker lowers a pixel by as little as 0.0003 levels, which truncation
    turns into a whole level. Hence float64.
    """
    reaches = tuple(int(4 * sigma + 0.5) for sigma in sigmas)
    reach = most_of(reaches, index)
    if reach == 0:
        return levels
    away = torch.arange(reach + 1, dtype=torch.float64)
    cut = zip(sigmas, reaches, strict=True)
    taps = torch.stack([torch.exp(-(away**2) / (2 * sigma**2)) * (away <= own) for sigma, own in cut])
    taps = send(taps / (2 * taps.sum(dim=1, keepdim=True) - 1), levels.device)[index]
    smooth = _smooth_along(3, _smooth_along(2, levels.double(), taps), taps)
    return smooth.add_(1e-9).floor_().float()


def copied_from(offset_y: Tensor, offset_x: Tensor, reach: Tensor, doublings: int) -> Tensor:
    """The source of each pixel after the authors' loop of glass_blur.

    The loop goes backwards from (H - reach, W - reach) to (reach + 1, reach + 1). It is meant to swap a pixel with the
    one at its offset. But both are views of one array, so the pixel is overwritten and its partner stays. A partner
    further on has been overwritten before; its source is found by following pointers. A pointer below H W means the
    pixel "as overwritten", from H W on "as it was". Offsets of -1 and 0 (reach 1) never point further on.

    Args:
        offset_y: float32 [B, H, W], whole numbers in [-reach, reach).
        offset_x: likewise.
        reach: float32 [B, 1, 1], pixels.
        doublings: how often the length of the followed chain is doubled.

    Returns:
        int64 [B, H W], row-major indices of pixels.
    """
    height, width = offset_y.shape[1:]
    # float32 is exact for integers up to 2^24, and divides and multiplies several times faster than int64.
    row = torch.arange(height, device=offset_y.device, dtype=torch.float32)[:, None]
    column = torch.arange(width, device=offset_y.device, dtype=torch.float32)
    place = row * width + column

    def in_loop(row: Tensor, column: Tensor) -> Tensor:
        return (row > reach) & (row <= height - reach) & (column > reach) & (column <= width - reach)

    source = place + torch.where(in_loop(row, column), offset_y * width + offset_x, 0)
    if doublings:
        overwritten = (source > place) & in_loop(row + offset_y, column + offset_x)
        pointer = torch.where(overwritten, source, source + height * width).long().flatten(1)
        final = (place + height * width).long().flatten().expand(len(pointer), -1)
        for _ in range(doublings):
            pointer = torch.cat([pointer, final], dim=1).gather(1, pointer)
        return pointer % (height * width)
    return source.long().flatten(1)


def glass_blur(images: Tensor, constants: Rows, index: Tensor, generator: torch.Generator) -> Tensor:
    """Smooth, shuffle pixels locally, smooth again; each time truncated to 8 bits."""
    sigmas, reaches, rounds = zip(*constants, strict=True)
    batch, _, height, width = images.shape
    reach, own_rounds = per_image(reaches, index)[:, 0], per_image(rounds, index)[:, 0]
    shown = torch.arange(height * width, device=images.device).expand(batch, -1)
    doublings = _DOUBLINGS if most_of(reaches, index) > 1 else 0
    uniforms = [draw(torch.rand, (batch, height, width), images, generator) for _ in range(max(rounds))]
    for done in range(most_of(rounds, index)):
        # One number gives both offsets: its 24 bits are far more than the 64 pairs of reach 4 need.
        pair = (uniforms[done] * (4 * reach**2)).floor_()
        across = (pair / (2 * reach)).floor()
        active = (own_rounds > done).float()
        offset_y, offset_x = (across - reach) * active, (pair - across * 2 * reach - reach) * active
        shown = shown.gather(1, copied_from(offset_y, offset_x, reach, doublings))
    levels = _smoothed_levels((images * 255).round(), sigmas, index).flatten(2)
    shuffled = levels.gather(2, shown.unsqueeze(1).expand_as(levels)).view(images.shape)
    return _smoothed_levels(shuffled, sigmas, index) / 255


def blur_directional(
    images: Tensor, radius: Tensor, sigma: Tensor, angle: Tensor, taps: int = _LONGEST_LINE
) -> Tensor:
    """ImageMagick's motion blur: half a Gaussian, along a line that starts at the pixel, in one direction.

        sum_k w_k x[row + ceil(k sin(angle) - 1/2), column + ceil(k cos(angle) - 1/2)],
        w_k proportional to exp(-k^2 / (2 sigma^2)), k = 0 .. 2 radius

    Offsets are whole pixels, the edge is replicated, nothing is rounded.

    Args:
        images: [B, C, H, W], floating point.
        radius: [B], pixels, half the number of steps of a line.
        sigma: [B], pixels, positive.
        angle: [B], degrees, clockwise from the direction of growing columns (rows grow downwards).
        taps: number of taps computed. Those from 2 radius + 1 on are zero; fewer than 2 radius + 1 cut the line short.

    Returns:
        [B, C, H, W].
    """
    batch, channels, height, width = images.shape
    step = torch.arange(taps, device=images.device)
    weights = torch.exp(-(step**2) / (2 * sigma[:, None] ** 2)) * (step <= 2 * radius[:, None])
    weights = (weights / weights.sum(dim=1, keepdim=True)).to(images.dtype)
    reach = taps - 1
    radians = torch.deg2rad(angle[:, None].double())
    down = (step * radians.sin() - 0.5).ceil().long() + reach
    right = (step * radians.cos() - 0.5).ceil().long() + reach
    padded = F.pad(images, (reach,) * 4, mode="replicate").contiguous()
    # All runs of `width` consecutive values of the padded images, as a view; the rows of a window are rows of it.
    runs = padded.flatten().unfold(0, width, 1)
    plane = torch.arange(batch * channels, device=images.device).view(batch, channels, 1)
    row = torch.arange(height, device=images.device)
    first = ((plane * padded.shape[2] + row) * padded.shape[3]).flatten(1)
    start = (down * padded.shape[3] + right).view(batch, taps, 1)
    blurred = torch.zeros_like(images, memory_format=torch.contiguous_format)
    for tap in range(taps):
        seen = runs.index_select(0, (first + start[:, tap]).flatten()).view(images.shape)
        blurred.addcmul_(seen, weights[:, tap].view(-1, 1, 1, 1))
    return blurred


def motion_blur(
    images: Tensor, constants: tuple[tuple[int, float], ...], index: Tensor, generator: torch.Generator
) -> Tensor:
    """Blur each image along a random line by `blur_directional`, with (radius, sigma) of its severity."""
    sigmas = tuple(sigma for _, sigma in constants)
    angle = -45 + 90 * draw(torch.rand, (len(images),), images, generator)
    # Taps beyond 6 sigma sum to less than 1e-7.
    lengths = tuple(min(2 * radius, math.ceil(6 * sigma)) for radius, sigma in constants)
    radius, sigma = per_image(lengths, index).flatten() / 2, per_image(sigmas, index).flatten()
    blurred = blur_directional((images * 255).round_(), radius, sigma, angle, most_of(lengths, index) + 1)
    # ImageMagick rounds to its 8 bits where numpy truncates.
    return blurred.add_(0.5).floor_().div_(255)


@lru_cache(maxsize=10)
def _mean_of_zooms(stop: float, step: float, height: int, width: int, device: torch.device) -> Tensor:
    """The mean of an image and its zooms by the factors from 1 to `stop`, as a sparse matrix, [H W, H W]."""
    # The rounding of numpy's arange decides whether `stop` itself is a factor: it is at 1.06 and 1.11.
    factors = (1.0, *np.arange(1, stop, step).tolist())
    places: list[Tensor] = []
    weights: list[Tensor] = []
    for rows, columns in zip(
        *(clipped_zooms(factors, size, torch.device("cpu")) for size in (height, width)), strict=True
    ):
        row, column = rows.nonzero(), columns.nonzero()
        places.append((row[:, None] * width + column).flatten(0, 1))
        weights.append(torch.outer(rows[tuple(row.T)], columns[tuple(column.T)]).flatten())
    pixels = height * width
    mean = torch.sparse_coo_tensor(
        torch.cat(places).T, torch.cat(weights) / len(factors), (pixels, pixels), check_invariants=True
    )
    return mean.coalesce().to(device)


def zoom_blur(images: Tensor, constants: Rows, index: Tensor, generator: torch.Generator | None) -> Tensor:
    """The mean of each image and its zooms: one sparse product per severity that occurs. Waits for the device."""
    blurred = torch.empty_like(images, memory_format=torch.contiguous_format)
    for severity in index.unique().tolist():
        chosen = (index == severity).nonzero().squeeze(1)
        pixels = images[chosen].flatten(2).flatten(0, 1).T.contiguous()  # many times faster than a transposed view
        zoomed = torch.sparse.mm(_mean_of_zooms(*constants[severity], *images.shape[2:], images.device), pixels)
        blurred[chosen] = zoomed.T.view(len(chosen), *images.shape[1:])
    return blurred
