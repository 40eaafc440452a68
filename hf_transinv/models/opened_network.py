"""What is known of a network that was just opened: all that `Classifier` must know of it."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from hf_transinv.models.published import Published

_logger = logging.getLogger(__name__)

_NEAREST_TO = {"lanczos": "bicubic", "hamming": "bilinear", "box": "bilinear"}  # filters that PyTorch does not have


@dataclass(frozen=True)
class Preprocessing:
    """From pixels to what a network sees; each field is the argument of `Classifier` of that name.

    Attributes:
        mean: per channel, of pixels in [0, 1].
        std: per channel, of pixels in [0, 1].
        input_size: (h, w) that the network sees, in pixels.
        interpolation: the checkpoint's filter, by Pillow's name.
        channel_order: "rgb" or "bgr".
        published: the checkpoint's own preprocessing.
    """

    mean: Sequence[float]
    std: Sequence[float]
    input_size: tuple[int, int]
    interpolation: str
    channel_order: str = "rgb"
    published: Published | None = None

    def own_filter(self, name: str) -> str:
        """The filter for images of another size: the checkpoint's, or the nearest that PyTorch has, with a warning.

        Args:
            name: of the checkpoint, for the warning.
        """
        said, near = self.interpolation, _NEAREST_TO.get(self.interpolation)
        if near is not None:
            _logger.warning("%s resizes by %s; here images of another size are resized by %s", name, said, near)
        return near or said


@dataclass(frozen=True)
class OpenedNetwork:
    """A network of timm or transformers.

    Attributes:
        network: with its weights, or freshly initialised.
        num_classes: columns of its logits.
        label_names: one name per class; None where they are not known.
        preprocessing: how images reach it.
        image_processor: of transformers; None: the network is timm's.
    """

    network: nn.Module
    num_classes: int
    label_names: Sequence[str] | None
    preprocessing: Preprocessing
    image_processor: Any = None
