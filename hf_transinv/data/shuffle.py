"""The order in which a split that does not fit into memory is read: shards, each shuffled within its own buffer.

An epoch draws an order of the row groups (see ``row_groups``), puts their rows one after the other in that order, and
cuts them into S shards of equal length. A shard fills its shuffle buffer with whole row groups, of about
``buffer_size / 2S`` rows together, hands out the buffer's rows in random order, and goes on to the next buffer. Each
batch takes the same number of rows from every shard. (Shuffling blocks, then rows within a buffer of blocks, is
CorgiPile: Xu et al., "In-Database Machine Learning with CorgiPile: Stochastic Gradient Descent without Full Data
Shuffle", SIGMOD 2022. The shards are ours.)

All of this is a function of (seed, epoch) and of the lengths of the row groups. A position in an epoch therefore says
which rows come next, without reading those before it. On the way back to a position, at most one buffer per shard is
read twice. A process reads only the shards that contribute to its share of the batches.
"""

from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from math import gcd
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from hf_transinv.data.batches import permutation
from hf_transinv.data.row_groups import RowGroups

if TYPE_CHECKING:
    from datasets import IterableDataset
    from pyarrow import Table

# Enough for up to 16 processes to read nothing twice; few enough that a shard's buffer still holds several row groups
# when a small buffer is divided among them.
_MOST_SHARDS = 16
_ROW_GROUPS_PER_SHARD = 4  # at least: a shard begins and ends within a row group, which its neighbour reads too
_INTERLEAVED_FILES = 10  # the default of `datasets`


class Shards(Protocol):
    """The rows of an epoch in the order of its batches.

    Attributes:
        count: shards, a divisor of the batch size. Shard s provides the s-th of `count` equal parts of each batch.
        num_rows: rows of the split; None when it does not say.
    """

    count: int

    @property
    def num_rows(self) -> int | None: ...

    def rows(self, pool: ThreadPoolExecutor, epoch: int, shard: int, start: int) -> Generator[Any, None, None]:
        """Opens a shard at one of its rows.

        Args:
            pool: reads ahead.
            epoch: from 0 on.
            shard: from 0 to `count` - 1.
            start: rows of the shard to leave out.

        Returns:
            Rows with the keys ``image`` and ``label``.
        """
        ...


@dataclass(frozen=True)
class TableRow:
    """A row of an Arrow table; a cell is copied out of it when it is asked for."""

    table: "Table"
    index: int

    def __getitem__(self, column: str) -> Any:
        return self.table.column(column)[self.index].as_py()


class RowGroupShards:
    """Shards of a split whose row groups can be read one by one.

    Args:
        row_groups: of the split.
        batch_size: of all processes together.
        seed: of the order.
        buffer_size: rows held undecoded by all shards together: half of them in use, half read ahead.
    """

    def __init__(self, row_groups: RowGroups, batch_size: int, seed: int, buffer_size: int) -> None:
        self._row_groups, self._seed = row_groups, seed
        self.num_rows = int(row_groups.lengths.sum())
        self.count = gcd(batch_size, _MOST_SHARDS)
        while self.count > 1 and self.count * _ROW_GROUPS_PER_SHARD > len(row_groups.lengths):
            self.count //= 2
        self._shard_rows = self.num_rows // batch_size * batch_size // self.count
        self._buffer_rows = max(1, buffer_size // (2 * self.count))

    def rows(self, pool: ThreadPoolExecutor, epoch: int, shard: int, start: int) -> Generator[TableRow, None, None]:
        buffers = self._buffers(epoch, shard)
        number = 0
        while number < len(buffers) and start >= buffers[number].num_rows:
            start -= buffers[number].num_rows
            number += 1
        # The first buffer is requested here, and so for all shards at once; a generator would wait for its first row.
        return self._shuffled(pool, (epoch, shard), buffers, number, start, self._start(pool, buffers, number))

    def _shuffled(
        self,
        pool: ThreadPoolExecutor,
        place: tuple[int, int],
        buffers: "Sequence[_ShuffleBuffer]",
        number: int,
        start: int,
        reading: "list[Future[Table]]",
    ) -> Generator[TableRow, None, None]:
        epoch, shard = place
        while number < len(buffers):
            tables = [future.result() for future in reading]
            reading = self._start(pool, buffers, number + 1)
            buffer = buffers[number]
            groups, rows = buffer.places()
            for index in permutation(buffer.num_rows, self._seed, epoch, 1 + shard, number)[start:].tolist():
                yield TableRow(tables[groups[index]], int(rows[index]))
            number, start = number + 1, 0

    def _start(
        self, pool: ThreadPoolExecutor, buffers: "Sequence[_ShuffleBuffer]", number: int
    ) -> "list[Future[Table]]":
        if number >= len(buffers):
            return []
        return [pool.submit(self._row_groups.read, int(group)) for group in buffers[number].groups]

    def _buffers(self, epoch: int, shard: int) -> "list[_ShuffleBuffer]":
        order = permutation(len(self._row_groups.lengths), self._seed, epoch).numpy()
        lengths = self._row_groups.lengths[order]
        begins = np.cumsum(lengths) - lengths
        first, last = shard * self._shard_rows, (shard + 1) * self._shard_rows
        starts, stops = np.maximum(begins, first), np.minimum(begins + lengths, last)
        (within,) = np.nonzero(starts < stops)
        buffer_of = (starts[within] - first) // self._buffer_rows
        parts = np.split(within, np.flatnonzero(np.diff(buffer_of)) + 1)
        return [_ShuffleBuffer(order[part], (starts - begins)[part], (stops - begins)[part]) for part in parts]


@dataclass(frozen=True)
class _ShuffleBuffer:
    """Row groups that are shuffled together, and which rows of each: from `starts` to before `stops`."""

    groups: np.ndarray
    starts: np.ndarray
    stops: np.ndarray

    @property
    def num_rows(self) -> int:
        return int((self.stops - self.starts).sum())

    def places(self) -> tuple[np.ndarray, np.ndarray]:
        """For each row of the buffer: which of its row groups it is in, and which row of that it is."""
        sizes = self.stops - self.starts
        groups = np.repeat(np.arange(len(sizes)), sizes)
        return groups, np.arange(len(groups)) + np.repeat(self.stops - np.cumsum(sizes), sizes)


class StreamShard:
    """The only shard of a stream that can be read from its beginning alone: archives of images, JSON, ...

    Every process reads all of it. To resume, the rows that were used are read again and thrown away undecoded. (That
    is exact; the state that ``datasets`` itself keeps does not include what its shuffle buffer held.)

    Args:
        rows: the stream.
        num_rows: None when it does not say.
        seed: of the order.
        buffer_size: rows of the shuffle buffer, from which the next one is drawn.
    """

    count = 1

    def __init__(self, rows: "IterableDataset", num_rows: int | None, seed: int, buffer_size: int) -> None:
        self.num_rows = num_rows
        # Several files are interleaved into the buffer. After each epoch `datasets` then sleeps 5 s for its threads
        # to end, which a stream of one file need not pay.
        num_files = min(rows.num_shards, _INTERLEAVED_FILES)
        self._rows = rows.shuffle(seed=seed, buffer_size=buffer_size, max_buffer_input_shards=num_files)

    def rows(
        self, pool: ThreadPoolExecutor, epoch: int, shard: int, start: int
    ) -> Generator[dict[str, Any], None, None]:
        self._rows.set_epoch(epoch)
        stream = iter(self._rows)
        for _ in range(start):
            next(stream, None)
        return stream
