"""The same answer to a deformed image as to the image itself: an invariance term that shows every image once.

    L = CE(y, F(a(x))) + w(t) KL(F*(x) || F(a(x))),    w(t) = w min(1, t / warm-up)

Symbols: a, the augmentations, learned or fixed; F*, who answers to the image itself: the student, without gradient
("clean"), or its average ("ema"); t, student steps so far; w, `consistency_weight`.

Unlike AIT's term (two deformed variants of half as many images) and AugMix's (three images for each), it costs one
forward pass without gradient, and only of the images that were deformed, where the augmentation says which.
The detached clean answer as the target is that of consistency training (UDA: Xie et al., NeurIPS 2020); the average,
that of Mean Teacher (Tarvainen and Valpola, NeurIPS 2017).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from hf_transinv.augment.policies.policy import Policy, PolicyDraws, apply_all, draw_all
from hf_transinv.config.checks import check_choices, choice
from hf_transinv.divergences import cross_entropy, kl_divergence
from hf_transinv.errors import InputError
from hf_transinv.models.classifier import Classifier
from hf_transinv.models.teacher import EMATeacher
from hf_transinv.objectives.objective import Objective
from hf_transinv.objectives.parts import Parts
from hf_transinv.objectives.passes import Passes
from hf_transinv.objectives.ramp import Ramp
from hf_transinv.objectives.turns import Batch


@dataclass
class ConsistencyConfig:
    """The invariance term of the method consistency.

    Attributes:
        consistency_target: whose answer to the image itself is the target: clean (the student's own, without
            gradient) or ema (that of its average, ema_decay).
        consistency_weight: w, weight of the KL divergence in nats.
        consistency_warmup: share of the steps, in [0, 1], in which the weight rises from 0.
    """

    consistency_target: str = choice("clean", ("clean", "ema"))
    consistency_weight: float = 1.0
    consistency_warmup: float = 0.0

    def __post_init__(self) -> None:
        check_choices(self)
        if not 0 <= self.consistency_weight < float("inf"):
            raise InputError(f"consistency_weight must be at least 0 and finite, given {self.consistency_weight}")
        if not 0 <= self.consistency_warmup <= 1:
            raise InputError(f"consistency_warmup is a share of the steps, in [0, 1], given {self.consistency_warmup}")


def check_deforms(method: str, augment: Sequence[str]) -> None:
    """Raises InputError for a method that looks at deformed images and has no augmentation."""
    if not augment:
        raise InputError(
            f"method {method} compares the answer to a deformed image with that to the image itself: give it an "
            "augmentation, --augment transinv or a fixed policy such as augmix"
        )


class ConsistencyTraining(Objective):
    """min over theta of mean_i [CE(y_i, F(a(x_i))) + w(t) KL(F*(x_i) || F(a(x_i)))].

    Args:
        student: the network that trains.
        config: the target, its weight and warm-up.
        policies: fixed augmentations, one after another.
        label_smoothing: of the cross-entropy, in [0, 1).
        max_steps: student steps in all, for the warm-up.
        ema_decay: of the average, where that is the target.
    """

    name = "consistency"
    title = "consistency"
    summary = "It was trained to answer to a deformed image as to the image itself (a consistency loss)."
    turns = (("student",),)
    passes: ClassVar = {("student",): Passes(4)}  # the image itself besides, forward alone
    configs = (ConsistencyConfig,)
    views = 2

    def __init__(
        self,
        student: Classifier,
        config: ConsistencyConfig | None = None,
        policies: Sequence[Policy] = (),
        label_smoothing: float = 0.0,
        max_steps: int = 0,
        ema_decay: float = 0.999,
    ) -> None:
        self.players, self.student = {"student": student}, student
        self.config = config = config or ConsistencyConfig()
        self.policies, self.label_smoothing = tuple(policies), label_smoothing
        self.ramp = Ramp(config.consistency_weight, round(config.consistency_warmup * max_steps))
        self.average = EMATeacher(student, ema_decay) if config.consistency_target == "ema" else None

    @classmethod
    def build(cls, student: Classifier, parts: Parts) -> "ConsistencyTraining":
        options = parts.options(ConsistencyConfig)
        return cls(student, options, parts.policies, parts.label_smoothing, parts.max_steps, parts.ema_decay)

    @classmethod
    def check_augment(cls, augment: Sequence[str], learned: str | None) -> None:
        check_deforms(cls.name, augment)

    def draw(self, player: str, shape: tuple[int, ...], generator: torch.Generator) -> PolicyDraws:
        return draw_all(self.policies, shape, generator)

    def loss(self, player: str, nets: Mapping[str, nn.Module], batch: Batch, draws: PolicyDraws) -> dict[str, Tensor]:
        logits = nets["student"](apply_all(self.policies, batch.images, draws))
        labelled = cross_entropy(logits, batch.labels, self.label_smoothing, batch.class_weights).sum() * batch.share
        original = batch.undeformed
        # Several processes make the same calls, whatever was deformed on which.
        if not self.policies and batch.deformed is not None and batch.world_size == 1:
            original, logits = original[batch.deformed], logits[batch.deformed]
        target = self._target(nets, original, logits)
        divergence = kl_divergence(target, logits).sum() * batch.share
        return {
            "total": labelled + self.ramp.weight * divergence,
            "cross_entropy": labelled.detach(),
            "consistency": divergence.detach(),
        }

    @torch.no_grad()
    def _target(self, nets: Mapping[str, nn.Module], original: Tensor, logits: Tensor) -> Tensor:
        """The answer to the images themselves, like `logits`."""
        if not len(original):
            return logits.detach()
        return (nets["student"] if self.average is None else self.average)(original)

    def after_step(self, player: str, nets: Mapping[str, nn.Module]) -> None:
        self.ramp.count += 1
        if self.average is not None:
            self.average.update(self.student)

    def extra_state(self) -> dict[str, nn.Module]:
        return {"ramp": self.ramp} | ({} if self.average is None else {"target": self.average})
