"""The interface of a fixed augmentation policy: draw for a whole batch, then apply what was drawn."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hf_transinv.augment.sampled import Sampled


@dataclass(frozen=True)
class PolicyDraws(Sampled):
    """What policies that are applied one after another drew for a batch.

    Attributes:
        of_policies: the answer of each policy's `draw`, in order.
    """

    of_policies: tuple[Any, ...]


@dataclass(frozen=True)
class VariantDraws(Sampled):
    """What was drawn for several variants of the same images.

    Attributes:
        variants: for each variant, the draws of its policies.
    """

    variants: tuple[PolicyDraws, ...]


class Policy(ABC):
    """A fixed augmentation.

    Attributes:
        name: on the command line.
        title: in tables.
        phrase: how a model card names it after "augmented by"; empty where another sentence does.
        citation: BibTeX of its source, for the model card; empty where there is none.
    """

    name: str
    title: str
    phrase: str
    citation: str = ""

    @property
    def kin(self) -> Mapping[str, str]:
        """Corruptions of the benchmark that it imitates, each with the reason."""
        return {}

    @abstractmethod
    def draw(self, shape: tuple[int, ...], generator: torch.Generator) -> Any:
        """Draw for every image of a batch.

        Args:
            shape: of the batch, (B, 3, H, W).
            generator: on the CPU.

        Returns:
            The draws, on the CPU. `draws[rows]` are those of some of the images.
        """

    @abstractmethod
    def __call__(self, images: Tensor, draws: Any) -> Tensor:
        """Augment images as drawn.

        Args:
            images: [b, 3, H, W] in [0, 1], on any device.
            draws: of these images.

        Returns:
            [b, 3, H, W] in [0, 1], on the device of the images.
        """

    def apply_variants(self, images: Sequence[Tensor], draws: Sequence[Any]) -> list[Tensor]:
        """Augment several variants of images, each as its own draws say; a policy may do it in one go."""
        return [self(variant, drawn) for variant, drawn in zip(images, draws, strict=True)]


def draw_all(policies: Sequence[Policy], shape: tuple[int, ...], generator: torch.Generator) -> PolicyDraws:
    """Draw for policies that are applied one after another."""
    return PolicyDraws(tuple(policy.draw(shape, generator) for policy in policies))


def apply_all(policies: Sequence[Policy], images: Tensor, draws: PolicyDraws) -> Tensor:
    """Apply policies one after another, each with its part of `draw_all`'s answer.

    Computes in float32, also under autocast: a mantissa of eight bits is too short for pixels.
    """
    return apply_all_variants(policies, images, VariantDraws((draws,)))[0]


def apply_all_variants(policies: Sequence[Policy], images: Tensor, draws: VariantDraws) -> list[Tensor]:
    """`apply_all` for each of several draws of the same policies: as many variants of the images."""
    found = [images] * len(draws.variants)
    with torch.autocast(images.device.type, enabled=False):
        for policy, *drawn in zip(policies, *(each.of_policies for each in draws.variants), strict=True):
            found = policy.apply_variants(found, drawn)
    return found
