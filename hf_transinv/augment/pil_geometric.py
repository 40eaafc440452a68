"""The geometric operations of PIL (`Image.transform` with an affine map, `Image.rotate`) and Cutout on 8-bit levels.

An affine map takes output to input coordinates, in pixels; the centre of a pixel is at its index plus one half:

    x_in = a x + b y + c,    y_in = d x + e y + f

Levels are uint8 [n, 3, H, W]. The results equal PIL's to the level: nearest neighbours are found in its 16.16 fixed
point; bilinear values are computed in its double precision and order of operations, and truncated as there.
"""

import functools
import math

import torch
from torch import Tensor


def rotation_matrix(degrees: Tensor, height: int, width: int) -> Tensor:
    """The affine maps of a counter-clockwise rotation about the centre: float64 [n] on the CPU -> [n, 6]."""
    turns = [_turn(angle, width / 2, height / 2) for angle in degrees.tolist()]
    return torch.tensor(turns, dtype=torch.float64).view(-1, 6)


@functools.lru_cache(maxsize=4096)  # the policies have a few dozen angles, for any number of images
def _turn(degrees: float, x: float, y: float) -> tuple[float, ...]:
    # A truncated level can depend on the last bit of these. So they come from the C library, rounded as in PIL.
    angle = -math.radians(degrees % 360)
    cosine, sine = round(math.cos(angle), 15), round(math.sin(angle), 15)
    return cosine, sine, cosine * -x + sine * -y + x, -sine, cosine, -sine * -x + cosine * -y + y


def warp_nearest(levels: Tensor, matrix: Tensor, fill: Tensor) -> Tensor:
    """`Image.transform` with an affine map and nearest neighbours.

    Args:
        levels: uint8 [n, 3, H, W].
        matrix: (a, b, c, d, e, f), float64 [n, 6].
        fill: colour outside the image, uint8 [3].

    Returns:
        uint8 [n, 3, H, W].
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
    """Read each pixel from a position whole pixels away; the content moves the other way.

    Args:
        levels: uint8 [n, 3, H, W].
        across: pixels to the right, int64 [n].
        down: pixels down, int64 [n].
        fill: colour outside the image, uint8 [3].

    Returns:
        uint8 [n, 3, H, W].
    """
    height, width = levels.shape[-2:]
    column = torch.arange(width, device=levels.device) + across.view(-1, 1, 1)
    row = torch.arange(height, device=levels.device).unsqueeze(1) + down.view(-1, 1, 1)
    return _take(_bordered(levels, fill), _place(row, column, height, width))


def warp_bilinear(levels: Tensor, matrix: Tensor, fill: Tensor) -> Tensor:
    """`Image.transform` with an affine map and bilinear interpolation; arguments as for `warp_nearest`."""
    height, width = levels.shape[-2:]
    a, b, c, d, e, f = matrix.t().view(6, -1, 1, 1)
    x, y = _centres(width, levels), _centres(height, levels).unsqueeze(1)
    # Summed from the left: a truncated level can depend on the last bit.
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
    """`warp_bilinear` with maps (1, factor, 0, 0, 1, 0), factors [n], at half the cost: one axis stays as it is."""
    height, width = levels.shape[-2:]
    x, y = _centres(width, levels), _centres(height, levels).unsqueeze(1)
    column, share, inside = _pixel_before(x + factor.view(-1, 1, 1) * y, width)
    row = torch.arange(height, device=levels.device, dtype=torch.int32).unsqueeze(1)
    index = column.add_(row * (width + 2)).long()
    return _filled(_between(levels, index, share), inside, fill)


def cut_out(levels: Tensor, boxes: Tensor, fill: Tensor) -> Tensor:
    """Paint a box of each image.

    Args:
        levels: [n, 3, H, W] of any dtype.
        boxes: (top, left, bottom, right), the last two exclusive, int64 [n, 4].
        fill: colour of the boxes, [3], of the dtype of the levels.

    Returns:
        [n, 3, H, W].
    """
    top, left, bottom, right = boxes.view(-1, 4, 1).unbind(1)
    y = torch.arange(levels.shape[-2], device=levels.device)
    x = torch.arange(levels.shape[-1], device=levels.device)
    hidden = ((y >= top) & (y < bottom)).unsqueeze(2) & ((x >= left) & (x < right)).unsqueeze(1)
    return torch.where(hidden.unsqueeze(1), fill.view(3, 1, 1), levels)


def _centres(size: int, like: Tensor) -> Tensor:
    """The pixel centres along an axis, float64 [size]."""
    return torch.arange(0.5, size, device=like.device, dtype=torch.float64)


def _pixel_before(position: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """The pixel before each position along an axis, in an image with a border of one pixel.

    Args:
        position: in pixels, float64 of any shape; overwritten.
        size: of the image along the axis, in pixels.

    Returns:
        The pixel's number, int32 from 0 (the border) to `size`; the position's distance from its centre, in pixels;
        whether the position is inside the image, bool.
    """
    inside = (position >= 0) & (position < size)
    position = position.sub_(0.5)
    before = position.floor()
    return before.int().add_(1).clamp_(0, size), position.sub_(before), inside


def _between(levels: Tensor, index: Tensor, share: Tensor) -> Tensor:
    """Interpolate between pixels and their right neighbours: start + (end - start) share, rounded as in PIL.

    Args:
        levels: [n, 3, h, W]; a border that repeats the outermost pixels is added on the left and right.
        index: index of each start among the pixels with that border, int64 [n, ..., H, W].
        share: of the way to the right neighbour, in [0, 1], [n, ..., H, W].

    Returns:
        float64 [n, 3, ..., H, W].
    """
    wide = torch.cat((levels[..., :1], levels, levels[..., -1:]), dim=3).flatten(2)
    start, end = _take(wide, index).double(), _take(wide[..., 1:], index).double()
    return end.sub_(start).mul_(share.unsqueeze(1)).add_(start)


def _bordered(levels: Tensor, fill: Tensor) -> Tensor:
    """The levels with a border of one pixel in the fill colour, for everything outside: [n, 3, (H + 2) (W + 2)]."""
    height, width = levels.shape[-2:]
    bordered = fill.view(3, 1, 1).expand(len(levels), -1, height + 2, width + 2).contiguous()
    bordered[..., 1:-1, 1:-1] = levels
    return bordered.flatten(2)


def _place(row: Tensor, column: Tensor, height: int, width: int) -> Tensor:
    """The index of a pixel in an image with a border of one; pixels outside the image are on the border."""
    return (row.clamp_(-1, height) + 1) * (width + 2) + (column.clamp_(-1, width) + 1)


def _take(pixels: Tensor, index: Tensor) -> Tensor:
    """Pixels by their index, the same in every channel: [n, 3, P], int64 [n, ...] -> [n, 3, ...]."""
    taken = pixels.gather(2, index.flatten(1).unsqueeze(1).expand(-1, 3, -1))
    return taken.unflatten(2, index.shape[1:])


def _filled(values: Tensor, inside: Tensor, fill: Tensor) -> Tensor:
    """The values truncated to levels, with the fill where a position is outside the image."""
    # Via int32, and modulo 256 instead of `where`: several times faster on the CPU.
    fill = fill.view(3, 1, 1)
    return values.int().to(torch.uint8).sub_(fill).mul_(inside.unsqueeze(1)).add_(fill)
