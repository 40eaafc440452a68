"""What the methods with a learned augmentation share: a task of the student's, deformed images, turns.

The student minimises its task (supervised, distillation, ...) on images that the augmentation deformed; in between the
augmentation plays, by a loss that each method defines. A max is a min of the negated objective:

    augmentation:  min over phi of -(hard - keep)    hard: how the student suffers, keep: how far the teacher moved
"""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from hf_transinv.augment.sampled import Sampled
from hf_transinv.models.classifier import Classifier
from hf_transinv.objectives.objective import Objective
from hf_transinv.objectives.parts import Parts
from hf_transinv.objectives.passes import Passes
from hf_transinv.objectives.turns import AUGMENTATION, Batch, Turn


@dataclass(frozen=True)
class TaskDraws(Sampled):
    """What is random in a turn of the task.

    Attributes:
        deformations: for each variant of the images, the answer of `draw_deformations`.
        task: the answer of the task's own `draw`.
    """

    deformations: tuple[Any, ...]
    task: Any


class Deformed(NamedTuple):
    """What an augmentation made of images.

    Attributes:
        images: [b, 3, H, W].
        rows: of those that it changed, int64 [n] on the device; None: not known, perhaps all.
    """

    images: Tensor
    rows: Tensor | None = None


class AdversarialAugmentation(Objective):
    """A task under an augmentation that is learned.

    Args:
        task: what the student, and networks beside it, minimise on the deformed images.
        augmentation: the player that deforms them.
        inner_steps: n_inner, batches of the task to one of the augmentation.
    """

    def __init__(self, task: Objective, augmentation: nn.Module, inner_steps: int) -> None:
        self.task = task
        self.players = {**task.players, AUGMENTATION: augmentation}
        self.turns = tuple(task.turns) * inner_steps + ((AUGMENTATION,),)
        self.policies, self.teachers = task.policies, task.teachers
        self.variants, self.variants_a_network = task.variants, task.variants_a_network
        self.keeps_start, self.views = task.keeps_start, task.views

    @classmethod
    def build_over(cls, task: Objective, student: Classifier, parts: Parts) -> "AdversarialAugmentation":
        """The method over a task of this student.

        Raises:
            InputError: a teacher or an option does not fit.
        """
        raise TypeError(f"{cls.__name__} is not chosen by name")

    @abstractmethod
    def draw_augmentation(self, shape: tuple[int, ...], generator: torch.Generator) -> Any:
        """Draw what is random in the augmentation's turn, for the whole batch."""

    @abstractmethod
    def augmentation_loss(self, nets: Mapping[str, nn.Module], batch: Batch, draws: Any) -> dict[str, Tensor]:
        """The losses of the augmentation, as `Objective.loss` has them."""

    @abstractmethod
    def draw_deformations(self, shape: tuple[int, ...], generator: torch.Generator) -> Any:
        """Draw how the images of the task are deformed, for the whole batch."""

    def kinds_of(self, draws: Any) -> Tensor | None:
        """What each image is deformed by, of the draws of `draw_deformations`, as `told` has it; None: not known."""
        return None

    @abstractmethod
    def deform(self, nets: Mapping[str, nn.Module], images: Tensor, labels: Tensor, draws: Any) -> list[Deformed]:
        """Images [b, 3, H, W] as the task gets them: once or, summed over, several times; no gradient is needed."""

    def passes_of(self, turn: Turn) -> Passes:
        networks = tuple(player for player in turn if player != AUGMENTATION)
        of_task = self.task.passes_of(networks) * (self.views // self.task.views) if networks else Passes(0)
        if AUGMENTATION not in turn:
            return of_task
        # Its own batch is as small as the task's: see `variants_a_network`.
        return of_task + self.passes[AUGMENTATION,] * Fraction(1, self.variants_a_network)

    @property
    def students(self) -> Mapping[str, Classifier]:
        return self.task.students

    @property
    def task_name(self) -> str:
        return self.task.name

    @property
    def citations(self) -> list[str]:
        return list(dict.fromkeys([self.citation, *self.task.citations]))

    def draw(self, player: str, shape: tuple[int, ...], generator: torch.Generator) -> Any:
        if player == AUGMENTATION:
            return self.draw_augmentation(shape, generator)
        deformations = tuple(self.draw_deformations(shape, generator) for _ in range(self.variants))
        drawn, kinds = self.task.draw(player, shape, generator), self.kinds_of(deformations[0])
        return TaskDraws(deformations, drawn if kinds is None else self.task.told(drawn, kinds))

    def loss(self, player: str, nets: Mapping[str, nn.Module], batch: Batch, draws: Any) -> dict[str, Tensor]:
        if player == AUGMENTATION:
            return self.augmentation_loss(nets, batch, draws)
        with torch.no_grad():
            deformed = [
                self.deform(nets, images, batch.labels, drawn)
                for images, drawn in zip(batch.variants, draws.deformations, strict=True)
            ]
        sums: dict[str, Tensor] = {}
        for first, *rest in zip(*deformed, strict=True):
            others = tuple(variant.images for variant in rest)
            shown = replace(batch, images=first.images, others=others, original=batch.images, deformed=first.rows)
            losses = self.task.loss(player, nets, shown, draws.task)
            for name, value in losses.items():
                sums[name] = sums.get(name, 0) + value
        return sums

    @torch.no_grad()
    def preview(self, images: Tensor, labels: Tensor, generator: torch.Generator, count: int) -> Tensor:
        shown = []
        for _ in range(count):
            draws = self.draw_deformations(tuple(images.shape), generator)
            shown.append(self.deform(self.players, images, labels, draws)[0].images)
        return torch.stack(shown)

    def after_step(self, player: str, nets: Mapping[str, nn.Module]) -> None:
        if player != AUGMENTATION:
            self.task.after_step(player, nets)

    def extra_state(self) -> dict[str, nn.Module]:
        return self.task.extra_state()

    def observe(self) -> dict[str, Any]:
        return self.task.observe()
