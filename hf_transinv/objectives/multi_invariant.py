"""multi-AIT: several networks, a variant of the image each, one answer (Chen et al., ICCV Workshops 2021, 3.2.2).

    L = sum_k CE(y, p_k) + lambda sum_{j < k} [KL(p_j || p_k) + KL(p_k || p_j)],    lambda = 3            (eq. 1-3)
    p_k = Theta_k(F_k(x, seed_k))

Symbols: Theta_k `Cohort.networks`, of any architectures; F_k(x, seed_k) `batch.variants`, with the
policies drawn anew for each; lambda `multi_ait_lambda`. All networks minimise the one sum, together: gradients go
through both sides of each KL, unlike in deep mutual learning, where a peer's answer is fixed.

The paper trains two networks; with more, the sum over all pairs is our extension (the authors' code divides it by the
number of peers, and takes no gradient through the left side of a KL: `multi_ait_detach_target`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import ClassVar

import torch
from torch import Tensor, nn

from hf_transinv.augment.policies.policy import Policy, VariantDraws, apply_all, draw_all
from hf_transinv.divergences import cross_entropy, symmetric_kl
from hf_transinv.errors import InputError
from hf_transinv.models.classifier import Classifier
from hf_transinv.objectives.invariant import CITATION
from hf_transinv.objectives.mutual import name_networks
from hf_transinv.objectives.objective import Objective
from hf_transinv.objectives.parts import Parts
from hf_transinv.objectives.passes import Passes
from hf_transinv.objectives.turns import Batch, Turn


@dataclass
class MultiInvariantConfig:
    """multi-AIT.

    Attributes:
        multi_ait_lambda: lambda, weight of the AiLoss of each pair of networks.
        multi_ait_detach_target: take no gradient through the left side of each KL, as the authors' code does.
    """

    multi_ait_lambda: float = 3.0
    multi_ait_detach_target: bool = False

    def __post_init__(self) -> None:
        if self.multi_ait_lambda < 0:
            raise InputError(f"multi_ait_lambda must not be negative, given {self.multi_ait_lambda}")


class Cohort(nn.Module):
    """Networks that train by one loss: one player, so one optimizer, and one call per turn for several devices.

    Args:
        networks: classifiers of the same classes.
    """

    def __init__(self, networks: Sequence[Classifier]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, variants: Sequence[Tensor]) -> list[Tensor]:
        """A variant [b, 3, H, W] in [0, 1] for each network -> the logits [b, C] of each."""
        return [network(images) for network, images in zip(self.networks, variants, strict=True)]


class MultiInvariantTraining(Objective):
    """min over all theta_k of mean_i [sum_k CE(y_i, p_k) + lambda sum_{j < k} L_Ai(p_j, p_k)].

    Args:
        networks: Theta_1 .. Theta_K, at least two, of any architectures; the first is the one that is exported.
        config: lambda.
        policies: applied one after another to each variant, drawn anew for each.
        label_smoothing: of the cross-entropies, in [0, 1).

    Raises:
        InputError: fewer than two networks, one of them twice, or other numbers of classes.
    """

    name = "multi_ait"
    title = "multi-AIT"
    summary = "It was trained together with other networks, to agree with them on variants of an image (multi- AIT)."
    citation = CITATION
    turns = (("student",),)
    passes: ClassVar = {("student",): Passes(6)}  # two networks train, on a variant each
    configs = (MultiInvariantConfig,)
    own_options = ("peers",)

    def __init__(
        self,
        networks: Sequence[Classifier],
        config: MultiInvariantConfig,
        policies: Sequence[Policy] = (),
        label_smoothing: float = 0.0,
    ) -> None:
        self._students = name_networks(networks)
        self.players = {"student": Cohort(networks)}
        self.variants = len(networks)
        self.config = config
        self.policies = tuple(policies)
        self.label_smoothing = label_smoothing

    @classmethod
    def build(cls, student: Classifier, parts: Parts) -> "MultiInvariantTraining":
        networks = [student, *parts.peers(student)]
        return cls(networks, parts.options(MultiInvariantConfig), parts.policies, parts.label_smoothing)

    def passes_of(self, turn: Turn) -> Passes:
        return Passes(3 * self.variants)

    @property
    def students(self) -> Mapping[str, Classifier]:
        return self._students

    def draw(self, player: str, shape: tuple[int, ...], generator: torch.Generator) -> VariantDraws:
        return VariantDraws(tuple(draw_all(self.policies, shape, generator) for _ in range(self.variants)))

    def loss(self, player: str, nets: Mapping[str, nn.Module], batch: Batch, draws: VariantDraws) -> dict[str, Tensor]:
        config, share = self.config, batch.share
        variants = [
            apply_all(self.policies, variant, drawn)
            for variant, drawn in zip(batch.variants, draws.variants, strict=True)
        ]
        logits = nets["student"](variants)
        of_each = {
            name: cross_entropy(one, batch.labels, self.label_smoothing, batch.class_weights).sum() * share
            for name, one in zip(self._students, logits, strict=True)
        }
        of_pairs = (
            symmetric_kl(first, second, config.multi_ait_detach_target).sum()
            for first, second in combinations(logits, 2)
        )
        zero = logits[0].new_zeros(())
        invariance = share * sum(of_pairs, zero)
        return {
            "total": sum(of_each.values(), zero) + config.multi_ait_lambda * invariance,
            "ai_loss": invariance.detach(),
            **{f"cross_entropy_{name}": value.detach() for name, value in of_each.items()},
        }
