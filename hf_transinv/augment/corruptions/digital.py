"""Digital corruptions: contrast, elastic_transform and pixelate; jpeg.py has jpeg_compression."""

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from hf_transinv.augment.corruptions.common import constant, draw, per_image, per_row, smoothing_matrices
from hf_transinv.augment.corruptions.severities import Rows, Scalars


def contrast(images: Tensor, constants: Scalars, index: Tensor, generator: torch.Generator | None) -> Tensor:
    """Move each channel towards its mean over the image. Nothing is drawn."""
    mean = images.mean(dim=(2, 3), keepdim=True)
    return (images - mean) * per_image(constants, index) + mean


def _affine_grid(images: Tensor, shift: Tensor, generator: torch.Generator) -> Tensor:
    """The sampling grid of a random affine map: [B, H, W, 2], (x, y) from -1 to 1 over the pixels' centres.

    The map takes three corners of a central square to the same points, each moved by U(-shift, shift) pixels.
    """
    batch, _, height, width = images.shape
    center = constant((width // 2, height // 2), images.device, torch.float32)
    half = min(height, width) // 3
    corners = constant(((half, half), (half, -half), (-half, -half)), images.device) + center
    moved = corners + (2 * draw(torch.rand, (batch, 3, 2), images, generator) - 1) * shift.view(-1, 1, 1)
    # Rows are points: (output - moved[0]) @ linear = input - corners[0].
    linear = torch.linalg.inv_ex(moved[:, 1:] - moved[:, :1]).inverse @ (corners[1:] - corners[:1])
    origin = corners[0] - moved[:, :1] @ linear
    to_grid = 2 / constant((width - 1, height - 1), images.device)
    x, y, start = (torch.cat([linear, origin], dim=1) * to_grid).view(batch, 3, 2, 1, 1).unbind(dim=1)
    column = torch.arange(width, device=images.device)
    row = torch.arange(height, device=images.device).unsqueeze(1)
    # Summed as planes, [B, 2, H, W]: sums over pairs of numbers are many times slower.
    return (x * column + (y * row + (start - 1))).permute(0, 2, 3, 1)


def elastic_transform(images: Tensor, constants: Rows, index: Tensor, generator: torch.Generator) -> Tensor:
    """Warp each image by a random affine map, then by smoothed random displacements."""
    alphas, sigmas, shifts = zip(*constants, strict=True)
    batch, _, height, width = images.shape
    size = constant((width, height), images.device)
    # Two kinds of border: OpenCV's reflect-101 mirrors about the outermost pixels, scipy's "reflect" about the edges.
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

    Rows are outputs. Going down, a pixel is the mean of a box; going up, pixels are copied.
    """

    def boxes(n_in: int, n_out: int) -> Tensor:
        scale = n_in / n_out
        center = (torch.arange(n_out, dtype=torch.float64)[:, None] + 0.5) * scale
        distance = (torch.arange(n_in, dtype=torch.float64) + 0.5 - center) / max(scale, 1.0)
        inside = ((distance > -0.5) & (distance <= 0.5)).double()
        return inside / inside.sum(dim=1, keepdim=True)

    small = (int(size * share) for share in shares)
    return torch.stack([boxes(n, size) @ boxes(size, n) for n in small]).float().to(device)


def pixelate(images: Tensor, constants: Scalars, index: Tensor, generator: torch.Generator | None) -> Tensor:
    """Shrink each image with a box filter and enlarge it again. Nothing is drawn.

    Pillow rounds to whole levels after each axis. It shrinks along both before it enlarges, which only copies.
    """
    rows, columns = (_box_filters(constants, size, images.device)[index] for size in images.shape[2:])
    levels = per_row((images * 255).round_(), columns)
    # In float32, means that are halves come out slightly above or below; 1e-4 rounds them up as Pillow does.
    levels = (rows.unsqueeze(1) @ levels.add_(0.5 + 1e-4).floor_()).add_(0.5 + 1e-4).floor_()
    return levels.div_(255)
