"""AugMix's objective: the same answer to an image and to two augmented copies of it (Hendrycks et al., ICLR 2020).

    L = CE(y, p_clean) + lambda JS(p_clean, p_1, p_2),    lambda = 12                                  (section 3)
    JS = 1/3 [KL(p_clean || m) + KL(p_1 || m) + KL(p_2 || m)],    m = (p_clean + p_1 + p_2) / 3

Symbols: p_clean, p_1, p_2 = softmax of the student's logits on the image and on two independent draws of
the policies; lambda `jsd_weight`. The policies are the paper's AugMix, or any others.

The three are in one batch, so that BatchNorm has the statistics of all of them, as in the authors' code. Departure:
that code clamps m at 1e-7 before the logarithm; here it is computed from log-probabilities and needs none.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from hf_transinv.augment.policies.augmix import AugMix
from hf_transinv.augment.policies.policy import Policy, VariantDraws, apply_all_variants, draw_all
from hf_transinv.divergences import cross_entropy, jensen_shannon
from hf_transinv.errors import InputError
from hf_transinv.models.classifier import Classifier
from hf_transinv.objectives.objective import Objective
from hf_transinv.objectives.parts import Parts
from hf_transinv.objectives.passes import Passes
from hf_transinv.objectives.turns import Batch


@dataclass
class AugMixConsistencyConfig:
    """AugMix's consistency loss.

    Attributes:
        jsd_weight: lambda, weight of the Jensen-Shannon divergence.
    """

    jsd_weight: float = 12.0

    def __post_init__(self) -> None:
        if self.jsd_weight < 0:
            raise InputError(f"jsd_weight must not be negative, given {self.jsd_weight}")


class AugMixConsistency(Objective):
    """min over theta of mean_i [CE(y_i, p_clean) + lambda JS(p_clean, p_1, p_2)].

    Args:
        student: the network that trains.
        config: lambda.
        policies: applied one after another, drawn twice per image.
        label_smoothing: of the cross-entropy, in [0, 1).

    Raises:
        InputError: there are no policies: all three images would be the same.
    """

    name = "augmix"
    title = "AugMix"
    summary = (
        "It was trained to give the same answer for an image and for augmented copies of it (AugMix's "
        "consistency loss)."
    )
    citation = AugMix.citation
    turns = (("student",),)
    passes: ClassVar = {("student",): Passes(9)}  # it trains on the image and on two augmented copies
    configs = (AugMixConsistencyConfig,)
    default_policies = ("augmix",)
    views = 3

    def __init__(
        self,
        student: nn.Module,
        config: AugMixConsistencyConfig,
        policies: Sequence[Policy],
        label_smoothing: float = 0.0,
    ) -> None:
        if not policies:
            raise InputError(
                "the objective augmix compares augmented copies of an image: give it a policy, say augmix"
            )
        self.players = {"student": student}
        self.config = config
        self.policies = tuple(policies)
        self.label_smoothing = label_smoothing

    @classmethod
    def build(cls, student: Classifier, parts: Parts) -> "AugMixConsistency":
        return cls(student, parts.options(AugMixConsistencyConfig), parts.policies, parts.label_smoothing)

    @classmethod
    def check_augment(cls, augment: Sequence[str], learned: str | None) -> None:
        if learned:
            raise InputError(
                f"method augmix compares an image with augmented copies of it, and {learned} would deform the image "
                "itself: take method supervised, ait or distillation under it"
            )

    def draw(self, player: str, shape: tuple[int, ...], generator: torch.Generator) -> VariantDraws:
        return VariantDraws(tuple(draw_all(self.policies, shape, generator) for _ in range(2)))

    def loss(self, player: str, nets: Mapping[str, nn.Module], batch: Batch, draws: VariantDraws) -> dict[str, Tensor]:
        copies = apply_all_variants(self.policies, batch.images, draws)
        clean, first, second = nets["student"](torch.cat([batch.images, *copies])).chunk(3)
        share = batch.share
        labelled = cross_entropy(clean, batch.labels, self.label_smoothing, batch.class_weights).sum() * share
        divergence = jensen_shannon(clean, first, second).sum() * share
        return {
            "total": labelled + self.config.jsd_weight * divergence,
            "cross_entropy": labelled.detach(),
            "jensen_shannon": divergence.detach(),
        }
