"""Under what images are classified: clean, or corrupted by one corruption at one severity."""

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

from hf_transinv.augment.corruptions import corrupt


def generator_of(*place: str | int) -> torch.Generator:
    """A CPU generator whose numbers follow from the place they are drawn for, and from nothing that came before."""
    digest = hashlib.blake2b(" ".join(map(str, place)).encode(), digest_size=4).digest()
    # torch's CPU generator takes 32 bits of the seed.
    return torch.Generator().manual_seed(int.from_bytes(digest))


@dataclass(frozen=True)
class Condition:
    """What is done to the images before they are classified: nothing, or one corruption at one severity."""

    corruption: str | None = None
    severity: int = 0

    def __str__(self) -> str:
        return f"{self.corruption} {self.severity}" if self.corruption else "clean"

    def apply(self, images: Tensor, seed: int, batch_index: int, frost_folder: str | None = None) -> Tensor:
        """Images [B, 3, H, W] in [0, 1] -> the same, corrupted; the batch's place alone seeds the random numbers."""
        if self.corruption is None:
            return images
        generator = generator_of(seed, self.corruption, self.severity, batch_index)
        return corrupt(images, self.corruption, self.severity, generator, frost_folder)


CLEAN = Condition()
