"""AutoAugment: 25 sub-policies of two operations, found by a search (Cubuk et al., CVPR 2019).

Every image draws one of the 25. Each of its operations is then applied with its own probability, at its own level. A
level of 0 to 9 is the strength u = level / 10 in the paper's space (see `spaces`), as in the authors' code. The sign
of geometric operations is drawn.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from hf_transinv.augment.kin import kin_of_operations
from hf_transinv.augment.pil_ops import Canvas, apply_operations, to_images, to_levels
from hf_transinv.augment.pil_sorting import Operation
from hf_transinv.augment.policies.policy import Policy
from hf_transinv.augment.policies.spaces import INVERT, MEAN_CANVAS, PAPER, OperationDraws, tabulate_strengths
from hf_transinv.errors import InputError

# Operation, probability and level, twice. Operations without a strength have level 0.
CIFAR10 = (
    "invert 0.1 0, contrast 0.2 6",
    "rotate 0.7 2, translate_x 0.3 9",
    "sharpness 0.8 1, sharpness 0.9 3",
    "shear_y 0.5 8, translate_y 0.7 9",
    "autocontrast 0.5 0, equalize 0.9 0",
    "shear_y 0.2 7, posterize 0.3 7",
    "color 0.4 3, brightness 0.6 7",
    "sharpness 0.3 9, brightness 0.7 9",
    "equalize 0.6 0, equalize 0.5 0",
    "contrast 0.6 7, sharpness 0.6 5",
    "color 0.7 7, translate_x 0.5 8",
    "equalize 0.3 0, autocontrast 0.4 0",
    "translate_y 0.4 3, sharpness 0.2 6",
    "brightness 0.9 6, color 0.2 8",
    "solarize 0.5 2, invert 0.0 0",
    "equalize 0.2 0, autocontrast 0.6 0",
    "equalize 0.2 0, equalize 0.6 0",
    "color 0.9 9, equalize 0.6 0",
    "autocontrast 0.8 0, solarize 0.2 8",
    "brightness 0.1 3, color 0.7 0",
    "solarize 0.4 5, autocontrast 0.9 0",
    "translate_y 0.9 9, translate_y 0.7 9",
    "autocontrast 0.9 0, solarize 0.8 3",
    "equalize 0.8 0, invert 0.1 0",
    "translate_y 0.7 9, autocontrast 0.9 0",
)
IMAGENET = (
    "posterize 0.4 8, rotate 0.6 9",
    "solarize 0.6 5, autocontrast 0.6 0",
    "equalize 0.8 0, equalize 0.6 0",
    "posterize 0.6 7, posterize 0.6 6",
    "equalize 0.4 0, solarize 0.2 4",
    "equalize 0.4 0, rotate 0.8 8",
    "solarize 0.6 3, equalize 0.6 0",
    "posterize 0.8 5, equalize 1.0 0",
    "rotate 0.2 3, solarize 0.6 8",
    "equalize 0.6 0, posterize 0.4 6",
    "rotate 0.8 8, color 0.4 0",
    "rotate 0.4 9, equalize 0.6 0",
    "equalize 0.0 0, equalize 0.8 0",
    "invert 0.6 0, equalize 1.0 0",
    "color 0.6 4, contrast 1.0 8",
    "rotate 0.8 8, color 1.0 2",
    "color 0.8 8, solarize 0.8 7",
    "sharpness 0.4 7, invert 0.6 0",
    "shear_x 0.6 5, equalize 1.0 0",
    "color 0.4 0, equalize 0.6 0",
    "equalize 0.4 0, solarize 0.2 4",
    "solarize 0.6 5, autocontrast 0.6 0",
    "invert 0.6 0, equalize 1.0 0",
    "color 0.6 4, contrast 1.0 8",
    "equalize 0.8 0, equalize 0.6 0",
)
POLICIES = {"cifar10": CIFAR10, "imagenet": IMAGENET}
SPACE = (*PAPER, INVERT)
LEVELS = tuple(level / 10 for level in range(10))


def parse_policy(lines: tuple[str, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """Sub-policies as text -> index in `SPACE`, probability and level of their operations, [25, 2] each."""
    places = {each.operation: place for place, each in enumerate(SPACE)}
    steps = [[step.split() for step in line.split(", ")] for line in lines]
    choice = [[places[Operation[name.upper()]] for name, _, _ in line] for line in steps]
    probability = [[float(share) for _, share, _ in line] for line in steps]
    level = [[int(level) for _, _, level in line] for line in steps]
    return torch.tensor(choice), torch.tensor(probability), torch.tensor(level)


class AutoAugment(Policy):
    """One of 25 sub-policies per image.

    Args:
        policy: "cifar10", also used for CIFAR-100, or "imagenet".
        canvas: how warped images are sampled; by default as in the authors' CIFAR code: nearest neighbours, the mean
            colour outside.
    """

    name = "autoaugment"
    title = "AutoAugment"
    phrase = "AutoAugment"
    citation = """@inproceedings{cubuk2019autoaugment,
  title     = {{AutoAugment}: Learning Augmentation Strategies from Data},
  author    = {Cubuk, Ekin D. and Zoph, Barret and Man{\\'e}, Dandelion and Vasudevan, Vijay and Le, Quoc V.},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)},
  year      = {2019}
}"""

    def __init__(self, policy: str = "cifar10", canvas: Canvas = MEAN_CANVAS) -> None:
        if policy not in POLICIES:
            raise InputError(f"AutoAugment has no policy {policy!r}: expected one of {', '.join(POLICIES)}")
        self.choice, self.probability, self.level = parse_policy(POLICIES[policy])
        self.canvas = canvas

    @property
    def kin(self) -> Mapping[str, str]:
        return kin_of_operations(SPACE[place].operation for place in self.choice.unique().tolist())

    def draw(self, shape: tuple[int, ...], generator: torch.Generator) -> OperationDraws:
        """Draw operations [B, 2], the identity where one is not applied."""
        which = torch.randint(len(self.choice), (shape[0],), generator=generator)
        is_applied = torch.rand(shape[0], 2, generator=generator) < self.probability[which]
        table = tabulate_strengths(SPACE, LEVELS, *shape[-2:])
        drawn = table.draw_signs(self.choice[which], self.level[which], generator)
        return OperationDraws(torch.where(is_applied, drawn.operation, int(Operation.IDENTITY)), drawn.parameter)

    def __call__(self, images: Tensor, draws: OperationDraws) -> Tensor:
        """Augment images [b, 3, H, W] in [0, 1], in 256 levels."""
        levels = apply_operations(to_levels(images), draws.operation, draws.parameter, self.canvas)
        return to_images(levels, images)
