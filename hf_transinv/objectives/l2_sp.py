"""L2-SP: fine-tuning that is drawn to the weights it starts from (Li, Grandvalet and Davoine, ICML 2018).

    L = CE(y, F(x)) + alpha / 2 ||w - w0||^2 + beta / 2 ||v||^2                                            (section 3)

Symbols: w, the weights of the backbone, and w0, what they are at the start; v, those of the classifier head, which is
new and so has nothing to stay near; alpha `l2_sp_alpha`, beta `l2_sp_beta`. The defaults are those of the authors'
script for Stanford Dogs. As in their code, biases and the parameters of normalisation are not in the penalty.

The penalty takes the place of weight decay, so a run by this method has none (`Objective.keeps_start`). It is part of
the loss: an adaptive optimizer such as AdamW rescales its gradient as it does all others.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from hf_transinv.augment.policies.policy import Policy, PolicyDraws, apply_all, draw_all
from hf_transinv.config.checks import at_least
from hf_transinv.divergences import cross_entropy
from hf_transinv.errors import InputError
from hf_transinv.models.classifier import Classifier
from hf_transinv.models.layer_groups import head_parameters
from hf_transinv.models.teacher import Teacher
from hf_transinv.objectives.objective import Objective
from hf_transinv.objectives.parts import Parts
from hf_transinv.objectives.passes import Passes
from hf_transinv.objectives.turns import Batch


@dataclass
class L2SPConfig:
    """The penalties of L2-SP.

    Attributes:
        l2_sp_alpha: alpha, of the backbone's distance from the weights it starts from.
        l2_sp_beta: beta, of the size of the classifier head's weights.
    """

    l2_sp_alpha: float = 0.1
    l2_sp_beta: float = 0.01

    def __post_init__(self) -> None:
        for name in ("l2_sp_alpha", "l2_sp_beta"):
            at_least(name, getattr(self, name), 0)


class L2SP(Objective):
    """min over theta of mean_i CE(y_i, F(x_i)) + alpha / 2 ||w - w0||^2 + beta / 2 ||v||^2.

    In a loop of your own, leave out the weight decay of the optimizer: the penalties take its place.

    Args:
        student: the network that trains, as it starts.
        config: alpha and beta.
        policies: fixed augmentations, one after another.
        label_smoothing: of the cross-entropy, in [0, 1).

    Raises:
        InputError: the head of the student cannot be told from its backbone.
    """

    name = "l2_sp"
    title = "L2-SP"
    summary = "It was trained with a penalty on its distance from the weights that it started from (L2-SP)."
    citation = """@inproceedings{li2018explicit,
  title     = {Explicit Inductive Bias for Transfer Learning with Convolutional Networks},
  author    = {Li, Xuhong and Grandvalet, Yves and Davoine, Franck},
  booktitle = {International Conference on Machine Learning (ICML)},
  year      = {2018}
}"""
    turns = (("student",),)
    passes: ClassVar = {("student",): Passes(3)}
    configs = (L2SPConfig,)
    keeps_start = True

    def __init__(
        self,
        student: Classifier,
        config: L2SPConfig | None = None,
        policies: Sequence[Policy] = (),
        label_smoothing: float = 0.0,
    ) -> None:
        self.players, self.config = {"student": student}, config or L2SPConfig()
        self.policies, self.label_smoothing = tuple(policies), label_smoothing
        self.start = Teacher(copy.deepcopy(student), name="start")
        head, starts = head_parameters(student.network), dict(self.start.classifier.network.named_parameters())
        weights = [(name, weight) for name, weight in student.network.named_parameters() if weight.ndim > 1]
        self._head = [weight for name, weight in weights if name in head]
        self._backbone = [(weight, starts[name]) for name, weight in weights if name not in head]
        if not self._backbone:
            raise InputError(
                f"l2_sp: a {type(student.network).__name__} has no weights but those of its classifier head, and "
                "nothing to keep near its start: take method supervised"
            )

    @classmethod
    def build(cls, student: Classifier, parts: Parts) -> "L2SP":
        return cls(student, parts.options(L2SPConfig), parts.policies, parts.label_smoothing)

    def draw(self, player: str, shape: tuple[int, ...], generator: torch.Generator) -> PolicyDraws:
        return draw_all(self.policies, shape, generator)

    def loss(self, player: str, nets: Mapping[str, nn.Module], batch: Batch, draws: PolicyDraws) -> dict[str, Tensor]:
        logits = nets["student"](apply_all(self.policies, batch.images, draws))
        labelled = cross_entropy(logits, batch.labels, self.label_smoothing, batch.class_weights).sum() * batch.share
        # The penalties of a step are shared out over micro-batches as the images are.
        part = len(batch.images) * batch.share
        trained = [(weight, start) for weight, start in self._backbone if weight.requires_grad]  # not what is frozen
        moved = torch._foreach_sub(*map(list, zip(*trained, strict=True))) if trained else []
        drift = self.config.l2_sp_alpha * part * _half_squared_norm(moved, labelled)
        size = self.config.l2_sp_beta * part * _half_squared_norm(self._head, labelled)
        return {
            "total": labelled + drift + size,
            "cross_entropy": labelled.detach(),
            "start_penalty": drift.detach(),
            "head_penalty": size.detach(),
        }

    def extra_state(self) -> dict[str, nn.Module]:
        return {"start": self.start}


class _HalfSquaredNorm(torch.autograd.Function):
    """1/2 sum of the squares of tensors; in a few launches for all of them, forward and backward."""

    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> Tensor:
        ctx.save_for_backward(*tensors)
        return 0.5 * torch.stack(torch._foreach_norm(tensors)).square().sum()

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, ...]:
        return tuple(torch._foreach_mul(list(ctx.saved_tensors), slope))


def _half_squared_norm(tensors: Sequence[Tensor], like: Tensor) -> Tensor:
    found: Tensor = _HalfSquaredNorm.apply(*tensors) if tensors else like.new_zeros(())
    return found
