"""The preprocessing that a checkpoint was published with, and how it differs from this library's own.

By default every model sees the same images: the shorter side resized, the centre cut out, `Classifier.prepare`. A
checkpoint may ask for more: a larger side before the crop (crop_pct), another filter, a squash, a border. None of that
is implemented here. timm's transform or the image processor of transformers does it, and its output is turned back
into an 8-bit image. So a corruption can be applied to what the network sees, as in ImageNet-C.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from hf_transinv.errors import InputError

FILTERS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
"""By Pillow's numbers, which image processors give as `resample`; timm gives the names."""


@dataclass(frozen=True)
class Published:
    """A checkpoint's own preprocessing, from a decoded image to the network's input without the normalisation.

    Attributes:
        description: resizing and cropping in words.
        size: (h, w) of all resulting images; None when it depends on the image.
        apply: uint8 [3, h, w] of any size -> uint8 [3, *size], RGB.
        obstacle: why it cannot be used here; None: it can, and `size` is known.
    """

    description: str
    size: tuple[int, int] | None
    apply: Callable[[Tensor], Tensor]
    obstacle: str | None = None

    def __call__(self, image: Tensor) -> Tensor:
        """A decoded image, uint8 [3, h, w] -> uint8 [3, *size].

        Raises:
            InputError: it cannot be used here, or the result is not an image of that size.
        """
        if self.obstacle is not None or self.size is None:
            raise InputError(f"The checkpoint's own preprocessing ({self.description}) {self.obstacle}.")
        pixels = self.apply(image)
        if tuple(pixels.shape) != (3, *self.size):
            raise InputError(
                f"The checkpoint's own preprocessing ({self.description}) made {tuple(pixels.shape)} of an image of "
                f"{tuple(image.shape)}; expected {(3, *self.size)}. Evaluate with --protocol uniform."
            )
        return pixels
