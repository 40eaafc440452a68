"""Decodes all rows of a split by several threads: to squares of one size, or to pictures of differing shapes."""

import hashlib
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from hf_transinv.data.decoding import BadImageError, read_encoded
from hf_transinv.data.image_decoder import ImageDecoder, decoding_threads, encoded_image
from hf_transinv.data.pictures import Pictures
from hf_transinv.data.sources import Source
from hf_transinv.errors import InputError
from hf_transinv.formats.terminal import say, stage_bar

if TYPE_CHECKING:
    from datasets import Dataset
    from pyarrow import Table

_Cell = dict[str, Any] | None
_Result = TypeVar("_Result")
_CHUNK = 256  # rows a thread decodes at a time
_THREADS = 4  # the decoders release the interpreter lock; more than this waits for the disk


@dataclass
class DecodedRows:
    """All rows of a split, decoded.

    Attributes:
        images: uint8 [n, 3, side, side], or pictures; on the host or a device.
        good: bool [N], whether the row's image could be decoded; n of them.
        digests: uint64 [n], of every image's pixels as they are in `images`; zeros for pictures.
        files: uint64 [n], of every image's encoded file; zeros where they were not asked for.
    """

    images: Tensor | Pictures
    good: Tensor
    digests: np.ndarray
    files: np.ndarray


def decode_squares(
    source: Source, table: "Dataset", decoder: ImageDecoder, with_files: bool, show_progress: bool
) -> DecodedRows:
    """Decodes to squares of one size, on the host.

    Args:
        source: the split.
        table: its rows.
        decoder: to squares.
        with_files: whether to compute `files`.
        show_progress: whether to show a progress bar.

    Raises:
        InputError: an image cannot be decoded, sizes differ, or they do not fit into memory.
    """
    count = len(table)
    images = _allocate(source, (count, 3, decoder.side, decoder.side), "cpu", decoder.side)
    good = torch.ones(count, dtype=torch.bool)
    digests, files = np.zeros((2, count), np.uint64)

    def decode_chunk(start: int, cells: list[_Cell]) -> None:
        for row, cell in enumerate(cells, start):
            where = source.where(row, cell)
            read = _with_bytes(cell, where) if with_files else cell
            image = decoder(read, where)
            good[row] = image is not None
            if image is not None:
                images[row] = image
                digests[row] = _digest(images[row].numpy().data)
                files[row] = _digest(read["bytes"]) if read and with_files else 0

    _decode_chunks(source, table, decode_chunk, show_progress)
    if good.all():
        return DecodedRows(images, good, digests, files)
    return DecodedRows(images[good], good, digests[good.numpy()], files[good.numpy()])


def decode_pictures(
    source: Source, table: "Dataset", decoder: ImageDecoder, device: torch.device | str, show_progress: bool
) -> DecodedRows:
    """Decodes to whole pictures on a device; to squares on the host where all images are squares of `decoder.side`.

    Args:
        source: the split.
        table: its rows.
        decoder: to pictures of differing shapes.
        device: of the pictures.
        show_progress: whether to show a progress bar.

    Raises:
        InputError: an image cannot be decoded, or they do not fit into memory.
    """
    count, side = len(table), decoder.side
    good = torch.ones(count, dtype=torch.bool)
    digests, files = np.zeros((2, count), np.uint64)

    def decode_chunk(start: int, cells: list[_Cell]) -> Pictures | None:
        images = []
        for row, cell in enumerate(cells, start):
            where = source.where(row, cell)
            read = _with_bytes(cell, where)
            image = decoder(read, where)
            good[row] = image is not None
            if image is not None and read:
                images.append(image)
                files[row] = _digest(read["bytes"])
                if image.shape[1:] == (side, side):
                    digests[row] = _digest(image.contiguous().numpy().data)
        return Pictures.apart(images, side) if images else None

    chunks = [chunk for chunk in _decode_chunks(source, table, decode_chunk, show_progress) if chunk is not None]
    images = _joined(source, chunks, device, side)
    digests, files = digests[good.numpy()], files[good.numpy()]
    return DecodedRows(images, good, np.zeros_like(digests) if isinstance(images, Pictures) else digests, files)


def _joined(source: Source, chunks: list[Pictures], device: torch.device | str, side: int) -> Tensor | Pictures:
    """Pictures apart on the host; else one buffer for all, into which chunks are copied one by one and given up."""
    sizes = torch.cat([chunk.sizes for chunk in chunks]) if chunks else torch.empty(0, 2, dtype=torch.int64)
    counts = sizes.prod(1)
    are_squares = bool((sizes == side).all())
    if torch.device(device).type == "cpu" and not are_squares:
        return Pictures.apart([image for chunk in chunks for image in chunk.pixels], side)
    pixels = _allocate(source, (int(counts.sum()), 3), "cpu" if are_squares else device, side)
    start = 0
    while chunks:
        part = chunks.pop(0).together().pixels
        assert isinstance(part, Tensor)  # together
        pixels[start : start + len(part)] = part
        start += len(part)
    if are_squares:
        return pixels.view(-1, side, side, 3).permute(0, 3, 1, 2).contiguous()
    return Pictures(pixels, counts.cumsum(0) - counts, sizes, side)


def _allocate(source: Source, shape: tuple[int, ...], device: torch.device | str, side: int) -> Tensor:
    try:
        return torch.empty(shape, dtype=torch.uint8, device=device)
    except RuntimeError as error:
        raise InputError(
            f"The {source.num_rows:,} images of {source.name} take {math.prod(shape) / 1e9:,.0f} GB at {side} pixels, "
            "more than there is. Lower image_size, or read them as a stream (--streaming)."
        ) from error


def _with_bytes(cell: _Cell, where: str) -> _Cell:
    """A cell with the content of its file; a file that cannot be read is left to the decoder."""
    try:
        encoded = read_encoded(encoded_image(cell, where), where)
    except BadImageError:
        return cell
    return {"path": cell["path"] if cell else None, "bytes": encoded}


def _digest(content: Any) -> int:
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest())


def _decode_chunks(
    source: Source, table: "Dataset", decode_chunk: Callable[[int, list[_Cell]], _Result], show_progress: bool
) -> list[_Result]:
    """Calls decode_chunk(first row, cells) for all rows from several threads; raises the first error in row order."""
    images = table.select_columns("image").with_format("arrow")
    threads = decoding_threads(images[:_CHUNK]["image"].to_pylist(), most=_THREADS)
    if show_progress:
        say("decoding", f"split {source.split} of {source.name}: {len(table):,} images")

    def decode(number: int, chunk: "Table") -> _Result:
        return decode_chunk(number * _CHUNK, chunk["image"].to_pylist())

    results = []
    with (
        ThreadPoolExecutor(threads) as pool,
        stage_bar(len(table), f"decoding {source.split}", "img", show_progress) as bar,
    ):
        futures = [pool.submit(decode, number, chunk) for number, chunk in enumerate(images.iter(_CHUNK))]
        try:
            for future in futures:
                results.append(future.result())
                bar.update(min(_CHUNK, len(table) - bar.n))
        finally:
            pool.shutdown(cancel_futures=True)
    return results
