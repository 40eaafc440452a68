"""The image operations of AutoAugment and its successors, as PIL defines them, for a whole batch at once.

Each image has an operation of its own and one parameter. Images are sorted by operation, so that an operation is one
pass over its images, and all point operations share one table lookup (`pil_photometric`), all warps one gather
(`pil_geometric`). Images are float in [0, 1] outside and 8-bit levels inside; the results are PIL's to the level.
"""

from dataclasses import dataclass
from enum import IntEnum
from functools import partial

import torch
from torch import Tensor

from hf_transinv.augment import pil_geometric, pil_photometric
from hf_transinv.errors import InputError


class Operation(IntEnum):
    """The operations; beside each what its parameter is. Their order puts those together that share a pass."""

    IDENTITY = 0  # none
    INVERT = 1  # none
    POSTERIZE = 2  # bits kept, 0 to 8
    SOLARIZE = 3  # threshold, 0 to 256: levels from it on are inverted
    SOLARIZE_ADD = 4  # levels added to those below 128
    BRIGHTNESS = 5  # factor, 1 changes nothing; so for the next three
    CONTRAST = 6
    AUTOCONTRAST = 7  # none
    EQUALIZE = 8  # none
    COLOR = 9
    SHARPNESS = 10
    SHEAR_X = 11  # pixels by pixel
    SHEAR_Y = 12
    ROTATE = 13  # degrees, counter-clockwise
    TRANSLATE_X = 14  # whole pixels; the content moves to the left
    TRANSLATE_Y = 15  # whole pixels; the content moves up


_TABLES = {
    Operation.INVERT: pil_photometric.tabulate_invert,
    Operation.POSTERIZE: pil_photometric.tabulate_posterize,
    Operation.SOLARIZE: pil_photometric.tabulate_solarize,
    Operation.SOLARIZE_ADD: pil_photometric.tabulate_solarize_add,
    Operation.BRIGHTNESS: pil_photometric.tabulate_brightness,
    Operation.CONTRAST: pil_photometric.tabulate_contrast,
    Operation.AUTOCONTRAST: pil_photometric.tabulate_autocontrast,
    Operation.EQUALIZE: pil_photometric.tabulate_equalize,
}
_BLENDS = {
    Operation.COLOR: pil_photometric.enhance_color,
    Operation.SHARPNESS: pil_photometric.enhance_sharpness,
}
_MATRICES = {
    Operation.SHEAR_X: lambda factor, *_: pil_geometric.shear_matrix(factor, across=True),
    Operation.SHEAR_Y: lambda factor, *_: pil_geometric.shear_matrix(factor, across=False),
    Operation.ROTATE: pil_geometric.rotation_matrix,
    Operation.TRANSLATE_X: lambda shift, *_: pil_geometric.translation_matrix(shift, across=True),
    Operation.TRANSLATE_Y: lambda shift, *_: pil_geometric.translation_matrix(shift, across=False),
}
_BILINEAR = {
    Operation.SHEAR_X: partial(pil_geometric.shear_bilinear, across=True),
    Operation.SHEAR_Y: partial(pil_geometric.shear_bilinear, across=False),
    Operation.ROTATE: pil_geometric.warp_bilinear,
}
_BLOCK_PIXELS = 2**16


@dataclass(frozen=True)
class Canvas:
    """How warped images are sampled.

    Attributes:
        interpolation: "nearest" or "bilinear".
        fill: red, green and blue of what lies outside the image, levels of 0 to 255.
    """

    interpolation: str = "nearest"
    fill: tuple[int, int, int] = (0, 0, 0)

    def __post_init__(self) -> None:
        if self.interpolation not in ("nearest", "bilinear"):
            raise InputError(f"interpolation {self.interpolation!r} is neither nearest nor bilinear")
        if len(self.fill) != 3 or not all(0 <= level <= 255 for level in self.fill):
            raise InputError(f"fill {self.fill}: expected three levels of 0 to 255")

    def fill_on(self, device: torch.device) -> Tensor:
        """The fill as uint8 [3]."""
        return torch.tensor(self.fill, dtype=torch.uint8).to(device)


