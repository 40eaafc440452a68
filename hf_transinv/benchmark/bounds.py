"""The least that a cycle of turns can cost: the passes that its method states on its class (`objectives.passes`).

Teachers and peers are as large as the student here: F_t = F_s. Augmentation, optimizers, averages and the learned
augmentation's own networks are not counted: they are what lies between a bound and what is measured. All passes count
alike, although one in evaluation mode that keeps nothing for a backward pass is shorter: a turn with many of those can
undercut its bound by a little.
"""

import math
from collections.abc import Sequence

from hf_transinv.objectives.passes import Passes
from hf_transinv.objectives.registry import LEARNED, METHODS
from hf_transinv.objectives.turns import Turn

PASSES = {name: kind.passes for name, kind in [*METHODS.items(), *LEARNED.items()]}
"""Per image of each kind of turn, by method."""


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
