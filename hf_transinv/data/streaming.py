"""A split that does not fit into memory: batches from a stream, shuffled as it is read, decoded ahead of their use.

The order of the rows is a function of (seed, epoch), see ``shuffle``, and every process knows all of it. Three things
follow. All processes end an epoch at the same batch, however uneven the files. Any number of processes together sees
what one process would see. To resume is to begin at a position. A process reads the shards that its share of a batch
comes from, and decodes its images in several threads.

Failed reads from the Hub are retried by its client and by ``datasets`` (``STREAMING_READ_MAX_RETRIES`` and the
intervals beside it in ``datasets.config``). When the retries fail as well, the feed raises before anything of the
batch is used, so that a run can write a checkpoint and go on from there.
"""

from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import torch
from torch import Tensor

from hf_transinv.data.batches import check_same_feed, share_of_batch
from hf_transinv.data.classes import check_label
from hf_transinv.data.image_decoder import ImageDecoder, decoding_threads, stream_threads
from hf_transinv.data.pictures import Crops
from hf_transinv.data.prefetch import Prefetcher
from hf_transinv.data.shuffle import RowGroupShards, Shards, StreamShard
from hf_transinv.data.sources import Source
from hf_transinv.data.stream_crops import BatchCrops, PictureCrops, StreamCrops
from hf_transinv.data.transforms import CropFlip
from hf_transinv.errors import InputError
from hf_transinv.resolve.hub_errors import READ_FAILURES, client_says

BUFFER_SIZE = 2048  # rows, undecoded: ImageNet's JPEGs, 110 kB each, then take about 0.2 GB while they are shuffled
_READERS = 8  # threads that wait for the disk or the Hub


@dataclass(frozen=True)
class _Batch:
    images: Tensor | Crops
    labels: Tensor
    num_skipped: int
    ends_epoch: bool


