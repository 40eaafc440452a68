"""Image bytes -> uint8 tensor, looking as the file looks in an image viewer.

Ordinary 8-bit RGB files in JPEG and WebP are decoded by ``torchvision.io``. PNG is not: the decoder there (0.29) ends
the process when the compressed pixels are damaged, and is no faster at 224 pixels. Everything else is decoded by
Pillow. Greyscale, palette, CMYK and RGBA become RGB as by ``Image.convert("RGB")`` (alpha is dropped, not blended).
16-bit pixels are scaled to 8 bits, where ``convert`` would clip them. An EXIF rotation is applied.

A JPEG that will be made much smaller may be decoded at 1/2, 1/4 or 1/8 of its size, which takes less time: libjpeg
then averages in the frequency domain, and no other filter sees the difference where enough pixels remain.
"""

import io
import logging
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError, features
from torch import Tensor

from hf_transinv.errors import InputError
from hf_transinv.resolve.hub_errors import READ_FAILURES, client_says

_logger = logging.getLogger(__name__)

# Not all that Pillow knows: it hands PostScript, a programming language, to an interpreter.
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "JPEG2000", "ICO", "TGA", "SGI", "PCX", "AVIF")
# First bytes of files that are no images, or of a format that is not decoded here: (offset, bytes, what to say).
_OTHER_KINDS = (
    *((8, brand, "AVIF, which this Pillow cannot decode: pip install -U pillow") for brand in (b"avif", b"avis")),
    *(
        (8, brand, "HEIC, which is not supported: convert it to JPEG")
        for brand in (b"heic", b"heix", b"mif1", b"hevc")
    ),
    (0, b"\xff\x0a", "JPEG XL, which is not supported: convert it to PNG"),
    (0, b"\x00\x00\x00\x0cJXL ", "JPEG XL, which is not supported: convert it to PNG"),
    (0, b"8BPS", "Photoshop's PSD, which is not supported: convert it to PNG"),
    (0, b"%!PS", "PostScript, which is not supported: convert it to PNG"),
    (0, b"%PDF", "a PDF, no image"),
    *(
        (0, start, "a web page, no image: its download failed")
        for start in (b"<!DOCTYPE html", b"<!doctype html", b"<html")
    ),
    *((0, start, "SVG or XML, which is not supported: convert it to PNG") for start in (b"<svg", b"<?xml")),
    (0, b"version https://git-lfs", "a pointer of Git LFS, no image: git lfs pull"),
    (0, b"PK\x03\x04", "a zip archive, no image"),
)
_TWELVE_BITS = 2**12
_said: set[str] = set()  # keys of the warnings that were given
Enough = Callable[[int, int], int]
_LONGEST = 8  # largest ratio of the sides that is resized; of longer strips only the centre is used


class BadImageError(InputError):
    """An image that cannot be decoded; the only error that ``--on_bad_image skip`` skips.

    Args:
        where: the image, such as ``row 17 of split train``.
        reason: what is wrong with it.

    Attributes:
        found: where and what, without advice.
    """

    def __init__(self, where: str, reason: str) -> None:
        self.found = f"{where}: {reason}"
        super().__init__(f"{self.found}. Repair it, leave out the row, or pass --on_bad_image skip.")


@cache
def image_suffixes() -> frozenset[str]:
    """Suffixes, in lower case, of the files that `decode_image` decodes with the Pillow that is installed."""
    formats = set(_FORMATS) - (set() if features.check("avif") else {"AVIF"})
    return frozenset(suffix for suffix, kind in Image.registered_extensions().items() if kind in formats)


