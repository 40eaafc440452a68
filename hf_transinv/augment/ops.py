"""Differentiable image functions: f(images, parameters) -> images, batched, one set of parameters per image.

All take images [B, C, H, W], float in [0, 1], and are deterministic in (images, parameters), so that an augmentation
can be replayed. None of them brings the result back into [0, 1]: `into_range` does that once at the end.

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


def per_image(values: Tensor) -> Tensor:
    """[B] -> [B, 1, 1, 1], for broadcasting over images."""
    return values.view(-1, 1, 1, 1)


def adjust_contrast_brightness(images: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    """The images alpha x + beta, with contrast `alpha` [B] and brightness `beta` [B]."""
    return per_image(alpha) * images + per_image(beta)


def warp_affine(images: Tensor, theta: Tensor, padding_mode: str = "zeros") -> Tensor:
    """Sample each image on its own affine grid.

    Args:
        images: [B, C, H, W].
        theta: [B, 2, 3], from output to input coordinates, both in [-1, 1] over the image (align_corners=False).
        padding_mode: the pixels outside the image: "zeros" (black), "border" or "reflection".
    """
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode=padding_mode, align_corners=False)


def gaussian_taps(variance: Tensor, radius: int) -> Tensor:
    """Normalised Gaussian weights at -radius .. radius: [B] -> [B, 2 radius + 1]."""
    offsets = torch.arange(-radius, radius + 1, device=variance.device, dtype=variance.dtype)
    return torch.softmax(-offsets.square() / (2 * variance.clamp_min(1e-3).unsqueeze(1)), dim=1)


def blur_gaussian(images: Tensor, variance: Tensor, gamma: Tensor, radius: int) -> Tensor:
    """The images gamma x + (1 - gamma) Conv(x, kappa) with a Gaussian kappa, edges reflected.

    Args:
        images: [B, C, H, W].
        variance: of the kernel in pixels squared, [B].
        gamma: share of the sharp image, [B] in [0, 1].
        radius: half width of the kernel in pixels; three standard deviations of the largest variance.
    """
    radius = min(radius, images.shape[-1] - 1, images.shape[-2] - 1)
    taps = gaussian_taps(variance, radius)
    blurred = images
    for dim in (-1, -2):
        size = blurred.shape[dim]
        padding = (radius, radius, 0, 0) if dim == -1 else (0, 0, radius, radius)
        padded = F.pad(blurred, padding, mode="reflect")
        # A sum of shifted views: every image has its own kernel, and a grouped convolution would be slower.
        shifted = (per_image(taps[:, k]) * padded.narrow(dim, k, size) for k in range(2 * radius + 1))
        blurred = functools.reduce(torch.add, shifted)
    return torch.lerp(blurred, images, per_image(gamma))


def blur_radius(max_variance: float) -> int:
    """The half width, in pixels, that covers three standard deviations of the widest kernel."""
    return max(1, math.ceil(3 * math.sqrt(max_variance)))


def add_gaussian_noise(images: Tensor, variance: Tensor, noise: Tensor) -> Tensor:
    """The images x + sqrt(nu) eps, with `variance` nu [B] and standard normal `noise` eps of the images' shape."""
    # The slope of the root at 0 is infinite; times the 0 of a saturated sigmoid the gradient would be NaN.
    scale = variance.clamp_min(torch.finfo(variance.dtype).tiny).sqrt()
    return images + per_image(scale) * noise


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
