"""TrivialAugment Wide: one operation per image at a uniform strength (Mueller and Hutter, ICCV 2021)."""

from collections.abc import Mapping

import torch
from torch import Tensor

from hf_transinv.augment.kin import kin_of_operations
from hf_transinv.augment.pil_ops import Canvas, apply_operations, to_images, to_levels
from hf_transinv.augment.policies.policy import Policy
from hf_transinv.augment.policies.spaces import WIDE, OperationDraws, tabulate_strengths

NEAREST = Canvas("nearest", (0, 0, 0))
STRENGTHS = tuple(index / 30 for index in range(31))


class TrivialAugment(Policy):
    """One of 14 operations per image, each equally likely, at one of 31 strengths, each equally likely.

    Args:
        canvas: how warped images are sampled.
    """

    name = "trivialaugment"
    title = "TrivialAugment"
    phrase = "TrivialAugment"
    citation = """@inproceedings{mueller2021trivialaugment,
  title     = {{TrivialAugment}: Tuning-Free Yet State-of-the-Art Data Augmentation},
  author    = {M{\\"u}ller, Samuel G. and Hutter, Frank},
  booktitle = {IEEE/CVF International Conference on Computer Vision (ICCV)},
  year      = {2021}
}"""

    def __init__(self, canvas: Canvas = NEAREST) -> None:
        self.canvas = canvas

    @property
    def kin(self) -> Mapping[str, str]:
        return kin_of_operations(each.operation for each in WIDE)

    def draw(self, shape: tuple[int, ...], generator: torch.Generator) -> OperationDraws:
        """Draw operations [B, 1]."""
        choice = torch.randint(len(WIDE), (shape[0], 1), generator=generator)
        strength = torch.randint(len(STRENGTHS), (shape[0], 1), generator=generator)
        return tabulate_strengths(WIDE, STRENGTHS, *shape[-2:]).draw_signs(choice, strength, generator)

    def __call__(self, images: Tensor, draws: OperationDraws) -> Tensor:
        """Augment images [b, 3, H, W] in [0, 1], in 256 levels."""
        levels = apply_operations(to_levels(images), draws.operation, draws.parameter, self.canvas)
        return to_images(levels, images)
