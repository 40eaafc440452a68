"""What an image processor of transformers does to an image, found by trying it out.

There are some thirty classes, each with fields of its own: crop_pct, rescale offsets, a second normalisation, channels
in the order BGR, sides given as shortest_edge, as height and width or as max_height. Whatever its fields are called, a
processor that this library supports maps the 8-bit level of one channel to a number, in the same way at every pixel:

    pixel_values[c] = a[c] * level[order[c]] + b[c] = (level[order[c]] / 255 - mean[c]) / std[c]

a[c], b[c] and order are measured on images of one colour. Images of further colours must then satisfy the equation
too. A processor that does not is refused.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from hf_transinv.errors import InputError
from hf_transinv.models.opened_network import Preprocessing
from hf_transinv.models.published import FILTERS, Published

_LONGEST_SIDE = 4096  # of the images that a processor may make
_SQUARE, _LANDSCAPE, _PORTRAIT = (64, 64), (48, 61), (61, 47)
_TOLERANCE = 0.02  # of a level: the rounding error of an 8-bit level that was normalised in float32
_GEOMETRY = {
    "do_resize": ("size", "resize_short", "size_divisor", "crop_pct", "do_thumbnail", "do_align_long_axis"),
    "do_center_crop": ("crop_size",),
    "do_pad": ("pad_size",),
}
"""The fields that say how each step is done."""


@dataclass(frozen=True)
class _Levels:
    """From a processor's output back to 8-bit images.

    Attributes:
        processor: of transformers.
        slope: a of the equation, [C, 1, 1].
        offset: b of the equation, [C, 1, 1].
        is_reversed: the channels come out as BGR.
    """

    processor: Any
    slope: Tensor
    offset: Tensor
    is_reversed: bool

    def raw(self, image: Tensor) -> Tensor:
        """uint8 [3, h, w] -> levels, float [C, H, W], RGB."""
        levels = (_pixel_values(self.processor, image, len(self.slope)) - self.offset) / self.slope
        return levels.flip(0) if self.is_reversed else levels

    def __call__(self, image: Tensor) -> Tensor:
        """uint8 [3, h, w] -> uint8 [3, H, W]; a grey channel is repeated three times.

        Raises:
            InputError: the output does not consist of 8-bit levels.
        """
        levels = self.raw(image)
        whole = levels.round()
        if (levels - whole).abs().max() > _TOLERANCE or whole.min() < 0 or whole.max() > 255:
            raise InputError(
                f"{type(self.processor).__name__} does not give 8-bit images to the network: it resizes in floating "
                "point, or fills borders after it has normalised. Evaluate with --protocol uniform."
            )
        return whole.to(torch.uint8).expand(3, -1, -1)


def read_processor(name: str, processor: Any, channels: int, built_for: tuple[int, int] | None) -> Preprocessing:
    """The preprocessing of an image processor.

    Args:
        name: the model, for errors.
        processor: of transformers.
        channels: that the network takes: 3, or 1, for which images are made grey first.
        built_for: (h, w) that the network's configuration names, for a processor that does not resize.

    Raises:
        InputError: the processor does anything but resize, crop, reorder the channels and map each of them affinely.
    """
    said = processor.to_dict()
    _check_sides(name, said)
    try:
        levels, mean, std = _affine(processor, channels)
        sizes = {size: _size_made_of(processor, size, channels) for size in (_SQUARE, _LANDSCAPE, _PORTRAIT)}
    except _Unusual as error:
        raise InputError(
            f"The image processor of {name!r}, {type(processor).__name__}, {error}. Expected one that resizes, crops "
            "and normalises: correct its preprocessor_config.json, or choose another model."
        ) from error
    input_size = sizes[_SQUARE]
    if all(made == given for given, made in sizes.items()):
        if built_for is None:
            raise InputError(
                f"The image processor of {name!r} does not resize (do_resize is false), and its config.json names no "
                "image_size: the size of its images is not known. Set do_resize and size in preprocessor_config.json."
            )
        input_size = built_for
    is_fixed = len(set(sizes.values())) == 1
    resample = said.get("resample")
    filter_name = FILTERS.get(resample, "bilinear") if isinstance(resample, int) else "bilinear"
    published = Published(
        _describe(processor, said, filter_name),
        sizes[_SQUARE] if is_fixed else None,
        levels,
        _obstacle(levels, is_fixed),
    )
    return Preprocessing(
        _as_said(mean, said, "image_mean"),
        _as_said(std, said, "image_std"),
        input_size,
        filter_name,
        "bgr" if levels.is_reversed else "rgb",
        published,
    )


class _Unusual(Exception):
    """A processor does something that the equation does not describe."""


def _check_sides(name: str, said: Mapping[str, Any]) -> None:
    """Raises InputError for sides, or shares of them, that would take all memory when the processor is tried out."""
    share = said.get("crop_pct") or 1.0
    if not isinstance(share, int | float):
        raise InputError(
            f"The image processor of {name!r} has crop_pct {share!r}; expected a number. Correct its "
            "preprocessor_config.json."
        )
    for key in ("size", "crop_size", "pad_size", "resize_short", "size_divisor"):
        value = said.get(key)
        given = value.values() if isinstance(value, Mapping) else [value]
        sides = [side for side in given if isinstance(side, int | float)]
        if not all(1 <= side <= _LONGEST_SIDE and 0 < side / share <= _LONGEST_SIDE for side in sides):
            divided = f" and crop_pct {share!r}" if share != 1.0 else ""
            raise InputError(
                f"The image processor of {name!r} has {key} {_short(value)}{divided}; expected sides from 1 to "
                f"{_LONGEST_SIDE} pixels, before and after the crop. Correct its preprocessor_config.json."
            )


def _pixel_values(processor: Any, image: Tensor, channels: int) -> Tensor:
    """uint8 [3, h, w] -> what the network is given, float32 [channels, H, W].

    Raises:
        _Unusual: the processor fails, or makes something else of an image.
    """
    pil_image = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
    try:
        given = processor(pil_image if channels == 3 else pil_image.convert("L"), return_tensors="pt")
    except Exception as error:  # a wrong field surfaces anywhere in a processor, as nearly any type
        mode = "" if channels == 3 else " of one channel"
        raise _Unusual(f"cannot prepare an image{mode}: {error}") from error
    pixels = given.get("pixel_values")
    if set(given) != {"pixel_values"} or not isinstance(pixels, Tensor):
        raise _Unusual(f"gives {', '.join(sorted(given))} to the network, not pixel_values alone")
    if pixels.ndim != 4 or tuple(pixels.shape[:2]) != (1, channels):
        raise _Unusual(f"makes {tuple(pixels.shape)} of one image, where the network takes [1, {channels}, h, w]")
    return pixels[0].float()


def _size_made_of(processor: Any, size: tuple[int, int], channels: int) -> tuple[int, int]:
    """The (h, w) that the processor makes of an image of another (h, w)."""
    height, width = _pixel_values(processor, _noise(size), channels).shape[-2:]
    return height, width


def _noise(size: tuple[int, int]) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=generator)


def _answer(processor: Any, colour: tuple[int, int, int], channels: int) -> Tensor:
    """The processor's output for an image of one colour, in its middle: float64 [channels]."""
    image = torch.tensor(colour, dtype=torch.uint8).view(3, 1, 1).expand(3, *_SQUARE)
    pixels = _pixel_values(processor, image, channels)
    return pixels[:, pixels.shape[1] // 2, pixels.shape[2] // 2].double()


def _affine(processor: Any, channels: int) -> tuple[_Levels, Tensor, Tensor]:
    """The symbols of the equation, measured: a, b and order; mean and std, float64 [channels], in the network's order.

    Raises:
        _Unusual: the equation does not hold.
    """
    black = _answer(processor, (0, 0, 0), channels)
    if channels == 1:
        answers = _answer(processor, (255, 255, 255), 1).view(1, 1)
    else:
        colours = ((255, 0, 0), (0, 255, 0), (0, 0, 255))
        answers = torch.stack([_answer(processor, colour, 3) for colour in colours])
    gains = (answers - black) / 255  # [channel of the image, channel of the network]
    is_reversed = channels == 3 and bool(gains.flip(0).diagonal().abs().sum() > gains.diagonal().abs().sum())
    slope = (gains.flip(0) if is_reversed else gains).diagonal()
    for red, green, blue in ((0, 0, 0), (96, 17, 201), (201, 96, 17), (255, 128, 3)):
        colour = (red, green, blue) if channels == 3 else (green, green, green)
        given = torch.tensor(colour[::-1] if is_reversed else colour[:channels], dtype=torch.float64)
        error = (_answer(processor, colour, channels) - (slope * given + black)).abs() / slope.abs().clamp(min=1e-12)
        if not (slope > 0).all() or not error.max() < _TOLERANCE:
            raise _Unusual("computes more of the colours than a scale and an offset for each channel")
    levels = _Levels(processor, slope.float().view(-1, 1, 1), black.float().view(-1, 1, 1), is_reversed)
    return levels, -black / (255 * slope), 1 / (255 * slope)


def _as_said(found: Tensor, said: Mapping[str, Any], field: str) -> list[float]:
    """The decimals of the processor's own field where they agree with what was measured; else what was measured."""
    factor: Any = said.get("rescale_factor") if said.get("do_rescale") else 1.0
    plain = 0.0 if field == "image_mean" else 1.0
    written: Any = said.get(field) if said.get("do_normalize") else [plain]
    values = list(written) if isinstance(written, list | tuple) else [written]
    are_numbers = all(isinstance(value, int | float) for value in (factor, *values))
    said_values = [float(value) / (255 * factor) for value in values] if are_numbers and factor else []
    said_values *= len(found) if len(values) == 1 else 1
    for candidate in (said_values, said_values[::-1]):
        if len(candidate) == len(found) and torch.allclose(torch.tensor(candidate).double(), found, 1e-5, 1e-6):
            return candidate
    return [float(str(value)) for value in found.float().numpy()]


def _obstacle(levels: _Levels, is_fixed: bool) -> str | None:
    if not is_fixed:
        return "gives images of different sizes, which make no batch"
    try:
        levels(_noise(_PORTRAIT))
    except InputError:
        return "resizes in floating point, or fills borders after it has normalised: its output is no 8-bit image"
    return None


def _describe(processor: Any, said: Mapping[str, Any], filter_name: str) -> str:
    steps = []
    for step, fields in _GEOMETRY.items():
        told = [f"{key} {_short(said[key])}" for key in fields if said.get(key) not in (None, False)]
        if said.get(step):
            steps += told or [step]
    return f"{', '.join([*steps, filter_name])} ({type(processor).__name__})"


def _short(value: Any) -> str:
    """{"height": 224, "width": 224} as 224x224, {"shortest_edge": 256} as shortest_edge 256."""
    if not isinstance(value, Mapping):
        return str(value)
    sides = {key: side for key, side in value.items() if side is not None}
    if set(sides) == {"height", "width"}:
        return f"{sides['height']}x{sides['width']}"
    return " ".join(f"{key} {side}" for key, side in sides.items())