class StreamingFeed:
    """Endless shuffled batches of a stream; each process gets its share of every batch, as with ResidentFeed.

    A skipped image is replaced by the next good one of its shard's part of the batch. So batches keep their size, and
    a position keeps its meaning. An epoch's rows beyond its last whole batch are dropped.

    Args:
        source: opened with streaming.
        batch_size: images in a batch of all processes together.
        seed: of the order, from 0 on.
        rank: which process this is.
        world: number of processes.
        image_size: side in pixels to which all images are brought (shorter side resized, centre cut out); None keeps
            them as they are, if all are squares of the size of the first one.
        on_bad_image: "raise": an image that cannot be decoded is an error; "skip": it is skipped and counted.
        buffer_size: rows held undecoded while they are shuffled, by all processes together.
        interpolation: of resizing: "bilinear" or "bicubic".
        crop: the ordinary augmentation. If it is "resized", and `image_size` given, crops of the whole pictures are
            returned; else squares, and cropping them is left to others. None: squares.
        variants: crops of each picture.

    Attributes:
        image_size: side of the images, or of the crops, in pixels.
        label_names: the classes, in the order of their numbers.
        num_skipped: images skipped by this process in the batches it has returned.
        epoch: the epoch of the next batch.
        position: batches returned of that epoch.

    Raises:
        InputError: the batch cannot be shared or is larger than the data, or the image size cannot be known.
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
        on_bad_image: str = "raise",
        buffer_size: int = BUFFER_SIZE,
        interpolation: str = "bilinear",
        crop: CropFlip | None = None,
        variants: int = 1,
    ) -> None:
        if not source.streaming:
            raise InputError(f"{source.name} was not opened as a stream. Open it with streaming.")
        self.share = share_of_batch(batch_size, rank, world)
        self._shards: Shards
        if source.row_groups is None:
            self._shards = StreamShard(source.rows, source.num_rows, seed, buffer_size)
        else:
            self._shards = RowGroupShards(source.row_groups, batch_size, seed, buffer_size)
        if self._shards.num_rows is not None and batch_size > self._shards.num_rows:
            raise _too_large(batch_size, self._shards.num_rows)
        with closing(iter(source.rows)) as rows:
            self._decoder = ImageDecoder.open(
                source,
                (row["image"] for row in rows),
                image_size,
                on_bad_image,
                interpolation=interpolation,
            )
        self._crops: StreamCrops | None = None
        if crop is not None and crop.crop == "resized" and image_size is not None:
            self._crops = StreamCrops(crop, image_size, variants, seed)
        self.source = source
        self.batch_size = batch_size
        self.seed = seed
        self.image_size = self._decoder.side
        self.label_names = source.label_names
        self.num_skipped = 0
        self.epoch = 0
        self.position = 0
        self._prefetcher: Prefetcher[_Batch] | None = None
        self._waiting: _Batch | None = None

    @property
    def skipped(self) -> tuple[str, ...]:
        """The images that this process has left out, each once: where they are and what is wrong."""
        return tuple(sorted(self._decoder.skipped.values()))

    @property
    def batches_per_epoch(self) -> int | None:
        """None when the source does not say how many rows it has."""
        return None if self._shards.num_rows is None else self._shards.num_rows // self.batch_size

    def wait(self) -> None:
        """Waits until the next batch is decoded; the position stays the same.

        Raises:
            InputError: an image cannot be decoded or has another size, a label is missing or beyond the names, or the
                source cannot be read any further.
        """
        if self._prefetcher is None:
            self._prefetcher = Prefetcher(self._batches(self.epoch, self.position))
        if self._waiting is None:
            self._waiting = self._prefetcher.next()

    def next_batch(self) -> tuple[Tensor | Crops, Tensor]:
        """Returns this process's share: images or crops, uint8 [B / world, 3, H, W] each, labels int64 [B / world].

        Raises:
            InputError: as `wait`.
        """
        self.wait()
        batch, self._waiting = self._waiting, None
        assert batch is not None  # after `wait`
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
        """Stops reading ahead and waits until the thread has ended; `wait` would start it again."""
        if self._prefetcher is not None:
            self._prefetcher.close()
            self._prefetcher = self._waiting = None

    def _batches(self, epoch: int, position: int) -> Generator[_Batch, None, None]:
        readers = ThreadPoolExecutor(_READERS)
        try:
            with ThreadPoolExecutor(stream_threads()) as pool:
                while True:
                    row_batches = self._row_batches(readers, epoch, position)
                    for number, (rows, ends_epoch) in enumerate(row_batches, position):
                        yield self._decoded(pool, rows, epoch, number, ends_epoch)
                    epoch, position = epoch + 1, 0
        finally:
            readers.shutdown(cancel_futures=True)

    def _row_batches(
        self, readers: ThreadPoolExecutor, epoch: int, position: int
    ) -> Iterator[tuple[dict[int, Any], bool]]:
        """Yields the rows of this process's shards for each global batch of the epoch, from a position on.

        Yields:
            The rows by their place in the batch, and whether it is the epoch's last batch.
        """
        width = self.batch_size // self._shards.count
        shards = range(self.share.start // width, -(-self.share.stop // width))
        places = range(shards.start * width, shards.stop * width)
        streams: list[Generator[Any, None, None]] = []
        with ExitStack() as opened:
            for shard in shards:
                with _reading_on(self.source):
                    streams.append(self._shards.rows(readers, epoch, shard, position * width))
                opened.enter_context(closing(streams[-1]))
            rows = self._take(streams, width)
            if len(rows) < len(places):
                raise _too_large(self.batch_size, position * width + len(rows))
            while len(rows) == len(places):
                following = self._take(streams, width)
                yield dict(zip(places, rows, strict=True)), len(following) < len(places)
                rows = following

    def _take(self, streams: list[Generator[Any, None, None]], width: int) -> list[Any]:
        with _reading_on(self.source):
            return [row for stream in streams for row in islice(stream, width)]

    def _decoded(
        self, pool: ThreadPoolExecutor, rows: dict[int, Any], epoch: int, number: int, ends_epoch: bool
    ) -> _Batch:
        own = range(self.share.start, self.share.stop)
        crops = BatchCrops(self._crops, self.batch_size, epoch, number, own) if self._crops else None
        first = number * self.batch_size
        threads = decoding_threads((rows[place]["image"] for place in own), most=stream_threads())
        strides = [own[start::threads] for start in range(threads)]  # few large tasks

        def of(place: int) -> PictureCrops | None:
            return crops.of(place) if crops else None

        decode = self._decode
        decoded = pool.map(
            lambda some: [decode(rows[place], epoch, first + place, of(place)) for place in some], strides
        )
        found = dict(zip(chain(*strides), chain(*decoded), strict=True))
        pairs = [found[place] or self._next_good(rows, place, epoch, first, of(place)) for place in own]
        skipped = sum(pair is None for pair in found.values())
        images, labels = zip(*pairs, strict=True)
        together = crops.taken() if crops else torch.stack(images)
        return _Batch(together, torch.tensor(labels, dtype=torch.int64), skipped, ends_epoch)

    def _decode(self, row: Any, epoch: int, number: int, crops: PictureCrops | None) -> tuple[Tensor, int] | None:
        """Returns image and label, or None for a bad image that is to be skipped."""
        cell = row["image"]
        where = self._where(cell, epoch, number)
        image = self._decoder(cell, where, comes_again=True, crops=crops)
        return None if image is None else (image, check_label(row["label"], self.label_names, where))

    def _next_good(
        self, rows: dict[int, Any], bad: int, epoch: int, first: int, crops: PictureCrops | None
    ) -> tuple[Tensor, int]:
        width = self.batch_size // self._shards.count
        shard_start = bad // width * width
        for step in range(1, width):
            place = shard_start + (bad - shard_start + step) % width
            pair = self._decode(rows[place], epoch, first + place, crops)
            if pair is not None:
                return pair
        where = self._where(rows[bad]["image"], epoch, first + bad)
        raise InputError(f"{where}: no image of its part of the batch, {width} rows, can be decoded. Repair the data.")

    def _where(self, cell: dict[str, Any] | None, epoch: int, number: int) -> str:
        return f"{self.source.where(number, cell)}, as shuffled in epoch {epoch}"


@contextmanager
def _reading_on(source: Source) -> Iterator[None]:
    """Goes around reads of a stream, whose failures the Hub's client and `datasets` have retried in vain.

    Raises:
        InputError: a read failed.
    """
    try:
        yield
    except InputError:  # a file that says something else than the others
        raise
    except READ_FAILURES as error:
        raise InputError(
            f"{source.name}, split {source.split!r}, cannot be read any further: {client_says(error)}"
        ) from error


def _too_large(batch_size: int, num_rows: int) -> InputError:
    return InputError(
        f"The batch of {batch_size} images is larger than the data ({num_rows} images). Give --batch_size {num_rows} "
        "or less."
    )
