"""The least that a turn can cost: the passes through networks that its method cannot do without, and nothing else.

    F_s, F_t   one image forward through the student, through a teacher
    backward   2 F where weights and input get a gradient, 1 F where the input alone does

So plain training costs 3 F_s an image, and everything is told in multiples of that. Teachers and peers are as large as
the student here: F_t = F_s. Augmentation, optimizers, averages and the learned augmentation's own networks are not
counted: they are what stands between a bound and what is measured. All passes count alike, although one in evaluation
mode that keeps nothing for a backward pass is shorter: a turn with many of those can undercut its bound by a little.

What is counted, for one of the `batch_size` images of a turn, all of which are the student's but for the augmentation
turn's:

    supervised     the student trains on it                                                        3 F_s
    augmix         the student trains on it and on two augmented copies                            9 F_s
    ait            the student trains on it; half of the images of a batch are second variants     3 F_s
    multi_ait      two networks train, on a variant each                                           6 F_s
    mutual         two networks train, each beside the other's answer, made without gradients      8 F_s
    distillation   the student trains on it, the teacher answers                                   3 F_s + 1 F_t
    hard           the student trains on it and on its warped copy, the teacher answers to both    6 F_s + 2 F_t
      augmentation the student answers to it, and to the copy with a gradient to the copy; the
                   teacher likewise                                                                3 F_s + 3 F_t
    transinv       the student trains on it, deformed                                              3 F_s
      augmentation the student answers to the deformed image, with a gradient to it; one of the
                   teachers likewise, and to the clean image                                       2 F_s + 3 F_t
    teachaugment   the student trains on it, deformed                                              3 F_s
      augmentation student and average answer to the deformed image, with a gradient to it         2 F_s + 2 F_t

Of TransInv's augmentation turn this is slightly too much: images that a turn leaves as they are, one in K + 1 with K
primitives, ask no teacher, and are counted as if they did. The number of teachers changes nothing, since one of them
judges each image.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from hf_transinv.objectives.base import AUGMENTATION

Turn = tuple[str, ...]
"""Who plays in a turn, in order."""

_STUDENT: Turn = ("student",)
_AUGMENTATION: Turn = (AUGMENTATION,)


@dataclass(frozen=True)
class Passes:
    """Forward passes through the student and through teachers, for so many images.

    Attributes:
        student: F_s.
        teacher: F_t.
        images: the student's images that they are for.
    """

    student: int
    teacher: int = 0
    images: int = 1

    @property
    def bound(self) -> float:
        """Multiples of plain training, 3 F_s an image, with F_t = F_s."""
        return (self.student + self.teacher) / (3 * self.images)

    def __str__(self) -> str:
        parts = [f"{count} {name}" for count, name in ((self.student, "F_s"), (self.teacher, "F_t")) if count]
        total = " + ".join(parts)
        return total if self.images == 1 else f"({total}) / {self.images}"


PASSES: dict[str, dict[Turn, Passes]] = {
    "supervised": {_STUDENT: Passes(3)},
    "augmix": {_STUDENT: Passes(9)},
    "ait": {_STUDENT: Passes(3)},
    "multi_ait": {_STUDENT: Passes(6)},
    "mutual": {("student", "peer"): Passes(8)},
    "distillation": {_STUDENT: Passes(3, 1)},
    "hard": {_STUDENT: Passes(6, 2), _AUGMENTATION: Passes(3, 3)},
    "transinv": {_STUDENT: Passes(3), _AUGMENTATION: Passes(2, 3)},
    "teachaugment": {_STUDENT: Passes(3), _AUGMENTATION: Passes(2, 2)},
}
"""An image of each kind of turn, by method."""


def passes_of_cycle(method: str, turns: Sequence[Turn]) -> Passes:
    """All turns of a cycle for the images of its student turns: n_inner 5 of TransInv are (17 F_s + 3 F_t) / 5.

    Args:
        method: one of `PASSES`.
        turns: who plays, in order; the student in one of them at least.
    """
    each = [PASSES[method][turn] for turn in turns]
    student, teacher = sum(one.student for one in each), sum(one.teacher for one in each)
    images = sum("student" in turn for turn in turns)
    common = math.gcd(student, teacher, images)
    return Passes(student // common, teacher // common, images // common)
