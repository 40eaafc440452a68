"""The forms of what a TransInv augmentation ascends, O_k (Kurioka et al., ICONIP 2024, eq. 5, and two of our own).

    paper         hard - keep
    normalised    hard / ln c - keep / ln d
    constrained   hard subject to keep <= tolerance: hard - lambda (keep - tolerance), lambda >= 0 by dual ascent

hard and keep are means under A^k; c and d are the numbers of classes of the student and of teacher k. The constraint
is one for each teacher, or one for each primitive: then each primitive's own mean is held to the tolerance, weighted
by q p_i like the rest, so that p and q see a primitive's slack as a reward.

The tolerance is in nats, or a share of a yardstick in nats, which is measured in the same turn on the same images: of
every turn, the constraint is E[keep] - share E[yardstick] <= 0. All of it is linear in what is measured, so parts of a
batch add up, and no running mean has to be kept.

The multipliers follow how far keep is beyond its bound, as a share of the bound, and how that has changed: a PI
controller, as in Stooke, Achiam and Abbeel, "Responsive Safety in Reinforcement Learning by PID Lagrangian Methods"
(ICML 2020). The gradient of the dual objective alone goes on growing a multiplier for as long as phi, p and q take to
meet the bound, and then holds them far below it for as long again.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from hf_transinv.augment.selection import Selection, expected_objectives, mean_by_model
from hf_transinv.objectives.transinv_config import TransInvConfig

LARGEST_EXCESS = 4.0
"""Of keep over its bound, as a share of the bound; what is more counts as this."""

SMALLEST_BOUND = 1e-3
"""In nats; shares are of no less, of which rounding would be one."""

DAMPING = 60
"""Turns of an unchanged excess in which a multiplier gains as much as by the change that brought it there."""


@dataclass(frozen=True)
class Measured:
    """The losses of each image of an augmentation turn, and how the images were drawn.

    Attributes:
        hard: L1 of the student on the deformed image, less that on the image, [B].
        keep: L2 of its teacher between the image and the deformed one, [B].
        model: k, the augmentation model that deformed it, [B].
        choice: i, its primitive, K: none, [B].
        share: its weight within its (model, choice), [B].
        selection: p, q, r, the multipliers and the excess, in the graph.
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
        dual: a scalar whose gradients are the excess in nats (to the multipliers) and the bound (to `panel.excess`),
            for `ascend_dual`; 0 where there is no constraint.
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


class Constraint(Form):
    """A form that bounds keep.

    Args:
        tolerance: in nats, or a share of the yardstick.
        is_relative: whether it is a share; then the bounds in nats differ from turn to turn.
        num_teachers: L.
    """

    def __init__(self, tolerance: float, is_relative: bool, num_teachers: int) -> None:
        self.tolerance, self.is_relative, self.num_teachers = tolerance, is_relative, num_teachers

    def of_models(self, measured: Measured) -> Tensor | float:
        """The bounds of keep under each A^k, in nats: [L], or one for all; this part's share of them."""
        if measured.yardstick is None:
            return self.tolerance * measured.part
        return self.tolerance * measured.mean_of_judged(measured.yardstick)

    def of_images(self, measured: Measured) -> Tensor | float:
        """The bounds of keep of each image, in nats: [B], or one for all."""
        return self.tolerance if measured.yardstick is None else self.tolerance * measured.yardstick

    def shown(self, measured: Measured) -> Tensor | None:
        """`of_models` for the log, [L]; None where it is the same at all times."""
        return cast(Tensor, self.of_models(measured)) if self.is_relative else None

    def last_bounds(self, history: Sequence[Mapping[str, Any]]) -> list[float]:
        """Each teacher's bound in nats, as the lines of metrics have it last; empty before it was measured."""
        if not self.is_relative:
            return [self.tolerance] * self.num_teachers
        names = [f"augmentation/bound_{number}" for number in range(1, self.num_teachers + 1)]
        return next(([line[name] for name in names] for line in reversed(history) if names[0] in line), [])


class TeacherConstraint(Constraint):
    """O_k = hard - lambda_k (keep - tolerance)."""

    def __call__(self, measured: Measured) -> Ascent:
        hard, keep = measured.mean(measured.hard), measured.mean(measured.keep)
        multipliers, bounds = measured.selection.multipliers[:, 0], self.of_models(measured)
        excess = keep - bounds
        dual = (multipliers * excess.detach()).sum() + (_at_zero(measured.selection.excess[:, 0]) * bounds).sum()
        return Ascent(hard - multipliers.detach() * excess, hard, keep, dual, self.shown(measured))


class PrimitiveConstraint(Constraint):
    """O_k = hard - sum_i q p_i lambda_ki (keep_i - tolerance), keep_i the mean over images of primitive i."""

    def __call__(self, measured: Measured) -> Ascent:
        hard, keep = measured.mean(measured.hard), measured.mean(measured.keep)
        selection, choice = measured.selection, measured.choice
        num_primitives = selection.p.shape[1]
        is_deformed, bounds = choice < num_primitives, self.of_images(measured)
        excess = torch.where(is_deformed, measured.keep - bounds, 0.0)
        own = measured.model, choice.clamp_max(num_primitives - 1)
        weight = selection.multipliers[own]
        collected = torch.where(is_deformed, _at_zero(selection.excess[own]) * bounds, 0.0)
        dual = ((weight * excess.detach() + collected) * measured.share.detach()).sum()
        objectives = measured.mean(measured.hard - weight.detach() * excess)
        return Ascent(objectives, hard, keep, dual, self.shown(measured))


def _at_zero(parameter: Tensor) -> Tensor:
    """Zeros with the parameter's gradient."""
    return parameter - parameter.detach()


@torch.no_grad()
def ascend_dual(multipliers: nn.Parameter, excess: nn.Parameter, rate: float) -> None:
    """One turn of the multipliers: lambda gains rate (e + DAMPING (e - e before)), and stays at 0 or more.

    e is how far keep is beyond its bound, as a share of the bound, from -1 (keep 0) to `LARGEST_EXCESS`: so the same
    rate suits bounds of a tenth of a nat and of two.

    Args:
        multipliers: lambda, [L, K]; its gradient is the turn's -(keep - bound), in nats.
        excess: e of the turn before, [L, K], replaced by this turn's; its gradient is -bound.
        rate: what a multiplier gains in a turn where keep is at twice its bound, as before.
    """
    if multipliers.grad is None or excess.grad is None:
        return
    found = (-multipliers.grad / excess.grad.abs().clamp_min(SMALLEST_BOUND)).clamp(-1, LARGEST_EXCESS)
    # Float16's loss scaling begins with gradients that overflow, and skips those steps.
    found = torch.where(multipliers.grad.isfinite() & excess.grad.isfinite(), found, excess)
    multipliers.add_(rate * (found + DAMPING * (found - excess))).clamp_(min=0)
    excess.copy_(found)


def build_form(config: TransInvConfig, student_classes: int, teacher_classes: Sequence[int]) -> Form:
    """The form that is configured.

    Args:
        config: of TransInv.
        student_classes: c.
        teacher_classes: d_1 .. d_L.
    """
    if config.objective == "paper":
        return PaperForm()
    if config.objective == "normalised":
        return NormalisedForm(student_classes, teacher_classes)
    form = TeacherConstraint if config.multipliers == "teacher" else PrimitiveConstraint
    return form(config.tolerance, config.tolerance_relative_to != "none", len(teacher_classes))
