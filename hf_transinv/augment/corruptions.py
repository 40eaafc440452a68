"""The image corruptions of CIFAR-C and ImageNet-C, batched: f(images, name, severity 1..5) -> images.

Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations", ICLR 2019,
as the authors' generators compute them (severities.py names those). With x an image in [0, 1], c the constant of its
severity:

    gaussian_noise      x + N(0, c^2)
    impulse_noise       a value (not a pixel) becomes 0 or 1, with probability c / 2 each
    defocus_blur        x * (disk of radius c_1, smoothed by a small Gaussian of deviation c_2), border reflected
    brightness          V + c in HSV
    contrast            c (x - m) + m, with m the mean of each channel of the image
    elastic_transform   a random affine map (three points, each moved by U(-c_3, c_3) pixels), then a displacement:
                        U(-1, 1) a pixel, smoothed by a Gaussian of deviation c_2, times c_1 pixels
    pixelate            box filter down to int(c size) pixels, box filter up again

As in the originals, every result is clipped and *truncated* to 8 bits. The originals set no seed, so equality is in
distribution where random numbers are drawn.

Departures: a level that float32 leaves less than 0.001 below a whole number counts as that number; the affine map
samples exact positions, where OpenCV rounds them to 1/32 pixel.
"""

import math
from collections.abc import Callable
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from hf_transinv.augment.severities import SEVERITIES, Constants, constants_of
from hf_transinv.errors import InputError

CORRUPTIONS = (
    "gaussian_noise",
    "impulse_noise",
    "defocus_blur",
    "brightness",
    "contrast",
    "elastic_transform",
    "pixelate",
)
SMALLEST_IMAGE = 8

_LARGEST_RADIUS = 10  # of a disk of defocus_blur


def _per_image(values: tuple[float, ...], index: Tensor) -> Tensor:
    """The constant of each image's severity: 5 values, index [B] -> [B, 1, 1, 1]."""
    return torch.tensor(values, dtype=torch.float32, device=index.device)[index].view(-1, 1, 1, 1)


def _draw(sample: Callable[..., Tensor], shape: tuple[int, ...], like: Tensor, generator: torch.Generator) -> Tensor:
    """float32 numbers of `sample` (torch.rand or torch.randn), drawn where the generator lives, moved to `like`."""
    return sample(shape, generator=generator, device=generator.device).to(like.device)


def _gaussian_noise(images: Tensor, constants: Constants, index: Tensor, generator: torch.Generator) -> Tensor:
    return images + _per_image(constants, index) * _draw(torch.randn, tuple(images.shape), images, generator)


def _impulse_noise(images: Tensor, constants: Constants, index: Tensor, generator: torch.Generator) -> Tensor:
    amount = _per_image(constants, index)
    uniform = _draw(torch.rand, tuple(images.shape), images, generator)
    return torch.where(uniform < amount, (uniform < amount / 2).to(images.dtype), images)


def _brightness(images: Tensor, constants: Constants, index: Tensor, generator: torch.Generator | None) -> Tensor:
    """At fixed hue and saturation the channels are proportional to V, the largest of them; black turns grey."""
    value = images.amax(dim=1, keepdim=True)
    brighter = (value + _per_image(constants, index)).clamp_max(1)
    return torch.where(value > 0, images * (brighter / value.clamp_min(1e-6)), brighter)


def _contrast(images: Tensor, constants: Constants, index: Tensor, generator: torch.Generator | None) -> Tensor:
    mean = images.mean(dim=(2, 3), keepdim=True)
    return (images - mean) * _per_image(constants, index) + mean


