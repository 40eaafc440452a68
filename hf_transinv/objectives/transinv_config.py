"""The options of TransInv."""

import math
from dataclasses import dataclass

from hf_transinv.config.checks import check_choices, choice
from hf_transinv.errors import InputError


@dataclass
class TransInvConfig:
    """The objective.

    Attributes:
        objective: "paper", "normalised" or "constrained", see the module's docstring.
        tolerance: constrained form: how far a teacher's answer may move in the mean, KL in nats.
        tolerance_relative_to: constrained form: "none": the tolerance is in nats; "entropy": it is a share of the mean
            entropy of the teacher's answers to the images, so that an unsure teacher, or one of many classes, may move
            further; "crop": it is a share of how far the teacher moves (KL) when the image is cropped and mirrored
            once more, as crop and flip say, at the cost of one more answer of the teacher per augmentation turn.
        multipliers: constrained form: one multiplier per "teacher", or one per "primitive" (each then learns its own
            range).
        dual_learning_rate: constrained form: what a multiplier gains in a turn where KL stays at twice the tolerance.
        keep: "kl", or "cross_entropy" as the paper has it.
        selection: "r" learns which teacher's augmentation an image gets; "sum" is eq. 6 without r: the student sees
            every image under each teacher's augmentation, at that many times the cost.
        r_entropy: weight of the entropy bonus on r.
        p_entropy: weight of the entropy bonus on each p.
        inner_steps: n_inner of Algorithm 1, student turns per augmentation turn.
    """

    objective: str = choice("constrained", ("paper", "normalised", "constrained"))
    tolerance: float = 0.1
    tolerance_relative_to: str = choice("none", ("none", "entropy", "crop"))
    multipliers: str = choice("teacher", ("teacher", "primitive"))
    dual_learning_rate: float = 0.05
    keep: str = choice("kl", ("kl", "cross_entropy"))
    selection: str = choice("r", ("r", "sum"))
    r_entropy: float = 0.3
    p_entropy: float = 0.0
    inner_steps: int = 5

    def __post_init__(self) -> None:
        check_choices(self)
        if self.inner_steps < 1 or min(self.r_entropy, self.p_entropy) < 0:
            raise InputError("inner_steps must be at least 1, r_entropy and p_entropy not negative")
        if not self.dual_learning_rate > 0:
            raise InputError(f"dual_learning_rate must be positive, given {self.dual_learning_rate}")
        if self.objective == "constrained" and self.keep != "kl":
            raise InputError(
                "the constrained objective bounds a KL divergence: it needs keep 'kl', not 'cross_entropy'"
            )
        if not 0 < self.tolerance < math.inf:
            raise InputError(f"tolerance must be positive and finite, given {self.tolerance}")
        if self.objective != "constrained" and self.tolerance_relative_to != "none":
            raise InputError(
                f"tolerance_relative_to is of objective constrained, not of {self.objective}: leave it out"
            )
