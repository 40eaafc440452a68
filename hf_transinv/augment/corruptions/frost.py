"""Textures for the corruption frost: synthetic ones of this project, or the authors' photographs.

CIFAR-C and ImageNet-C use crops of five photographs (frost1 .. frost5 in their repository, folder
ImageNet-C/create_c), which are not distributed here. Five synthetic textures replace them: ice feathers that grow from
the edges, where there is most ice, and from scattered points. They have side branches at about 60 degrees with twigs,
and are lit from the side. Mean and deviation of each channel are those measured on one of the photographs. After
scaling for images of 32 pixels, neighbouring pixels differ as much as in the photographs, within a third. Still,
results with them are not exactly comparable to published ones for frost.
"""

import math
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from hf_transinv.errors import InputError

# The authors' list ends with frost6.jpg, but their draw never reaches it.
FROST_FILES = ("frost1.png", "frost2.png", "frost3.png", "frost4.jpg", "frost5.jpg")

# Mean and deviation of R, G and B, in levels of 0 to 255, measured on FROST_FILES.
_TINTS = (
    ((78, 149, 166), (27, 16, 15)),
    ((201, 205, 214), (21, 22, 23)),
    ((201, 205, 214), (21, 22, 23)),
    ((138, 153, 166), (29, 29, 30)),
    ((112, 123, 135), (44, 43, 42)),
)
_SEED = 2019
_SMALLEST_HEIGHT = 400


