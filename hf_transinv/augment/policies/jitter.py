"""Random grayscale and colour jitter of Augmentation Invariant Training (Chen et al., ICCV Workshops 2021, 4.4).

    rg   grayscale with a probability of 0.1
    rc   brightness, contrast and saturation changed "with a max bias of 0.1"

The paper gives no formula; ours are those of torchvision's `RandomGrayscale` and `ColorJitter`. With
f ~ U(1 - bias, 1 + bias) and g the grayscale of x, each change is clamp(f x + (1 - f) o) with another image o:

    brightness  o = 0          contrast  o = mean of g over the image          saturation  o = g

The factors and the order of the changes are drawn for each image.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from hf_transinv.augment.ops import per_image
from hf_transinv.augment.policies.policy import Policy
from hf_transinv.augment.sampled import Sampled
from hf_transinv.data.transfer import send
from hf_transinv.errors import InputError

# torchvision's.
_LUMINANCE = (0.2989, 0.587, 0.114)
_BRIGHTNESS, _CONTRAST, _SATURATION = range(3)


def to_grayscale(images: Tensor) -> Tensor:
    """Images [B, 3, H, W] -> their luminance, [B, 1, H, W]."""
    # Python numbers: a tensor of weights would have to be copied to the device.
    return sum(weight * plane for weight, plane in zip(_LUMINANCE, images.split(1, 1), strict=True))


class RandomGrayscale(Policy):
    """Turn images grey; they keep three channels.

    Args:
        probability: of each image, in [0, 1].
    """

    name = "grayscale"
    title = "grayscale"
    phrase = "random grayscale"

    def __init__(self, probability: float = 0.1) -> None:
        if not 0 <= probability <= 1:
            raise InputError(f"grayscale with a probability of {probability}: expected one in [0, 1]")
        self.probability = probability

    def draw(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Draw which images turn grey, bool [B]."""
        return torch.rand(shape[0], generator=generator) < self.probability

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        return torch.where(per_image(send(draws, images.device)), to_grayscale(images), images)


@dataclass(frozen=True)
class JitterDraws(Sampled):
    """What was drawn, on the CPU.

    Attributes:
        factors: of brightness, contrast and saturation, [B, 3].
        order: of the three, a permutation of 0, 1, 2, int64 [B, 3].
    """

    factors: Tensor
    order: Tensor


class ColorJitter(Policy):
    """Change brightness, contrast and saturation of each image, in an order drawn for each image.

    Args:
        max_bias: largest distance of a factor from 1, in [0, 1].
    """

    name = "color_jitter"
    title = "colour jitter"
    phrase = "colour jitter"

    def __init__(self, max_bias: float = 0.1) -> None:
        if not 0 <= max_bias <= 1:
            raise InputError(f"colour jitter with a max_bias of {max_bias}: expected one in [0, 1]")
        self.max_bias = max_bias

    @property
    def kin(self) -> Mapping[str, str]:
        return {"brightness": "it changes brightness", "contrast": "it changes contrast"}

    def draw(self, shape: tuple[int, ...], generator: torch.Generator) -> JitterDraws:
        factors = 1 + self.max_bias * (2 * torch.rand(shape[0], 3, generator=generator) - 1)
        return JitterDraws(factors, torch.rand(shape[0], 3, generator=generator).argsort(1))

    def __call__(self, images: Tensor, draws: JitterDraws) -> Tensor:
        draws = draws.to(images.device)
        order, factors = draws.order, draws.factors.to(images.dtype)
        for change, factor in zip(order.unbind(1), factors.gather(1, order).unbind(1), strict=True):
            gray = to_grayscale(images)
            other = torch.where(per_image(change == _SATURATION), gray, gray.mean((2, 3), keepdim=True))
            other = torch.where(per_image(change == _BRIGHTNESS), 0.0, other)
            images = torch.lerp(other, images, per_image(factor)).clamp(0, 1)
        return images
