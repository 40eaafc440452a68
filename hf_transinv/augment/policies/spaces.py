"""Spaces of operations: the operations of each, and the parameter that each has at a given strength.

A strength u in [0, 1] is a magnitude divided by the largest (RandAugment's M / 30, AutoAugment's level / 10).
Published spaces differ in range, in direction and in sign:

              `paper`             `torchvision`        `timm`                `wide`
    shear     +-0.3 u             +-0.3 u              +-0.3 u               +-0.99 u
    translate +-10/32 u side      +-150/331 u side     +-0.45 u side         +-32 u pixels
    rotate    +-30 u degrees      +-30 u               +-30 u                +-135 u
    enhance   0.1 + 1.8 u         1 +- 0.9 u           1 +- 0.9 u            1 +- 0.99 u
    posterize 8 - 4 u bits        8 - 4 u              4 - 4 u               8 - 6 u
    solarize  256 - 256 u         255 - 255 u          256 - 256 u           255 - 255 u

`paper` has the ranges of AutoAugment's paper (the table of operations in its appendix), which RandAugment adopts, with
translations as in the authors' CIFAR code. Two readings are ours. Posterize and solarize grow stronger with u, as in
that code. Posterize keeps the paper's 4 to 8 bits, where the code has 0 to 4, black at the end. An enhancement is
neutral in the middle, at u = 0.5, and strongest at both ends.

In `torchvision` and `timm` (its "inc1") every operation grows stronger with u. timm has 15 operations, solarize-add
and invert among them, and no identity. `wide` is TrivialAugment's. Translations are whole pixels in all spaces, unlike
in timm itself.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from hf_transinv.augment.pil_ops import Canvas
from hf_transinv.augment.pil_sorting import Operation

MEAN_COLOR = (125, 123, 114)
"""CIFAR-10's mean in levels: the authors of AutoAugment fill with 0 after normalisation, which is this colour."""
MEAN_CANVAS = Canvas("nearest", MEAN_COLOR)
"""Sampling as in the authors' CIFAR code: nearest neighbours, the mean colour outside."""


@dataclass(frozen=True)
class Strength:
    """The parameter of an operation as a function of strength: rest +- offset(u, side).

    Attributes:
        operation: the operation.
        offset: function of u in [0, 1] and the image's side along the operation, in pixels.
        is_signed: whether the sign is drawn; if not, it is +.
        rest: the parameter that changes nothing, for signed operations; else 0.
    """

    operation: Operation
    offset: Callable[[float, int], float] = lambda u, side: 0.0
    is_signed: bool = False
    rest: float = 0.0


@dataclass(frozen=True)
class OperationDraws:
    """N operations per image, on the CPU.

    Attributes:
        operation: an `Operation` each, int64 [B, N].
        parameter: of each operation, float64 [B, N].
    """

    operation: Tensor
    parameter: Tensor

    def __getitem__(self, rows: slice) -> "OperationDraws":
        return OperationDraws(self.operation[rows], self.parameter[rows])


@dataclass(frozen=True)
class StrengthTable:
    """A space at given strengths and image size.

    Attributes:
        operation: int64 [K].
        rest: float64 [K].
        offset: float64 [K, number of strengths].
        is_signed: bool [K].
    """

    operation: Tensor
    rest: Tensor
    offset: Tensor
    is_signed: Tensor

    def draw_signs(self, choice: Tensor, strength: Tensor, generator: torch.Generator) -> OperationDraws:
        """Look up operations at given strengths, and draw the signs.

        Args:
            choice: index of each operation, int64 [B, N].
            strength: index of each strength, int64 [B, N].
            generator: on the CPU.
        """
        sign = 2 * torch.randint(2, choice.shape, generator=generator) - 1
        sign = torch.where(self.is_signed[choice], sign, 1)
        return OperationDraws(self.operation[choice], self.rest[choice] + sign * self.offset[choice, strength])


