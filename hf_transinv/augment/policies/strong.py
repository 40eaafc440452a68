"""The strong space of RandAugment with distillation (Wei et al., ECCV 2020, section 4.1).

Two operations per image out of shear-x, shear-y, translate-x, translate-y and Cutout, at a magnitude from 0 (no
change) to 10 (nothing of the image is left). Translation follows the paper: a tenth of the side per unit. For the
others the paper defines only 10. In between is our reading:

    shear    9 degrees per unit; at 90 degrees nothing is left
    Cutout   a square of a tenth of the side per unit, entirely inside the image; at 10 it covers the image

The magnitude is fixed, as in RandAugment; the sign is drawn.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from hf_transinv.augment.pil_ops import Canvas, apply_sorted, to_images, to_levels
from hf_transinv.augment.pil_sorting import Operation, sort_operations
from hf_transinv.augment.policies.policy import Policy
from hf_transinv.augment.policies.spaces import (
    IDENTITY,
    MEAN_CANVAS,
    OperationDraws,
    Strength,
    tabulate_strengths,
    whole,
)
from hf_transinv.errors import InputError

CUTOUT = IDENTITY
"""For Cutout the operation is the identity, with a box."""


def _shear(u: float, side: int) -> float:
    # From 2 * side on nothing of the image is left; the tangent of 90 degrees would overflow.
    return min(math.tan(math.radians(90 * u)), 2.0 * side)


def _translation(u: float, side: int) -> float:
    return float(whole(u * side + 0.5))


SPACE = (
    Strength(Operation.SHEAR_X, _shear, is_signed=True),
    Strength(Operation.SHEAR_Y, _shear, is_signed=True),
    Strength(Operation.TRANSLATE_X, _translation, is_signed=True),
    Strength(Operation.TRANSLATE_Y, _translation, is_signed=True),
    CUTOUT,
)


@dataclass(frozen=True)
class StrongDraws:
    """What was drawn, on the CPU.

    Attributes:
        operations: [B, 2].
        boxes: of Cutout, (top, left, bottom, right), int64 [B, 2, 4]; empty for other operations.
    """

    operations: OperationDraws
    boxes: Tensor

    def __getitem__(self, rows: slice) -> "StrongDraws":
        return StrongDraws(self.operations[rows], self.boxes[rows])


class StrongAugment(Policy):
    """Two of five destructive operations per image, one after another, each equally likely.

    Args:
        magnitude: M, 0 to 10; the paper's table 1 has 0 to 7.
        canvas: how warped images are sampled, and the colour that Cutout paints.
    """

    name = "strong"
    title = "strong augmentation"
    phrase = "shears, translations and Cutout"
    citation = """@inproceedings{wei2020circumventing,
  title     = {Circumventing Outliers of {AutoAugment} with Knowledge Distillation},
  author    = {Wei, Longhui and Xiao, An and Xie, Lingxi and Zhang, Xiaopeng and Chen, Xin and Tian, Qi},
  booktitle = {European Conference on Computer Vision (ECCV)},
  year      = {2020}
}"""

    def __init__(self, magnitude: float = 3, canvas: Canvas = MEAN_CANVAS) -> None:
        if not 0 <= magnitude <= 10:
            raise InputError(
                f"the magnitude of the strong space is {magnitude}: expected 0 (no change) to 10 (destroyed)"
            )
        self.strength, self.canvas = magnitude / 10, canvas

    def draw(self, shape: tuple[int, ...], generator: torch.Generator) -> StrongDraws:
        """Draw two operations per image."""
        batch_size, (height, width) = shape[0], shape[-2:]
        choice = torch.randint(len(SPACE), (batch_size, 2), generator=generator)
        table = tabulate_strengths(SPACE, (self.strength,), height, width)
        operations = table.draw_signs(choice, torch.zeros_like(choice), generator)
        size = torch.tensor([whole(self.strength * side + 0.5) for side in (height, width)])
        room = torch.tensor([height, width]) - size + 1
        corner = (torch.rand(batch_size, 2, 2, generator=generator) * room).long()
        boxes = torch.cat((corner, corner + size), dim=2)
        return StrongDraws(operations, torch.where((choice == SPACE.index(CUTOUT)).unsqueeze(2), boxes, 0))

    def __call__(self, images: Tensor, draws: StrongDraws) -> Tensor:
        """Augment images [b, 3, H, W] in [0, 1], in 256 levels."""
        drawn, size = draws.operations, (images.shape[-2], images.shape[-1])
        operations = sort_operations(drawn.operation, drawn.parameter, self.canvas.fill, size, draws.boxes)
        operations, _ = operations.to(images.device)
        return to_images(apply_sorted(to_levels(images), operations, self.canvas.interpolation), images)
