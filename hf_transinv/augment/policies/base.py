"""What a fixed augmentation policy is: it draws for a whole batch, then applies what was drawn. Nothing is learned."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Together:
    """Several draws that belong to the same images, cut together.

    Attributes:
        parts: each sliceable by rows as the batch is, or None where nothing is drawn.
    """

    parts: tuple[Any, ...]

    def __getitem__(self, rows: slice) -> "Together":
        return Together(tuple(None if part is None else part[rows] for part in self.parts))


class Policy(ABC):
    """A fixed augmentation.

    Attributes:
        name: as on the command line.
        citation: BibTeX of its source, for the model card; empty where there is none.
    """

    name: str
    citation: str = ""

    @abstractmethod
    def draw(self, shape: tuple[int, ...], generator: torch.Generator) -> Any:
        """Draw for every image of a batch of this shape (B, 3, H, W), on the CPU; the answer is cut by `[rows]`."""

    @abstractmethod
    def __call__(self, images: Tensor, draws: Any) -> Tensor:
        """Images [b, 3, H, W] in [0, 1], on any device, augmented as drawn: the same shape, range and device."""


def draw_all(policies: Sequence[Policy], shape: tuple[int, ...], generator: torch.Generator) -> Together:
    """Draw for policies that are applied one after another."""
    return Together(tuple(policy.draw(shape, generator) for policy in policies))


def apply_all(policies: Sequence[Policy], images: Tensor, draws: Together) -> Tensor:
    """Apply policies one after another, each with its part of `draw_all`'s answer.

    Runs in float32 also under autocast: eight bits of mantissa are too few for pixels.
    """
    with torch.autocast(images.device.type, enabled=False):
        for policy, drawn in zip(policies, draws.parts, strict=True):
            images = policy(images, drawn)
    return images