@lru_cache(maxsize=64)
def tabulate_strengths(
    space: tuple[Strength, ...], strengths: tuple[float, ...], height: int, width: int
) -> StrengthTable:
    """All parameters of a space at the given strengths in [0, 1], for images of height x width pixels."""
    vertical = (Operation.SHEAR_Y, Operation.TRANSLATE_Y)
    sides = [height if each.operation in vertical else width for each in space]
    offsets = [[each.offset(u, side) for u in strengths] for each, side in zip(space, sides, strict=True)]
    return StrengthTable(
        torch.tensor([each.operation for each in space]),
        torch.tensor([each.rest for each in space], dtype=torch.float64),
        torch.tensor(offsets, dtype=torch.float64),
        torch.tensor([each.is_signed for each in space]),
    )


def whole(value: float) -> int:
    """The value truncated, where 30 * (14 / 30) counts as 14 despite rounding."""
    return int(value + 1e-9)


def _scaled(factor: float) -> Callable[[float, int], float]:
    return lambda u, side: factor * u


def _of_side(share: float) -> Callable[[float, int], float]:
    return lambda u, side: float(whole(share * side * u))


def _geometric(shear: float, translate: Callable[[float, int], float], degrees: float) -> tuple[Strength, ...]:
    return (
        Strength(Operation.SHEAR_X, _scaled(shear), is_signed=True),
        Strength(Operation.SHEAR_Y, _scaled(shear), is_signed=True),
        Strength(Operation.TRANSLATE_X, translate, is_signed=True),
        Strength(Operation.TRANSLATE_Y, translate, is_signed=True),
        Strength(Operation.ROTATE, _scaled(degrees), is_signed=True),
    )


_ENHANCEMENTS = (Operation.BRIGHTNESS, Operation.COLOR, Operation.CONTRAST, Operation.SHARPNESS)


def _enhancements(reach: float) -> tuple[Strength, ...]:
    return tuple(Strength(each, _scaled(reach), is_signed=True, rest=1.0) for each in _ENHANCEMENTS)


IDENTITY, AUTOCONTRAST, EQUALIZE, INVERT = (
    Strength(each) for each in (Operation.IDENTITY, Operation.AUTOCONTRAST, Operation.EQUALIZE, Operation.INVERT)
)
_SOLARIZE_256 = Strength(Operation.SOLARIZE, lambda u, side: 256.0 - whole(256 * u))
_SOLARIZE_255 = Strength(Operation.SOLARIZE, lambda u, side: 255 * (1 - u))

PAPER = (
    IDENTITY,
    *_geometric(0.3, _of_side(10 / 32), 30),
    *(Strength(each, lambda u, side: 0.1 + 1.8 * u) for each in _ENHANCEMENTS),
    Strength(Operation.POSTERIZE, lambda u, side: 8.0 - whole(4 * u)),
    _SOLARIZE_256,
    AUTOCONTRAST,
    EQUALIZE,
)
TORCHVISION = (
    IDENTITY,
    *_geometric(0.3, _of_side(150 / 331), 30),
    *_enhancements(0.9),
    Strength(Operation.POSTERIZE, lambda u, side: 8.0 - round(4 * u)),
    _SOLARIZE_255,
    AUTOCONTRAST,
    EQUALIZE,
)
TIMM = (
    AUTOCONTRAST,
    EQUALIZE,
    INVERT,
    *_geometric(0.3, _of_side(0.45), 30),
    *_enhancements(0.9),
    Strength(Operation.POSTERIZE, lambda u, side: 4.0 - whole(4 * u)),
    _SOLARIZE_256,
    Strength(Operation.SOLARIZE_ADD, lambda u, side: float(whole(110 * u))),
)
WIDE = (
    IDENTITY,
    *_geometric(0.99, lambda u, side: float(whole(32 * u)), 135),
    *_enhancements(0.99),
    Strength(Operation.POSTERIZE, lambda u, side: 8.0 - round(6 * u)),
    _SOLARIZE_255,
    AUTOCONTRAST,
    EQUALIZE,
)
RANDAUGMENT_SPACES = {"paper": PAPER, "torchvision": TORCHVISION, "timm": TIMM}
