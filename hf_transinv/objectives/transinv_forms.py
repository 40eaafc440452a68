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
from hf_transinv.objectives.transinv_config import TransInvConfig


@dataclass(frozen=True)
class Measured:
    """The losses of each image of an augmentation turn, and how the images were drawn.

    Attributes:
        hard: L1 of the student on the deformed image, less that on the image, [B].
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
        multipliers = measured.selection.multipliers[:, 0]
        excess = keep - self.of_models(measured)
        dual = (multipliers * excess.detach()).sum()
        return Ascent(hard - multipliers.detach() * excess, hard, keep, dual, self.shown(measured))


class PrimitiveConstraint(Constraint):
    """O_k = hard - sum_i q p_i lambda_ki (keep_i - tolerance), keep_i the mean over images of primitive i."""

    def __call__(self, measured: Measured) -> Ascent:
        hard, keep = measured.mean(measured.hard), measured.mean(measured.keep)
        selection, choice = measured.selection, measured.choice
        num_primitives = selection.p.shape[1]
        excess = torch.where(choice < num_primitives, measured.keep - self.of_images(measured), 0.0)
        weight = selection.multipliers[measured.model, choice.clamp_max(num_primitives - 1)]
        dual = (weight * excess.detach() * measured.share).sum()
        objectives = measured.mean(measured.hard - weight.detach() * excess)
        return Ascent(objectives, hard, keep, dual, self.shown(measured))


@torch.no_grad()
def ascend_dual(multipliers: nn.Parameter, rate: float) -> None:
    """One step of projected dual ascent along the gradient of the turn, of rate `rate`."""
    if multipliers.grad is not None:
        # Float16's loss scaling begins with gradients that overflow, and skips those steps.
        multipliers.sub_(rate * multipliers.grad.nan_to_num(0.0, 0.0, 0.0)).clamp_(min=0)


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
