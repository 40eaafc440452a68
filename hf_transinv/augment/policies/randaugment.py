"""RandAugment: N operations of 14 at one magnitude M (Cubuk et al., CVPR workshops 2020).

Every image draws N operations, uniformly and with replacement, all at the strength u = M / 30. The space defines what
u means (see `spaces`); the default is the paper's. The recipe for CIFAR-100 and WRN-28-10 is N = 2, M = 14, then
Cutout of 16 pixels, which is a separate policy. A magnitude on a scale of 10 (timm's "m9") is three times as large
here.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from hf_transinv.augment.kin import kin_of_operations
from hf_transinv.augment.pil_ops import Canvas, apply_operations, to_images, to_levels
from hf_transinv.augment.policies.policy import Policy
from hf_transinv.augment.policies.spaces import MEAN_CANVAS, RANDAUGMENT_SPACES, OperationDraws, tabulate_strengths
from hf_transinv.errors import InputError


class RandAugment(Policy):
    """N operations per image at one magnitude; the sign of geometric and other signed operations is drawn.

    Args:
        num_ops: N, at least 1.
        magnitude: M, 0 to 30.
        space: "paper", "torchvision" or "timm": whose interpretation of M, see `spaces`.
        canvas: how warped images are sampled; by default as in the authors' CIFAR code: nearest neighbours, the mean
            colour outside.
    """

    name = "randaugment"
    title = "RandAugment"
    phrase = "RandAugment"
    citation = """@inproceedings{cubuk2020randaugment,
  title     = {{RandAugment}: Practical Automated Data Augmentation with a Reduced Search Space},
  author    = {Cubuk, Ekin D. and Zoph, Barret and Shlens, Jonathon and Le, Quoc V.},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition Workshops},
  year      = {2020}
}"""

    def __init__(
        self,
        num_ops: int = 2,
        magnitude: float = 14,
        space: str = "paper",
        canvas: Canvas = MEAN_CANVAS,
    ) -> None:
        if num_ops < 1 or not 0 <= magnitude <= 30:
            raise InputError(f"RandAugment's N is {num_ops}, its M {magnitude}: expected N >= 1 and M in 0 to 30")
        if space not in RANDAUGMENT_SPACES:
            raise InputError(f"space {space!r} is not one of {', '.join(RANDAUGMENT_SPACES)}")
        self.num_ops, self.strengths, self.space = num_ops, (magnitude / 30,), RANDAUGMENT_SPACES[space]
        self.canvas = canvas

    @property
    def kin(self) -> Mapping[str, str]:
        return kin_of_operations(each.operation for each in self.space)

    def draw(self, shape: tuple[int, ...], generator: torch.Generator) -> OperationDraws:
        """Draw operations [B, N]."""
        choice = torch.randint(len(self.space), (shape[0], self.num_ops), generator=generator)
        table = tabulate_strengths(self.space, self.strengths, *shape[-2:])
        return table.draw_signs(choice, torch.zeros_like(choice), generator)

    def __call__(self, images: Tensor, draws: OperationDraws) -> Tensor:
        """Augment images [b, 3, H, W] in [0, 1], in 256 levels."""
        levels = apply_operations(to_levels(images), draws.operation, draws.parameter, self.canvas)
        return to_images(levels, images)
