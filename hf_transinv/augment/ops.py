"""Differentiable image functions: f(images, parameters) -> images, batched, one set of parameters per image.

All take images [B, C, H, W], float in [0, 1], and are deterministic in (images, parameters), so that an augmentation
can be replayed. None of them brings the result back into [0, 1]: `into_range` does that once at the end.

The paper states its ranges for images of 32 pixels. What it measures in pixels scales with the side of the image
(`square_pixel`), so that a strength means the same in a photograph. Noise is drawn per pixel at every size, as that of
CIFAR-C and ImageNet-C is.

The four of TransInv (Kurioka et al., ICONIP 2024, section 4.2):
    contrast and brightness   alpha x + beta
    geometric                 x sampled on the grid theta [u, v, 1]^T (Spatial Transformer Networks)
    Gaussian blur             gamma x + (1 - gamma) Conv(x, kappa)
    Gaussian noise            x + N(0, nu)
"""

import functools
import math

import torch
import torch.nn.functional as F
from torch import Tensor

REFERENCE_SIDE = 32
"""Side of the images for which ranges in pixels are stated."""


def per_image(values: Tensor) -> Tensor:
    """[B] -> [B, 1, 1, 1], for broadcasting over images."""
    return values.view(-1, 1, 1, 1)


def adjust_contrast_brightness(images: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    """The images alpha x + beta, with contrast `alpha` [B] and brightness `beta` [B]."""
    return torch.addcmul(per_image(beta), per_image(alpha), images)


def warp_affine(images: Tensor, theta: Tensor, padding_mode: str = "zeros") -> Tensor:
    """Sample each image on its own affine grid.

    Args:
        images: [B, C, H, W].
        theta: [B, 2, 3], from output to input coordinates, both in [-1, 1] over the image (align_corners=False).
        padding_mode: the pixels outside the image: "zeros" (black), "border" or "reflection".
    """
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode=padding_mode, align_corners=False)


@functools.lru_cache(maxsize=8)
def identity(device: torch.device, dtype: torch.dtype) -> Tensor:
    """The affine matrix that leaves an image as it is, [2, 3]."""
    return torch.eye(2, 3, device=device, dtype=dtype)


def square_pixel(images: Tensor) -> float:
    """What a square pixel of an image of 32 pixels measures in `images` [B, C, H, W]: pixels squared."""
    return (min(images.shape[-2:]) / REFERENCE_SIDE) ** 2


def gaussian_taps(variance: Tensor, radius: int, unit: float = 1.0) -> Tensor:
    """Normalised Gaussian weights at -radius .. radius: [B] -> [B, 2 radius + 1]; `unit` as for `blur_gaussian`."""
    exponents = _exponents(radius, unit, variance.device, variance.dtype)
    return torch.softmax(exponents / variance.clamp_min(1e-3 / unit)[:, None], dim=1)


@functools.lru_cache(maxsize=8)
def _exponents(radius: int, unit: float, device: torch.device, dtype: torch.dtype) -> Tensor:
    """The logarithm of a Gaussian of variance `unit` at each tap, up to a constant: [2 radius + 1]."""
    return -torch.arange(-radius, radius + 1, device=device, dtype=dtype).square() / (2 * unit)


def blur_gaussian(images: Tensor, variance: Tensor, gamma: Tensor, radius: int, unit: float = 1.0) -> Tensor:
    """The images gamma x + (1 - gamma) Conv(x, kappa) with a Gaussian kappa, edges reflected.

    Args:
        images: [B, C, H, W].
        variance: of the kernel, [B].
        gamma: share of the sharp image, [B] in [0, 1].
        radius: half width of the kernel in pixels; three standard deviations of the largest variance.
        unit: of the variance, in pixels squared: `square_pixel` for one that is stated for 32 pixels.
    """
    height, width = images.shape[-2:]
    radius = min(radius, width - 1, height - 1)
    taps = gaussian_taps(variance, radius, unit)
    # Every image has its own kernel: a product with a matrix of its own along each side.
    across = taps @ _shifts(radius, width, images.device, images.dtype)
    down = across if height == width else taps @ _shifts(radius, height, images.device, images.dtype)
    rows = torch.bmm(images.flatten(1, 2), across.view(-1, width, width).mT).unflatten(1, images.shape[1:3])
    columns = torch.bmm(down.view(-1, height, height), rows.transpose(1, 2).flatten(2))
    blurred = columns.unflatten(2, (images.shape[1], width)).transpose(1, 2)
    return torch.lerp(blurred, images, per_image(gamma))


@functools.lru_cache(maxsize=8)
def _shifts(radius: int, size: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Which pixels of a line each tap of a kernel reads, edges reflected: 0 or 1, [2 radius + 1, size * size]."""
    taps, pixels = torch.arange(-radius, radius + 1), torch.arange(size)
    read = (pixels + taps[:, None]).abs()
    read = size - 1 - (size - 1 - read).abs()
    return F.one_hot(read, size).view(len(taps), size * size).to(device, dtype)


def blur_radius(max_variance: float) -> int:
    """The half width, in pixels, that covers three standard deviations of the widest kernel."""
    return max(1, math.ceil(3 * math.sqrt(max_variance)))


def add_gaussian_noise(images: Tensor, variance: Tensor, noise: Tensor) -> Tensor:
    """The images x + sqrt(nu) eps, with `variance` nu [B] and standard normal `noise` eps of the images' shape."""
    # The slope of the root at 0 is infinite; times the 0 of a saturated sigmoid the gradient would be NaN.
    scale = variance.clamp_min(torch.finfo(variance.dtype).tiny).sqrt()
    return torch.addcmul(images, per_image(scale), noise)


def into_range(images: Tensor, mode: str = "clamp") -> Tensor:
    """Bring pixels back into [0, 1].

    Args:
        images: of any shape.
        mode: "clamp" saturates, as a camera does; "fold" is the triangle wave of TeachAugment, whose gradient is
            nowhere 0.
    """
    if mode == "fold":
        return 1 - (torch.remainder(images, 2) - 1).abs()
    return images.clamp(0, 1)


def forget_constants() -> None:
    """Forget what was made once for each device."""
    for constant in (identity, _exponents, _shifts):
        constant.cache_clear()
