"""A split that does not fit into memory: batches from a stream, shuffled by a buffer, decoded ahead of their use.

Every process reads the same stream of *undecoded* rows, in an order that is a function of (seed, epoch), cuts it into
the same global batches, and decodes its own share of each. So all processes end an epoch at the same batch, and any
number of them together sees what one process sees. (Splitting by examples, as ``datasets`` does it, also makes every
process read all rows, but processes may run dry one before another.)

To resume, the rows of the batches consumed are read again and thrown away undecoded: exact, where the state that
``datasets`` itself keeps forgets what its shuffle buffer held.
"""

import atexit
import queue
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, Literal

import torch
from torch import Tensor

from hf_transinv.data.batches import check_same_feed, share_of_batch
from hf_transinv.data.columns import check_label
from hf_transinv.data.rows import RowDecoder
from hf_transinv.data.sources import Source
from hf_transinv.errors import InputError

BUFFER_SIZE = 2048  # rows, undecoded: ImageNet's JPEGs, 110 kB each, then take about 0.7 GB while they are shuffled
_PREFETCH = 2  # batches; a third would only take memory, as one decoder serves them in order
_INTERLEAVED_SHARDS = 10  # what `datasets` itself defaults to
_THREADS = 4
_POLL_SECONDS = 0.1  # how soon the reader notices that it shall stop


@dataclass(frozen=True)
class _Batch:
    images: Tensor
    labels: Tensor
    num_skipped: int
    ends_epoch: bool


