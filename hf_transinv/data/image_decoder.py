"""Decodes the images of a split, to squares of one size, or to pictures of differing shapes."""

import hashlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from hf_transinv.data.decoding import BadImageError, Enough, decode_image, fit, shrink
from hf_transinv.data.sources import Source
from hf_transinv.data.stream_crops import PictureCrops
from hf_transinv.errors import InputError

_STREAM_THREADS = 8  # more would wait for the one that hands out the rows
_SMALL = 4096  # bytes of an encoded image; CIFAR's PNG files have half as many


@dataclass(frozen=True)
class ImageDecoder:
    """Decodes the cells of an ``image`` column to one size; safe to call from several threads.

    Attributes:
        side: of every image it returns, in pixels.
        keeps_size: images must have that size already; else they are brought to it.
        skips_bad: an image that cannot be decoded becomes None instead of an error.
        skipped: the skipped images, each once: where they are and what is wrong.
        preprocess: uint8 [3, h, w] of any size -> uint8 [3, H, W] of one size, such as a model's own (see
            models.published); `side` and `keeps_size` then have no meaning.
        crop_pct: share of the resized shorter side that the square cut out of it has, in (0, 1].
        interpolation: "bilinear" or "bicubic".
        stored_size: whole images are kept, of this shorter side at most, in pixels; None: squares are cut out of
            them. A JPEG is decoded at a reduced scale where twice that side remains.
    """

    side: int
    keeps_size: bool
    skips_bad: bool
    skipped: dict[str, str] = field(default_factory=dict)
    preprocess: Callable[[Tensor], Tensor] | None = None
    crop_pct: float = 1.0
    interpolation: str = "bilinear"
    stored_size: int | None = None

    @classmethod
    def open(
        cls,
        source: Source,
        cells: Iterable[dict[str, Any] | None],
        image_size: int | None,
        on_bad_image: str,
        preprocess: Callable[[Tensor], Tensor] | None = None,
        crop_pct: float = 1.0,
        interpolation: str = "bilinear",
        stored_size: int | None = None,
    ) -> "ImageDecoder":
        """Makes the decoder of a source.

        Args:
            source: the split, for errors.
            cells: its images from row 0 on; read only where the size is not given.
            image_size: the side in pixels; None takes that of the first image that can be decoded.
            on_bad_image: "raise": an image that cannot be decoded is an error; "skip": it becomes None.
            preprocess: as the attribute; None: images are brought to `image_size`.
            crop_pct: as the attribute; it and the next two only with `image_size`.
            interpolation: as the attribute.
            stored_size: as the attribute.

        Raises:
            InputError: no size was given, and the first image is not square or no image can be decoded.
        """
        if on_bad_image not in ("raise", "skip"):
            raise InputError(f"on_bad_image is {on_bad_image!r}. Choose 'raise' or 'skip'.")
        skips_bad = on_bad_image == "skip"
        if preprocess is not None:
            return cls(0, keeps_size=False, skips_bad=skips_bad, preprocess=preprocess)
        if image_size is not None:
            if image_size < 1:
                raise InputError(f"image_size is {image_size}. Give the side of the images in pixels.")
            return cls(
                image_size,
                keeps_size=False,
                skips_bad=skips_bad,
                crop_pct=crop_pct,
                interpolation=interpolation,
                stored_size=stored_size,
            )
        for row, cell in enumerate(cells):
            where = source.where(row, cell)
            try:
                image = decode_image(encoded_image(cell, where), where)
            except BadImageError:
                if skips_bad:
                    continue
                raise
            height, width = image.shape[-2:]
            if height != width:
                raise InputError(
                    f"{where}: the image is {width} pixels wide and {height} high, not a square. "
                    "Give --image_size to bring all images to one size."
                )
            return cls(height, keeps_size=True, skips_bad=skips_bad)
        raise none_decoded(source)

    def __call__(
        self, cell: dict[str, Any] | None, where: str, *, comes_again: bool = False, crops: PictureCrops | None = None
    ) -> Tensor | None:
        """Decodes one image.

        Args:
            cell: {'bytes', 'path'}, undecoded.
            where: the row, for errors.
            comes_again: the same image will come again under other names, and is to be noted only once if skipped.
            crops: random ones that are taken of it instead.

        Returns:
            uint8 [3, side, side], or [3, h, w] where whole images are kept, or [V, 3, side, side] of V crops; None for
            a bad image that is to be skipped.

        Raises:
            InputError: the image cannot be decoded, or has the wrong size.
        """
        try:
            image = decode_image(encoded_image(cell, where), where, crops.enough if crops else self._enough)
        except BadImageError as error:
            if not self.skips_bad:
                raise
            path, data = (cell["path"], cell["bytes"]) if cell else (None, None)
            key = (path or hashlib.blake2b(data or b"").hexdigest()) if comes_again else where
            self.skipped.setdefault(key, error.found)
            return None
        if crops is not None:
            return crops(image)
        if self.preprocess is not None:
            return self.preprocess(image)
        if self.stored_size is not None:
            return shrink(image, self.stored_size, self.interpolation)
        if not self.keeps_size:
            return fit(image, self.side, self.crop_pct, self.interpolation)
        height, width = image.shape[-2:]
        if (height, width) != (self.side, self.side):
            raise InputError(
                f"{where}: the image is {width}x{height} pixels, the first one is {self.side}x{self.side}. "
                "Give --image_size to bring all images to one size."
            )
        return image

    @property
    def _enough(self) -> Enough | None:
        stored_size = self.stored_size
        return None if stored_size is None else lambda *_: 2 * stored_size


def decoding_threads(cells: Iterable[dict[str, Any] | None], most: int) -> int:
    """How many threads decode such images fastest: `most` of them, or one when the images are small.

    A small image is decoded in less time than threads take to hand over the interpreter lock. An image of which only
    the path is known does not count as small.

    Args:
        cells: a sample of the images, {'bytes', 'path'} each.
        most: threads for images that are not small.
    """
    sizes = [len(cell["bytes"]) for cell in cells if cell and cell["bytes"]]
    return 1 if sizes and sum(sizes) < _SMALL * len(sizes) else most


def stream_threads() -> int:
    """Threads that decode a stream, on the cores that this process may use."""
    may_use = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(_STREAM_THREADS, may_use)


def none_decoded(source: Source) -> InputError:
    """The error for a split without a single image that can be decoded."""
    return InputError(f"{source.name}, split {source.split!r}: not one image can be decoded. Repair the data.")


def encoded_image(cell: dict[str, Any] | None, where: str) -> bytes | str:
    """The bytes of a cell, or the path or address of the file.

    Args:
        cell: {'bytes', 'path'}, undecoded.
        where: the row, for errors.

    Raises:
        BadImageError: there is neither, or the path is relative.
    """
    data, path = (None, None) if cell is None else (cell["bytes"], cell["path"])
    if data is not None:
        return data
    if not path:
        raise BadImageError(where, "there is no image")
    if "://" not in path and not os.path.isabs(path):
        raise BadImageError(
            where,
            f"the table holds a path and no image, and {path!r} does not say relative to which folder (save the table "
            "with its images in it: datasets.table.embed_table_storage, or push_to_hub)",
        )
    return path
