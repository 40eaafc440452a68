"""The conditions of an evaluation: clean, corrupted by one corruption at one severity, or randomly augmented.

The augmentations are the test sets of Augmentation Invariant Training (Chen et al., ICCV Workshops 2021, 4.4): random
crop, grayscale and random colour jitter, "kept intact once generated". The paper leaves open, and our reading is, that
every image of the grayscale set is grey, while in training one in ten is.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from hf_transinv.augment.corruptions import CORRUPTIONS, corrupt
from hf_transinv.augment.policies.jitter import ColorJitter, RandomGrayscale
from hf_transinv.augment.policies.pad_crop import PadCrop
from hf_transinv.augment.policies.policy import Policy
from hf_transinv.config.checks import did_you_mean
from hf_transinv.errors import InputError

AUGMENTATIONS: dict[str, Policy] = {
    policy.name: policy for policy in (PadCrop(), RandomGrayscale(1.0), ColorJitter(0.1))
}
"""By name. Each draws a few numbers per image."""

_DRAWN_AT_ONCE = 500  # images; another number would give other test sets


def generator_of(*place: str | int) -> torch.Generator:
    """A CPU generator whose seed is a hash of what its numbers are drawn for, such as (seed, name, batch number)."""
    digest = hashlib.blake2b(" ".join(map(str, place)).encode(), digest_size=4).digest()
    # torch's CPU generator takes 32 bits of the seed.
    return torch.Generator().manual_seed(int.from_bytes(digest))


@dataclass(frozen=True)
class Condition:
    """What is done to the images before they are classified: nothing, or one corruption at one severity.

    Attributes:
        corruption: its name; "" for clean images.
        severity: 1 to 5; 0 for clean images.
    """

    corruption: str = ""
    severity: int = 0

    def __str__(self) -> str:
        return f"{self.corruption} {self.severity}" if self.corruption else "clean"

    def apply(self, images: Tensor, seed: int, batch_index: int, frost_folder: str | None = None) -> Tensor:
        """Corrupt images; the seed, the condition and the batch number determine the random numbers.

        Args:
            images: [B, 3, H, W] in [0, 1].
            seed: of the evaluation.
            batch_index: number of the batch in the split.
            frost_folder: as for `corrupt`.

        Returns:
            [B, 3, H, W] in [0, 1].
        """
        if not self.corruption:
            return images
        generator = generator_of(seed, self.corruption, self.severity, batch_index)
        return corrupt(images, self.corruption, self.severity, generator, frost_folder)


CLEAN = Condition()


@dataclass(frozen=True)
class Augmented:
    """One of `AUGMENTATIONS`.

    Attributes:
        augmentation: its name.
    """

    augmentation: str

    def __str__(self) -> str:
        return f"augmented by {self.augmentation}"

    def apply(self, images: Tensor, seed: int, first: int) -> Tensor:
        """Augment images; the seed and the number of an image in the split determine its draws, for any batch size.

        Args:
            images: of the split, from number `first` on, [B, 3, H, W] in [0, 1].
            seed: of the test set.
            first: at least 0.

        Returns:
            [B, 3, H, W] in [0, 1].
        """
        policy = AUGMENTATIONS[self.augmentation]
        augmented, end = [], first + len(images)
        for block in range(first // _DRAWN_AT_ONCE, -(-end // _DRAWN_AT_ONCE)):
            start = block * _DRAWN_AT_ONCE
            low, high = max(first, start), min(end, start + _DRAWN_AT_ONCE)
            generator = generator_of(seed, self.augmentation, block)
            draws = policy.draw((_DRAWN_AT_ONCE, *images.shape[1:]), generator)
            augmented.append(policy(images[low - first : high - first], draws[low - start : high - start]))
        return torch.cat(augmented)


def check_augmentations(names: Iterable[str]) -> None:
    """Refuse names that are not in `AUGMENTATIONS`.

    Raises:
        InputError: one is not; the message lists the known ones.
    """
    unknown = [name for name in names if name not in AUGMENTATIONS]
    if unknown:
        near = did_you_mean(unknown[0], AUGMENTATIONS)
        raise InputError(f"evaluation under {', '.join(unknown)}: unknown; there are {', '.join(AUGMENTATIONS)}{near}")


def chosen_corruptions(names: tuple[str, ...], field: str = "eval_corruptions") -> tuple[str, ...]:
    """The corruptions to evaluate under.

    Args:
        names: of corruptions, or ("all",), or ("none",).
        field: that names them, for the error.

    Raises:
        InputError: one is unknown.
    """
    if names in (("none",), ()):
        return ()
    if names == ("all",):
        return CORRUPTIONS
    unknown = sorted(set(names) - set(CORRUPTIONS))
    if unknown:
        near = did_you_mean(unknown[0], (*CORRUPTIONS, "all", "none"))
        known = f"there are {', '.join(CORRUPTIONS)}, all and none{near}"
        raise InputError(f"{field} {', '.join(unknown)}: unknown; {known}")
    return names
