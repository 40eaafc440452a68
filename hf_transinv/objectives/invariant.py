"""Augmentation Invariant Training: two variants of an image, one answer (Chen et al., ICCV Workshops 2021).

    L = CE(y, p_1) + CE(y, p_2) + lambda L_Ai,    lambda = 1                                             (eq. 3)
    L_Ai = KL(p_1 || p_2) + KL(p_2 || p_1)                                                           (eq. 1, 2)

Symbols: v_1, v_2 `batch.variants`, each with a crop and flip of its own; F_1, F_2 `policies` and
`second_policies`; p_1, p_2 = softmax of the student's logits on them; lambda `ait_lambda`. The variants are in one
batch, as in the paper's figure 2.

The ablation of section 4.2.1 has two more metrics and another layer. L_Ai is then, of the logits or of the features
f_1, f_2 (what enters the last layer),

    euclidean   |f_1 - f_2|
    both        KL(p_1 || p_2) + KL(p_2 || p_1) + |f_1 - f_2|

with p = softmax(f) where the layer is the features. Open in the paper, and so our reading: that softmax, and that the
two of "both" have the same weight. Its third layer, a feature map before pooling, is not offered: it "can not
converge in most cases".

The authors' code differs from the paper: it takes no gradient through the left side of either KL (`ait_detach_target`
does the same). Its batch of 128 holds 64 images twice.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from hf_transinv.augment.policies.policy import Policy, VariantDraws, apply_all, draw_all
from hf_transinv.config.checks import check_choices, choice
from hf_transinv.divergences import cross_entropy, euclidean_distance, symmetric_kl
from hf_transinv.errors import InputError
from hf_transinv.models.classifier import Classifier
from hf_transinv.models.features import inputs_of, last_layer
from hf_transinv.objectives.objective import Objective
from hf_transinv.objectives.parts import Parts
from hf_transinv.objectives.passes import Passes
from hf_transinv.objectives.turns import Batch

CITATION = """@inproceedings{chen2021augmentation,
  title     = {Augmentation Invariant Training},
  author    = {Chen, Weicong and Tian, Lu and Fan, Liwen and Wang, Yu},
  booktitle = {IEEE/CVF International Conference on Computer Vision Workshops (ICCVW)},
  year      = {2021}
}"""


@dataclass
class InvariantConfig:
    """Augmentation Invariant Training.

    Attributes:
        ait_lambda: lambda, weight of the AiLoss.
        ait_metric: "kl", "euclidean" or "both".
        ait_layer: what is compared: "logits", or the "features" that enter the last layer.
        ait_detach_target: take no gradient through the left side of each KL, as the authors' code does.
    """

    ait_lambda: float = 1.0
    ait_metric: str = choice("kl", ("kl", "euclidean", "both"))
    ait_layer: str = choice("logits", ("logits", "features"))
    ait_detach_target: bool = False

    def __post_init__(self) -> None:
        check_choices(self)
        if self.ait_lambda < 0:
            raise InputError(f"ait_lambda must not be negative, given {self.ait_lambda}")
        if self.ait_detach_target and self.ait_metric == "euclidean":
            raise InputError("ait_detach_target concerns the KL divergence: it needs ait_metric kl or both")


class InvariantTraining(Objective):
    """min over theta of mean_i [CE(y_i, p_1) + CE(y_i, p_2) + lambda L_Ai].

    Args:
        student: the network that trains; for the features, one of timm's.
        config: lambda, and what is compared how.
        policies: F_1, of the first variant, one after another; drawn anew for the second unless that has its own.
        second_policies: F_2 (table 5: "rp,rg"); None: the same as F_1.
        label_smoothing: of both cross-entropies, in [0, 1).

    Raises:
        InputError: the features are asked for and the network does not say which is its last layer.
    """

    name = "ait"
    title = "AIT"
    summary = "It was trained to give the same answer for two variants of an image (Augmentation Invariant Training)."
    citation = CITATION
    turns = (("student",),)
    passes: ClassVar = {("student",): Passes(3)}  # half of the images of a batch are second variants
    configs = (InvariantConfig,)
    own_options = ("second_augment",)
    variants = variants_a_network = views = 2

    def __init__(
        self,
        student: Classifier,
        config: InvariantConfig,
        policies: Sequence[Policy] = (),
        second_policies: Sequence[Policy] | None = None,
        label_smoothing: float = 0.0,
    ) -> None:
        self.players = {"student": student}
        self.config = config
        self.chains = (tuple(policies), tuple(policies if second_policies is None else second_policies))
        self.policies = (*policies, *(second_policies or ()))
        self.label_smoothing = label_smoothing
        self.compared_layer = last_layer(student) if config.ait_layer == "features" else None
        if config.ait_layer == "features" and self.compared_layer is None:
            raise InputError(
                f"ait_layer features: the last layer of {student.source!r} is not known. Take a network of timm with "
                "one classifier, or ait_layer logits."
            )

    @classmethod
    def build(cls, student: Classifier, parts: Parts) -> "InvariantTraining":
        options = parts.options(InvariantConfig)
        return cls(student, options, parts.policies, parts.second_policies, parts.label_smoothing)

    def draw(self, player: str, shape: tuple[int, ...], generator: torch.Generator) -> VariantDraws:
        return VariantDraws(tuple(draw_all(chain, shape, generator) for chain in self.chains))

    def loss(self, player: str, nets: Mapping[str, nn.Module], batch: Batch, draws: VariantDraws) -> dict[str, Tensor]:
        config = self.config
        augmented = [
            apply_all(chain, variant, drawn)
            for chain, variant, drawn in zip(self.chains, batch.variants, draws.variants, strict=True)
        ]
        logits, compared = self._answers(nets["student"], torch.cat(augmented))
        first, second = compared.chunk(2)
        distances = []
        if config.ait_metric != "euclidean":
            distances.append(symmetric_kl(first, second, config.ait_detach_target))
        if config.ait_metric != "kl":
            distances.append(euclidean_distance(first, second))
        share = batch.share
        labels = torch.cat([batch.labels, batch.labels])
        labelled = cross_entropy(logits, labels, self.label_smoothing, batch.class_weights).sum() * share
        invariance = sum(distances[1:], distances[0]).sum() * share
        return {
            "total": labelled + config.ait_lambda * invariance,
            "cross_entropy": labelled.detach(),
            "ai_loss": invariance.detach(),
        }

    def _answers(self, student: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits, and what is compared: the logits themselves or the features, both [2 b, ...]."""
        if self.compared_layer is None:
            logits = student(images)
            return logits, logits
        with inputs_of(self.compared_layer) as entered:
            logits = student(images)
        return logits, entered[0].flatten(1)
