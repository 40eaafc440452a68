"""jpeg_compression: Pillow's codec, for small images with a whole batch in one file.

The blocks of a JPEG are independent. So images of whole blocks, stacked into one strip, are encoded as each would be
alone. In decoding, neighbours would mix when the halved colour planes are enlarged. Hence the strip's brightness is
decoded at full size and its colour at half size; the enlargement and the conversion to RGB are done here, for each
image apart. At 32 pixels one file per image would take several times as long, mostly for headers.
"""

import io

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from hf_transinv.augment.corruptions.severities import Scalars

_BLOCK = 16  # pixels: 8 x 8 of the halved colour planes
_LARGEST_STACKED = 96  # pixels per side; the headers of larger images cost little
_STRIP_IMAGES = 128


def jpeg_compression(images: Tensor, constants: Scalars, index: Tensor, generator: torch.Generator | None) -> Tensor:
    """Encode and decode each image by Pillow, on the CPU. Waits for the device. Nothing is drawn."""
    height, width = images.shape[2:]
    # libjpeg pads incomplete blocks once per file, so only images of whole blocks can be stacked.
    recode = _recode_strip if height % _BLOCK == 0 and max(height, width) <= _LARGEST_STACKED else _recode_each
    levels = (images * 255).round_().int().byte().permute(0, 2, 3, 1).contiguous().cpu()
    decoded, index = torch.empty_like(images, memory_format=torch.contiguous_format), index.cpu()
    for severity in index.unique().tolist():
        for chosen in (index == severity).nonzero().squeeze(1).split(_STRIP_IMAGES):
            recoded = recode(levels.index_select(0, chosen), constants[severity])
            decoded.index_copy_(0, chosen.to(images.device), recoded.to(images.device))
    return decoded.div_(255)


def _save(levels: np.ndarray, quality: float) -> io.BytesIO:
    """Levels [H, W, 3] as a JPEG file in memory."""
    file = io.BytesIO()
    Image.fromarray(levels).save(file, "JPEG", quality=quality, subsampling="4:2:0")
    return file


def _recode_each(levels: Tensor, quality: float) -> Tensor:
    """Encode and decode with one file per image: uint8 [n, H, W, 3] -> float32 [n, 3, H, W] in levels."""
    decoded = [np.array(Image.open(_save(image, quality), formats=("JPEG",))) for image in levels.numpy()]
    return torch.from_numpy(np.stack(decoded)).permute(0, 3, 1, 2).float()


def _recode_strip(levels: Tensor, quality: float) -> Tensor:
    """`_recode_each` with one file for all images, whose height is a multiple of a block."""
    count, height, width, _ = levels.shape
    file = _save(levels.flatten(0, 1).numpy(), quality)
    full, half = (Image.open(file, formats=("JPEG",)) for _ in range(2))
    full.draft("L", full.size)
    # At half the size, the brightness has a quarter of its coefficients, but the colour has all of its own.
    half.draft("YCbCr", (full.width // 2, full.height // 2))
    brightness = torch.from_numpy(np.array(full)).view(count, height, width)
    colour = torch.from_numpy(np.array(half)).view(count, height // 2, -1, 3)[..., 1:].permute(0, 3, 1, 2)
    return _to_rgb(brightness.float(), _stretch(colour.float())[..., :width])


def _stretch(planes: Tensor) -> Tensor:
    """Enlarge to twice the size as libjpeg-turbo does: [n, 2, h, w] -> [n, 2, 2 h, 2 w].

    A triangle filter, in whole levels; halves are rounded up and down in alternate columns.
    """
    planes = F.pad(planes, (1, 1, 1, 1), mode="replicate")
    near = 3 * planes[:, :, 1:-1]
    rows = torch.stack((near + planes[:, :, :-2], near + planes[:, :, 2:]), dim=3).flatten(2, 3)
    near = 3 * rows[..., 1:-1]
    columns = torch.stack((near + rows[..., :-2] + 8, near + rows[..., 2:] + 7), dim=4).flatten(3, 4)
    return columns.div_(16).floor_()


def _to_rgb(brightness: Tensor, colour: Tensor) -> Tensor:
    """JFIF's conversion to RGB in libjpeg's 16-bit fixed point, which is exact in float32.

    Args:
        brightness: levels [n, H, W].
        colour: levels of the two colour differences, [n, 2, H, W].

    Returns:
        Levels [n, 3, H, W].
    """
    blue, red = (colour - 128).unbind(1)
    differences = torch.stack((91881 * red, -22554 * blue - 46802 * red, 116130 * blue), dim=1)
    return differences.add_(2**15).div_(2**16).floor_().add_(brightness.unsqueeze(1)).clamp_(0, 255)
