"""Plain supervised training: the mean cross-entropy of the student on images that were cropped and flipped, or not.

It is the fair row beside every method: "fine-tuning" (no augmentation at all) and "crop + flip" are this objective.
Under random corruptions it trains a teacher that is robust to them.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from hf_transinv.augment.policies import CorruptionDraws, RandomCorruption
from hf_transinv.objectives.base import Batch, Objective
from hf_transinv.objectives.divergences import cross_entropy


class Supervised(Objective):
    """min over theta of mean_i CE(y_i, F(x_i)).

    Args:
        student: the network that trains.
        label_smoothing: mass moved from the label to all classes, in [0, 1).
        corruption: applied to the images, after the ordinary augmentation.
    """

    name = "supervised"
    citation = ""
    turns = (("student",),)

    def __init__(
        self, student: nn.Module, label_smoothing: float = 0.0, corruption: RandomCorruption | None = None
    ) -> None:
        self.players = {"student": student}
        self.corruption = corruption
        self.label_smoothing = label_smoothing

    def draw(self, player: str, shape: tuple[int, ...], generator: torch.Generator) -> CorruptionDraws | None:
        return self.corruption.draw(shape[0], generator) if self.corruption else None

    def loss(self, player: str, nets: Mapping[str, nn.Module], batch: Batch, draws: Any) -> dict[str, Tensor]:
        images = batch.images if draws is None else self.corruption(batch.images, draws)
        logits = nets["student"](images)
        losses = cross_entropy(logits, batch.labels, self.label_smoothing)
        return {"total": losses.sum() * (batch.scale / batch.whole)}
