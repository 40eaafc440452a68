"""Blurs: defocus_blur."""

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from hf_transinv.augment.corruptions.severities import Constants

_LARGEST_RADIUS = 10  # of a disk of defocus_blur


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


def defocus_blur(images: Tensor, constants: Constants, index: Tensor, generator: torch.Generator | None) -> Tensor:
    kernels = _defocus_kernels(constants, images.device)
    pad = kernels.shape[-1] // 2
    planes = F.pad(images, (pad,) * 4, mode="reflect").flatten(0, 1)
    weight = kernels[index].repeat_interleave(images.shape[1], dim=0)
    return F.conv2d(planes[None], weight, groups=len(planes)).view(images.shape)
