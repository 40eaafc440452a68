"""FixedAug, the baseline of TransInv: its four deformations, unlearned (Kurioka et al., ICONIP 2024, 4.2).

"... one of the four deformations was randomly selected, and the strength was uniformly sampled from six levels at each
iteration". Each image gets one of the four, all equally likely, at one of six levels s, all equally likely:

    s = 1/6, 2/6, .. 1;    parameter = rest + s (end - rest)

rest is the parameter that changes nothing, end the end of its range in section 4.2 (the ranges of
`augment.primitives`). Where both ends differ from rest, a fair coin per parameter chooses between them. In full:

    contrast and brightness   alpha = 1 +- 0.8 s, beta = +- 0.5 s
    geometric                 the identity +- 0.25 s in each of the six affine entries
    Gaussian blur             gamma = 1 - s, variance = 1.8 s
    Gaussian noise            variance = 0.12 s

The paper leaves open, and our reading is: the position of the levels (the benchmark it refers to has five), one level
for all parameters of a deformation, the signs, and the geometric range. The authors' slides describe another FixedAug,
the corruption that the teacher was trained on: that is `corruption.RandomCorruption`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hf_transinv.augment.deal import sort_into_groups
from hf_transinv.augment.policies.policy import Policy
from hf_transinv.augment.primitives import CITATION, PAPER_PRIMITIVES, PrimitiveConfig
from hf_transinv.data.transfer import send_all

LEVELS = 6


@dataclass(frozen=True)
class FixedDraws:
    """What was drawn, on the CPU.

    Attributes:
        which: index of the deformation of each image, int64 [B].
        level: 1 to 6, int64 [B].
        upward: which end of the range each parameter takes, where there are two, bool [B, 6].
        noise: standard normal, for the images that need it, [n, 3, H, W].
        noise_row: row of each image in `noise`, -1 for an image without noise, int64 [B].
    """

    which: Tensor
    level: Tensor
    upward: Tensor
    noise: Tensor
    noise_row: Tensor

    def __getitem__(self, rows: slice) -> "FixedDraws":
        return replace(
            self,
            which=self.which[rows],
            level=self.level[rows],
            upward=self.upward[rows],
            noise_row=self.noise_row[rows],
        )


class FixedAug(Policy):
    """One of the four deformations of section 4.2 for each image, at one of six levels.

    Args:
        config: geometric_range, padding_mode and out_of_range are used; the other fields concern learned primitives.
    """

    name = "fixed_aug"
    title = "FixedAug"
    phrase = "TransInv's deformations at random (FixedAug)"
    citation = CITATION

    def __init__(self, config: PrimitiveConfig | None = None) -> None:
        # Only the image functions and ranges are used: on "meta" the MLPs take no memory and no random numbers.
        with torch.device("meta"):
            self.primitives = [kind(config or PrimitiveConfig()) for kind in PAPER_PRIMITIVES.values()]
        self._noisy = torch.tensor([primitive.uses_noise for primitive in self.primitives])
        self._most_parameters = max(len(primitive.bounds()) for primitive in self.primitives)

    @property
    def kin(self) -> Mapping[str, str]:
        return {name: reason for primitive in self.primitives for name, reason in primitive.kin.items()}

    def draw(self, shape: tuple[int, ...], generator: torch.Generator) -> FixedDraws:
        which = torch.randint(len(self.primitives), shape[:1], generator=generator)
        level = torch.randint(1, LEVELS + 1, shape[:1], generator=generator)
        upward = torch.rand(shape[0], self._most_parameters, generator=generator) < 0.5
        noisy = self._noisy[which]
        noise = torch.randn(int(noisy.sum()), *shape[1:], generator=generator)
        return FixedDraws(which, level, upward, noise, torch.where(noisy, noisy.cumsum(0) - 1, -1))

    def __call__(self, images: Tensor, draws: FixedDraws) -> Tensor:
        order, groups = sort_into_groups(draws.which, len(self.primitives))
        level, upward, noise_row = draws.level[order], draws.upward[order], draws.noise_row[order]
        strengths = [self.parameters(index, level[own], upward[own]) for index, own in enumerate(groups)]
        noises = [
            draws.noise[noise_row[own]] if primitive.uses_noise else draws.noise[:0]
            for primitive, own in zip(self.primitives, groups, strict=True)
        ]
        order, *sent = send_all([order, *strengths, *noises], images.device)
        numbers = [values.to(images.dtype) for values in sent]
        deformed = torch.empty_like(images, memory_format=torch.contiguous_format)
        for index, (primitive, own) in enumerate(zip(self.primitives, groups, strict=True)):
            if own.start < own.stop:  # affine_grid refuses an empty batch
                place, noise = order[own], numbers[len(groups) + index] if primitive.uses_noise else None
                deformed.index_copy_(0, place, primitive.apply_to(images[place], numbers[index], noise))
        return deformed

    def parameters(self, index: int, level: Tensor, upward: Tensor) -> Tensor:
        """The parameters rest + s (end - rest) of a deformation, on the CPU.

        Args:
            index: of the deformation.
            level: 1 to 6, [n].
            upward: [n, 6].

        Returns:
            [n, P].
        """
        primitive = self.primitives[index]
        low, high = torch.tensor(primitive.bounds()).unbind(1)
        rest = torch.tensor(primitive.rest)
        # A range that begins or ends at rest has only one other end.
        up, down = torch.where(high == rest, low, high), torch.where(low == rest, high, low)
        end = torch.where(upward[:, : len(rest)], up, down)
        return rest + (level / LEVELS).unsqueeze(1) * (end - rest)
