"""The geometric operations of PIL (`Image.transform` with an affine map, `Image.rotate`) and Cutout on 8-bit levels.

An affine map takes output to input coordinates, in pixels, a pixel's centre at its index plus one half:

    x_in = a x + b y + c,    y_in = d x + e y + f

Levels are uint8 [n, 3, H, W]. The results are PIL's to the level: nearest neighbours are found in its 16.16 fixed
point, bilinear ones in its double precision and order of operations, and truncated like there.
"""

import math

import torch
from torch import Tensor


def shear_matrix(factor: Tensor, across: bool) -> Tensor:
    """Rows move by `factor` of their depth below the upper edge (across), or columns of their distance from the left:
    float64 [n] -> [n, 6]."""
    zero, one = torch.zeros_like(factor), torch.ones_like(factor)
    return torch.stack((one, factor, zero, zero, one, zero) if across else (one, zero, zero, factor, one, zero), dim=1)


def translation_matrix(shift: Tensor, across: bool) -> Tensor:
    """Look `shift` pixels to the right, or down: the content moves the other way. float64 [n] -> [n, 6]."""
    zero, one = torch.zeros_like(shift), torch.ones_like(shift)
    return torch.stack((one, zero, shift, zero, one, zero) if across else (one, zero, zero, zero, one, shift), dim=1)


def rotation_matrix(degrees: Tensor, height: int, width: int) -> Tensor:
    """Counter-clockwise about the middle of the image: float64 [n] on the CPU -> [n, 6]."""
    # A level that is truncated can hang on the last bit of these, so they are the C library's, rounded as PIL rounds
    # them. The policies know a few dozen angles, however many images there are.
    angles, which = degrees.unique(return_inverse=True)
    radians = [-math.radians(angle % 360) for angle in angles.tolist()]
    turns = [(round(math.cos(angle), 15), round(math.sin(angle), 15)) for angle in radians]
    cosine, sine = torch.tensor(turns, dtype=torch.float64)[which].unbind(1)
    x, y = width / 2, height / 2
    return torch.stack((cosine, sine, cosine * -x + sine * -y + x, -sine, cosine, -sine * -x + cosine * -y + y), dim=1)


def warp_nearest(levels: Tensor, matrix: Tensor, fill: Tensor) -> Tensor:
    """`Image.transform`, affine, nearest neighbours.

    Args:
        levels: uint8 [n, 3, H, W].
        matrix: (a, b, c, d, e, f), float64 [n, 6].
        fill: what lies outside the image, uint8 [3].
    """
    height, width = levels.shape[-2:]
    a, b, c, d, e, f = matrix.t()
    fixed = torch.stack((a, b, c + a * 0.5 + b * 0.5, d, e, f + d * 0.5 + e * 0.5))
    a, b, c, d, e, f = fixed.mul_(65536).add_(0.5).floor_().long().view(6, -1, 1, 1)
    x = torch.arange(width, device=levels.device)
    y = torch.arange(height, device=levels.device).unsqueeze(1)
    column, row = (a * x + (b * y + c)) >> 16, (d * x + (e * y + f)) >> 16
    # A border of one pixel stands for all that lies outside.
    source = fill.view(3, 1, 1).expand(len(levels), -1, height + 2, width + 2).contiguous()
    source[..., 1:-1, 1:-1] = levels
    index = row.clamp_(-1, height).mul_(width + 2).add_(column.clamp_(-1, width)).add_(width + 3)
    flat = index.flatten(1).unsqueeze(1).expand(-1, 3, -1)
    return source.flatten(2).gather(2, flat).view(levels.shape)


