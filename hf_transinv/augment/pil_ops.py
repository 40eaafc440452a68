"""The image operations of AutoAugment and its successors, as PIL defines them, for a whole batch at once.

Each image has its own operation and parameter. Images are sorted by operation, so that an operation takes one pass
over its images. All operations that are tables share one lookup (`pil_photometric`), all nearest-neighbour warps one
gather (`pil_geometric`). Images are float in [0, 1] outside this module and 8-bit levels inside. The results equal
PIL's to the level.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor

from hf_transinv.augment import pil_geometric, pil_photometric
from hf_transinv.errors import InputError


class Operation(IntEnum):
    """The operations, each with the meaning of its parameter. Those that share a pass are next to each other."""

    IDENTITY = 0  # none
    INVERT = 1  # none
    POSTERIZE = 2  # bits kept, 0 to 8
    SOLARIZE = 3  # threshold, 0 to 256; levels from it on are inverted
    SOLARIZE_ADD = 4  # levels added to those below 128
    BRIGHTNESS = 5  # factor, 1 changes nothing
    CONTRAST = 6  # the same
    AUTOCONTRAST = 7  # none
    EQUALIZE = 8  # none
    COLOR = 9  # factor, 1 changes nothing
    SHARPNESS = 10  # the same
    SHEAR_X = 11  # shift in pixels per pixel of distance
    SHEAR_Y = 12  # the same
    ROTATE = 13  # degrees, counter-clockwise
    TRANSLATE_X = 14  # whole pixels; the content moves to the left
    TRANSLATE_Y = 15  # whole pixels; the content moves up


_TABLES = {
    Operation.SOLARIZE_ADD: pil_photometric.tabulate_solarize_add,
    Operation.BRIGHTNESS: pil_photometric.tabulate_brightness,
    Operation.CONTRAST: pil_photometric.tabulate_contrast,
    Operation.AUTOCONTRAST: pil_photometric.tabulate_autocontrast,
    Operation.EQUALIZE: pil_photometric.tabulate_equalize,
}
_DIRECT = {
    Operation.INVERT: pil_photometric.invert,
    Operation.POSTERIZE: pil_photometric.posterize,
    Operation.SOLARIZE: pil_photometric.solarize,
    Operation.COLOR: pil_photometric.enhance_color,
    Operation.SHARPNESS: pil_photometric.enhance_sharpness,
}
_MATRICES = {
    Operation.SHEAR_X: lambda factor, *_: pil_geometric.shear_matrix(factor, across=True),
    Operation.SHEAR_Y: lambda factor, *_: pil_geometric.shear_matrix(factor, across=False),
    Operation.ROTATE: pil_geometric.rotation_matrix,
}
_TRANSLATIONS = (Operation.TRANSLATE_X, Operation.TRANSLATE_Y)
_BLOCK_PIXELS = 2**16


@dataclass(frozen=True)
class Canvas:
    """How warped images are sampled.

    Attributes:
        interpolation: "nearest" or "bilinear".
        fill: colour outside the image: red, green and blue, in levels of 0 to 255.
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
    # Via int32: the direct conversion is several times slower on the CPU.
    return (images * 255).round_().int().to(torch.uint8)


def to_images(levels: Tensor, like: Tensor) -> Tensor:
    """Levels to images in [0, 1] of the dtype of `like`."""
    return levels.to(like.dtype).div_(255)


def apply_operations(levels: Tensor, operation: Tensor, parameter: Tensor, canvas: Canvas) -> Tensor:
    """Apply to each image its own operations, one after another.

    Args:
        levels: uint8 [n, 3, H, W], on any device.
        operation: an `Operation` each, int64 [n, N], on the CPU, so that selecting never waits for the device.
        parameter: of each operation, float64 [n, N], on the CPU.
        canvas: how warped images are sampled.

    Returns:
        uint8 [n, 3, H, W]; the input is not written to.
    """
    place = torch.arange(len(levels))  # number of the image in each row
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
    """Apply one operation per image, in place, to images sorted by operation.

    Args:
        levels: uint8 [n, 3, H, W]; overwritten.
        rows: the rows of each operation that occurs.
        parameter: float64 [n], on the CPU.
        canvas: how warped images are sampled.
    """
    on_device = parameter.to(levels.device)
    tabled = {name: own for name, own in rows.items() if name in _TABLES}
    if tabled:
        tables = [_TABLES[name](levels[own], on_device[own]) for name, own in tabled.items()]
        span = _span(tabled)
        levels[span] = pil_photometric.lookup(levels[span], torch.cat(tables))
    for name, own in rows.items():
        if name in _DIRECT:
            levels[own] = _DIRECT[name](levels[own], on_device[own])
    fill = canvas.fill_on(levels.device)
    warped = {name: own for name, own in rows.items() if name in _MATRICES}
    if canvas.interpolation == "bilinear":
        if Operation.ROTATE in warped:
            own = warped.pop(Operation.ROTATE)
            matrix = pil_geometric.rotation_matrix(parameter[own], *levels.shape[-2:]).to(levels.device)
            _in_pieces(pil_geometric.warp_bilinear, levels[own], matrix, fill)
        if warped:
            _shear_bilinear(levels, warped, on_device, fill)
    elif warped:
        matrices = [_MATRICES[name](parameter[own], *levels.shape[-2:]) for name, own in warped.items()]
        span = _span(warped)
        levels[span] = pil_geometric.warp_nearest(levels[span], torch.cat(matrices).to(levels.device), fill)
    moved = {name: own for name, own in rows.items() if name in _TRANSLATIONS}
    if moved:
        shift = torch.zeros(len(levels), 2, dtype=torch.int64)
        for name, own in moved.items():
            shift[own, _TRANSLATIONS.index(name)] = parameter[own].long()
        span = _span(moved)
        across, down = shift[span].to(levels.device).unbind(1)
        levels[span] = pil_geometric.translate(levels[span], across, down, fill)


def _shear_bilinear(levels: Tensor, rows: dict[Operation, slice], factor: Tensor, fill: Tensor) -> None:
    """Shear in place. SHEAR_Y is SHEAR_X with the axes exchanged, so square images of both share a pass."""
    parts = [(levels[own].mT if name == Operation.SHEAR_Y else levels[own], factor[own]) for name, own in rows.items()]
    is_square = levels.shape[-2] == levels.shape[-1]
    for group in [parts] if is_square else [[part] for part in parts]:
        views, factors = zip(*group, strict=True)
        turned = torch.cat(views)
        _in_pieces(pil_geometric.shear_bilinear, turned, torch.cat(factors), fill)
        for view, sheared in zip(views, turned.split([len(view) for view in views]), strict=True):
            view.copy_(sheared)


def _in_pieces(warp: Callable[..., Tensor], levels: Tensor, parameter: Tensor, fill: Tensor) -> None:
    """Warp in place; on the CPU in pieces small enough for its cache, whose intermediate values are doubles."""
    size = max(1, _BLOCK_PIXELS // levels[0, 0].numel()) if levels.device.type == "cpu" else len(levels)
    for some, own in zip(levels.split(size), parameter.split(size), strict=True):
        some.copy_(warp(some, own, fill))


def _span(rows: dict[Operation, slice]) -> slice:
    """From the first row to the last, of operations that are next to each other."""
    spans = list(rows.values())
    return slice(spans[0].start, spans[-1].stop)