def to_levels(images: Tensor) -> Tensor:
    """Images in [0, 1] to the nearest of 256 levels, uint8."""
    # By way of int32: the direct conversion is several times slower on the CPU.
    return (images * 255).round_().int().to(torch.uint8)


def to_images(levels: Tensor, like: Tensor) -> Tensor:
    """Levels to images in [0, 1] of the type of `like`."""
    return levels.to(like.dtype).div_(255)


def apply_operations(levels: Tensor, operation: Tensor, parameter: Tensor, canvas: Canvas) -> Tensor:
    """Apply to each image its own operations, one after another.

    Args:
        levels: uint8 [n, 3, H, W], on any device.
        operation: an `Operation` each, int64 [n, N], on the CPU, where it steers without waiting for the device.
        parameter: its parameter, float64 [n, N], on the CPU.
        canvas: how warped images are sampled.

    Returns:
        uint8 [n, 3, H, W]; the input is not written to.
    """
    place = torch.arange(len(levels))  # which image each row holds
    for step in range(operation.shape[1]):
        kind = operation[place, step]
        order = kind.argsort(stable=True)
        place = place[order]
        levels = levels.index_select(0, order.to(levels.device))
        ends = torch.bincount(kind, minlength=len(Operation)).cumsum(0).tolist()
        rows = {name: slice(ends[name - 1] if name else 0, ends[name]) for name in Operation}
        _apply_sorted(
            levels, {name: r for name, r in rows.items() if r.start < r.stop}, parameter[place, step], canvas
        )
    return levels.index_select(0, place.argsort().to(levels.device))


def _apply_sorted(levels: Tensor, rows: dict[Operation, slice], parameter: Tensor, canvas: Canvas) -> None:
    """Apply one operation an image, in place, to images sorted by operation; `rows` holds those that occur."""
    on_device = parameter.to(levels.device)
    tables = [(own, _TABLES[name](levels[own], on_device[own])) for name, own in rows.items() if name in _TABLES]
    if tables:
        span = slice(tables[0][0].start, tables[-1][0].stop)
        levels[span] = pil_photometric.lookup(levels[span], torch.cat([table for _, table in tables]))
    for name, own in rows.items():
        if name in _BLENDS:
            levels[own] = _BLENDS[name](levels[own], on_device[own])
    warped = {name: own for name, own in rows.items() if name in _MATRICES}
    if warped:
        _warp_sorted(levels, warped, parameter, canvas)


def _warp_sorted(levels: Tensor, rows: dict[Operation, slice], parameter: Tensor, canvas: Canvas) -> None:
    """The geometric part: one gather for all of them, but for what bilinear interpolation needs beyond it."""
    fill = canvas.fill_on(levels.device)
    matrices = []
    for name, own in rows.items():
        matrix = _MATRICES[name](parameter[own], *levels.shape[-2:])
        if canvas.interpolation == "nearest" or name in (Operation.TRANSLATE_X, Operation.TRANSLATE_Y):
            matrices.append((own, matrix))
            continue
        warp = _BILINEAR[name]
        matrix = matrix.to(levels.device)
        for block in _blocks(own, levels):
            levels[block] = warp(levels[block], matrix[block.start - own.start : block.stop - own.start], fill)
    if matrices:
        span = slice(matrices[0][0].start, matrices[-1][0].stop)
        matrix = torch.cat([matrix for _, matrix in matrices]).to(levels.device)
        levels[span] = pil_geometric.warp_nearest(levels[span], matrix, fill)


def _blocks(rows: slice, levels: Tensor) -> list[slice]:
    """Rows in one piece; on the CPU in pieces whose doubles stay near its cache, which large images fill alone."""
    count = rows.stop - rows.start
    size = max(1, _BLOCK_PIXELS // levels[0, 0].numel()) if levels.device.type == "cpu" else count
    return [slice(start, min(start + size, rows.stop)) for start in range(rows.start, rows.stop, size)]