def warp_bilinear(levels: Tensor, matrix: Tensor, fill: Tensor) -> Tensor:
    """`Image.transform`, affine, bilinear; else as `warp_nearest`."""
    height, width = levels.shape[-2:]
    a, b, c, d, e, f = matrix.t().view(6, -1, 1, 1)
    x, y = _centres(levels)
    # The sums from the left: the last bit decides where a level is truncated.
    left, right, dx, inside_x = _neighbours(a * x + b * y + c, width)
    upper, lower, dy, inside_y = _neighbours(d * x + e * y + f, height)
    upper, lower = upper * width, lower * width
    corners = torch.stack((upper + left, lower + left, upper + right, lower + right), dim=1)
    corners = _take(levels, corners, inside_x & inside_y, fill)
    sides = _interpolate(corners[:, :, :2], corners[:, :, 2:], dx.unsqueeze(1))
    return _truncate(_interpolate(sides[:, :, 0], sides[:, :, 1], dy))


def shear_bilinear(levels: Tensor, matrix: Tensor, fill: Tensor, across: bool) -> Tensor:
    """`warp_bilinear` with a `shear_matrix`, at half the cost: the axis at rest needs no interpolation."""
    height, width = levels.shape[-2:]
    x, y = _centres(levels)
    factor = matrix[:, 1 if across else 3].view(-1, 1, 1)
    if across:
        before, after, share, inside = _neighbours(x + factor * y, width)
        ends = torch.stack((before, after), dim=1).add_((y - 0.5).int() * width)
    else:
        before, after, share, inside = _neighbours(factor * x + y, height)
        ends = torch.stack((before, after), dim=1).mul_(width).add_((x - 0.5).int())
    start, end = _take(levels, ends, inside, fill).unbind(2)
    return _truncate(_interpolate(start, end, share))


def cut_out(levels: Tensor, boxes: Tensor, fill: Tensor) -> Tensor:
    """Paint a box of each image: boxes int64 [n, 4], (top, left, bottom, right), the last two exclusive."""
    top, left, bottom, right = boxes.view(-1, 4, 1).unbind(1)
    y = torch.arange(levels.shape[-2], device=levels.device)
    x = torch.arange(levels.shape[-1], device=levels.device)
    hidden = ((y >= top) & (y < bottom)).unsqueeze(2) & ((x >= left) & (x < right)).unsqueeze(1)
    return torch.where(hidden.unsqueeze(1), fill.view(3, 1, 1), levels)


def _centres(levels: Tensor) -> tuple[Tensor, Tensor]:
    """x [W] and y [H, 1] of the pixels' centres, float64."""
    height, width = levels.shape[-2:]
    x = torch.arange(width, device=levels.device, dtype=torch.float64) + 0.5
    return x, torch.arange(height, device=levels.device, dtype=torch.float64).unsqueeze(1) + 0.5


def _neighbours(position: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The pixels before and after a position, int32, held in the image; how far it is on the way; if it is inside."""
    inside = (position >= 0) & (position < size)
    position = position - 0.5
    before = position.floor()
    share = position - before
    before = before.int()
    return before.clamp(0, size - 1), (before + 1).clamp_(0, size - 1), share, inside


def _take(levels: Tensor, index: Tensor, inside: Tensor, fill: Tensor) -> Tensor:
    """Pixels by their places in the image, several for one: places [n, k, H, W] -> levels [n, 3, k, H, W]."""
    pixels, outside = levels.flatten(2), levels[0, 0].numel()
    source = torch.cat((pixels, fill.view(1, 3, 1).expand(len(levels), -1, -1)), dim=2)
    index = torch.where(inside.unsqueeze(1), index, outside).long()
    taken = source.gather(2, index.flatten(1).unsqueeze(1).expand(-1, 3, -1))
    return taken.unflatten(2, index.shape[1:])


def _interpolate(start: Tensor, end: Tensor, share: Tensor) -> Tensor:
    """start + (end - start) share in double precision, rounded after each operation as PIL does.

    Levels [n, 3, ..., H, W] of any type, the share [n, ..., H, W].
    """
    start = start.double()
    return (end.double().sub_(start)).mul_(share.unsqueeze(1)).add_(start)


def _truncate(values: Tensor) -> Tensor:
    # By way of int32: the direct conversion is several times slower on the CPU.
    return values.int().to(torch.uint8)
