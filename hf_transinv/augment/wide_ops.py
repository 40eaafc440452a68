"""Further differentiable image functions, beside the paper's four in `ops`: batched, one set of parameters per image.

    colours         x + M x, the rows of M sum to 0: grey stays grey
    tones           f(x), f piecewise linear and monotone, f(0) = 0, f(1) = 1
    elastic         x read at u + D(u), D a thin-plate spline through displaced control points
    random filter   x + Conv(x, w), the nine weights w sum to 0: plain areas stay as they are (after the spectral
                    primitive of PRIME: Modas et al., ECCV 2022, whose filters are drawn, not learned)
    cover           a soft square of the image's mean colour
    solarize        x + s m(x) (1 - 2 x), m a smooth step at the threshold

All take images [B, 3, H, W], float in [0, 1], and leave them as they are at strength 0.
"""

import functools

import torch
import torch.nn.functional as F
from torch import Tensor

from hf_transinv.augment.ops import REFERENCE_SIDE, per_image
from hf_transinv.augment.thin_plate import thin_plate_basis, warp_thin_plate

_SOFT_EDGE = 0.05  # of a cover, in halves of the image
_SOFT_STEP = 0.03  # of solarize's threshold, in units of the pixels' range


def mix_colours(images: Tensor, weights: Tensor) -> Tensor:
    """Add to each channel its difference from the others, weighted.

    Args:
        images: [B, 3, H, W].
        weights: of the two others for red, green and blue, [B, 6]; all 0 changes nothing.
    """
    matrix = (weights @ _mixtures(images.device, images.dtype)).view(-1, 3, 3)
    return torch.baddbmm(images.flatten(2), matrix, images.flatten(2)).view_as(images)


@functools.lru_cache(maxsize=8)
def _mixtures(device: torch.device, dtype: torch.dtype) -> Tensor:
    """Each weight as a matrix whose rows sum to 0: [6, 9]."""
    basis = torch.zeros(6, 3, 3)
    places = [(row, column) for row in range(3) for column in range(3) if row != column]
    for index, (row, column) in enumerate(places):
        basis[index, row, column], basis[index, row, row] = 1, -1
    return basis.view(6, 9).to(device, dtype)


def bend_tones(images: Tensor, bends: Tensor) -> Tensor:
    """Map the levels of each image by a monotone curve from (0, 0) to (1, 1), linear in K equal parts.

    Args:
        images: [B, 3, H, W]; levels outside [0, 1] continue the outermost parts.
        bends: logarithms of the slopes in the K parts, up to a common constant, [B, K]; all 0 changes nothing.
    """
    parts = bends.shape[1]
    rises = torch.softmax(bends, dim=1)
    starts = rises.cumsum(1) - rises
    levels = images.flatten(1) * parts
    part = levels.detach().floor().clamp_(0, parts - 1)
    index = part.long()
    return (starts.gather(1, index) + rises.gather(1, index) * (levels - part)).view_as(images)


def warp_elastic(images: Tensor, displacements: Tensor, padding_mode: str = "zeros") -> Tensor:
    """Warp each image smoothly by displaced control points.

    Args:
        images: [B, 3, H, W].
        displacements: of k x k control points, [B, k^2, 2], (x, y) in halves of the image; all 0 changes nothing.
        padding_mode: the pixels outside the image: "zeros" (black), "border" or "reflection".
    """
    side = round(displacements.shape[1] ** 0.5)
    basis = _basis(side, images.shape[-2], images.shape[-1], images.device, images.dtype)
    return warp_thin_plate(images, displacements, basis, padding_mode)


@functools.lru_cache(maxsize=8)
def _basis(side: int, height: int, width: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    return thin_plate_basis(side, height, width).to(device, dtype)


def filter_image(images: Tensor, weights: Tensor) -> Tensor:
    """Add to each image its convolution with nine weights, less their mean; edges are reflected.

    Args:
        images: [B, 3, H, W].
        weights: of the 3 x 3 taps, [B, 9], the same in all channels; equal ones change nothing. The taps are a pixel
            of an image of 32 pixels apart, in whole pixels.
    """
    height, width = images.shape[-2:]
    apart = min(max(1, round(min(height, width) / REFERENCE_SIDE)), height - 1, width - 1)
    padded = F.pad(images, (apart,) * 4, mode="reflect")
    starts = [(row * apart, column * apart) for row in range(3) for column in range(3)]
    read = torch.stack([padded[..., y : y + height, x : x + width] for y, x in starts], 1).flatten(2)
    taps = weights - weights.mean(1, keepdim=True)
    return images + torch.bmm(taps.unsqueeze(1), read).view_as(images)


def cover(images: Tensor, centre: Tensor, half_side: Tensor, opacity: Tensor) -> Tensor:
    """Cover a square of each image, with soft edges, by the image's mean colour.

    Args:
        images: [B, 3, H, W].
        centre: (x, y) of the square, [B, 2] in [-1, 1] over the image.
        half_side: of the square, in halves of the image, [B].
        opacity: [B] in [0, 1]; 0 changes nothing.
    """
    sides = [_centres(size, images.device, images.dtype) for size in (images.shape[-1], images.shape[-2])]
    across, down = (
        torch.sigmoid((half_side[:, None] - (pixels - at[:, None]).abs()) / _SOFT_EDGE)
        for pixels, at in zip(sides, centre.unbind(1), strict=True)
    )
    mask = opacity[:, None, None] * down[:, :, None] * across[:, None, :]
    return torch.lerp(images, images.mean((2, 3), keepdim=True), mask.unsqueeze(1))


@functools.lru_cache(maxsize=8)
def _centres(size: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """The pixel centres along a side, [size] in (-1, 1)."""
    return ((2 * torch.arange(size, dtype=torch.float64) + 1) / size - 1).to(device, dtype)


def solarize(images: Tensor, threshold: Tensor, strength: Tensor) -> Tensor:
    """Invert the levels above a threshold, smoothly.

    Args:
        images: [B, 3, H, W].
        threshold: [B] in [0, 1].
        strength: [B] in [0, 1]; 0 changes nothing, 1 inverts fully.
    """
    above = torch.sigmoid((images - per_image(threshold)) / _SOFT_STEP)
    return torch.addcmul(images, per_image(strength) * above, 1 - 2 * images)


def forget_constants() -> None:
    """Forget what was made once for each device."""
    for constant in (_mixtures, _basis, _centres):
        constant.cache_clear()
