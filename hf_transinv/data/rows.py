"""A row's image, decoded and of the size that all images of the split have."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from hf_transinv.data.decoding import BadImageError, decode_image, fit
from hf_transinv.data.sources import Source
from hf_transinv.errors import InputError

_SMALL = 4096  # bytes of an encoded image: CIFAR's PNG have half of it


@dataclass(frozen=True)
class RowDecoder:
    """Decodes the cells of an ``image`` column to squares of one size; safe to call from several threads.

    Attributes:
        side: of every image it returns, in pixels.
        keeps_size: images must have that size already; else they are brought to it.
        skips_bad: an image that cannot be decoded becomes None instead of an error.
    """

    side: int
    keeps_size: bool
    skips_bad: bool

    @classmethod
    def open(
        cls,
        source: Source,
        cells: Iterable[dict[str, Any] | None],
        image_size: int | None,
        on_bad_image: Literal["raise", "skip"],
    ) -> "RowDecoder":
        """Makes the decoder of a source.

        Args:
            source: the split, for errors.
            cells: its images from row 0 on; read only to find the size, so not when it is given.
            image_size: the side in pixels; None takes that of the first image that can be decoded.
            on_bad_image: whether an image that cannot be decoded is an error or None.

        Raises:
            InputError: no size was given, and the first image is no square or not one can be decoded.
        """
        if on_bad_image not in ("raise", "skip"):
            raise InputError(f"on_bad_image is {on_bad_image!r}. Choose 'raise' or 'skip'.")
        skips_bad = on_bad_image == "skip"
        if image_size is not None:
            if image_size < 1:
                raise InputError(f"image_size is {image_size}. Give the side of the images in pixels.")
            return cls(image_size, keeps_size=False, skips_bad=skips_bad)
        for row, cell in enumerate(cells):
            image = _decode(cell, source.where(row), skips_bad)
            if image is None:
                continue
            height, width = image.shape[-2:]
            if height != width:
                raise InputError(
                    f"{source.where(row)}: the image is {width} pixels wide and {height} high, not a square. "
                    "Give --image_size to bring all images to one size."
                )
            return cls(height, keeps_size=True, skips_bad=skips_bad)
        raise none_decoded(source)

    def __call__(self, cell: dict[str, Any] | None, where: str) -> Tensor | None:
        """Decodes one image.

        Args:
            cell: {'bytes', 'path'}, undecoded.
            where: what to call the row in an error.

        Returns:
            uint8 [3, side, side], or None for a bad image that is to be skipped.

        Raises:
            InputError: the image cannot be decoded, or has another size than it must have.
        """
        image = _decode(cell, where, self.skips_bad)
        if image is None:
            return None
        if not self.keeps_size:
            return fit(image, self.side)
        height, width = image.shape[-2:]
        if (height, width) != (self.side, self.side):
            raise InputError(
                f"{where}: the image is {width}x{height} pixels, the first one is {self.side}x{self.side}. "
                "Give --image_size to bring all images to one size."
            )
        return image


def decoding_threads(cells: Iterable[dict[str, Any] | None], most: int) -> int:
    """How many threads decode such images fastest: `most` of them, or one, as small images are decoded sooner than
    threads hand the interpreter to each other. Those of which only the path is known are not called small."""
    sizes = [len(cell["bytes"]) for cell in cells if cell and cell["bytes"]]
    return 1 if sizes and sum(sizes) < _SMALL * len(sizes) else most


def none_decoded(source: Source) -> InputError:
    return InputError(f"{source.name}, split {source.split!r}: not one image can be decoded. Repair the data.")


def _decode(cell: dict[str, Any] | None, where: str, skips_bad: bool) -> Tensor | None:
    encoded = None if cell is None else cell["bytes"] or cell["path"]
    try:
        if not encoded:
            raise BadImageError(f"{where}: there is no image. Leave out the row, or pass --on_bad_image skip.")
        return decode_image(encoded, where)
    except BadImageError:
        if skips_bad:
            return None
        raise
