"""Distillation on augmented images, by the teacher's most probable classes (Wei et al., ECCV 2020).

    L = CE(y, f_S(x_tau)) + lambda sum_{c in C_K(x_tau)} f_T,c ln(f_T,c / f_S,c),    f = softmax(logits / T)
                                                                                                      (eq. 2 and 3)

Symbols: x_tau the image under `policies`; f_S and f_T the student's and the teacher's answers to that
same image; C_K the teacher's K most probable classes there (`distill_top_k`; 0: all, and the sum is the Kullback-
Leibler divergence of Hinton et al., 2015); lambda `distill_lambda`; T `distill_temperature`, of the sum alone. The
paper: lambda 1, T 2, K 5 on CIFAR-100 and 3 on CIFAR-10; on ImageNet T 10, from K 5 and lambda 0.5 to K 50 and 2.

Departures. As printed, eq. 3 has its fraction upside down (its minimum would be the student farthest from the
teacher), and eq. 2's cross-entropy lacks its minus. Not stated there, and so options: probabilities that sum to one
over the K classes (`distill_renormalise`; without, the sum pulls the whole of the student's mass onto them), and
Hinton's factor T^2, which keeps the gradient's size whatever T (`distill_t_squared`). Ours: several teachers, whose
sums are averaged.

Answers are compared class by class, so a teacher must know the student's classes: they are matched by name, and a
teacher of more classes answers among the student's alone.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from hf_transinv.augment.policies.policy import Policy, PolicyDraws, apply_all, draw_all
from hf_transinv.augment.policies.strong import StrongAugment
from hf_transinv.divergences import cross_entropy, top_k_kl
from hf_transinv.errors import InputError
from hf_transinv.models.classifier import Classifier
from hf_transinv.models.labels import class_columns
from hf_transinv.models.teacher import EMATeacher, Teacher
from hf_transinv.objectives.objective import Objective
from hf_transinv.objectives.parts import Parts
from hf_transinv.objectives.passes import Passes
from hf_transinv.objectives.turns import Batch, Turn

logger = logging.getLogger(__name__)


@dataclass
class DistillationConfig:
    """Distillation.

    Attributes:
        distill_lambda: lambda, weight of the teachers beside the labels.
        distill_top_k: K, how many of a teacher's classes count; 0, or more than there are: all.
        distill_temperature: T, softens both answers.
        distill_renormalise: make the probabilities of the K classes sum to one.
        distill_t_squared: multiply by T^2, so that the gradient has the same size at any T.
    """

    distill_lambda: float = 1.0
    distill_top_k: int = 5
    distill_temperature: float = 2.0
    distill_renormalise: bool = False
    distill_t_squared: bool = False

    def __post_init__(self) -> None:
        if self.distill_lambda < 0 or self.distill_top_k < 0:
            raise InputError("distill_lambda and distill_top_k must not be negative")
        if not self.distill_temperature > 0:
            raise InputError(f"distill_temperature must be positive, given {self.distill_temperature}")
        if self.distill_renormalise and self.distill_top_k == 1:
            raise InputError(
                "distill_renormalise with distill_top_k 1 compares 1 with 1: take more classes, or 0: all"
            )


class Distillation(Objective):
    """min over theta of mean_i [CE(y_i, f_S) + lambda mean over teachers of the top-K sum].

    Args:
        student: the network that trains.
        teachers: at least one, frozen; an EMATeacher among them follows the student.
        config: lambda, K, T.
        policies: tau, applied one after another; teachers and student see the same images.
        label_smoothing: of the cross-entropy, in [0, 1).

    Raises:
        InputError: no teacher, or one that does not know the student's classes.
    """

    name = "distillation"
    title = "distillation"
    summary = "It was trained on labels and on its teachers' predictions (distillation)."
    citation = StrongAugment.citation
    turns = (("student",),)
    passes: ClassVar = {("student",): Passes(3, 1)}
    configs = (DistillationConfig,)
    own_options = ("distill_from",)

    def __init__(
        self,
        student: Classifier,
        teachers: Sequence[Teacher] | nn.ModuleList,
        config: DistillationConfig,
        policies: Sequence[Policy] = (),
        label_smoothing: float = 0.0,
    ) -> None:
        if not len(teachers):
            raise InputError("distillation needs at least one teacher; without one it is supervised training")
        if config.distill_top_k > student.num_classes:
            logger.warning(
                "distill_top_k %d is more than the %d classes there are: all of them count",
                config.distill_top_k,
                student.num_classes,
            )
        self.student = student
        self.players = {"student": student}
        self.teachers = cast(Sequence[Teacher], tuple(teachers))
        self.config = config
        self.policies = tuple(policies)
        self.label_smoothing = label_smoothing
        self._columns = [shared_columns(teacher, student) for teacher in self.teachers]

    @classmethod
    def build(cls, student: Classifier, parts: Parts) -> "Distillation":
        options = parts.options(DistillationConfig)
        return cls(student, parts.distilled(student), options, parts.policies, parts.label_smoothing)

    def passes_of(self, turn: Turn) -> Passes:
        return Passes(3, len(self.teachers))

    def draw(self, player: str, shape: tuple[int, ...], generator: torch.Generator) -> PolicyDraws:
        return draw_all(self.policies, shape, generator)

    def loss(self, player: str, nets: Mapping[str, nn.Module], batch: Batch, draws: PolicyDraws) -> dict[str, Tensor]:
        images = apply_all(self.policies, batch.images, draws)
        logits, share = nets["student"](images), batch.share
        labelled = cross_entropy(logits, batch.labels, self.label_smoothing, batch.class_weights).sum() * share
        of_teachers = (self._divergence(answer, logits).sum() for answer in self._answers(images))
        distilled = sum(of_teachers, logits.new_zeros(()))
        distilled = distilled * (share / len(self.teachers))
        return {
            "total": labelled + self.config.distill_lambda * distilled,
            "cross_entropy": labelled.detach(),
            "distillation": distilled.detach(),
        }

    @torch.no_grad()
    def _answers(self, images: Tensor) -> list[Tensor]:
        """The logits of each teacher, in the order of the student's classes."""
        answers = []
        for teacher, columns in zip(self.teachers, self._columns, strict=True):
            logits = teacher(images)
            answers.append(logits if columns is None else logits[:, columns.to(logits.device)])
        return answers

    def _divergence(self, target: Tensor, logits: Tensor) -> Tensor:
        config, temperature = self.config, self.config.distill_temperature
        top_k = min(config.distill_top_k or logits.shape[1], logits.shape[1])
        divergence = top_k_kl(target, logits, top_k, temperature, config.distill_renormalise)
        return temperature**2 * divergence if config.distill_t_squared else divergence

    def after_step(self, player: str, nets: Mapping[str, nn.Module]) -> None:
        for average in self._averages():
            average.update(self.student)

    def _averages(self) -> list[EMATeacher]:
        return list(dict.fromkeys(teacher for teacher in self.teachers if isinstance(teacher, EMATeacher)))

    def extra_state(self) -> dict[str, nn.Module]:
        return {f"distillation_ema{index or ''}": average for index, average in enumerate(self._averages())}


def shared_columns(teacher: Teacher, student: Classifier) -> Tensor | None:
    """Which of a teacher's logits answer for the student's classes, int64 [C]; None: all, in their order.

    Without names on both sides the order is trusted, if there are as many classes.

    Raises:
        InputError: a class of the student has none of the teacher's, or the counts differ and names are not known.
    """
    theirs, ours = teacher.label_names, student.label_names
    counts = f"Teacher {teacher.name!r} has {teacher.num_classes} classes, the student {student.num_classes}"
    advice = (
        "Distillation compares answers class by class: take a teacher of the student's classes, or transinv, which "
        "never compares them."
    )
    if theirs is None or ours is None:
        if teacher.num_classes != student.num_classes:
            raise InputError(f"{counts}, and the names of the classes are not known. {advice}")
        logger.warning("%s, and names are not known on both sides; the order of the classes is trusted", counts)
        return None
    if theirs == ours:
        return None
    try:
        return class_columns(theirs, teacher.num_classes, ours, match_labels=True)
    except InputError as error:
        raise InputError(f"{counts}, and not each of these is among the teacher's by name. {advice}") from error
