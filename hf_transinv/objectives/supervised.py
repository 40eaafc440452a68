"""Plain supervised training: the mean cross-entropy of the student on images that were cropped and flipped, or not.

It is the fair row beside every method: "fine-tuning" (no augmentation at all) and "crop + flip" are this objective.
Under random corruptions it trains a teacher that is robust to them; under RandAugment and its kin it is what those
policies were published with.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from hf_transinv.augment.policies.policy import Policy, PolicyDraws, apply_all, draw_all
from hf_transinv.divergences import cross_entropy
from hf_transinv.models.classifier import Classifier
from hf_transinv.objectives.objective import Objective
from hf_transinv.objectives.parts import Parts
from hf_transinv.objectives.passes import Passes
from hf_transinv.objectives.turns import Batch


class Supervised(Objective):
    """min over theta of mean_i CE(y_i, F(x_i)).

    Args:
        student: the network that trains.
        label_smoothing: mass moved from the label to all classes, in [0, 1).
        policies: applied to the images one after another, after the ordinary augmentation.
    """

    name = "supervised"
    title = "supervised"
    summary = ""
    turns = (("student",),)
    passes: ClassVar = {("student",): Passes(3)}

    def __init__(self, student: nn.Module, label_smoothing: float = 0.0, policies: Sequence[Policy] = ()) -> None:
        self.players = {"student": student}
        self.policies = tuple(policies)
        self.label_smoothing = label_smoothing

    @classmethod
    def build(cls, student: Classifier, parts: Parts) -> "Supervised":
        return cls(student, parts.label_smoothing, parts.policies)

    def draw(self, player: str, shape: tuple[int, ...], generator: torch.Generator) -> PolicyDraws:
        return draw_all(self.policies, shape, generator)

    def loss(self, player: str, nets: Mapping[str, nn.Module], batch: Batch, draws: PolicyDraws) -> dict[str, Tensor]:
        logits = nets["student"](apply_all(self.policies, batch.images, draws))
        losses = cross_entropy(logits, batch.labels, self.label_smoothing, batch.class_weights)
        return {"total": losses.sum() * batch.share}
