"""Noises: gaussian_noise and impulse_noise."""

import torch
from torch import Tensor

from hf_transinv.augment.corruptions.draws import draw, per_image
from hf_transinv.augment.corruptions.severities import Constants


def gaussian_noise(images: Tensor, constants: Constants, index: Tensor, generator: torch.Generator) -> Tensor:
    return images + per_image(constants, index) * draw(torch.randn, tuple(images.shape), images, generator)


def impulse_noise(images: Tensor, constants: Constants, index: Tensor, generator: torch.Generator) -> Tensor:
    amount = per_image(constants, index)
    uniform = draw(torch.rand, tuple(images.shape), images, generator)
    return torch.where(uniform < amount, (uniform < amount / 2).to(images.dtype), images)
