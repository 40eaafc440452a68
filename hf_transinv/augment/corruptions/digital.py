"""Digital: contrast, elastic_transform, pixelate, and an approximation of jpeg_compression that has gradients."""

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from hf_transinv.augment.corruptions.common import draw, per_image, per_row, smoothing_matrices
from hf_transinv.augment.corruptions.severities import Constants

# Quantisation tables of ITU-T T.81, annex K, at quality 50, [8, 8]: of brightness, of the two colour differences.
_LUMINANCE = (
    *(16, 11, 10, 16, 24, 40, 51, 61),
    *(12, 12, 14, 19, 26, 58, 60, 55),
    *(14, 13, 16, 24, 40, 57, 69, 56),
    *(14, 17, 22, 29, 51, 87, 80, 62),
    *(18, 22, 37, 56, 68, 109, 103, 77),
    *(24, 35, 55, 64, 81, 104, 113, 92),
    *(49, 64, 78, 87, 103, 121, 120, 101),
    *(72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMINANCE = (
    *(17, 18, 24, 47, 99, 99, 99, 99),
    *(18, 21, 26, 66, 99, 99, 99, 99),
    *(24, 26, 56, 99, 99, 99, 99, 99),
    *(47, 66, 99, 99, 99, 99, 99, 99),
    *(99,) * 32,
)
# R, G, B -> Y, Cb, Cr (JFIF), the differences centred at 0.
_TO_YCC = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))


def contrast(images: Tensor, constants: Constants, index: Tensor, generator: torch.Generator | None) -> Tensor:
    mean = images.mean(dim=(2, 3), keepdim=True)
    return (images - mean) * per_image(constants, index) + mean


