"""The forms of what a TransInv augmentation ascends, O_k (Kurioka et al., ICONIP 2024, eq. 5, and two of our own).

    paper         hard - keep
    normalised    hard / ln c - keep / ln d
    constrained   hard subject to keep <= tolerance: hard - lambda (keep - tolerance), lambda >= 0 by dual ascent

hard and keep are means under A^k; c and d are the numbers of classes of the student and of teacher k. The constraint
is one for each teacher, or one for each primitive: then each primitive's own mean is held to the tolerance, weighted
by q p_i like the rest, so that p and q see a primitive's slack as a reward.

The tolerance is in nats, or a share of a yardstick in nats, which is measured in the same turn on the same images: of
every turn, the constraint is E[keep] - share E[yardstick] <= 0. All of it is linear in what is measured, so parts of a
batch add up, the dual ascent averages over turns, and no running mean has to be kept.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from hf_transinv.augment.selection import Selection, expected_objectives, mean_by_model
from hf_transinv.errors import InputError
from hf_transinv.models.teacher import EMATeacher, Teacher
from hf_transinv.objectives.ramp import Ramp
from hf_transinv.objectives.transinv_config import TransInvConfig


@dataclass(frozen=True)
class Measured:
    """The losses of each image of an augmentation turn, and how the images were drawn.

    Attributes:
        hard: L1 of the student on the deformed image, [B].
        keep: L2 of its teacher between the image and the deformed one, [B].
        model: k, the augmentation model that deformed it, [B].
        choice: i, its primitive, K: none, [B].
        share: its weight within its (model, choice), [B].
        selection: p, q, r and the multipliers, in the graph.
        part: this process's and micro-batch's part of the batch, in [0, 1] times the number of processes.
        is_relaxed: the choice of the primitive is in the image already (Gumbel), not in `choice`.
        yardstick: what the tolerance is a share of, [B], 0 for images that no teacher judged; None: it is in nats.
    """

    hard: Tensor
    keep: Tensor
    model: Tensor
    choice: Tensor
    share: Tensor
    selection: Selection
    part: float
    is_relaxed: bool
    yardstick: Tensor | None = None

    def mean(self, values: Tensor) -> Tensor:
        """Values [B] -> their means under each A^k, [L]; in the graph of p and q."""
        if self.is_relaxed:
            return mean_by_model(values, self.model, self.share, len(self.selection.r))
        return expected_objectives(values, self.model, self.choice, self.share, self.selection.p, self.selection.q)

    def mean_of_judged(self, values: Tensor) -> Tensor:
        """Values [B], 0 where no teacher judged -> their means over the images of each A^k, [L], whatever p and q."""
        num_models, num_primitives = self.selection.p.shape
        strata = 1 if self.is_relaxed else num_primitives
        return mean_by_model(values, self.model, self.share.detach(), num_models) / strata


@dataclass(frozen=True)
class Ascent:
    """What the augmentation models and the multipliers ascend.

    Attributes:
        objectives: O_k, [L].
        hard: mean of hard under A^k, [L].
        keep: mean of keep under A^k, [L].
        dual: what the multipliers ascend, a scalar; 0 where there is no constraint.
        bounds: of keep, in nats, [L]; None where there is no constraint, or the same one at all times.
    """

    objectives: Tensor
    hard: Tensor
    keep: Tensor
    dual: Tensor
    bounds: Tensor | None = None


class Form(ABC):
    """One form of the objective."""

    @abstractmethod
    def __call__(self, measured: Measured) -> Ascent:
        """O_k and the dual objective of a turn."""


class PaperForm(Form):
    """O_k = hard - keep, eq. 5 unchanged."""

    def __call__(self, measured: Measured) -> Ascent:
        hard, keep = measured.mean(measured.hard), measured.mean(measured.keep)
        return Ascent(hard - keep, hard, keep, hard.new_zeros(()))


class NormalisedForm(Form):
    """O_k = hard / ln c - keep / ln d_k.

    Args:
        student_classes: c.
        teacher_classes: d_1 .. d_L.
    """

    def __init__(self, student_classes: int, teacher_classes: Sequence[int]) -> None:
        self.log_student = math.log(student_classes)
        self.log_teachers = torch.tensor([math.log(classes) for classes in teacher_classes])

    def __call__(self, measured: Measured) -> Ascent:
        hard, keep = measured.mean(measured.hard), measured.mean(measured.keep)
        self.log_teachers = self.log_teachers.to(hard.device)  # copied once
        return Ascent(hard / self.log_student - keep / self.log_teachers, hard, keep, hard.new_zeros(()))


class Tolerance:
    """What keep is held to.

    Args:
        of_teachers: each teacher's tolerance, L numbers; in nats, or shares of the yardstick.
        ramp: from 0 to 1, by which they are multiplied.
        is_relative: whether they are shares.

    Attributes:
        moves: whether the bounds in nats differ from turn to turn.
    """

    def __init__(self, of_teachers: Sequence[float], ramp: Ramp, is_relative: bool = False) -> None:
        self.of_teachers, self.ramp = tuple(of_teachers), ramp
        self.moves = is_relative or ramp.steps > 0
        is_one = len(set(of_teachers)) == 1
        self._values: Tensor | float = of_teachers[0] if is_one else torch.tensor(self.of_teachers)

    def of_models(self, measured: Measured) -> Tensor | float:
        """The bounds of keep under each A^k, in nats: [L], or one for all; this part's share of them."""
        tolerance = self._now(measured)
        if measured.yardstick is None:
            return tolerance * measured.part
        return tolerance * measured.mean_of_judged(measured.yardstick)

    def of_images(self, measured: Measured) -> Tensor | float:
        """The bounds of keep of each image, in nats: [B], or one for all."""
        tolerance = self._now(measured)
        if isinstance(self._values, Tensor):
            tolerance = cast(Tensor, tolerance)[measured.model]
        return tolerance if measured.yardstick is None else tolerance * measured.yardstick

    def shown(self, measured: Measured) -> Tensor | None:
        """`of_models` for the log, [L]; None where it is the same at all times."""
        if not self.moves:
            return None
        return torch.as_tensor(self.of_models(measured), device=measured.keep.device).expand(len(self.of_teachers))

    def _now(self, measured: Measured) -> Tensor | float:
        if isinstance(self._values, Tensor):
            self._values = self._values.to(measured.keep.device)  # copied once
        return self._values * self.ramp.weight


