"""Images to measure with: made up, but not noise."""

import torch
import torch.nn.functional as F
from torch import Tensor

from hf_transinv.data.resident import ResidentSplit


def picture_like(batch_size: int, size: int, seed: int) -> Tensor:
    """Smooth images with some grain, 8-bit levels in [0, 1], [B, 3, size, size]: to a codec noise is no picture."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(batch_size, 3, 5, 5, generator=generator)
    smooth = F.interpolate(coarse, (size, size), mode="bicubic")
    grain = 0.02 * torch.randn(smooth.shape, generator=generator)
    return ((smooth + grain).clamp(0, 1) * 255).round() / 255


def picture_levels(batch_size: int, size: int, seed: int) -> Tensor:
    """The same as uint8."""
    return (picture_like(batch_size, size, seed) * 255).round().to(torch.uint8)


def class_names(num_classes: int) -> list[str]:
    """Names of classes: "0", "1", ..."""
    return [str(label) for label in range(num_classes)]


def synthetic_split(num_images: int, size: int, num_classes: int, seed: int, device: torch.device) -> ResidentSplit:
    """Such images with labels, on a device."""
    labels = torch.arange(num_images, device=device) % num_classes
    return ResidentSplit(picture_levels(num_images, size, seed).to(device), labels, class_names(num_classes))
