"""Thin-plate splines: the smoothest warp that moves control points by given displacements.

    f(u) = u + a_0 + A u + sum_j w_j U(|u - c_j|),   U(r) = r^2 ln r^2,   f(c_j) = c_j + d_j,
    sum_j w_j = 0,  sum_j w_j c_j = 0

(Bookstein, "Principal Warps: Thin-Plate Splines and the Decomposition of Deformations", IEEE TPAMI 1989.) The
conditions are linear in the displacements d. So on the pixels of an image f(u) - u = B d, with a matrix B that depends
only on the control points and the image size. It is solved for once, in float64.

Symbols: u, the pixel centres of the output, and c, the control points, both (x, y) on a scale where the image spans
[-1, 1]; f(u), the position in the input that the pixel is read from, so that the content moves against a displacement;
B, the `basis`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def control_points(side: int) -> Tensor:
    """A square grid of control points, from corner to corner of the image, row by row: float64 [side^2, 2], (x, y)."""
    ticks = torch.linspace(-1, 1, side, dtype=torch.float64)
    y, x = torch.meshgrid(ticks, ticks, indexing="ij")
    return torch.stack((x, y), dim=-1).view(-1, 2)


def pixel_centres(
    height: int, width: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float64
) -> Tensor:
    """The pixel centres (align_corners=False), row by row: [height * width, 2], (x, y) in (-1, 1)."""
    x = (2 * torch.arange(width, device=device, dtype=dtype) + 1) / width - 1
    y = (2 * torch.arange(height, device=device, dtype=dtype) + 1) / height - 1
    y, x = torch.meshgrid(y, x, indexing="ij")
    return torch.stack((x, y), dim=-1).view(-1, 2)


def radial(points: Tensor, centres: Tensor) -> Tensor:
    """U(|u - c|) for all pairs: [N, 2], [K, 2] -> [N, K]."""
    squared = (points.unsqueeze(1) - centres).square().sum(-1)
    return torch.xlogy(squared, squared)  # 0 at a control point itself


def thin_plate_basis(side: int, height: int, width: int) -> Tensor:
    """B: the weight of the displacement of each control point at each pixel.

    Args:
        side: control points along each side of the image, at least 2.
        height: of the images, in pixels.
        width: of the images, in pixels.

    Returns:
        [height * width, side^2], float64; its rows sum to 1, so that equal displacements shift the whole image.
    """
    centres, points = control_points(side), pixel_centres(height, width)
    affine = torch.cat((torch.ones(len(centres), 1, dtype=torch.float64), centres), dim=1)
    system = torch.zeros(len(centres) + 3, len(centres) + 3, dtype=torch.float64)
    system[:-3, :-3], system[:-3, -3:], system[-3:, :-3] = radial(centres, centres), affine, affine.T
    known = torch.zeros(len(centres) + 3, len(centres), dtype=torch.float64)
    known[:-3] = torch.eye(len(centres), dtype=torch.float64)
    weights = torch.linalg.solve(system, known)
    at_pixels = (radial(points, centres), torch.ones(len(points), 1, dtype=torch.float64), points)
    return torch.cat(at_pixels, dim=1) @ weights


def warp_thin_plate(images: Tensor, displacements: Tensor, basis: Tensor, padding_mode: str = "zeros") -> Tensor:
    """Warp each image by its own thin-plate spline, with bilinear interpolation.

    Args:
        images: [B, C, H, W].
        displacements: of the control points, [B, K, 2], (x, y) in halves of the image.
        basis: `thin_plate_basis` for that H, W and K, [H W, K], of the images' dtype and device.
        padding_mode: the pixels outside the image: "zeros" (black), "border" or "reflection".

    Returns:
        [B, C, H, W].
    """
    batch, _, height, width = images.shape
    centres = pixel_centres(height, width, displacements.device, displacements.dtype)
    grid = (centres + basis @ displacements).view(batch, height, width, 2)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode=padding_mode, align_corners=False)
