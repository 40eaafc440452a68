"""HARD: distillation on images that a learned augmenter makes hard (Nix, Burg, Sinz, 2023, arXiv:2305.14890).

This is our reading of HARD: no code of it is public, and what is not in its abstract is ours.

    student      min over theta  D(f_s(x~), f_t(x~)) + D(f_s(x), f_t(x)) + c CE(y, f_s(x))
    augmenter    max over phi    lambda_s D(f_s(x~), f_s(x)) - lambda_t D(f_t(x~), f_t(x)),     x~ = A_phi(x, z)

with D(answer, reference) = T^2 KL(reference || answer) of the softmax at temperature T; T^2 keeps the gradient's size
(Hinton et al., 2015). The student follows its teacher on clean and augmented images; the augmenter looks for images
that move the student and leave the teacher where it is.

They alternate by thresholds on what the abstract calls disagreement, D(f_s(x~), f_t(x~)): the augmenter plays until it
is above the upper one, the student until it is below the lower one, and neither for more than a number of turns in a
row, so that neither starves where a threshold is out of reach.

Symbols: f_s `nets["student"]`, f_t `teacher`, A_phi `nets["augmentation"]`, x~ `augmented`, T
`hard_temperature`, c `hard_ce_weight`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from hf_transinv.augment.hard_augmenters import Augmenter, AugmenterConfig, build_augmenter
from hf_transinv.config import MixingConfig
from hf_transinv.divergences import cross_entropy, kl_divergence
from hf_transinv.errors import InputError
from hf_transinv.models.classifier import Classifier
from hf_transinv.models.teacher import Teacher
from hf_transinv.objectives.distillation import shared_columns
from hf_transinv.objectives.objective import Objective
from hf_transinv.objectives.parts import Parts
from hf_transinv.objectives.passes import Passes
from hf_transinv.objectives.switching import TurnSwitch
from hf_transinv.objectives.turns import AUGMENTATION, Batch

CITATION = """@article{nix2023hard,
  title   = {{HARD}: Hard Augmentations for Robust Distillation},
  author  = {Nix, Arne F. and Burg, Max F. and Sinz, Fabian H.},
  journal = {arXiv preprint arXiv:2305.14890},
  year    = {2023}
}"""


@dataclass
class HardConfig:
    """HARD, in our reading.

    Attributes:
        hard_temperature: T of every divergence.
        hard_student_weight: lambda_s, what moving the student is worth to the augmenter.
        hard_teacher_weight: lambda_t, what moving the teacher costs it.
        hard_upper: disagreement in nats above which the turn passes from the augmenter to the student.
        hard_lower: disagreement in nats below which it passes back.
        hard_most_turns: turns in a row that a player has at most.
        hard_look_every: turns from one look at the disagreement to the next; it is their mean that decides.
        hard_ce_weight: c, weight of the student's cross-entropy with the labels on clean images.
    """

    hard_temperature: float = 1.0
    hard_student_weight: float = 1.0
    hard_teacher_weight: float = 1.0
    hard_upper: float = 0.5
    hard_lower: float = 0.1
    hard_most_turns: int = 20
    hard_look_every: int = 5
    hard_ce_weight: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.hard_temperature < math.inf:
            raise InputError(f"hard_temperature must be positive, given {self.hard_temperature}")
        if not 0 <= self.hard_lower < self.hard_upper:
            raise InputError(
                f"expected 0 <= hard_lower < hard_upper, given {self.hard_lower} and {self.hard_upper}: the augmenter "
                "plays up to the upper threshold, the student down to the lower one"
            )
        for name in ("hard_student_weight", "hard_teacher_weight", "hard_ce_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"{name} must be at least 0 and finite, given {getattr(self, name)}")
        if not 1 <= self.hard_look_every <= self.hard_most_turns:
            raise InputError(
                f"expected 1 <= hard_look_every <= hard_most_turns, given {self.hard_look_every} and "
                f"{self.hard_most_turns}"
            )


class Hard(Objective):
    """HARD, in our reading, with one teacher.

    Args:
        student: f_s, a Classifier.
        augmentation: A_phi.
        teacher: f_t, frozen, on the device where training goes on.
        config: weights and thresholds.
        columns: the teacher's column of each class of the student, int64 [classes] (`models.labels.class_columns`);
            None: all of them, in their order.

    Raises:
        InputError: the two have different classes.
    """

    name = "hard"
    title = "HARD (our reading)"
    summary = (
        "It was trained on its teacher's predictions, also for images made where the two disagree (our "
        "reading of HARD)."
    )
    citation = CITATION
    turns = (("student",), (AUGMENTATION,))
    # The student trains on the image and on its warped copy, the teacher answers to both. The augmentation's turn:
    # each of the two answers to the image, and to the copy with a gradient to the copy.
    passes: ClassVar = {("student",): Passes(6, 2), (AUGMENTATION,): Passes(3, 3)}
    configs = (HardConfig, AugmenterConfig)
    views = 2

    def __init__(
        self,
        student: Classifier,
        augmentation: Augmenter,
        teacher: Teacher,
        config: HardConfig,
        columns: Tensor | None = None,
    ) -> None:
        classes = teacher.num_classes if columns is None else len(columns)
        if classes != student.num_classes:
            raise InputError(
                f"HARD compares the answers of student and teacher: {student.num_classes} and {classes} classes were "
                "given. Choose a teacher that knows the student's classes, and map them by name (columns)"
            )
        self.student = student
        self.players = {"student": student, AUGMENTATION: augmentation}
        self.augmenter, self.teacher, self.config, self.columns = augmentation, teacher, config, columns
        self.teachers = (teacher,)
        self.switch = TurnSwitch(config.hard_lower, config.hard_upper, config.hard_most_turns, config.hard_look_every)

    @classmethod
    def build(cls, student: Classifier, parts: Parts) -> "Hard":
        teachers = parts.teachers(student)
        if len(teachers) > 1:
            names = ", ".join(teacher.name for teacher in teachers)
            raise InputError(f"method hard has one teacher, given {len(teachers)}: {names}")
        augmenter = build_augmenter(parts.options(AugmenterConfig), parts.image_size)
        columns = shared_columns(teachers[0], student)
        return cls(student, augmenter, teachers[0], parts.options(HardConfig), columns)

    @classmethod
    def check_augment(cls, augment: Sequence[str], learned: str | None) -> None:
        if augment:
            raise InputError("method hard learns its own augmentation (hard_augmenter): leave out augment")

    @classmethod
    def check_mixing(cls, mixing: MixingConfig, options: Mapping[type, Any]) -> None:
        if mixing.titles:
            raise InputError(
                f"method hard takes no {mixing.titles[0]}: its turns change by the disagreement of student and teacher"
                ", which would be measured on such images in the student's turns alone"
            )
        if mixing.class_weights and not options[HardConfig].hard_ce_weight:
            raise InputError(
                "class_weights weigh the student's cross-entropy with the labels, and method hard has none: give it a "
                "hard_ce_weight, or leave out class_weights"
            )

    def next_turn(self, turn: int) -> tuple[str, ...]:
        """The player of the phase that `TurnSwitch` is in, whatever the number of the turn."""
        return (self.switch.player,)

    def draw(self, player: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        return self.augmenter.draw(shape, generator)

    def loss(self, player: str, nets: Mapping[str, nn.Module], batch: Batch, draws: Tensor) -> dict[str, Tensor]:
        losses = self._student_losses if player == "student" else self._augmentation_losses
        terms = losses(nets, batch, draws)
        self.switch.add(terms["disagreement"].detach() / batch.world_size)
        return terms

    def _student_losses(self, nets: Mapping[str, nn.Module], batch: Batch, z: Tensor) -> dict[str, Tensor]:
        images, share = batch.images, batch.share
        with torch.no_grad():
            augmented = nets[AUGMENTATION](images, z)
            reference, reference_augmented = self._ask_teacher(images), self._ask_teacher(augmented)
        # One pass for both: a network that is wrapped for several processes is called once per turn.
        clean, moved = nets["student"](torch.cat((images, augmented))).chunk(2)
        on_augmented = self._divergence(moved, reference_augmented).sum() * share
        on_clean = self._divergence(clean, reference).sum() * share
        terms = {"total": on_augmented + on_clean, "disagreement": on_augmented.detach(), "clean": on_clean.detach()}
        if self.config.hard_ce_weight:
            ce = cross_entropy(clean, batch.labels, class_weights=batch.class_weights).sum() * share
            terms |= {"total": terms["total"] + self.config.hard_ce_weight * ce, "ce": ce.detach()}
        return terms

    def _augmentation_losses(self, nets: Mapping[str, nn.Module], batch: Batch, z: Tensor) -> dict[str, Tensor]:
        images, share, config = batch.images, batch.share, self.config
        augmented = nets[AUGMENTATION](images, z)
        with torch.no_grad():
            clean, reference = nets["student"](images), self._ask_teacher(images)
        moved, reference_moved = nets["student"](augmented), self._ask_teacher(augmented)
        hard = self._divergence(moved, clean).sum() * share
        keep = self._divergence(reference_moved, reference).sum() * share
        change = (augmented.detach() - images).abs().mean((1, 2, 3))
        return {
            "total": config.hard_teacher_weight * keep - config.hard_student_weight * hard,
            "hard": hard.detach(),
            "keep": keep.detach(),
            "disagreement": self._divergence(moved, reference_moved).detach().sum() * share,
            "change": change.sum() * share,
        }

    def _ask_teacher(self, images: Tensor) -> Tensor:
        """f_t of images [B, 3, H, W], in the student's classes."""
        logits = self.teacher(images)
        if self.columns is None:
            return logits
        self.columns = self.columns.to(logits.device)  # copied once
        return logits[:, self.columns]

    def _divergence(self, answer: Tensor, reference: Tensor) -> Tensor:
        """D, [B]; both are logits."""
        temperature = self.config.hard_temperature
        return temperature**2 * kl_divergence(reference, answer, temperature)

    @torch.no_grad()
    def preview(self, images: Tensor, labels: Tensor, generator: torch.Generator, count: int) -> Tensor:
        shape = tuple(images.shape)
        return torch.stack([self.augmenter(images, self.augmenter.draw(shape, generator)) for _ in range(count)])

    def after_step(self, player: str, nets: Mapping[str, nn.Module]) -> None:
        self.switch.end_turn()

    def extra_state(self) -> dict[str, nn.Module]:
        return {"switch": self.switch}

    def observe(self) -> dict[str, Any]:
        seen = {"switches": self.switch.switches, "capped_switches": self.switch.capped}
        return seen if math.isnan(self.switch.last) else seen | {"disagreement": self.switch.last}

    def warnings(self, recent: Mapping[str, float]) -> dict[str, str]:
        config, found = self.config, {}
        scale = config.hard_temperature**2
        keep, hard = recent.get("augmentation/keep", 0.0), recent.get("augmentation/hard", math.inf)
        if keep > 0.5 * scale * math.log(self.student.num_classes):
            found["destroyed"] = (
                f"the augmenter moves the teacher itself (by {keep:.2f} nats): its images teach little. Try a larger "
                "--hard_teacher_weight or narrower ranges"
            )
        if hard < 1e-3 * scale:
            found["idle"] = (
                f"the augmenter does not move the student ({hard:.1e} nats): this is plain distillation. Try a larger "
                "--augment_learning_rate, wider ranges, or a larger --hard_init_scale"
            )
        if self.switch.switches >= 10 and self.switch.capped > 0.9 * self.switch.switches:
            found["thresholds"] = (
                f"{self.switch.capped} of {self.switch.switches} phases ended by hard_most_turns, not by a threshold: "
                f"the disagreement was {self.switch.last:.2g} nats at the last look; set --hard_lower and "
                "--hard_upper about it"
            )
        return found
