"""Weather: brightness."""

import torch
from torch import Tensor

from hf_transinv.augment.corruptions.draws import per_image
from hf_transinv.augment.corruptions.severities import Constants


def brightness(images: Tensor, constants: Constants, index: Tensor, generator: torch.Generator | None) -> Tensor:
    """At fixed hue and saturation the channels are proportional to V, the largest of them; black turns grey."""
    value = images.amax(dim=1, keepdim=True)
    brighter = (value + per_image(constants, index)).clamp_max(1)
    return torch.where(value > 0, images * (brighter / value.clamp_min(1e-6)), brighter)
