"""The forms of what a TransInv augmentation ascends, O_k (Kurioka et al., ICONIP 2024, eq. 5, and two of our own).

    paper         hard - keep
    normalised    hard / ln c - keep / ln d
    constrained   hard subject to keep <= tolerance: hard - lambda (keep - tolerance), lambda >= 0 by dual ascent

hard and keep are means under A^k; c and d are the numbers of classes of the student and of teacher k. The constraint
is one for each teacher, or one for each primitive: then each primitive's own mean is held to the tolerance, weighted
by q p_i like the rest, so that p and q see a primitive's slack as a reward.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hf_transinv.augment.selection import Selection, expected_objectives, mean_by_model


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
    """

    hard: Tensor
    keep: Tensor
    model: Tensor
    choice: Tensor
    share: Tensor
    selection: Selection
    part: float
    is_relaxed: bool

    def mean(self, values: Tensor) -> Tensor:
        """Values [B] -> their means under each A^k, [L]; in the graph of p and q."""
        if self.is_relaxed:
            return mean_by_model(values, self.model, self.share, len(self.selection.r))
        return expected_objectives(values, self.model, self.choice, self.share, self.selection.p, self.selection.q)


@dataclass(frozen=True)
class Ascent:
    """What the augmentation models and the multipliers ascend.

    Attributes:
        objectives: O_k, [L].
        hard: mean of hard under A^k, [L].
        keep: mean of keep under A^k, [L].
        dual: what the multipliers ascend, a scalar; 0 where there is no constraint.
    """

    objectives: Tensor
    hard: Tensor
    keep: Tensor
    dual: Tensor


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
        tolerance: in nats.
    """

    def __init__(self, tolerance: float) -> None:
        self.tolerance = tolerance


class TeacherConstraint(Constraint):
    """O_k = hard - lambda_k (keep - tolerance)."""

    def __call__(self, measured: Measured) -> Ascent:
        hard, keep = measured.mean(measured.hard), measured.mean(measured.keep)
        multipliers = measured.selection.multipliers[:, 0]
        excess = keep - self.tolerance * measured.part
        dual = (multipliers * excess.detach()).sum()
        return Ascent(hard - multipliers.detach() * excess, hard, keep, dual)


class PrimitiveConstraint(Constraint):
    """O_k = hard - sum_i q p_i lambda_ki (keep_i - tolerance), keep_i the mean over images of primitive i."""

    def __call__(self, measured: Measured) -> Ascent:
        hard, keep = measured.mean(measured.hard), measured.mean(measured.keep)
        selection, choice = measured.selection, measured.choice
        num_primitives = selection.p.shape[1]
        excess = torch.where(choice < num_primitives, measured.keep - self.tolerance, 0.0)
        weight = selection.multipliers[measured.model, choice.clamp_max(num_primitives - 1)]
        dual = (weight * excess.detach() * measured.share).sum()
        return Ascent(measured.mean(measured.hard - weight.detach() * excess), hard, keep, dual)