def decode_image(data: bytes | str | Path, where: str, enough: Enough | None = None) -> Tensor:
    """Decodes one image.

    Args:
        data: the encoded file: its bytes, its local path, or an address that ``fsspec`` opens (``hf://...``).
        where: the image, for errors, such as ``row 17 of split train``.
        enough: given its height and width, says how many pixels of a JPEG's shorter side are enough: as long as it has
            them it may be decoded at 1/2, 1/4 or 1/8 of its size. None: it is decoded whole.

    Returns:
        uint8 [3, h, w].

    Raises:
        BadImageError: the file is missing, truncated, corrupt, or in floating point.
        InputError: an address cannot be read at present. That is no fault of the image, so it is not skipped.
    """
    encoded = read_encoded(data, where)
    image = _decode_plain(encoded, enough)
    return _decode_any(encoded, where, enough) if image is None else image


def read_encoded(data: bytes | str | Path, where: str) -> bytes:
    """The encoded file that `decode_image` decodes; its arguments, and what it raises where it cannot be read."""
    try:
        return data if isinstance(data, bytes) else _read(str(data), where)
    except OSError as error:
        raise BadImageError(where, f"the image cannot be read ({error})") from error


def fit(image: Tensor, size: int, crop_pct: float = 1.0, interpolation: str = "bilinear") -> Tensor:
    """Brings an image to a square: the shorter side resized (antialiased), then the centre cut out.

    Args:
        image: uint8 [3, h, w].
        size: the side of the square, in pixels.
        crop_pct: the square's share of the resized shorter side, in (0, 1]; timm's, rounded as there.
        interpolation: "bilinear" or "bicubic".

    Returns:
        uint8 [3, size, size]; the image itself when it is that size already and there is nothing to cut away.
    """
    shorter = math.floor(size / crop_pct)
    if tuple(image.shape[-2:]) == (size, size) and shorter == size:
        return image
    from torchvision.transforms.v2 import functional

    mode = functional.InterpolationMode(interpolation)
    resized = functional.resize(not_too_long(image), [shorter], interpolation=mode, antialias=True)
    return functional.center_crop(resized, [size, size])


def shrink(image: Tensor, shorter: int, interpolation: str = "bilinear") -> Tensor:
    """Brings a whole image to a shorter side (antialiased); one that is smaller stays as it is.

    Args:
        image: uint8 [3, h, w].
        shorter: the largest shorter side, in pixels.
        interpolation: "bilinear" or "bicubic".

    Returns:
        uint8 [3, h', w'] of the same shape, but for images that are too long: of those only the centre is used.
    """
    from torchvision.transforms.v2 import functional

    image = not_too_long(image)
    if min(image.shape[-2:]) <= shorter:
        return image
    mode = functional.InterpolationMode(interpolation)
    return functional.resize(image, [shorter], interpolation=mode, antialias=True)


def not_too_long(image: Tensor) -> Tensor:
    """The image, or the centre of a strip: 1 x 65,535 pixels would become 224 x 14,680,000 first."""
    longest = _LONGEST * min(image.shape[-2:])
    if max(image.shape[-2:]) <= longest:
        return image
    from torchvision.transforms.v2 import functional

    return functional.center_crop(image, [min(side, longest) for side in image.shape[-2:]])


