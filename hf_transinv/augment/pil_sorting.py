"""Images sorted by operation, step by step, on the host: there every size is known, so nothing waits for the device.

The device gets one copy of indices and numbers for all steps. Each operation's images are then one slice of the batch.
"""

from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor

from hf_transinv.augment.deal import inverse, sort_into_groups
from hf_transinv.augment.pil_geometric import rotation_matrix
from hf_transinv.data.transfer import send_all


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


# Where the parameter stands in an affine map (a, b, c, d, e, f) that is otherwise the identity. A shear moves rows
# sideways by their distance from the upper edge, or columns vertically by theirs from the left edge.
_PLACE_IN_MAP = {
    Operation.SHEAR_X: 1,
    Operation.SHEAR_Y: 3,
    Operation.TRANSLATE_X: 2,
    Operation.TRANSLATE_Y: 5,
}
_PLACE = torch.tensor([_PLACE_IN_MAP.get(operation, 0) for operation in Operation])
_REST = torch.zeros(len(Operation), 6, dtype=torch.float64)
_REST[list(_PLACE_IN_MAP), 0] = _REST[list(_PLACE_IN_MAP), 4] = 1


@dataclass(frozen=True)
class SortedOperations:
    """N operations of each of n rows, in the order of their steps.

    Attributes:
        rows: of each step, the rows of each operation that occurs.
        order: of each step, the row of the step before that each row comes from, int64 [N, n].
        back: the row of each image after the last step, int64 [n].
        numbers: of each step, the affine map (a .. f) of a geometric operation, else the parameter and zeros, float64
            [N, n, 6].
        boxes: of each step, the box that is painted after it (top, left, bottom, right), int64 [N, n, 4]; None for
            none.
        fill: colour outside the image and of the boxes, uint8 [3].
    """

    rows: tuple[dict[Operation, slice], ...]
    order: Tensor
    back: Tensor
    numbers: Tensor
    boxes: Tensor | None
    fill: Tensor

    def to(self, device: torch.device, *others: Tensor) -> tuple["SortedOperations", list[Tensor]]:
        """The same on a device, and other tensors with it, all in one copy."""
        boxes = () if self.boxes is None else (self.boxes,)
        own = (self.order, self.back, self.numbers, self.fill, *boxes)
        order, back, numbers, fill, *rest = send_all((*own, *others), device)
        sent = SortedOperations(self.rows, order, back, numbers, rest[0] if boxes else None, fill)
        return sent, rest[len(boxes) :]


def sort_operations(
    operation: Tensor,
    parameter: Tensor,
    fill: tuple[int, int, int],
    size: tuple[int, int],
    boxes: Tensor | None = None,
    repeats: int = 1,
) -> SortedOperations:
    """Sort the rows of a batch by operation for each step.

    Args:
        operation: an `Operation` each, int64 [n, N], on the CPU.
        parameter: of each operation, float64 [n, N], on the CPU.
        fill: red, green and blue, levels of 0 to 255.
        size: (height, width) of the images, in pixels.
        boxes: of each step, int64 [n, N, 4], on the CPU; None for none.
        repeats: rows that each image stands for: the batch has n / repeats images.
    """
    numbers = _REST[operation].scatter_(2, _PLACE[operation].unsqueeze(2), parameter.unsqueeze(2))
    turned = operation == Operation.ROTATE
    numbers[turned] = rotation_matrix(parameter[turned], *size)
    place = torch.arange(len(operation))  # number of the image in each row
    rows, orders, places = [], [], []
    for step in range(operation.shape[1]):
        order, groups = sort_into_groups(operation[place, step], len(Operation))
        place = place[order]
        rows.append({name: own for name, own in zip(Operation, groups, strict=True) if own.start < own.stop})
        orders.append(order)
        places.append(place)
    orders[0] = orders[0] // repeats
    at = torch.stack(places)
    steps = torch.arange(len(places)).unsqueeze(1)
    return SortedOperations(
        tuple(rows),
        torch.stack(orders),
        inverse(place),
        numbers[at, steps],
        None if boxes is None else boxes[at, steps],
        torch.tensor(fill, dtype=torch.uint8),
    )
