"""Noises: gaussian_noise, shot_noise and impulse_noise."""

import torch
from torch import Tensor

from hf_transinv.augment.corruptions.draws import draw, per_image
from hf_transinv.augment.corruptions.severities import Constants


def gaussian_noise(images: Tensor, constants: Constants, index: Tensor, generator: torch.Generator) -> Tensor:
    return images + per_image(constants, index) * draw(torch.randn, tuple(images.shape), images, generator)


def shot_noise(images: Tensor, constants: Constants, index: Tensor, generator: torch.Generator) -> Tensor:
    """Photons counted, with lambda of them at full brightness; torch.poisson draws where its generator lives."""
    photons = per_image(constants, index)
    expected = (images * photons).to(generator.device)
    return torch.poisson(expected, generator=generator).to(images.device) / photons


def impulse_noise(images: Tensor, constants: Constants, index: Tensor, generator: torch.Generator) -> Tensor:
    amount = per_image(constants, index)
    uniform = draw(torch.rand, tuple(images.shape), images, generator)
    return torch.where(uniform < amount, (uniform < amount / 2).to(images.dtype), images)