class StreamingFeed:
    """Endless shuffled batches of a stream, each process its share of every batch; the interface of ResidentFeed.

    In the place of an image that is skipped stands the next good one of its global batch, so that batches keep their
    size and positions their meaning. An epoch's rows beyond its last whole batch are dropped.

    Attributes:
        image_size: side of the square images, in pixels.
        label_names: the classes, in the order of their numbers.
        num_skipped: images skipped by this process in the batches it has returned.
        epoch: the epoch of the next batch.
        position: batches returned of that epoch.
    """

    def __init__(
        self,
        source: Source,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        *,
        image_size: int | None = None,
        on_bad_image: Literal["raise", "skip"] = "raise",
        buffer_size: int = BUFFER_SIZE,
    ) -> None:
        """
        Args:
            source: opened with streaming.
            batch_size: images in a batch of all processes together.
            seed: of the order, from 0 on.
            rank: which process this is.
            world: number of processes.
            image_size: side in pixels to which all images are brought (shorter side resized, centre cut out); None
                keeps them as they are, if all are squares of the size of the first one.
            on_bad_image: whether an image that cannot be decoded is an error, or skipped and counted.
            buffer_size: rows among which the next one is drawn.

        Raises:
            InputError: the batch cannot be shared or is larger than the data, or the image size cannot be known.
        """
        if not source.streaming:
            raise InputError(f"{source.name} was not opened as a stream. Open it with streaming.")
        self.share = share_of_batch(batch_size, rank, world)
        if source.num_rows is not None and batch_size > source.num_rows:
            raise _too_large(batch_size, source.num_rows)
        with closing(iter(source.rows)) as rows:
            self._decoder = RowDecoder.open(source, (row["image"] for row in rows), image_size, on_bad_image)
        self.source = source
        self.batch_size = batch_size
        self.seed = seed
        self.image_size = self._decoder.side
        self.label_names = source.label_names
        self.num_skipped = 0
        self.epoch = 0
        self.position = 0
        # Several shards are interleaved into the buffer, at the price of the 5 s that `datasets` sleeps after each
        # epoch for its threads to end; one shard need not pay it.
        num_shards = min(source.rows.num_shards, _INTERLEAVED_SHARDS)
        self._rows = source.rows.shuffle(seed=seed, buffer_size=buffer_size, max_buffer_input_shards=num_shards)
        self._reader: _Reader | None = None

    @property
    def batches_per_epoch(self) -> int | None:
        """None when the source does not say how many rows it has."""
        return None if self.source.num_rows is None else self.source.num_rows // self.batch_size

    def next_batch(self) -> tuple[Tensor, Tensor]:
        """Returns this process's share: images uint8 [B / world, 3, H, W] and labels int64 [B / world].

        Raises:
            InputError: an image cannot be decoded or has another size, or a label is missing or beyond the names.
        """
        if self._reader is None:
            self._reader = _Reader(self._batches(self.epoch, self.position))
        batch = self._reader.next()
        self.num_skipped += batch.num_skipped
        self.epoch, self.position = (self.epoch + 1, 0) if batch.ends_epoch else (self.epoch, self.position + 1)
        return batch.images, batch.labels

    def state_dict(self) -> dict[str, int]:
        return {
            "epoch": self.epoch,
            "position": self.position,
            "num_skipped": self.num_skipped,
            "seed": self.seed,
            "batch_size": self.batch_size,
        }

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Goes on where a feed of the same source, seed and batch size stood.

        Raises:
            InputError: the seed or the batch size is another.
        """
        check_same_feed(state, self.state_dict())
        self.close()
        self.epoch, self.position, self.num_skipped = state["epoch"], state["position"], state["num_skipped"]

    def close(self) -> None:
        """Stops reading ahead and waits until the thread has ended; the next batch would start it again."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _batches(self, epoch: int, position: int) -> Iterator[_Batch]:
        with ThreadPoolExecutor(_THREADS) as pool:
            while True:
                for number, (rows, ends_epoch) in enumerate(self._row_batches(epoch, position), position):
                    yield self._decoded(pool, rows, epoch, number, ends_epoch)
                epoch, position = epoch + 1, 0

    def _row_batches(self, epoch: int, position: int) -> Iterator[tuple[list[dict[str, Any]], bool]]:
        """Yields the epoch's global batches from a position on, and whether each is the last."""
        self._rows.set_epoch(epoch)
        with closing(iter(self._rows)) as stream:
            num_skipped = sum(1 for _ in islice(stream, position * self.batch_size))
            rows = list(islice(stream, self.batch_size))
            if len(rows) < self.batch_size:
                raise _too_large(self.batch_size, num_skipped + len(rows))
            while len(rows) == self.batch_size:
                following = list(islice(stream, self.batch_size))
                yield rows, len(following) < self.batch_size
                rows = following

    def _decoded(
        self, pool: ThreadPoolExecutor, rows: list[dict[str, Any]], epoch: int, number: int, ends_epoch: bool
    ) -> _Batch:
        own = range(self.share.start, self.share.stop)
        names = [self._where(row["image"], epoch, number * self.batch_size + index) for index, row in enumerate(rows)]
        strides = [own[first::_THREADS] for first in range(_THREADS)]  # few large tasks: small images decode in 40 us
        decoded = pool.map(lambda stride: [self._decoder(rows[i]["image"], names[i]) for i in stride], strides)
        found = dict(zip(chain(*strides), chain(*decoded), strict=True))
        images, labels = [], []
        for index in own:
            good, image = (index, found[index]) if found[index] is not None else self._next_good(rows, names, index)
            images.append(image)
            labels.append(check_label(rows[good]["label"], self.label_names, names[good]))
        skipped = sum(image is None for image in found.values())
        return _Batch(torch.stack(images), torch.tensor(labels, dtype=torch.int64), skipped, ends_epoch)

    def _next_good(self, rows: list[dict[str, Any]], names: list[str], bad: int) -> tuple[int, Tensor]:
        for step in range(1, len(rows)):
            index = (bad + step) % len(rows)
            image = self._decoder(rows[index]["image"], names[index])
            if image is not None:
                return index, image
        raise InputError(f"{names[bad]}: no image of its batch of {len(rows)} can be decoded. Repair the data.")

    def _where(self, cell: dict[str, Any] | None, epoch: int, number: int) -> str:
        path = "" if cell is None or not cell["path"] else f" ({cell['path']})"
        return f"Row {number}{path} of {self.source.name}, split {self.source.split!r}, as shuffled in epoch {epoch}"


class _Reader:
    """Runs an iterator in a thread of its own, at most ``_PREFETCH`` items ahead."""

    def __init__(self, batches: Iterator[_Batch]) -> None:
        self._ahead: queue.Queue[_Batch | Exception] = queue.Queue(_PREFETCH)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(batches,), name="streaming-feed", daemon=True)
        self._thread.start()
        # A thread that still reads parquet while the interpreter ends aborts the process.
        atexit.register(self.close)

    def next(self) -> _Batch:
        item = self._ahead.get()
        if isinstance(item, Exception):
            self._put(item)  # whoever asks again is told the same
            raise item
        return item

    def close(self) -> None:
        atexit.unregister(self.close)
        self._stopped.set()
        self._thread.join()

    def _run(self, batches: Iterator[_Batch]) -> None:
        with closing(batches):
            try:
                for batch in batches:
                    if not self._put(batch):
                        return
            except Exception as error:  # raised again in the thread that asks for the next batch
                self._put(error)

    def _put(self, item: "_Batch | Exception") -> bool:
        """Returns False when the reader was stopped before there was room."""
        while not self._stopped.is_set():
            try:
                self._ahead.put(item, timeout=_POLL_SECONDS)
                return True
            except queue.Full:
                continue
        return False


def _too_large(batch_size: int, num_rows: int) -> InputError:
    return InputError(f"The batch of {batch_size} images is larger than the data ({num_rows} images). Lower it.")
