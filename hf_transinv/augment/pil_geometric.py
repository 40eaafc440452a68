"""The geometric operations of PIL (`Image.transform` with an affine map, `Image.rotate`) and Cutout on 8-bit levels.

An affine map takes output to input coordinates, in pixels, a pixel's centre at its index plus one half:

    x_in = a x + b y + c,    y_in = d x + e y + f

Levels are uint8 [n, 3, H, W]. The results are PIL's to the level: nearest neighbours are found in its 16.16 fixed
point, bilinear ones in its double precision and order of operations, and truncated like there.
"""

import functools
import math

import torch
from torch import Tensor


def shear_matrix(factor: Tensor, across: bool) -> Tensor:
    """Rows move by `factor` of their depth below the upper edge (across), or columns of their distance from the left:
    float64 [n] -> [n, 6].
    """
    zero, one = torch.zeros_like(factor), torch.ones_like(factor)
    return torch.stack((one, factor, zero, zero, one, zero) if across else (one, zero, zero, factor, one, zero), dim=1)


def rotation_matrix(degrees: Tensor, height: int, width: int) -> Tensor:
    """Counter-clockwise about the middle of the image: float64 [n] on the CPU -> [n, 6]."""
    turns = [_turn(angle, width / 2, height / 2) for angle in degrees.tolist()]
    return torch.tensor(turns, dtype=torch.float64, device=degrees.device)


@functools.lru_cache(maxsize=4096)  # the policies know a few dozen angles, however many images there are
def _turn(degrees: float, x: float, y: float) -> tuple[float, ...]:
    # A level that is truncated can hang on the last bit of these, so they are the C library's, rounded as PIL rounds
    # them.
    angle = -math.radians(degrees % 360)
    cosine, sine = round(math.cos(angle), 15), round(math.sin(angle), 15)
    return cosine, sine, cosine * -x + sine * -y + x, -sine, cosine, -sine * -x + cosine * -y + y


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
    return _take(_bordered(levels, fill), _place(row, column, height, width))


def translate(levels: Tensor, across: Tensor, down: Tensor, fill: Tensor) -> Tensor:
    """Look so many whole pixels to the right and down, int64 [n] each: the content moves the other way."""
    height, width = levels.shape[-2:]
    column = torch.arange(width, device=levels.device) + across.view(-1, 1, 1)
    row = torch.arange(height, device=levels.device).unsqueeze(1) + down.view(-1, 1, 1)
    return _take(_bordered(levels, fill), _place(row, column, height, width))


def warp_bilinear(levels: Tensor, matrix: Tensor, fill: Tensor) -> Tensor:
    """`Image.transform`, affine, bilinear; else as `warp_nearest`."""
    height, width = levels.shape[-2:]
    a, b, c, d, e, f = matrix.t().view(6, -1, 1, 1)
    x, y = _centres(width, levels), _centres(height, levels).unsqueeze(1)
    # The sums from the left: the last bit decides where a level is truncated.
    column, dx, inside_x = _pixel_before(a * x + b * y + c, width)
    row, dy, inside_y = _pixel_before(d * x + e * y + f, height)
    rows = torch.cat((levels[..., :1, :], levels, levels[..., -1:, :]), dim=2)
    upper = row.mul_(width + 2).add_(column)
    index = torch.stack((upper, upper + (width + 2)), dim=1).long()
    sides = _between(rows, index, dx.unsqueeze(1))
    above, below = sides.unbind(2)
    values = (below - above).mul_(dy.unsqueeze(1)).add_(above)
    return _filled(values, inside_x & inside_y, fill)


def shear_bilinear(levels: Tensor, factor: Tensor, fill: Tensor) -> Tensor:
    """`warp_bilinear` with a `shear_matrix` (across), factors [n]: half of it, as the axis at rest moves nothing."""
    height, width = levels.shape[-2:]
    x, y = _centres(width, levels), _centres(height, levels).unsqueeze(1)
    column, share, inside = _pixel_before(x + factor.view(-1, 1, 1) * y, width)
    row = torch.arange(height, device=levels.device, dtype=torch.int32).unsqueeze(1)
    index = column.add_(row * (width + 2)).long()
    return _filled(_between(levels, index, share), inside, fill)


def cut_out(levels: Tensor, boxes: Tensor, fill: Tensor) -> Tensor:
    """Paint a box of each image: boxes int64 [n, 4], (top, left, bottom, right), the last two exclusive."""
    top, left, bottom, right = boxes.view(-1, 4, 1).unbind(1)
    y = torch.arange(levels.shape[-2], device=levels.device)
    x = torch.arange(levels.shape[-1], device=levels.device)
    hidden = ((y >= top) & (y < bottom)).unsqueeze(2) & ((x >= left) & (x < right)).unsqueeze(1)
    return torch.where(hidden.unsqueeze(1), fill.view(3, 1, 1), levels)


def _centres(size: int, like: Tensor) -> Tensor:
    """Of the pixels along an axis, float64 [size]."""
    return torch.arange(size, device=like.device, dtype=torch.float64) + 0.5


def _pixel_before(position: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """The pixel before a position, counted from 1 in an image with a border of one pixel, int32 of 0 to `size`; how
    far it is from there to the next one; whether the position is in the image.
    """
    inside = (position >= 0) & (position < size)
    position = position.sub_(0.5)
    before = position.floor()
    return before.int().add_(1).clamp_(0, size), position.sub_(before), inside


def _between(levels: Tensor, index: Tensor, share: Tensor) -> Tensor:
    """Between pixels and their right neighbours, float64: start + (end - start) share, rounded as PIL does.

    Args:
        levels: [n, 3, h, W]; left and right of them lies a border that repeats them.
        index: places with that border, int64 [n, ..., H, W].
        share: of the way, [n, ..., H, W].
    """
    wide = torch.cat((levels[..., :1], levels, levels[..., -1:]), dim=3).flatten(2)
    start, end = _take(wide, index).double(), _take(wide[..., 1:], index).double()
    return end.sub_(start).mul_(share.unsqueeze(1)).add_(start)


def _bordered(levels: Tensor, fill: Tensor) -> Tensor:
    """With a border of one pixel that stands for all that lies outside."""
    height, width = levels.shape[-2:]
    bordered = fill.view(3, 1, 1).expand(len(levels), -1, height + 2, width + 2).contiguous()
    bordered[..., 1:-1, 1:-1] = levels
    return bordered.flatten(2)


def _place(row: Tensor, column: Tensor, height: int, width: int) -> Tensor:
    """Where a pixel is in an image with a border of one; all that lies outside is on the border."""
    return (row.clamp_(-1, height) + 1) * (width + 2) + (column.clamp_(-1, width) + 1)


def _take(pixels: Tensor, index: Tensor) -> Tensor:
    """Pixels by their places in the image, the same in every channel: [n, 3, P], int64 [n, ...] -> [n, 3, ...]."""
    taken = pixels.gather(2, index.flatten(1).unsqueeze(1).expand(-1, 3, -1))
    return taken.unflatten(2, index.shape[1:])


def _filled(values: Tensor, inside: Tensor, fill: Tensor) -> Tensor:
    """Truncated to levels, and the fill where a position is not in the image."""
    # By way of int32, and modulo 256 instead of `where`: on the CPU several times faster.
    fill = fill.view(3, 1, 1)
    return values.int().to(torch.uint8).sub_(fill).mul_(inside.unsqueeze(1)).add_(fill)