class Constraint(Form):
    """A form that bounds keep.

    Args:
        tolerance: of each teacher.
    """

    def __init__(self, tolerance: Tolerance) -> None:
        self.tolerance = tolerance

    def last_bounds(self, history: Sequence[Mapping[str, Any]]) -> list[float]:
        """Each teacher's bound in nats, as the lines of metrics have it last; empty before it was measured."""
        if not self.tolerance.moves:
            return list(self.tolerance.of_teachers)
        names = [f"augmentation/bound_{number}" for number, _ in enumerate(self.tolerance.of_teachers, 1)]
        return next(([line[name] for name in names] for line in reversed(history) if names[0] in line), [])


class TeacherConstraint(Constraint):
    """O_k = hard - lambda_k (keep - tolerance)."""

    def __call__(self, measured: Measured) -> Ascent:
        hard, keep = measured.mean(measured.hard), measured.mean(measured.keep)
        multipliers = measured.selection.multipliers[:, 0]
        excess = keep - self.tolerance.of_models(measured)
        dual = (multipliers * excess.detach()).sum()
        return Ascent(hard - multipliers.detach() * excess, hard, keep, dual, self.tolerance.shown(measured))


class PrimitiveConstraint(Constraint):
    """O_k = hard - sum_i q p_i lambda_ki (keep_i - tolerance), keep_i the mean over images of primitive i."""

    def __call__(self, measured: Measured) -> Ascent:
        hard, keep = measured.mean(measured.hard), measured.mean(measured.keep)
        selection, choice = measured.selection, measured.choice
        num_primitives = selection.p.shape[1]
        excess = torch.where(choice < num_primitives, measured.keep - self.tolerance.of_images(measured), 0.0)
        weight = selection.multipliers[measured.model, choice.clamp_max(num_primitives - 1)]
        dual = (weight * excess.detach() * measured.share).sum()
        objectives = measured.mean(measured.hard - weight.detach() * excess)
        return Ascent(objectives, hard, keep, dual, self.tolerance.shown(measured))


@torch.no_grad()
def ascend_dual(multipliers: nn.Parameter, rate: float) -> None:
    """One step of projected dual ascent along the gradient of the turn, of rate `rate`."""
    if multipliers.grad is not None:
        # Float16's loss scaling begins with gradients that overflow, and skips those steps.
        multipliers.sub_(rate * multipliers.grad.nan_to_num(0.0, 0.0, 0.0)).clamp_(min=0)


def build_form(config: TransInvConfig, student_classes: int, teachers: Sequence[Teacher], ramp: Ramp) -> Form:
    """The form that is configured.

    Args:
        config: of TransInv.
        student_classes: c.
        teachers: T^1 .. T^L.
        ramp: the rise of the tolerance.

    Raises:
        InputError: a tolerance is for no teacher, or all teachers have another.
    """
    if config.objective == "paper":
        return PaperForm()
    if config.objective == "normalised":
        return NormalisedForm(student_classes, [teacher.num_classes for teacher in teachers])
    averages = [isinstance(teacher, EMATeacher) for teacher in teachers]
    if config.ema_tolerance is not None and len(set(averages)) == 1:
        fault = "there is no other: give tolerance alone" if averages[0] else "it is none of the teachers"
        raise InputError(f"ema_tolerance is for the teacher ema beside others, and {fault}")
    of_average = config.tolerance if config.ema_tolerance is None else config.ema_tolerance
    of_teachers = [of_average if is_average else config.tolerance for is_average in averages]
    tolerance = Tolerance(of_teachers, ramp, config.tolerance_relative_to != "none")
    return (TeacherConstraint if config.multipliers == "teacher" else PrimitiveConstraint)(tolerance)
