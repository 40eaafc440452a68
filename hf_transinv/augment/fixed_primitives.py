"""Primitives without parameters, of which the probability alone is learned: corruptions and fixed policies.

TransInv, section 4.1, has the corruptions of the benchmark at fixed severities as primitives: "contrast:3" is contrast
at severity 3. A fixed policy, such as AugMix's mixture, is a primitive in the same way; that is not in the paper.
"""

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from hf_transinv.augment.corruptions import apply_corruption
from hf_transinv.augment.kin import kin_of_corruption
from hf_transinv.augment.policies.augmix import AugMix
from hf_transinv.augment.policies.policy import Policy
from hf_transinv.augment.policies.prime import Prime
from hf_transinv.augment.policies.randaugment import RandAugment
from hf_transinv.augment.policies.trivialaugment import TrivialAugment
from hf_transinv.augment.primitives import Primitive

PRIMITIVE_POLICIES: Mapping[str, Callable[[], Policy]] = {
    AugMix.name: AugMix,
    RandAugment.name: RandAugment,
    TrivialAugment.name: TrivialAugment,
    Prime.name: Prime,
}
"""The fixed policies that can be primitives, each with its defaults, by name."""


class FixedPrimitive(Primitive):
    """A primitive without parameters; its results have no gradient.

    Args:
        name: as in `AugmentationConfig.primitives`.
        kin: corruptions of the benchmark that it imitates, each with the reason.
    """

    def __init__(self, name: str, kin: Mapping[str, str]) -> None:
        nn.Module.__init__(self)
        self.name, self.kin = name, kin

    def forward(self, z: Tensor) -> Tensor:
        """Latents z [B, M] -> [B, 0], as there are no parameters."""
        return z.new_zeros(len(z), 0)


class Corruption(FixedPrimitive):
    """A corruption of the benchmark at one severity (section 4.1).

    Args:
        name: one of `CORRUPTIONS`.
        severity: above 0, up to 5. Between two whole ones, an image has one of these: at 2.4 severity 3 with a
            probability of 0.4, else 2; at 0.4 severity 1 with that probability, else it stays as it is.
    """

    def __init__(self, name: str, severity: float) -> None:
        super().__init__(name, kin_of_corruption(name))
        self.index, self.share_above = math.floor(severity) - 1, severity % 1

    def apply_to(
        self,
        images: Tensor,
        parameters: Tensor,
        noise: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Corrupt images [B, 3, H, W] in [0, 1]."""
        index = torch.full((len(images),), self.index, device=images.device)
        if self.share_above:
            index += torch.rand(len(images), generator=generator, device=images.device) < self.share_above
        corrupted = apply_corruption(images, self.name, index.clamp_min(0), generator)
        return corrupted if self.index >= 0 else torch.where((index < 0)[:, None, None, None], images, corrupted)


class PolicyPrimitive(FixedPrimitive):
    """A fixed policy, with its defaults.

    Args:
        policy: a policy.
    """

    def __init__(self, policy: Policy) -> None:
        super().__init__(policy.name, policy.kin)
        self.policy = policy

    @torch.no_grad()
    def apply_to(
        self,
        images: Tensor,
        parameters: Tensor,
        noise: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Augment images [B, 3, H, W] in [0, 1]; the draws, on the CPU, are a function of the generator's seed."""
        if generator is None:
            raise TypeError(f"{self.name} draws for each image: give a generator")
        drawn = self.policy.draw(tuple(images.shape), torch.Generator().manual_seed(generator.initial_seed()))
        return self.policy(images, drawn)
