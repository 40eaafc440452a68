"""Random corruptions of the benchmark as a policy."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hf_transinv.augment.corruptions import CORRUPTIONS, apply_corruption
from hf_transinv.augment.deal import sort_into_groups
from hf_transinv.augment.kin import kin_of_corruption
from hf_transinv.augment.policies.policy import Policy
from hf_transinv.config.checks import choice, did_you_mean
from hf_transinv.data.transfer import send_all
from hf_transinv.errors import InputError


@dataclass
class CorruptionConfig:
    """Random corruptions of training images.

    Attributes:
        corruption: names of corruptions; each image gets one of them.
        clean_share: share of the training images that stay clean.
        severities: of the corruptions in training, each equally likely.
        frost_folder: folder of the authors' photographs of frost; default: synthetic textures.
    """

    corruption: tuple[str, ...] = choice((), CORRUPTIONS, is_closed=False)
    clean_share: float = 0.5
    severities: tuple[int, ...] = choice((1, 2, 3, 4, 5), (1, 2, 3, 4, 5), is_closed=False)
    frost_folder: str | None = None

    def policy(self) -> "RandomCorruption":
        """The policy.

        Raises:
            InputError: no corruption is named, one is unknown, or a value is out of range.
        """
        return RandomCorruption(self.corruption, self.clean_share, self.severities, self.frost_folder)


@dataclass(frozen=True)
class CorruptionDraws:
    """What was drawn, on the CPU.

    Each part of a batch that is cut up has its own noise, so the parts equal the whole batch only in distribution.

    Attributes:
        which: index of the corruption of each image, -1 for none, int64 [B].
        severity: 1 to 5, int64 [B].
        seed: of the corruptions' random numbers.
    """

    which: Tensor
    severity: Tensor
    seed: int

    def __getitem__(self, rows: slice) -> "CorruptionDraws":
        return replace(self, which=self.which[rows], severity=self.severity[rows], seed=self.seed + (rows.start or 0))


class RandomCorruption(Policy):
    """Corrupt images at random.

    The teachers of TransInv were trained so (section 4: "using data augmentation with the corresponding corruption").
    The paper leaves open how severities are drawn; here it is uniformly.

    Args:
        names: of corruptions; each image gets one of them, all equally likely.
        clean_share: share of the images that stay as they are, in [0, 1].
        severities: 1 to 5, each equally likely.
        frost_folder: folder of the authors' photographs of frost; None for synthetic textures.
    """

    name = "corruption"
    title = "corruptions"
    phrase = ""

    def __init__(
        self,
        names: Sequence[str],
        clean_share: float = 0.5,
        severities: Sequence[int] = (1, 2, 3, 4, 5),
        frost_folder: str | None = None,
    ) -> None:
        unknown = sorted(set(names) - set(CORRUPTIONS))
        if unknown or not names:
            near = did_you_mean(unknown[0], CORRUPTIONS) if unknown else ""
            given = ", ".join(unknown) or "(none)"
            raise InputError(f"corruption {given}: expected some of {', '.join(CORRUPTIONS)}{near}")
        if not 0 <= clean_share <= 1 or not severities or not set(severities) <= {1, 2, 3, 4, 5}:
            raise InputError("clean_share must be in [0, 1], severities some of 1 to 5")
        self.names, self.clean_share, self.severities = tuple(names), clean_share, torch.tensor(severities)
        self.frost_folder = frost_folder

    @property
    def kin(self) -> Mapping[str, str]:
        return {kin: reason for name in self.names for kin, reason in kin_of_corruption(name).items()}

    def draw(self, shape: tuple[int, ...], generator: torch.Generator) -> CorruptionDraws:
        """Draw for every image whether it is corrupted, by what and how strongly."""
        batch_size = shape[0]
        which = torch.randint(len(self.names), (batch_size,), generator=generator)
        clean = torch.rand(batch_size, generator=generator) < self.clean_share
        severity = self.severities[torch.randint(len(self.severities), (batch_size,), generator=generator)]
        seed = int(torch.randint(2**62, (), generator=generator))
        return CorruptionDraws(torch.where(clean, -1, which), severity, seed)

    def __call__(self, images: Tensor, draws: CorruptionDraws) -> Tensor:
        """Corrupt images [b, 3, H, W] in [0, 1] as drawn."""
        generator = torch.Generator(images.device).manual_seed(draws.seed)
        kind = torch.where(draws.which < 0, len(self.names), draws.which)  # those that stay clean come last
        order, groups = sort_into_groups(kind, len(self.names) + 1)
        order, index = send_all((order, draws.severity[order] - 1), images.device)
        for name, own in zip(self.names, groups, strict=False):
            if own.start < own.stop:
                place = order[own]
                corrupted = apply_corruption(images[place], name, index[own], generator, self.frost_folder)
                images = images.index_copy(0, place, corrupted)
        return images
