"""Digital: contrast, elastic_transform, pixelate, and jpeg_compression with an approximation that has gradients."""

import io
import math
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from hf_transinv.augment.corruptions.draws import draw, per_image, per_row, smoothing_matrices
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
    smooth = per_row(noise, smoothing_matrices(sigmas, width, images.device)[index])
    smooth = per_row(smooth.mT, smoothing_matrices(sigmas, height, images.device)[index]).mT
    displacement = per_image(alphas, index) * smooth
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
    sums = per_row(levels, boxes)
    return (sums / boxes.sum(dim=2).clamp_min(1)[:, None, None] + 0.5).floor()


def pixelate(images: Tensor, constants: Constants, index: Tensor, generator: torch.Generator | None) -> Tensor:
    down_rows, up_rows = _box_filters(constants, images.shape[2], images.device)
    down_columns, up_columns = _box_filters(constants, images.shape[3], images.device)
    levels = (images * 255).round()
    for rows, columns in ((down_rows, down_columns), (up_rows, up_columns)):
        levels = _average_boxes(levels, columns[index])
        levels = _average_boxes(levels.mT, rows[index]).mT
    return levels / 255


def jpeg_compression(images: Tensor, constants: Constants, index: Tensor, generator: torch.Generator | None) -> Tensor:
    """Pillow's codec itself, in a loop over the images on the CPU; waits for the device.

    Most of the time goes to Pillow's header parsing, in Python.
    """
    levels = (images * 255).round().byte().permute(0, 2, 3, 1).contiguous().cpu().numpy()
    size = (images.shape[3], images.shape[2])
    decoded = []
    for image, severity in zip(levels, index.tolist(), strict=True):
        file = io.BytesIO()
        Image.frombuffer("RGB", size, image.tobytes(), "raw", "RGB", 0, 1).save(
            file, "JPEG", quality=constants[severity]
        )
        decoded.append(Image.open(file, formats=("JPEG",)).tobytes())
    pixels = np.frombuffer(bytearray().join(decoded), dtype=np.uint8).reshape(levels.shape)
    return torch.from_numpy(pixels).to(images.device).permute(0, 3, 1, 2) / 255


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
