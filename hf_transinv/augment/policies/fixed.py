"""FixedAug, the baseline of TransInv: its four deformations, nothing learned (Kurioka et al., ICONIP 2024, 4.2).

"... one of the four deformations was randomly selected, and the strength was uniformly sampled from six levels at each
iteration". Each image gets one of the four, all equally likely, at one of six levels s, all equally likely:

    s = 1/6, 2/6, .. 1;    parameter = rest + s (end - rest)

rest is where the deformation does nothing, end the end of its range in section 4.2 (the ranges of
`augment.primitives`); where the range has two ends beyond rest, a fair coin of each parameter chooses. In full:

    contrast and brightness   alpha = 1 +- 0.8 s, beta = +- 0.5 s
    geometric                 the identity +- 0.25 s in each of the six affine entries
    Gaussian blur             gamma = 1 - s, variance = 1.8 s
    Gaussian noise            variance = 0.12 s

Open in the paper, and so our reading: where the levels lie (the benchmark it refers to has five), that all parameters
of a deformation share the level, the signs, and the geometric range. The authors' slides describe another FixedAug,
the corruption that the teacher has learned: that is `corruption.RandomCorruption`.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hf_transinv.augment.magnitudes import REST
from hf_transinv.augment.policies.base import Policy
from hf_transinv.augment.primitives import CITATION, PRIMITIVES, PrimitiveConfig, build_primitive

LEVELS = 6


@dataclass(frozen=True)
class FixedDraws:
    """What was drawn, on the CPU.

    Attributes:
        which: deformation of each image, [B].
        level: 1 to 6, [B].
        upward: the end of the range for each parameter, where there are two, bool [B, 6].
        noise: standard normal, for the images that get noise, [n, 3, H, W].
        noise_row: each image's row in `noise`, -1 where it has none, [B].
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
        config: the geometric range, what lies outside a warped image, how pixels return to [0, 1]; the rest of it
            concerns what is learned.
    """

    name = "fixed_aug"
    title = "FixedAug"
    phrase = "TransInv's deformations at random (FixedAug)"
    citation = CITATION

    def __init__(self, config: PrimitiveConfig | None = None) -> None:
        # Their image functions and ranges alone are wanted: on "meta" the MLPs take no memory and no random numbers.
        with torch.device("meta"):
            self.primitives = [build_primitive(name, config or PrimitiveConfig()) for name in PRIMITIVES]
        self._noisy = torch.tensor([primitive.uses_noise for primitive in self.primitives])
        self._most_parameters = max(len(primitive.bounds()) for primitive in self.primitives)

    def draw(self, shape: tuple[int, ...], generator: torch.Generator) -> FixedDraws:
        which = torch.randint(len(self.primitives), shape[:1], generator=generator)
        level = torch.randint(1, LEVELS + 1, shape[:1], generator=generator)
        upward = torch.rand(shape[0], self._most_parameters, generator=generator) < 0.5
        noisy = self._noisy[which]
        noise = torch.randn(int(noisy.sum()), *shape[1:], generator=generator)
        return FixedDraws(which, level, upward, noise, torch.where(noisy, noisy.cumsum(0) - 1, -1))

    def __call__(self, images: Tensor, draws: FixedDraws) -> Tensor:
        for index, primitive in enumerate(self.primitives):
            rows = (draws.which == index).nonzero().squeeze(1)
            if len(rows):
                parameters = self.parameters(index, draws.level[rows], draws.upward[rows]).to(images)
                noise = draws.noise[draws.noise_row[rows]].to(images) if primitive.uses_noise else None
                place = rows.to(images.device)
                images = images.index_copy(0, place, primitive.apply_to(images[place], parameters, noise))
        return images

    def parameters(self, index: int, level: Tensor, upward: Tensor) -> Tensor:
        """Rest + s (end - rest) of deformation `index`: level [n], upward [n, 6] -> [n, P], on the CPU."""
        primitive = self.primitives[index]
        low, high = torch.tensor(primitive.bounds()).unbind(1)
        rest = torch.tensor(REST[primitive.name])
        # A range that begins or ends at rest has one end to go to.
        up, down = torch.where(high == rest, low, high), torch.where(low == rest, high, low)
        end = torch.where(upward[:, : len(rest)], up, down)
        return rest + (level / LEVELS).unsqueeze(1) * (end - rest)
