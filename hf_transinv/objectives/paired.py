"""The same answer to a deformed image as to the image itself, for a share of the images, with a gradient to both.

    L = 1/B sum_i L_i,    L_i = CE(y, F(a(x)))                                              for most images,
                          L_i = 1/2 [CE(y, F(x)) + CE(y, F(a(x)))] + lambda JS(F(x), F(a(x)))    for a pair,
    JS(p, p') = 1/2 [KL(p || m) + KL(p' || m)],    m = (p + p') / 2,    lambda = 12

It is AugMix's loss (Hendrycks et al., ICLR 2020) with one deformed copy of an image in place of two, for every n-th
image in place of all: AugMix costs three times plain training, a share s of pairs 1 + s times. The cross-entropy of
both answers, and pairs among the rest of the batch, are ours. Unlike the consistency with a detached target, both
answers move.

Symbols: a, the augmentations, learned or fixed; lambda, `paired_weight`; s, `paired_share`. All images are in one
batch, so that BatchNorm has the statistics of both kinds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import ClassVar

import torch
from torch import Tensor, nn

from hf_transinv.augment.policies.policy import Policy, PolicyDraws, apply_all, draw_all
from hf_transinv.augment.sampled import Sampled
from hf_transinv.data.transfer import send_all
from hf_transinv.divergences import cross_entropy, jensen_shannon
from hf_transinv.errors import InputError
from hf_transinv.models.classifier import Classifier
from hf_transinv.objectives.consistency import check_deforms
from hf_transinv.objectives.objective import Objective
from hf_transinv.objectives.parts import Parts
from hf_transinv.objectives.passes import Passes
from hf_transinv.objectives.turns import Batch, Turn


@dataclass
class PairedConfig:
    """Training on pairs of an image and its deformed copy.

    Attributes:
        paired_share: s, share of the images that are shown as they are besides, from 0.001 to 1, one of a batch at
            least; a step costs 1 + s times plain training.
        paired_weight: lambda, weight of a pair's Jensen-Shannon divergence in nats, as in AugMix by default; where
            training is so long that it overfits, 24 is better.
    """

    paired_share: float = 0.3
    paired_weight: float = 12.0

    def __post_init__(self) -> None:
        if not 0.001 <= self.paired_share <= 1:
            raise InputError(f"paired_share is a share of the images, from 0.001 to 1, given {self.paired_share}")
        if not 0 <= self.paired_weight < float("inf"):
            raise InputError(f"paired_weight must be at least 0 and finite, given {self.paired_weight}")


@dataclass(frozen=True)
class PairedDraws(Sampled):
    """What was drawn for a batch.

    Attributes:
        policies: the draws of the fixed augmentations.
        is_paired: whether an image is shown as it is besides, bool [B] on the CPU: every 1/s-th one, or of those
            that a learned augmentation deforms.
    """

    policies: PolicyDraws
    is_paired: Tensor


class PairedTraining(Objective):
    """min over theta of the mean L_i, as above.

    Under a learned augmentation, images that were deformed are taken for the pairs, of each primitive as large a part:
    an image that stays as it is has nothing to be compared with.

    Args:
        student: the network that trains.
        config: the share of pairs and the weight.
        policies: fixed augmentations, one after another.
        label_smoothing: of the cross-entropy, in [0, 1).
    """

    name = "paired"
    title = "paired"
    summary = (
        "A share of its images was shown deformed and as they are, to be answered alike (the Jensen-Shannon "
        "divergence of AugMix's loss)."
    )
    turns = (("student",),)
    passes: ClassVar = {("student",): Passes(6)}  # both images of a pair, if all are
    configs = (PairedConfig,)

    def __init__(
        self,
        student: nn.Module,
        config: PairedConfig | None = None,
        policies: Sequence[Policy] = (),
        label_smoothing: float = 0.0,
    ) -> None:
        self.players = {"student": student}
        self.config = config or PairedConfig()
        self.policies, self.label_smoothing = tuple(policies), label_smoothing
        self.share = Fraction(self.config.paired_share).limit_denominator(1000)
        self.views = 1 + self.share

    @classmethod
    def build(cls, student: Classifier, parts: Parts) -> "PairedTraining":
        return cls(student, parts.options(PairedConfig), parts.policies, parts.label_smoothing)

    @classmethod
    def check_augment(cls, augment: Sequence[str], learned: str | None) -> None:
        check_deforms(cls.name, augment)

    def passes_of(self, turn: Turn) -> Passes:
        return Passes(3) * (1 + self.share)

    def draw(self, player: str, shape: tuple[int, ...], generator: torch.Generator) -> PairedDraws:
        counted = torch.arange(shape[0] + 1) * self.share.numerator // self.share.denominator
        is_paired = counted.diff().bool()
        is_paired[-1:] |= not is_paired.any()
        return PairedDraws(draw_all(self.policies, shape, generator), is_paired)

    def told(self, draws: PairedDraws, kinds: Tensor) -> PairedDraws:
        if self.policies:
            return draws
        changed = kinds.argsort(stable=True)[int((kinds < 0).sum()) :]  # an even choice gives each kind its share
        count = min(int(draws.is_paired.sum()), len(changed))
        chosen = changed[torch.arange(count) * len(changed) // max(count, 1)]
        return replace(draws, is_paired=torch.zeros_like(draws.is_paired).index_fill(0, chosen, True))

    def loss(self, player: str, nets: Mapping[str, nn.Module], batch: Batch, draws: PairedDraws) -> dict[str, Tensor]:
        deformed = apply_all(self.policies, batch.images, draws.policies)
        original = batch.undeformed
        (rows,) = send_all([draws.is_paired.nonzero().squeeze(1)], original.device)
        answers, own = nets["student"](torch.cat([deformed, original[rows]])).tensor_split([len(deformed)])
        labels, smoothing = batch.labels, self.label_smoothing
        labelled = cross_entropy(answers, labels, smoothing, batch.class_weights)
        of_pairs = (cross_entropy(own, labels[rows], smoothing, batch.class_weights) + labelled[rows]) / 2
        labelled = labelled.index_copy(0, rows, of_pairs).sum() * batch.share
        divergence = jensen_shannon(own, answers[rows]).sum() * batch.share
        return {
            "total": labelled + self.config.paired_weight * divergence,
            "cross_entropy": labelled.detach(),
            "jensen_shannon": divergence.detach(),
        }
