"""What a training method is to the trainer: players that take turns at minimising a loss of their own."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Batch:
    """This process's part of a batch, or a micro-batch of it.

    Attributes:
        images: [b, 3, H, W] in [0, 1], on the device, ordinary augmentation done.
        labels: class indices, [b].
        whole: images in the whole batch, over all processes and micro-batches.
        scale: number of processes: gradients are averaged over them, losses are sums over images that should add up.
    """

    images: Tensor
    labels: Tensor
    whole: int
    scale: int = 1


class Objective(ABC):
    """One training method.

    Attributes:
        name: as it stands in tables and on the command line.
        players: the networks that train, by name; the student is called "student".
        turns: who plays on each batch, in order, repeated for ever: ("student",) or ("augmentation",), ...
        citation: of the method, for the model card.
    """

    name: str
    citation: str
    players: Mapping[str, nn.Module]
    turns: Sequence[tuple[str, ...]]

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
