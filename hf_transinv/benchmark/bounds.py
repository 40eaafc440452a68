"""The least that a cycle of turns can cost: the passes that its method states (`Objective.passes_of`).

Teachers and peers are as large as the student here: F_t = F_s. Augmentation, optimizers, averages and the learned
augmentation's own networks are not counted: they are what lies between a bound and what is measured. All passes count
alike, although one in evaluation mode that keeps nothing for a backward pass is shorter: a turn with many of those can
undercut its bound by a little.
"""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import reduce
from operator import add

from hf_transinv.objectives.passes import Passes
from hf_transinv.objectives.turns import Turn


def passes_of_cycle(passes: Mapping[Turn, Passes], turns: Sequence[Turn]) -> Passes:
    """All turns of a cycle for the images of its student turns: n_inner 5 of TransInv are (17 F_s + 3 F_t) / 5.

    Args:
        passes: of each kind of turn.
        turns: who plays, in order; the student in one of them at least.
    """
    return reduce(add, (passes[turn] for turn in turns)) * Fraction(1, sum("student" in turn for turn in turns))
