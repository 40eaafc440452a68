"""What a finished run gives its objective, to show what was learned."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

ByCondition = tuple[str, Mapping[str, float]]
"""A row's name, and its top-1 in percent by condition: "clean", then the corruptions."""


@dataclass(frozen=True)
class Sample:
    """A finished run's folder, images to show there what was learned, and what it brought.

    Attributes:
        folder: of the run.
        images: [N, 3, H, W] in [0, 1].
        labels: class indices, [N].
        seed: of what is drawn.
        teacher_names: of the objective's teachers, short.
        gain: the first baseline and the student; None: the run has no baseline.
    """

    folder: Path
    images: Tensor
    labels: Tensor
    seed: int
    teacher_names: Sequence[str]
    gain: tuple[ByCondition, ByCondition] | None = None