def _affine_grid(images: Tensor, shift: Tensor, generator: torch.Generator) -> Tensor:
    """Where a random affine map samples each pixel, (x, y) from -1 to 1 over the pixels' centres: [B, H, W, 2].

    The map takes three points of a square in the middle to the same points, each moved by U(-shift, shift) pixels.
    """
    batch, _, height, width = images.shape
    center = torch.tensor([width // 2, height // 2], dtype=torch.float32, device=images.device)
    half = min(height, width) // 3
    corners = torch.tensor([[half, half], [half, -half], [-half, -half]], device=images.device) + center
    moved = corners + (2 * draw(torch.rand, (batch, 3, 2), images, generator) - 1) * shift.view(-1, 1, 1)
    # Rows are points: (output - moved[0]) @ linear = input - corners[0].
    linear = torch.linalg.inv_ex(moved[:, 1:] - moved[:, :1]).inverse @ (corners[1:] - corners[:1])
    origin = corners[0] - moved[:, :1] @ linear
    to_grid = 2 / torch.tensor([width - 1, height - 1], device=images.device)
    x, y, start = (torch.cat([linear, origin], dim=1) * to_grid).view(batch, 3, 2, 1, 1).unbind(dim=1)
    column = torch.arange(width, device=images.device)
    row = torch.arange(height, device=images.device).unsqueeze(1)
    # Planes, [B, 2, H, W]: sums over pairs of numbers are many times slower.
    return (x * column + (y * row + (start - 1))).permute(0, 2, 3, 1)


def elastic_transform(images: Tensor, constants: Constants, index: Tensor, generator: torch.Generator) -> Tensor:
    alphas, sigmas, shifts = zip(*constants, strict=True)
    batch, _, height, width = images.shape
    size = torch.tensor([width, height], device=images.device)
    # The two borders: OpenCV's reflect-101 mirrors about the outer pixels, scipy's "reflect" about their outer edges.
    grid = _affine_grid(images, per_image(shifts, index), generator)
    warped = F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=True)

    noise = 2 * draw(torch.rand, (batch, 2, height, width), images, generator) - 1
    smooth = per_row(noise, smoothing_matrices(sigmas, width, images.device)[index])
    smooth = per_row(smooth.mT, smoothing_matrices(sigmas, height, images.device)[index]).mT
    column = torch.arange(width, device=images.device).expand(height, width)
    row = torch.arange(height, device=images.device).unsqueeze(1).expand(height, width)
    positions = torch.stack([column, row]) + 0.5 + per_image(alphas, index) * smooth
    grid = positions.mul_(2 / size.view(2, 1, 1)).sub_(1).permute(0, 2, 3, 1)
    return F.grid_sample(warped, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


@lru_cache(maxsize=32)
def _box_filters(shares: tuple[float, ...], size: int, device: torch.device) -> Tensor:
    """Pillow's BOX filter down to int(share size) pixels and up again, as matrices: [5, size, size].

    Rows are outputs. A pixel is the mean of a box; the way up copies some of them to a neighbour.
    """

    def boxes(n_in: int, n_out: int) -> Tensor:
        scale = n_in / n_out
        center = (torch.arange(n_out, dtype=torch.float64)[:, None] + 0.5) * scale
        distance = (torch.arange(n_in, dtype=torch.float64) + 0.5 - center) / max(scale, 1.0)
        inside = ((distance > -0.5) & (distance <= 0.5)).double()
        return inside / inside.sum(dim=1, keepdim=True)

    small = (int(size * share) for share in shares)
    return torch.stack([boxes(n, size) @ boxes(size, n) for n in small]).float().to(device)


def pixelate(images: Tensor, constants: Constants, index: Tensor, generator: torch.Generator | None) -> Tensor:
    """Pillow rounds to whole levels after each axis. It goes down along both before it goes up, which only copies."""
    rows, columns = (_box_filters(constants, size, images.device)[index] for size in images.shape[2:])
    levels = per_row((images * 255).round_(), columns)
    # Float32 leaves the halves of means a little to either side.
    levels = (rows.unsqueeze(1) @ levels.add_(0.5 + 1e-4).floor_()).add_(0.5 + 1e-4).floor_()
    return levels.div_(255)


def _round_straight_through(x: Tensor) -> Tensor:
    """Whole numbers, halves away from zero as in libjpeg, with the gradient of the identity (Bengio et al., 2013)."""
    # Flat areas make halves, which floating point leaves a little to either side.
    whole = (x.abs() + (0.5 + 1e-5)).floor().copysign(x)
    return x + (whole - x).detach()


def _quantise_blocks(planes: Tensor, tables: Tensor) -> Tensor:
    """Planes [B, C, h, w], sides multiples of 8, through the quantised DCT of their 8x8 blocks; tables [B, 8, 8]."""
    frequency = torch.arange(8, device=planes.device, dtype=torch.float64)[:, None]
    cosines = torch.cos((2 * frequency.T + 1) * frequency * math.pi / 16) / 2
    cosines[0] /= math.sqrt(2)
    cosines = cosines.to(planes.dtype)
    blocks = planes.unflatten(3, (-1, 8)).unflatten(2, (-1, 8)).transpose(3, 4)
    steps = tables.view(-1, 1, 1, 1, 8, 8)
    coefficients = _round_straight_through(cosines @ blocks @ cosines.T / steps) * steps
    return (cosines.T @ coefficients @ cosines).transpose(3, 4).flatten(4, 5).flatten(2, 3)


def jpeg_approximation(images: Tensor, quality: Tensor) -> Tensor:
    """JPEG with 4:2:0 colour for gradients: near `jpeg_compression`, which is the codec itself, but not equal to it.

    Rounds where the codec does, with a straight-through gradient, but in floating point: coefficients that libjpeg's
    whole numbers take to the other side of a half differ by a step of the table. At the qualities of CIFAR-C the mean
    absolute difference to Pillow is about half a level in 255.

    Args:
        images: [B, 3, H, W], floating point in [0, 1].
        quality: [B], 1 to 100, as libjpeg scales its tables.

    Returns:
        [B, 3, H, W] in [0, 1], of the images' type; differentiable in the images.
    """
    height, width = images.shape[2:]
    to_ycc = torch.tensor(_TO_YCC, dtype=images.dtype, device=images.device)
    ycc = _round_straight_through(torch.einsum("dc,bchw->bdhw", to_ycc, images * 255))
    padded = F.pad(ycc, (0, -width % 16, 0, -height % 16), mode="replicate")
    scale = torch.where(quality < 50, 5000 // quality, 200 - 2 * quality).to(images)[:, None]
    luminance, chrominance = (
        ((torch.tensor(table, device=images.device) * scale + 50) / 100).floor().clamp(1, 255)
        for table in (_LUMINANCE, _CHROMINANCE)
    )
    # libjpeg takes the halves of these means down and up in turns, from column to column.
    turns = 0.25 * (torch.arange(padded.shape[3] // 2, device=images.device) % 2) - 0.125
    halved = _round_straight_through(F.avg_pool2d(padded[:, 1:], 2) + turns)
    brightness = _round_straight_through(_quantise_blocks(padded[:, :1] - 128, luminance) + 128).clamp(0, 255)
    colours = _round_straight_through(_quantise_blocks(halved, chrominance)).clamp(-128, 127)
    colours = F.interpolate(colours, scale_factor=2, mode="bilinear", align_corners=False)
    decoded = torch.cat([brightness, colours], dim=1)[:, :, :height, :width]
    levels = torch.einsum("cd,bdhw->bchw", torch.linalg.inv(to_ycc), decoded)
    return _round_straight_through(levels).clamp(0, 255) / 255
