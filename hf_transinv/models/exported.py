"""The preprocessing written into an export, so that timm and transformers do what this library's evaluation did.

The evaluation brings an image to a square (shorter side resized, bilinear, centre cut out) of the data's size and
passes it to `Classifier.prepare`. timm and transformers do the same in one step. Images of the right size pass
unchanged. For others there are small differences:

- Pillow and torch round a resized pixel differently, by at most one of 255 levels.
- transformers rounds the corner of the crop down, where torchvision and timm round it to even. Its crop is one pixel
  off when the number of pixels cut away is 3 more than a multiple of 4.
- PPLCNet's processor, the only one that normalises BGR, rounds the longer side where the others truncate it.
"""

import logging
import math
from typing import TYPE_CHECKING, Any

import torch

from hf_transinv.errors import InputError
from hf_transinv.models.published import FILTERS

if TYPE_CHECKING:
    from hf_transinv.models.classifier import Classifier

_logger = logging.getLogger(__name__)


def interpolation_of(classifier: "Classifier", image_size: int | None, interpolation: str = "bilinear") -> str:
    """The filter by which one resizing replaces the evaluation's two.

    Args:
        classifier: to be exported.
        image_size: side of the images that it was evaluated with, in pixels; None: the network's own.
        interpolation: by which the images were brought to that side.
    """
    side = min(classifier.input_size)
    if image_size in (None, side):
        return interpolation  # the network found nothing left to resize
    _logger.info(
        "evaluated with images of %d px, which the network resizes to %s (%s): the export does so with images of that "
        "size, and resizes larger ones once",
        *(image_size, "x".join(map(str, classifier.input_size)), classifier.interpolation),
    )
    return classifier.interpolation


def timm_preprocessing(
    classifier: "Classifier", image_size: int | None, crop_pct: float = 1.0, interpolation: str = "bilinear"
) -> dict[str, Any]:
    """Fields of timm's pretrained_cfg, which must replace all of its fields about sizes and crops.

    Args:
        classifier: to be exported.
        image_size: side of the images that it was evaluated with, in pixels; None: the network's own.
        crop_pct: share of the resized shorter side that those images have, in (0, 1].
        interpolation: by which the shorter side was resized.

    Raises:
        InputError: timm has no field for it.
    """
    if classifier.channel_order != "rgb":
        raise InputError(f"timm's layout has no channel order, and {classifier.source!r} reads BGR.")
    height, width = classifier.input_size
    return {
        "mean": as_written(classifier.mean),
        "std": as_written(classifier.std),
        "input_size": (len(classifier.mean), height, width),
        "interpolation": interpolation_of(classifier, image_size, interpolation),
        "crop_pct": crop_pct,
        # The square that the evaluation cuts out is squashed where the network's input is not square.
        "crop_mode": "center" if height == width else "squash",
    }


def image_processor_for(
    classifier: "Classifier", image_size: int | None, crop_pct: float = 1.0, interpolation: str = "bilinear"
) -> Any:
    """An image processor of transformers that does what the evaluation did; it works with any of its models.

    Args:
        classifier: to be exported.
        image_size: side of the images that it was evaluated with, in pixels; None: the network's own.
        crop_pct: share of the resized shorter side that those images have, in (0, 1].
        interpolation: by which the shorter side was resized.

    Raises:
        InputError: transformers has no such processor.
    """
    from transformers import CLIPImageProcessor, MobileViTImageProcessor

    height, width = classifier.input_size
    name = interpolation_of(classifier, image_size, interpolation)
    number = next(number for number, known in FILTERS.items() if known == name)
    mean, std = as_written(classifier.mean), as_written(classifier.std)
    common: dict[str, Any] = {"resample": number, "do_resize": True, "do_rescale": True, "rescale_factor": 1 / 255}
    crop: dict[str, Any] = {"do_center_crop": True, "crop_size": {"height": height, "width": width}}
    statistics: dict[str, Any] = {"do_normalize": True, "image_mean": list(mean), "image_std": list(std)}
    if height != width:
        crop = {"do_center_crop": False}
    shorter = math.floor(height / crop_pct)
    shape = {"shortest_edge": shorter} if height == width else {"height": height, "width": width}
    if classifier.channel_order == "rgb":
        is_colour = len(mean) == 3
        return CLIPImageProcessor(size=shape, do_convert_rgb=is_colour, **crop, **common, **statistics)
    if set(mean) == {0.0} and set(std) == {1.0}:
        return MobileViTImageProcessor(size=shape, do_flip_channel_order=True, do_convert_rgb=True, **crop, **common)
    if height != width:
        raise InputError(
            f"transformers has no image processor for {classifier.source!r}: BGR, normalised, {height}x{width} px."
        )
    try:
        from transformers import PPLCNetImageProcessor
    except ImportError as error:
        raise InputError(
            f"This version of transformers has no image processor for {classifier.source!r}: BGR, normalised. "
            "Upgrade transformers."
        ) from error
    statistics |= {"image_mean": list(mean[::-1]), "image_std": list(std[::-1])}  # normalised before it is reversed
    own: dict[str, Any] = {"resize_short": shorter, "size_divisor": 1, "do_convert_rgb": True}
    return PPLCNetImageProcessor(**own, **crop, **common, **statistics)


def as_written(values: torch.Tensor) -> tuple[float, ...]:
    """The shortest decimals that round to these float32 values: 0.485, not 0.48500001430511475."""
    return tuple(float(str(value)) for value in values.flatten().cpu().numpy())
