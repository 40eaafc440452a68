"""What a training method is to the trainer: players that take turns at minimising a loss of their own."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hf_transinv.augment.policies.base import Policy
from hf_transinv.models.classifier import Classifier
from hf_transinv.models.teacher import Teacher

AUGMENTATION = "augmentation"
"""The player that is no network of the student's kind: it has an optimizer of its own and no schedule."""


@dataclass(frozen=True)
class Batch:
    """This process's part of a batch, or a micro-batch of it.

    Attributes:
        images: [b, 3, H, W] in [0, 1], on the device, ordinary augmentation done.
        labels: class indices, [b].
        whole: images in the whole batch, over all processes and micro-batches.
        scale: number of processes: gradients are averaged over them, losses are sums over images that should add up.
        others: further variants of the same images, each cropped and flipped anew.
    """

    images: Tensor
    labels: Tensor
    whole: int
    scale: int = 1
    others: tuple[Tensor, ...] = ()

    @property
    def variants(self) -> tuple[Tensor, ...]:
        """All variants of the images, each [b, 3, H, W]."""
        return (self.images, *self.others)


class Objective(ABC):
    """One training method.

    Attributes:
        name: as it stands in tables and on the command line.
        citation: BibTeX of the method, for the model card; empty where there is none.
        players: the networks that train, by name: "student", whose steps are counted; "augmentation", where one is
            learned; other networks under any other name.
        turns: who plays on each batch, in order, repeated for ever: ("student",) or ("augmentation",), ...
        policies: fixed augmentations of the student's images, one after another.
        teachers: frozen networks that judge or are learned from.
        variants: of each image in a batch, each with a crop and flip of its own.
        variants_a_network: those that one network sees: the batch has so many times fewer images, so that a network
            is shown `batch_size` of them whatever the method.
    """

    name: str
    citation: str
    players: Mapping[str, nn.Module]
    turns: Sequence[tuple[str, ...]]
    policies: Sequence[Policy] = ()
    teachers: Iterable[Teacher] = ()
    variants: int = 1
    variants_a_network: int = 1

    @property
    def students(self) -> Mapping[str, Classifier]:
        """The classifiers that come out of the training, by name; the first is exported, all are evaluated."""
        return {"student": self.players["student"]}

    @property
    def citations(self) -> list[str]:
        """BibTeX of everything that is used, each once."""
        found = [self.citation, *(policy.citation for policy in self.policies)]
        return [citation for citation in dict.fromkeys(found) if citation]

    def next_turn(self, turn: int) -> tuple[str, ...]:
        """Who plays in a turn, counted from 0; some methods look at what happened."""
        return self.turns[turn % len(self.turns)]

    def draw(self, player: str, shape: tuple[int, ...], generator: torch.Generator) -> Any:
        """Draw what is random in a turn, for the whole batch of that shape; sliced by `[rows]` like the batch."""
        return None

    @abstractmethod
    def loss(self, player: str, nets: Mapping[str, nn.Module], batch: Batch, draws: Any) -> dict[str, Tensor]:
        """Losses of one player, "total" among them.

        "total" is scaled so that it adds up over micro-batches and averages over processes to the whole batch's loss.

        Args:
            player: whose turn it is.
            nets: the players as they are to be called in this turn (the playing one perhaps wrapped for several
                devices).
            batch: this process's images.
            draws: the part of `draw`'s answer that belongs to them.
        """

    def after_step(self, player: str, nets: Mapping[str, nn.Module]) -> None:  # noqa: B027 (most methods do nothing)
        """Called when the optimizer of a player has made a step, gradients still there; the nets are unwrapped."""

    def extra_state(self) -> dict[str, nn.Module]:
        """Modules that move without an optimizer (an EMA): saved and restored with the players."""
        return {}

    def observe(self) -> dict[str, Any]:
        """What is learned, as plain numbers, for the log."""
        return {}

    def warnings(self, recent: Mapping[str, float]) -> dict[str, str]:
        """What is going wrong: short keys and a sentence each, judged by recent means of the terms (player/term)."""
        return {}