def _read(path: str, where: str) -> bytes:
    if "://" not in path:
        if not os.path.isfile(path):  # but a device or a pipe, say, which have no end
            raise FileNotFoundError(f"{path!r} is no file")
        return Path(path).read_bytes()
    from datasets.utils.file_utils import xopen  # retries as often as the settings of `datasets` say

    try:
        with xopen(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        raise
    except READ_FAILURES as error:
        raise InputError(f"{where}: {path} cannot be read: {client_says(error)}") from error


def _decode_plain(encoded: bytes, enough: Enough | None) -> Tensor | None:
    """Returns uint8 [3, h, w]; None for what Pillow is for: other images, and those that may be decoded smaller."""
    is_jpeg = encoded.startswith(b"\xff\xd8\xff")
    is_webp = encoded[:4] == b"RIFF" and encoded[8:12] == b"WEBP"
    if not (is_jpeg or is_webp) or (b"Exif" if is_jpeg else b"EXIF") in encoded:
        return None
    decode = _torchvision_decoder()
    if decode is None:
        return None
    file_bytes = torch.from_numpy(np.frombuffer(bytearray(encoded), dtype=np.uint8))
    try:
        opened = Image.open(io.BytesIO(encoded), formats=_FORMATS)  # refuses one that asks for too much memory
    except Exception:  # `_decode_any` says what is wrong
        return None
    if is_jpeg and enough is not None and min(opened.size) >= 2 * enough(*reversed(opened.size)):
        return None
    try:
        image = decode(file_bytes)
    except Exception:  # Pillow, which is tried next, says what is wrong
        return None
    return image if image.shape[0] == 3 and image.dtype == torch.uint8 else None


@cache
def _torchvision_decoder() -> Callable[[Tensor], Tensor] | None:
    # About three times as fast as Pillow on small images. torchvision 0.29 has announced its removal.
    try:
        from torchvision.io import decode_image as decode
    except ImportError:
        return None
    return decode


def _decode_any(encoded: bytes, where: str, enough: Enough | None) -> Tensor:
    with _pillow(encoded, where):
        opened = Image.open(io.BytesIO(encoded), formats=_FORMATS)
    least = 0 if enough is None else enough(*reversed(opened.size))
    with _pillow(encoded, where):
        if least:
            opened.draft(None, (least, least))  # of a JPEG alone: both sides keep so many pixels
        # MPO files are photographs of telephones, with a preview beside the photograph.
        has_frames = opened.format != "MPO" and getattr(opened, "is_animated", False)
        image = ImageOps.exif_transpose(opened)
    if has_frames:
        _say_once("frames", f"{where}: of images with several frames or pages, the first one is read")
    if 0 in image.size:
        raise _undecodable(where, "it has no pixels")
    if image.mode == "F":
        raise _undecodable(where, "32-bit floating point pixels have no known range")
    if image.mode.startswith("I"):
        pixels = _eight_bits(np.asarray(image).astype(np.int64), where)
    else:
        with _pillow(encoded, where):
            opaque = image.convert("RGBA") if "transparency" in image.info else image
            pixels = np.array(opaque.convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1)


@contextmanager
def _pillow(encoded: bytes, where: str) -> Iterator[None]:
    """Goes around calls of Pillow alone: its readers raise nearly any type on broken bytes.

    Raises:
        BadImageError: a call in the block failed.
    """
    try:
        yield
    except Exception as error:
        said = _kind(encoded) if isinstance(error, UnidentifiedImageError) else str(error)
        raise _undecodable(where, said) from error


def _undecodable(where: str, why: str) -> BadImageError:
    reason = f"the image cannot be decoded ({why}); expected a whole image file with 8- or 16-bit pixels"
    return BadImageError(where, reason)


def _kind(encoded: bytes) -> str:
    """What the bytes are, when Pillow does not recognise them."""
    if not encoded:
        return "the file is empty"
    found = (said for offset, start, said in _OTHER_KINDS if encoded.startswith(start, offset))
    return next(found, "no kind of image that is known")


def _say_once(key: str, message: str) -> None:
    """Warns, but only the first time for each key."""
    if key not in _said:
        _said.add(key)
        _logger.warning(message)


def _eight_bits(values: np.ndarray, where: str) -> np.ndarray:
    """16-bit grey pixels, int64 [h, w] -> uint8 [h, w, 3].

    Raises:
        BadImageError: there are values beyond 16 bits.
    """
    if values.min() < 0 or values.max() > 65535:
        raise _undecodable(where, f"integer pixels from {values.min()} to {values.max()} are not 16-bit")
    if 0 < values.max() < _TWELVE_BITS:
        dark = "16-bit pixels are taken as 0 to 65,535, and none of this image is beyond"
        _say_once("dark", f"{where}: {dark} {values.max()}: scale it, if it holds fewer bits")
    grey = ((values * 255 + 32767) // 65535).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)
