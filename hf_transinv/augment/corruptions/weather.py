"""Weather corruptions: snow, frost, fog and brightness."""

import torch
from torch import Tensor

from hf_transinv.augment.corruptions.blur import blur_directional
from hf_transinv.augment.corruptions.common import clipped_zooms, constant, draw, most_of, per_image
from hf_transinv.augment.corruptions.frost import frost_textures
from hf_transinv.augment.corruptions.severities import LARGEST_SMALL_IMAGE, Rows, Scalars


def _snow_layer(images: Tensor, constants: Rows, index: Tensor, generator: torch.Generator) -> Tensor:
    """The snowflakes, blurred along the wind: [B, 1, H, W], whole levels in 0 .. 255.

    Each axis is zoomed by its own length; the authors' zoom is for square images only.
    """
    locs, scales, factors, thresholds, radii, sigmas, _ = zip(*constants, strict=True)
    batch, _, height, width = images.shape
    noise = draw(torch.randn, (batch, 1, height, width), images, generator)
    angle = -135 + 90 * draw(torch.rand, (batch,), images, generator)
    rows, columns = (clipped_zooms(factors, size, images.device)[index].unsqueeze(1) for size in (height, width))
    layer = rows @ (per_image(locs, index) + per_image(scales, index) * noise) @ columns.mT
    flakes = torch.where(layer < per_image(thresholds, index), 0, layer.clamp(0, 1))
    radius, sigma = per_image(radii, index).flatten(), per_image(sigmas, index).flatten()
    taps = most_of(tuple(2 * radius for radius in radii), index) + 1
    drawn_out = blur_directional((flakes * 255).floor(), radius, sigma, angle, taps)
    # ImageMagick rounds to 8 bits, where numpy truncates.
    return drawn_out.add_(0.5).floor_()


def snow(images: Tensor, constants: Rows, index: Tensor, generator: torch.Generator) -> Tensor:
    """Whiten each image and add a layer of snowflakes, and the same layer turned by 180 degrees."""
    mix = per_image(tuple(row[-1] for row in constants), index)
    layer = _snow_layer(images, constants, index, generator) / 255
    luma = constant((0.299, 0.587, 0.114), images.device).view(1, 3, 1, 1)
    grey = (images * luma).sum(dim=1, keepdim=True)
    whitened = torch.maximum(images, 1.5 * grey + 0.5)
    return mix * images + (1 - mix) * whitened + (layer + layer.rot90(2, dims=(2, 3)))


def frost(images: Tensor, constants: Rows, index: Tensor, generator: torch.Generator, folder: str | None) -> Tensor:
    """Add a random crop of a frost texture to each image.

    Args:
        images: [B, 3, H, W] in [0, 1].
        constants: shares of the image and of the texture, per severity.
        index: severity less 1, int64 [B].
        generator: of the crops.
        folder: of the authors' photographs; None for synthetic textures, whose results are not comparable to published
            ones.
    """
    shares, amounts = zip(*constants, strict=True)
    batch, _, height, width = images.shape
    step = 5 if min(height, width) <= LARGEST_SMALL_IMAGE else 1
    textures, sizes = frost_textures(folder, step, height, width, images.device)
    uniform = draw(torch.rand, (batch, 3), images, generator)
    which = (uniform[:, 0] * len(textures)).long()
    room = sizes[which] - constant((height, width), images.device)
    top, left = (uniform[:, 1:] * room).long().unbind(dim=1)
    crops = textures.unfold(2, height, 1).unfold(3, width, 1)[which, :, top, left]
    return per_image(shares, index) * images + per_image(amounts, index) / 255 * crops


def _plasma_fractals(side: int, decay: Tensor, uniform: Tensor) -> Tensor:
    """Diamond-square height maps on a torus, scaled to [0, 1]: [B, side, side].

    Args:
        side: a power of two.
        decay: [B], divides the wobble w from one level to the next; heights change by w U(-w, w).
        uniform: [B, side^2 - 1] in [-1, 1), by level: centres, then upper edges, then left edges.
    """
    heights, wobble, used = uniform.new_zeros(len(uniform), 1, 1), torch.ones_like(decay), 0
    for level in range(side.bit_length() - 1):
        grid = 2**level
        moves = uniform[:, used : used + 3 * grid**2].view(-1, 3, grid, grid) * wobble.square().view(-1, 1, 1, 1)
        pairs = heights + heights.roll(-1, dims=1)
        centres = (pairs + pairs.roll(-1, dims=2)) / 4 + moves[:, 0]
        upper = (centres + centres.roll(1, dims=1) + heights + heights.roll(-1, dims=2)) / 4 + moves[:, 1]
        left = (centres + centres.roll(1, dims=2) + pairs) / 4 + moves[:, 2]
        even, odd = torch.stack([heights, upper], dim=3), torch.stack([left, centres], dim=3)
        heights = torch.stack([even, odd], dim=2).view(-1, 2 * grid, 2 * grid)
        wobble, used = wobble / decay, used + 3 * grid**2
    heights = heights - heights.amin(dim=(1, 2), keepdim=True)
    return heights / heights.amax(dim=(1, 2), keepdim=True)


def fog(images: Tensor, constants: Rows, index: Tensor, generator: torch.Generator) -> Tensor:
    """Add a plasma fractal to each image, and scale the sum back to the range of the image.

    The fractal is the smallest that covers the image: 32 x 32 for 32 pixels, 256 x 256 for 224. It is cut to the size
    of the image.
    """
    mixes, decays = zip(*constants, strict=True)
    batch, _, height, width = images.shape
    side = 1 << (max(height, width) - 1).bit_length()
    uniform = 2 * draw(torch.rand, (batch, side**2 - 1), images, generator) - 1
    fractals = _plasma_fractals(side, per_image(decays, index).flatten(), uniform)
    mix, peak = per_image(mixes, index), images.amax(dim=(1, 2, 3), keepdim=True)
    return (images + mix * fractals[:, None, :height, :width]) * (peak / (peak + mix))


def brightness(images: Tensor, constants: Scalars, index: Tensor, generator: torch.Generator | None) -> Tensor:
    """Add the severity's constant to V in HSV.

    At fixed hue and saturation the channels are proportional to V, the largest of them. Black turns grey.
    """
    value = images.amax(dim=1, keepdim=True)
    brighter = (value + per_image(constants, index)).clamp_max(1)
    return torch.where(value > 0, images * (brighter / value.clamp_min(1e-6)), brighter)
