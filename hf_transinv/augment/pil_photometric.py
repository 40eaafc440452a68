"""The photometric operations of PIL (`ImageOps`, `ImageEnhance`) on 8-bit levels, batched, one parameter per image.

Most are point operations: a level of a channel is mapped independently of its neighbours. Three of them are bitwise;
the others are tables of 256 levels, [n, 3, 256], and share one lookup. Saturation and sharpness blend the image with
its grey or its smoothed version:

    blend(a, b, factor) = clamp(a + factor (b - a)), truncated,    factor 0: a, factor 1: b, beyond: extrapolated

Levels are uint8 [n, 3, H, W], parameters float64 [n] on the same device. The results equal PIL's to the level: the
arithmetic has PIL's order and precision (single for blends, double for the stretch of autocontrast, else integers).
"""

import torch
from torch import Tensor


def lookup(levels: Tensor, tables: Tensor) -> Tensor:
    """Each level replaced by its entry in its channel's table: [n, 3, H, W], uint8 [n, 3, 256] -> [n, 3, H, W]."""
    return tables.gather(2, levels.flatten(2).long()).view(levels.shape)


def blend(degenerate: Tensor, image: Tensor, factor: Tensor) -> Tensor:
    """`Image.blend`: from `degenerate` at factor 0 over `image` at factor 1 and beyond.

    Args:
        degenerate: levels of any type, broadcastable to those of `image`.
        image: levels of any type, [n, ...].
        factor: [n].

    Returns:
        uint8, [n, ...].
    """
    start = degenerate.float()
    factor = factor.float().view(-1, *[1] * (image.dim() - 1))
    # Not lerp or addcmul: they may fuse the product and the sum, which then rounds once instead of twice.
    return _whole((image.float() - start).mul_(factor).add_(start).clamp_(0, 255))


def _whole(values: Tensor) -> Tensor:
    """The values truncated to levels, via int32: the direct conversion is several times slower on the CPU."""
    return values.int().to(torch.uint8)


def luma(levels: Tensor) -> Tensor:
    """Mode "L": the ITU-R 601-2 grey of RGB in 16-bit fixed point, int32 [n, H, W] of 0 to 255."""
    red, green, blue = levels.int().unbind(1)
    return (red * 19595).add_(green, alpha=38470).add_(blue, alpha=7471).add_(0x8000).bitwise_right_shift_(16)


def _ramp(like: Tensor) -> Tensor:
    """The table that changes nothing: int64 [256]."""
    return torch.arange(256, device=like.device)


def _every_channel(table: Tensor) -> Tensor:
    """One table for the three channels: [n, 256] -> uint8 [n, 3, 256]."""
    return table.to(torch.uint8).unsqueeze(1).expand(-1, 3, -1)


def tabulate_solarize_add(levels: Tensor, addition: Tensor) -> Tensor:
    """Brighten levels below 128 by a whole number of levels, saturating."""
    ramp = _ramp(levels)
    return _every_channel(torch.where(ramp < 128, (ramp + addition.long().unsqueeze(1)).clamp(0, 255), ramp))


def tabulate_brightness(levels: Tensor, factor: Tensor) -> Tensor:
    """Blend with black."""
    ramp = _ramp(levels)
    return _every_channel(blend(torch.zeros_like(ramp), ramp.expand(len(levels), -1), factor))


def tabulate_contrast(levels: Tensor, factor: Tensor) -> Tensor:
    """Blend with the image's mean grey."""
    grey = luma(levels).flatten(1)
    mean = (2 * grey.sum(1) + grey.shape[1]) // (2 * grey.shape[1])  # rounded half up
    return _every_channel(blend(mean.unsqueeze(1), _ramp(levels).expand(len(levels), -1), factor))


def tabulate_autocontrast(levels: Tensor, _: Tensor) -> Tensor:
    """Stretch each channel from its lowest and highest level to 0 and 255; a constant channel is unchanged."""
    # Not aminmax, which is ten times slower on the CPU.
    pixels = levels.flatten(2)
    low, high = pixels.amin(2, keepdim=True).double(), pixels.amax(2, keepdim=True).double()
    flat = high <= low
    scale = torch.where(flat, 1.0, torch.full_like(low, 255).div_(high - low))
    low = torch.where(flat, 0.0, low)
    return _whole((_ramp(levels) * scale).add_(-low * scale).clamp_(0, 255))


def tabulate_equalize(levels: Tensor, _: Tensor) -> Tensor:
    """Make each channel's histogram uniform; a channel with too few pixels for that is unchanged."""
    index = levels.flatten(2).long()
    counts = index.new_zeros(*index.shape[:2], 256)
    counts.scatter_add_(2, index, index.new_ones(1).expand_as(index))
    last = counts.gather(2, levels.flatten(2).amax(2, keepdim=True).long())
    step = (index.shape[2] - last) // 255
    below = counts.cumsum(2).sub_(counts).add_(step // 2)
    # Integers divided in double precision: several times faster than integer division, and as exact.
    table = below.double().div_(step.clamp_min(1)).floor_().clamp_max_(255)
    return _whole(torch.where(step == 0, _ramp(levels).double(), table))


def invert(levels: Tensor, _: Tensor) -> Tensor:
    """Each level v becomes 255 - v."""
    return ~levels


def posterize(levels: Tensor, bits: Tensor) -> Tensor:
    """Keep the highest `bits`, 0 to 8. 0 gives black, as in versions of PIL that accepted it."""
    return levels & (0xFF00 >> bits.long()).to(torch.uint8).view(-1, 1, 1, 1)


def solarize(levels: Tensor, threshold: Tensor) -> Tensor:
    """Invert levels from `threshold` (0 to 256) on."""
    # The sign of the difference, as a mask: comparisons are several times slower on the CPU.
    below = (levels.short() - threshold.ceil().short().view(-1, 1, 1, 1)) >> 15
    return levels ^ ~below.to(torch.uint8)


def enhance_color(levels: Tensor, factor: Tensor) -> Tensor:
    """Saturation: blend with the grey image."""
    return blend(luma(levels).unsqueeze(1), levels, factor)


def enhance_sharpness(levels: Tensor, factor: Tensor) -> Tensor:
    """Blend with the smoothed image: 3 x 3 weights of 1 with a centre of 5, over 13. The outermost pixels stay."""
    wide = levels.short()
    rows = wide[..., :-2, :] + wide[..., 1:-1, :] + wide[..., 2:, :]
    total = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]
    inner = wide[..., 1:-1, 1:-1]
    # (2 t + 13) // 26 is t / 13 rounded; t / 13 is never halfway.
    smooth = (total.add_(inner, alpha=4).mul_(2).add_(13)).float().div_(26).floor_()
    sharpened = levels.clone()
    sharpened[..., 1:-1, 1:-1] = blend(smooth, inner, factor)
    return sharpened
