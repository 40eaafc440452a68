"""Digital: contrast, elastic_transform and pixelate."""

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from hf_transinv.augment.corruptions.draws import draw, per_image, smoothing_matrices
from hf_transinv.augment.corruptions.severities import Constants


def contrast(images: Tensor, constants: Constants, index: Tensor, generator: torch.Generator | None) -> Tensor:
    mean = images.mean(dim=(2, 3), keepdim=True)
    return (images - mean) * per_image(constants, index) + mean


def _affine_positions(images: Tensor, shift: Tensor, generator: torch.Generator) -> Tensor:
    """Where a random affine map samples each pixel, (x, y) in pixels: [B, H, W, 2].

    The map takes three points of a square in the middle to the same points, each moved by U(-shift, shift) pixels.
    """
    batch, _, height, width = images.shape
    center = torch.tensor([width // 2, height // 2], dtype=torch.float32, device=images.device)
    half = min(height, width) // 3
    corners = torch.tensor([[half, half], [half, -half], [-half, -half]], device=images.device) + center
    moved = corners + (2 * draw(torch.rand, (batch, 3, 2), images, generator) - 1) * shift.view(-1, 1, 1)
    # Rows are points: (output - moved[0]) @ linear = input - corners[0].
    linear = torch.linalg.inv_ex(moved[:, 1:] - moved[:, :1]).inverse @ (corners[1:] - corners[:1])
    grid_y, grid_x = torch.meshgrid(
        torch.arange(height, device=images.device), torch.arange(width, device=images.device), indexing="ij"
    )
    outputs = torch.stack([grid_x, grid_y], dim=-1).view(1, -1, 2) - moved[:, :1]
    return (outputs @ linear + corners[0]).view(batch, height, width, 2)


def elastic_transform(images: Tensor, constants: Constants, index: Tensor, generator: torch.Generator) -> Tensor:
    alphas, sigmas, shifts = zip(*constants, strict=True)
    batch, _, height, width = images.shape
    size = torch.tensor([width, height], device=images.device)
    # The two borders: OpenCV's reflect-101 mirrors about the outer pixels, scipy's "reflect" about their outer edges.
    positions = _affine_positions(images, per_image(shifts, index), generator)
    grid = 2 * positions / (size - 1) - 1
    warped = F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=True)

    noise = 2 * draw(torch.rand, (batch, 2, height, width), images, generator) - 1
    rows = smoothing_matrices(sigmas, height, images.device)[index].unsqueeze(1)
    columns = smoothing_matrices(sigmas, width, images.device)[index].unsqueeze(1)
    displacement = per_image(alphas, index) * (rows @ noise @ columns.mT)
    identity = F.affine_grid(torch.eye(2, 3, device=images.device)[None], [1, 1, height, width], align_corners=False)
    grid = identity + displacement.permute(0, 2, 3, 1) * (2 / size)
    return F.grid_sample(warped, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


@lru_cache(maxsize=32)
def _box_filters(shares: tuple[float, ...], size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Which pixels Pillow's BOX filter averages, down to int(share size) and up again: two of [5, size, size], 0 or 1.

    Rows are outputs. Severities with fewer than `size` small pixels leave rows (down) and columns (up) of zeros.
    """

    def boxes(n_in: int, n_out: int) -> Tensor:
        scale = n_in / n_out
        center = (torch.arange(n_out, dtype=torch.float64)[:, None] + 0.5) * scale
        distance = (torch.arange(n_in, dtype=torch.float64) + 0.5 - center) / max(scale, 1.0)
        return ((distance > -0.5) & (distance <= 0.5)).float()

    down, up = torch.zeros(2, len(shares), size, size)
    for severity, share in enumerate(shares):
        small = int(size * share)
        down[severity, :small] = boxes(size, small)
        up[severity, :, :small] = boxes(small, size)
    return down.to(device), up.to(device)


def _average_boxes(levels: Tensor, boxes: Tensor) -> Tensor:
    """Means over boxes [B, n, m] along the last axis of levels [B, C, h, m] -> [B, C, h, n], rounded to whole levels.

    Pillow rounds after each pass too. Sums of levels and the halves of means are exact in float32.
    """
    sums = levels @ boxes.mT.unsqueeze(1)
    return (sums / boxes.sum(dim=2).clamp_min(1)[:, None, None] + 0.5).floor()


def pixelate(images: Tensor, constants: Constants, index: Tensor, generator: torch.Generator | None) -> Tensor:
    down_rows, up_rows = _box_filters(constants, images.shape[2], images.device)
    down_columns, up_columns = _box_filters(constants, images.shape[3], images.device)
    levels = (images * 255).round()
    for rows, columns in ((down_rows, down_columns), (up_rows, up_columns)):
        levels = _average_boxes(levels, columns[index])
        levels = _average_boxes(levels.mT, rows[index]).mT
    return levels / 255
