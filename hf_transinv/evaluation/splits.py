"""Splits for the evaluation: numbered batches in the order of the rows; each of n processes takes every n-th.

A batch is decoded once and classified under every condition, so nothing is kept. A split on a device (TensorSplit),
one that is read batch by batch (SourceSplit, streamed or not) and arrays in a file (ArraySplit) give identical
results.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import count, islice
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from hf_transinv.data.classes import check_label
from hf_transinv.data.decoding import BadImageError, decode_image
from hf_transinv.data.image_decoder import ImageDecoder, encoded_image, none_decoded
from hf_transinv.data.resident import ResidentSplit
from hf_transinv.errors import InputError

if TYPE_CHECKING:
    from hf_transinv.data.sources import Source

_Decoded = tuple[Tensor, list[int]]  # uint8 [n, 3, H, W], and n labels
_THREADS = 4  # as in hf_transinv.data: torchvision's decoders release the interpreter lock


class Batch(NamedTuple):
    """One batch of a split.

    Attributes:
        number: of the batch among those of all processes, from 0 on.
        images: uint8 [B, 3, H, W].
        labels: int64 [B].
    """

    number: int
    images: Tensor
    labels: Tensor


class Split(Protocol):
    """Images and labels in a fixed order.

    Attributes:
        label_names: the classes, in the order of their numbers.
        num_images: None for a stream of unknown length.
    """

    @property
    def label_names(self) -> list[str]: ...

    @property
    def num_images(self) -> int | None: ...

    def batches(self, batch_size: int, rank: int, world: int) -> Iterator[Batch]:
        """The batches rank, rank + world, ...

        Args:
            batch_size: images per batch; fewer in the last one of the split, and where images were left out.
            rank: of this process.
            world: number of processes.
        """


class TensorSplit:
    """A split held as tensors.

    Args:
        split: the images and labels.

    Raises:
        InputError: a label has no name.
    """

    def __init__(self, split: ResidentSplit) -> None:
        self.images, self.labels, self.label_names = split.images, split.labels, split.label_names
        self.num_images = len(split)
        largest = int(split.labels.max()) if len(split) else -1
        if largest >= len(split.label_names):
            raise InputError(f"The data has label {largest} and {len(split.label_names)} label names (0 upwards).")

    def batches(self, batch_size: int, rank: int, world: int) -> Iterator[Batch]:
        for number in range(rank, -(-self.num_images // batch_size), world):
            rows = slice(number * batch_size, (number + 1) * batch_size)
            yield Batch(number, self.images[rows], self.labels[rows])


def as_split(split: ResidentSplit | Split) -> Split:
    """A split of numbered batches: a resident one as a TensorSplit, any other as it is."""
    return TensorSplit(split) if isinstance(split, ResidentSplit) else split


@dataclass(frozen=True)
class ArraySplit:
    """A split held as arrays, which may be mapped from a file; only the rows of a batch are read.

    Attributes:
        images: uint8 [N, H, W, 3].
        labels: integers [N], checked.
        label_names: the classes, in the order of their numbers.
    """

    images: np.ndarray
    labels: np.ndarray
    label_names: list[str]

    @property
    def num_images(self) -> int:
        return len(self.labels)

    def batches(self, batch_size: int, rank: int, world: int) -> Iterator[Batch]:
        for number in range(rank, -(-self.num_images // batch_size), world):
            rows = slice(number * batch_size, (number + 1) * batch_size)
            images = torch.from_numpy(np.array(self.images[rows])).permute(0, 3, 1, 2)
            yield Batch(number, images, torch.from_numpy(np.array(self.labels[rows], dtype=np.int64)))


class SourceSplit:
    """A split that is read and decoded one batch ahead. Every process reads all rows, undecoded.

    Args:
        source: opened with or without streaming.
        image_size: side in pixels to which images are resized (shorter side) and cropped (centre); None keeps them as
            they are, provided all are squares of the size of the first one.
        on_bad_image: whether an image that cannot be decoded is an error ("raise"), or left out and listed in
            `skipped` ("skip").
        renumber: number in `label_names` of each class of the source; None for the source's own numbers.
        label_names: the classes after renumbering; None for the source's.
        preprocess: uint8 [3, h, w] of any size -> uint8 [3, H, W] of one size, instead of `image_size`; such as a
            model's own (see models.published).
        crop_pct: share of the resized shorter side that the square has, in (0, 1]; only with `image_size`.
        interpolation: by which it is resized, "bilinear" or "bicubic"; only with `image_size`.

    Raises:
        InputError: neither image_size nor preprocess is given and the first image is not square, or no image can be
            decoded.
    """

    def __init__(
        self,
        source: "Source",
        image_size: int | None = None,
        on_bad_image: Literal["raise", "skip"] = "raise",
        renumber: Sequence[int] | None = None,
        label_names: Sequence[str] | None = None,
        preprocess: Callable[[Tensor], Tensor] | None = None,
        crop_pct: float = 1.0,
        interpolation: str = "bilinear",
    ) -> None:
        with closing(_rows(source)) as rows:
            cells = (row["image"] for row in rows)
            how = (image_size, on_bad_image, preprocess, crop_pct, interpolation)
            self._decoder = ImageDecoder.open(source, cells, *how)
        self.source = source
        self.renumber = range(len(source.label_names)) if renumber is None else renumber
        self.label_names = list(source.label_names if label_names is None else label_names)
        self.num_images = source.num_rows

    @property
    def skipped(self) -> list[str]:
        """The images that this process has left out, each with its place and the reason."""
        return sorted(self._decoder.skipped.values())

    def batches(self, batch_size: int, rank: int, world: int) -> Iterator[Batch]:
        """As of `Split`.

        Raises:
            InputError: an image cannot be decoded or has another size, or a label is missing or has no name.
        """
        with ThreadPoolExecutor(_THREADS) as pool, closing(_rows(self.source)) as rows:
            ahead: tuple[int, list[Future[_Decoded]]] | None = None
            for number in count():
                batch = list(islice(rows, batch_size))
                if batch and number % world != rank:
                    continue
                started = (number, self._start(pool, batch, number * batch_size)) if batch else None
                finished = None if ahead is None else self._finish(*ahead)
                if finished is not None:
                    yield finished
                if not batch:
                    return
                ahead = started

    def _start(self, pool: ThreadPoolExecutor, rows: list[dict[str, Any]], first: int) -> list[Future[_Decoded]]:
        size = -(-len(rows) // _THREADS)  # few large tasks, as small images decode in 40 us
        return [pool.submit(self._decode, rows[i : i + size], first + i) for i in range(0, len(rows), size)]

    def _decode(self, rows: list[dict[str, Any]], first: int) -> _Decoded:
        images, labels = [], []
        for number, row in enumerate(rows, first):
            where = self.source.where(number, row["image"])
            image = self._decoder(row["image"], where)
            if image is not None:
                images.append(image)
                labels.append(self.renumber[check_label(row["label"], self.source.label_names, where)])
        return torch.stack(images) if images else torch.empty(0, 3, 0, 0, dtype=torch.uint8), labels

    def _finish(self, number: int, parts: list[Future[_Decoded]]) -> Batch | None:
        """The batch; None if none of its images can be decoded."""
        decoded = [part.result() for part in parts]
        images = [images for images, _ in decoded if len(images)]
        labels = [label for _, labels in decoded for label in labels]
        return Batch(number, torch.cat(images), torch.tensor(labels)) if images else None


def _rows(source: "Source") -> Generator[dict[str, Any]]:
    """The rows of a source, as a generator: closing it ends the reading."""
    yield from source.rows


def first_image_size(source: "Source") -> tuple[int, int]:
    """Height and width, in pixels, of the first image of a source that can be decoded.

    Raises:
        InputError: no image can be decoded.
    """
    with closing(_rows(source)) as rows:
        for number, row in enumerate(rows):
            where = source.where(number, row["image"])
            try:
                height, width = decode_image(encoded_image(row["image"], where), where).shape[-2:]
            except BadImageError:
                continue
            return height, width
    raise none_decoded(source)