@lru_cache(maxsize=16)
def _defocus_kernels(constants: tuple[tuple[float, float], ...], device: torch.device) -> Tensor:
    """The smoothed disks of the five severities, cut to the largest support: [5, 1, k, k]."""
    kernels = []
    for radius, sigma in constants:
        # 8 and the two widths of the Gaussian: `disk` in the authors' scripts.
        reach, width = (8, 3) if radius <= 8 else (math.ceil(radius), 5)
        line = torch.arange(-reach, reach + 1, dtype=torch.float64)
        disk = (line[:, None] ** 2 + line**2 <= radius**2).double()
        offsets = torch.arange(width, dtype=torch.float64) - width // 2
        taps = torch.softmax(-(offsets**2) / (2 * sigma**2), dim=0)
        padded = F.pad((disk / disk.sum())[None, None], (width // 2,) * 4, mode="reflect")
        kernel = F.conv2d(padded, torch.outer(taps, taps)[None, None])
        kernels.append(F.pad(kernel, (_LARGEST_RADIUS - reach,) * 4))
    stacked = torch.cat(kernels).float()
    # Taps below a ten-millionth are far below one level in 255 and would only widen the kernel.
    used = (stacked > 1e-7).any(dim=0)[0].any(dim=0).nonzero()
    inside = slice(int(used.min()), int(used.max()) + 1)
    return stacked[..., inside, inside].contiguous().to(device)


def _defocus_blur(images: Tensor, constants: Constants, index: Tensor, generator: torch.Generator | None) -> Tensor:
    kernels = _defocus_kernels(constants, images.device)
    pad = kernels.shape[-1] // 2
    planes = F.pad(images, (pad,) * 4, mode="reflect").flatten(0, 1)
    weight = kernels[index].repeat_interleave(images.shape[1], dim=0)
    return F.conv2d(planes[None], weight, groups=len(planes)).view(images.shape)


@lru_cache(maxsize=16)
def _smoothing_matrices(sigmas: tuple[float, ...], size: int, device: torch.device) -> Tensor:
    """Gaussian smoothing of a line, cut at 3 sigma and mirrored about its ends, as matrices: [5, size, size]."""
    matrices = torch.zeros(len(sigmas), size, size, dtype=torch.float64)
    rows = torch.arange(size)
    for matrix, sigma in zip(matrices, sigmas, strict=True):
        radius = int(3 * sigma + 0.5)
        offsets = torch.arange(-radius, radius + 1)
        taps = torch.softmax(-(offsets.double() ** 2) / (2 * max(sigma, 1e-6) ** 2), dim=0)
        folded = (rows[:, None] + offsets) % (2 * size)
        columns = torch.minimum(folded, 2 * size - 1 - folded)
        matrix.scatter_add_(1, columns, taps.expand(size, -1))
    return matrices.float().to(device)


def _affine_positions(images: Tensor, shift: Tensor, generator: torch.Generator) -> Tensor:
    """Where a random affine map samples each pixel, (x, y) in pixels: [B, H, W, 2].

    The map takes three points of a square in the middle to the same points, each moved by U(-shift, shift) pixels.
    """
    batch, _, height, width = images.shape
    center = torch.tensor([width // 2, height // 2], dtype=torch.float32, device=images.device)
    half = min(height, width) // 3
    corners = torch.tensor([[half, half], [half, -half], [-half, -half]], device=images.device) + center
    moved = corners + (2 * _draw(torch.rand, (batch, 3, 2), images, generator) - 1) * shift.view(-1, 1, 1)
    # Rows are points: (output - moved[0]) @ linear = input - corners[0].
    linear = torch.linalg.inv_ex(moved[:, 1:] - moved[:, :1]).inverse @ (corners[1:] - corners[:1])
    grid_y, grid_x = torch.meshgrid(
        torch.arange(height, device=images.device), torch.arange(width, device=images.device), indexing="ij"
    )
    outputs = torch.stack([grid_x, grid_y], dim=-1).view(1, -1, 2) - moved[:, :1]
    return (outputs @ linear + corners[0]).view(batch, height, width, 2)


def _elastic_transform(images: Tensor, constants: Constants, index: Tensor, generator: torch.Generator) -> Tensor:
    alphas, sigmas, shifts = zip(*constants, strict=True)
    batch, _, height, width = images.shape
    size = torch.tensor([width, height], device=images.device)
    # The two borders: OpenCV's reflect-101 mirrors about the outer pixels, scipy's "reflect" about their outer edges.
    positions = _affine_positions(images, _per_image(shifts, index), generator)
    grid = 2 * positions / (size - 1) - 1
    warped = F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=True)

    noise = 2 * _draw(torch.rand, (batch, 2, height, width), images, generator) - 1
    rows = _smoothing_matrices(sigmas, height, images.device)[index].unsqueeze(1)
    columns = _smoothing_matrices(sigmas, width, images.device)[index].unsqueeze(1)
    displacement = _per_image(alphas, index) * (rows @ noise @ columns.mT)
    identity = F.affine_grid(torch.eye(2, 3, device=images.device)[None], [1, 1, height, width], align_corners=False)
    grid = identity + displacement.permute(0, 2, 3, 1) * (2 / size)
    return F.grid_sample(warped, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


@lru_cache(maxsize=32)
def _box_filters(shares: tuple[float, ...], size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Which pixels Pillow's BOX filter averages, down to int(share size) and up again: two of [5, size, size], 0 or 1.

    Rows are outputs. Severities with fewer than `size` small pixels leave rows (down) and columns (up) of zeros.
    """

    def boxes(n_in: int, n_out: int) -> Tensor:
        scale = n_in / n_out
        center = (torch.arange(n_out, dtype=torch.float64)[:, None] + 0.5) * scale
        distance = (torch.arange(n_in, dtype=torch.float64) + 0.5 - center) / max(scale, 1.0)
        return ((distance > -0.5) & (distance <= 0.5)).float()

    down, up = torch.zeros(2, len(shares), size, size)
    for severity, share in enumerate(shares):
        small = int(size * share)
        down[severity, :small] = boxes(size, small)
        up[severity, :, :small] = boxes(small, size)
    return down.to(device), up.to(device)


def _average_boxes(levels: Tensor, boxes: Tensor) -> Tensor:
    """Means over boxes [B, n, m] along the last axis of levels [B, C, h, m] -> [B, C, h, n], rounded to whole levels.

    Pillow rounds after each pass too. Sums of levels and the halves of means are exact in float32.
    """
    sums = levels @ boxes.mT.unsqueeze(1)
    return (sums / boxes.sum(dim=2).clamp_min(1)[:, None, None] + 0.5).floor()


def _pixelate(images: Tensor, constants: Constants, index: Tensor, generator: torch.Generator | None) -> Tensor:
    down_rows, up_rows = _box_filters(constants, images.shape[2], images.device)
    down_columns, up_columns = _box_filters(constants, images.shape[3], images.device)
    levels = (images * 255).round()
    for rows, columns in ((down_rows, down_columns), (up_rows, up_columns)):
        levels = _average_boxes(levels, columns[index])
        levels = _average_boxes(levels.mT, rows[index]).mT
    return levels / 255


_RANDOM = {"gaussian_noise": _gaussian_noise, "impulse_noise": _impulse_noise, "elastic_transform": _elastic_transform}
_FIXED = {"defocus_blur": _defocus_blur, "brightness": _brightness, "contrast": _contrast, "pixelate": _pixelate}


def check_corruption(name: str, severities: tuple[int, ...] = SEVERITIES) -> None:
    """Refuse unknown corruptions and severities.

    Raises:
        InputError: naming the known ones.
    """
    if name not in CORRUPTIONS:
        raise InputError(f"Unknown corruption {name!r}: known are {', '.join(CORRUPTIONS)}.")
    unknown = [severity for severity in severities if severity not in SEVERITIES]
    if unknown:
        raise InputError(f"Unknown severity {unknown[0]!r} of {name}: severities are the whole numbers 1 to 5.")


def _severity_index(name: str, severity: int | Tensor, images: Tensor) -> Tensor:
    """Severities 1..5 as row numbers 0..4 of the constants, one an image: [B], on the images' device."""
    if not isinstance(severity, Tensor):
        check_corruption(name, (severity,))
        return torch.full((len(images),), int(severity) - 1, device=images.device)
    if severity.shape != (len(images),) or severity.is_floating_point():
        raise InputError(
            f"Severities of shape {list(severity.shape)} and type {severity.dtype} for {len(images)} images: "
            f"give one whole number 1 to 5, or an integer tensor of shape [{len(images)}]."
        )
    check_corruption(name, tuple(severity.unique().tolist()))
    return severity.to(images.device, torch.int64) - 1


def _check_images(images: Tensor) -> None:
    is_rgb = images.ndim == 4 and images.shape[1] == 3 and min(images.shape[2:]) >= SMALLEST_IMAGE
    if not is_rgb or not images.is_floating_point():
        raise InputError(
            f"Cannot corrupt images of shape {list(images.shape)} and type {images.dtype}: expected floating point in "
            f"[0, 1], [B, 3, H, W], H and W at least {SMALLEST_IMAGE}. Divide uint8 images by 255."
        )


@torch.no_grad()
def corrupt(images: Tensor, name: str, severity: int | Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Corrupt images as CIFAR-C (up to 64 pixels) or ImageNet-C (above) does.

    Args:
        images: [B, 3, H, W], floating point in [0, 1], at least 8 pixels a side.
        name: one of `CORRUPTIONS`.
        severity: 1 to 5, for all images or one an image, [B].
        generator: where gaussian_noise, impulse_noise and elastic_transform draw from; the others need none. It may
            live on another device than the images, so that one CPU seed gives one result everywhere.

    Returns:
        [B, 3, H, W], float32, whole multiples of 1/255 in [0, 1]. Gradients do not pass.

    Raises:
        InputError: unknown name or severity, other images than the above, or a random corruption without generator.
    """
    check_corruption(name)
    _check_images(images)
    if name in _RANDOM and generator is None:
        raise InputError(f"{name} draws random numbers: give it a torch.Generator.")
    index = _severity_index(name, severity, images)
    if len(images) == 0:
        return images.float()
    constants = constants_of(name, min(images.shape[2:]))
    operation = (_RANDOM | _FIXED)[name]
    with torch.autocast(images.device.type, enabled=False):
        corrupted = operation(images.float(), constants, index, generator)
    return (corrupted.clamp(0, 1) * 255 + 1e-3).floor() / 255