def _grow(base: Tensor, heading: Tensor, length: Tensor, bend: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Bent lines that start at given points.

    Args:
        base: start of each line, (y, x) in pixels, [N, 2].
        heading: direction at the start, radians, [N].
        length: of each line, pixels, [N].
        bend: change of direction over the line, radians, [N].
        steps: points per line.

    Returns:
        The points of each line, [N, steps, 2], and the direction at each, [N, steps].
    """
    share = torch.arange(1, steps + 1) / steps
    direction = heading[:, None] + bend[:, None] * share
    strides = torch.stack([direction.sin(), direction.cos()], dim=2) * (length / steps)[:, None, None]
    return base[:, None] + strides.cumsum(dim=1), direction


def _branch(
    points: Tensor, direction: Tensor, length: Tensor, steps: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Branches at 60 degrees on both sides of every point of some lines, shorter towards the tips.

    Args:
        points: of the lines, [N, nodes, 2], pixels.
        direction: at the points, [N, nodes], radians.
        length: of the lines, [N], pixels.
        steps: points per branch.
        generator: of the branches' random lengths.

    Returns:
        Points [2 N nodes, steps, 2], directions [2 N nodes, steps] and lengths [2 N nodes] of the branches.
    """
    count, nodes = direction.shape
    side = torch.tensor([-1.0, 1.0])
    uneven = 0.5 + torch.rand((count, nodes, 2), generator=generator)
    lengths = (0.3 * length[:, None, None] * (1.05 - torch.arange(nodes) / nodes)[:, None] * uneven).flatten()
    heading = (direction[..., None] + side * math.pi / 3).flatten()
    bend = (-0.35 * side).expand(count, nodes, 2).flatten()
    return *_grow(points.repeat_interleave(2, dim=1).flatten(0, 1), heading, lengths, bend, steps), lengths


def _feathers(height: int, width: int, generator: torch.Generator) -> Tensor:
    """The amount of ice per pixel, [height, width]: feathers from the edges inwards and from scattered points."""
    at_edge, scattered = (height + width) // 10, height * width // 900
    count = at_edge + scattered
    base = torch.rand((count, 2), generator=generator)
    base[torch.arange(at_edge), torch.arange(at_edge) % 2] = (torch.arange(at_edge) % 4 // 2).float()
    inwards = torch.atan2(0.5 - base[:, 0], 0.5 - base[:, 1])
    noise = torch.rand((4, count), generator=generator)
    from_edge = torch.arange(count) < at_edge
    heading = inwards + (noise[0] - 0.5) * torch.where(from_edge, 2.0, 2 * math.pi)
    length = torch.where(from_edge, 60 + 90 * noise[1], 30 + 60 * noise[1])
    strength = torch.where(from_edge, 0.6, 0.2) + 0.8 * noise[2].square()

    extent = torch.tensor([height, width])
    lines, direction = _grow(base * extent, heading, length, noise[3] - 0.5, 32)
    ice = torch.zeros(height * width)
    for thickness, nodes in ((1.6, 10), (1.1, 5), (0.8, 0)):
        spots = lines.floor().long()
        inside = ((spots >= 0) & (spots < extent)).all(dim=2)
        # The weight of a point is the length of line that it represents.
        weight = (thickness * strength * length / lines.shape[1])[:, None].expand_as(inside)[inside]
        place = (spots[..., 0] * width + spots[..., 1])[inside]
        ice += torch.bincount(place, weight, minlength=height * width)
        if nodes:
            strength = strength.repeat_interleave(2 * lines.shape[1])
            lines, direction, length = _branch(lines, direction, length, nodes, generator)
    return ice.view(height, width)


# Cached apart from frost_textures: making them takes seconds, and images of other sizes share them.
@lru_cache(maxsize=4)
def synthetic_photographs(height: int, width: int) -> tuple[np.ndarray, ...]:
    """Five textures of frost, always the same: uint8 [height, width, 3] each."""
    generator = torch.Generator().manual_seed(_SEED)
    photographs = []
    for mean, deviation in _TINTS:
        ice = _feathers(height, width, generator)
        smooth = F.avg_pool2d(F.pad(ice[None, None], (1,) * 4, mode="replicate"), 3, stride=1)
        # Light from the upper left gives relief. The shares make the grain as coarse as in the photographs.
        shade = smooth.log1p() - F.pad(smooth.log1p(), (2, 0, 2, 0), mode="replicate")[..., :-2, :-2]
        grain = torch.randn((height, width), generator=generator)
        layers = zip((1, 0.6, 0.3), (torch.log1p(smooth[0, 0] + ice / 2), shade[0, 0], grain), strict=True)
        look = torch.stack([share * layer / layer.std() for share, layer in layers]).sum(dim=0)
        look = (look - look.mean()) / look.std()
        levels = torch.tensor(mean) + torch.tensor(deviation) * look[..., None]
        photographs.append(levels.clamp(0, 255).byte().numpy())
    return tuple(photographs)


def _open_photographs(folder: str) -> tuple[np.ndarray, ...]:
    photographs = []
    for name in FROST_FILES:
        try:
            with Image.open(Path(folder) / name) as photograph:
                photographs.append(np.array(photograph.convert("RGB")))
        except (OSError, SyntaxError, ValueError) as error:  # Pillow's, of broken files
            raise InputError(
                f"Cannot read {name} in the frost folder {folder}: {error}. Expected the photographs of the "
                f"benchmark, {', '.join(FROST_FILES)}, from ImageNet-C/create_c of github.com/hendrycks/robustness; "
                "without a folder, synthetic textures are used."
            ) from error
    return tuple(photographs)


@lru_cache(maxsize=8)
def frost_textures(
    folder: str | None, step: int, height: int, width: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """The textures from which crops are taken.

    Args:
        folder: of `FROST_FILES`; None for synthetic textures.
        step: every step-th pixel is taken. CIFAR-C scales by 0.2 with OpenCV's bilinear resize, whose sampling
            positions 5 i + 2 are whole, so nothing is averaged.
        height: of the crops, in pixels.
        width: of the crops, in pixels.
        device: of the result.

    Returns:
        The textures, uint8 [5, 3, H, W], smaller ones filled up with zeros at the bottom and right, and their sizes,
        int64 [5, 2].

    Raises:
        InputError: a photograph is missing, unreadable or smaller than the crops.
    """
    if folder is None:
        smallest = max(_SMALLEST_HEIGHT, 3 * step * max(height, width) // 2)
        photographs = synthetic_photographs(smallest, smallest * 3 // 2)
    else:
        photographs = _open_photographs(folder)
    textures = [torch.from_numpy(p[step // 2 :: step, step // 2 :: step]).permute(2, 0, 1) for p in photographs]
    for name, texture in zip(FROST_FILES, textures, strict=True):
        if texture.shape[1] < height or texture.shape[2] < width:
            raise InputError(
                f"{name} in the frost folder {folder} has {texture.shape[1]} x {texture.shape[2]} pixels (every "
                f"{step}th of the photograph's), fewer than the images' {height} x {width}: expected a larger "
                "photograph, or no frost folder for synthetic textures that fit."
            )
    sizes = torch.tensor([texture.shape[1:] for texture in textures])
    most = sizes.amax(dim=0).tolist()
    filled = [F.pad(t, (0, most[1] - t.shape[2], 0, most[0] - t.shape[1])) for t in textures]
    return torch.stack(filled).to(device), sizes.to(device)
