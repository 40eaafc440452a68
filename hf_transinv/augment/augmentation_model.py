"""The learned augmentation of one teacher: A_{phi,p,q} (TransInv, eq. 1-4)."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from hf_transinv.augment.augmentation_config import AugmentationConfig
from hf_transinv.augment.primitive_sets import build_primitive
from hf_transinv.augment.primitives import Primitive


class AugmentationModel(nn.Module):
    """A_{phi,p,q} for one teacher: the primitives (phi) and the logits of p and q.

    Args:
        config: primitives, and the start of q.
    """

    def __init__(self, config: AugmentationConfig) -> None:
        super().__init__()
        primitives = nn.ModuleList(build_primitive(name, config.primitive) for name in config.primitives)
        self.primitives = cast(Sequence[Primitive], primitives)
        self.logits_p = nn.Parameter(torch.zeros(len(config.primitives)))
        self.logit_q = nn.Parameter(torch.logit(torch.tensor(config.q_init)))

    @property
    def p(self) -> Tensor:
        """The probabilities of the primitives, [K]."""
        return torch.softmax(self.logits_p, dim=0)

    @property
    def q(self) -> Tensor:
        """The probability of deforming an image at all, a scalar in (0, 1)."""
        return torch.sigmoid(self.logit_q)
