"""The image operations of AutoAugment and its successors, as PIL defines them, for a whole batch at once.

Each image has its own operation and parameter. The host sorts the images by operation (`pil_sorting`), so that an
operation takes one pass over one slice of them. All operations that are tables share one lookup (`pil_photometric`),
all nearest-neighbour warps one gather (`pil_geometric`). Images are float in [0, 1] outside this module and 8-bit
levels inside. The results equal PIL's to the level.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hf_transinv.augment import pil_geometric, pil_photometric
from hf_transinv.augment.pil_sorting import Operation, SortedOperations, sort_operations
from hf_transinv.errors import InputError

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
_WARPS = (Operation.SHEAR_X, Operation.SHEAR_Y, Operation.ROTATE)
_TRANSLATIONS = (Operation.TRANSLATE_X, Operation.TRANSLATE_Y)
_BLOCK_PIXELS, _BLOCK_PIXELS_OF_A_GPU = 2**16, 2**22


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
        operation: an `Operation` each, int64 [n, N], on the CPU.
        parameter: of each operation, float64 [n, N], on the CPU.
        canvas: how warped images are sampled.

    Returns:
        uint8 [n, 3, H, W]; the input is not written to.
    """
    height, width = levels.shape[-2:]
    operations, _ = sort_operations(operation, parameter, canvas.fill, (height, width)).to(levels.device)
    return apply_sorted(levels, operations, canvas.interpolation)


def apply_sorted(levels: Tensor, operations: SortedOperations, interpolation: str) -> Tensor:
    """Apply operations that the host has sorted.

    Args:
        levels: uint8 [n / repeats, 3, H, W]; not written to.
        operations: of n rows, on the device of the levels.
        interpolation: "nearest" or "bilinear".

    Returns:
        uint8 [n, 3, H, W].
    """
    fill = operations.fill
    for step, rows in enumerate(operations.rows):
        levels = levels.index_select(0, operations.order[step])
        _apply_step(levels, rows, operations.numbers[step], fill, interpolation)
        if operations.boxes is not None:
            levels = pil_geometric.cut_out(levels, operations.boxes[step], fill)
    return levels.index_select(0, operations.back)


def _apply_step(
    levels: Tensor, rows: dict[Operation, slice], numbers: Tensor, fill: Tensor, interpolation: str
) -> None:
    """Apply one operation per image, in place, to images sorted by operation.

    Args:
        levels: uint8 [n, 3, H, W]; overwritten.
        rows: the rows of each operation that occurs.
        numbers: of `SortedOperations`, float64 [n, 6].
        fill: colour outside the image, uint8 [3].
        interpolation: "nearest" or "bilinear".
    """
    tabled = {name: own for name, own in rows.items() if name in _TABLES}
    if tabled:
        tables = [_TABLES[name](levels[own], numbers[own, 0]) for name, own in tabled.items()]
        span = _span(tabled)
        levels[span] = pil_photometric.lookup(levels[span], torch.cat(tables))
    for name, own in rows.items():
        if name in _DIRECT:
            levels[own] = _DIRECT[name](levels[own], numbers[own, 0])
    warped = {name: own for name, own in rows.items() if name in _WARPS}
    if interpolation == "bilinear":
        if Operation.ROTATE in warped:
            own = warped.pop(Operation.ROTATE)
            _in_pieces(pil_geometric.warp_bilinear, levels[own], numbers[own], fill)
        if warped:
            _shear_bilinear(levels, warped, numbers, fill)
    elif warped:
        span = _span(warped)
        levels[span] = pil_geometric.warp_nearest(levels[span], numbers[span], fill)
    moved = {name: own for name, own in rows.items() if name in _TRANSLATIONS}
    if moved:
        span = _span(moved)
        across, down = numbers[span, 2::3].long().unbind(1)
        levels[span] = pil_geometric.translate(levels[span], across, down, fill)


def _shear_bilinear(levels: Tensor, rows: dict[Operation, slice], numbers: Tensor, fill: Tensor) -> None:
    """Shear in place. SHEAR_Y is SHEAR_X with the axes exchanged, so square images of both share a pass."""
    parts = [
        (levels[own].mT, numbers[own, 3]) if name == Operation.SHEAR_Y else (levels[own], numbers[own, 1])
        for name, own in rows.items()
    ]
    is_square = levels.shape[-2] == levels.shape[-1]
    for group in [parts] if is_square else [[part] for part in parts]:
        views, factors = zip(*group, strict=True)
        turned = torch.cat(views)
        _in_pieces(pil_geometric.shear_bilinear, turned, torch.cat(factors), fill)
        for view, sheared in zip(views, turned.split([len(view) for view in views]), strict=True):
            view.copy_(sheared)


def _in_pieces(warp: Callable[..., Tensor], levels: Tensor, parameter: Tensor, fill: Tensor) -> None:
    """Warp in place, in pieces: intermediate values, doubles, fit a CPU's cache, or a GPU's memory beside networks."""
    most = _BLOCK_PIXELS if levels.device.type == "cpu" else _BLOCK_PIXELS_OF_A_GPU
    size = max(1, most // levels[0, 0].numel())
    for some, own in zip(levels.split(size), parameter.split(size), strict=True):
        some.copy_(warp(some, own, fill))


def _span(rows: dict[Operation, slice]) -> slice:
    """From the first row to the last, of operations that are next to each other."""
    spans = list(rows.values())
    return slice(spans[0].start, spans[-1].stop)
