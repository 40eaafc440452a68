"""The order in which a split that does not fit into memory is read: lanes, each a shuffled part of the epoch.

An epoch draws an order of the pieces (see ``pieces``) and cuts their rows, in that order, into L lanes of equal
length. A lane shuffles its rows window by window, a window being whole pieces of about ``buffer_size / 2L`` rows, and
gives each batch the same number of rows. (Shuffling blocks, then rows within a buffer of blocks, is CorgiPile: Xu et
al., "In-Database Machine Learning with CorgiPile: Stochastic Gradient Descent without Full Data Shuffle", SIGMOD 2022;
the lanes are ours.)

All of this is a function of (seed, epoch) and of the pieces' lengths. So a position in an epoch says which rows are
next without reading those before it, at most a window's pieces are read twice on the way back to it, and a process
reads only the lanes that have a share in its part of the batches.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from math import gcd
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from hf_transinv.data.batches import epoch_order, permutation
from hf_transinv.data.row_groups import Pieces

if TYPE_CHECKING:
    from datasets import IterableDataset
    from pyarrow import Table

# So many that up to 16 processes read nothing twice, and so few that a lane's window is some pieces even when a small
# buffer is shared among them.
_MOST_LANES = 16
_PIECES_OF_A_LANE = 4  # at least: a lane begins and ends within a piece, which its neighbour then reads too
_INTERLEAVED_SHARDS = 10  # what `datasets` itself defaults to


class Lanes(Protocol):
    """The rows of an epoch in the order of its batches.

    Attributes:
        count: lanes, a divisor of the batch size; lane l has the l-th of as many equal parts of each batch.
        num_rows: of the split; None when it does not say.
    """

    count: int
    num_rows: int | None

    def rows(self, pool: ThreadPoolExecutor, epoch: int, lane: int, start: int) -> Iterator[Any]:
        """Opens a lane at one of its rows; what is read ahead is read by the pool.

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


class PieceLanes:
    """Lanes of a split whose pieces can be read one by one.

    Args:
        pieces: of the split.
        batch_size: of all processes together.
        seed: of the order.
        buffer_size: rows held undecoded by all lanes together: half of them in use, half read ahead.
    """

    def __init__(self, pieces: Pieces, batch_size: int, seed: int, buffer_size: int) -> None:
        self._pieces, self._seed = pieces, seed
        self.num_rows = int(pieces.lengths.sum())
        self.count = gcd(batch_size, _MOST_LANES)
        while self.count > 1 and self.count * _PIECES_OF_A_LANE > len(pieces.lengths):
            self.count //= 2
        self._lane_rows = self.num_rows // batch_size * batch_size // self.count
        self._window = max(1, buffer_size // (2 * self.count))

    def rows(self, pool: ThreadPoolExecutor, epoch: int, lane: int, start: int) -> Iterator[TableRow]:
        windows = self._windows(epoch, lane)
        number = 0
        while number < len(windows) and start >= windows[number].num_rows:
            start -= windows[number].num_rows
            number += 1
        # The first one is asked for here, and so for all lanes at once; a generator would wait for its first row.
        return self._shuffled(pool, (epoch, lane), windows, number, start, self._start(pool, windows, number))

    def _shuffled(
        self,
        pool: ThreadPoolExecutor,
        place: tuple[int, int],
        windows: "Sequence[_Window]",
        number: int,
        start: int,
        reading: "list[Future[Table]]",
    ) -> Iterator[TableRow]:
        epoch, lane = place
        while number < len(windows):
            tables = [future.result() for future in reading]
            reading = self._start(pool, windows, number + 1)
            window = windows[number]
            pieces, rows = window.places()
            for index in permutation(window.num_rows, self._seed, epoch, 1 + lane, number)[start:].tolist():
                yield TableRow(tables[pieces[index]], int(rows[index]))
            number, start = number + 1, 0

    def _start(self, pool: ThreadPoolExecutor, windows: "Sequence[_Window]", number: int) -> "list[Future[Table]]":
        if number >= len(windows):
            return []
        return [pool.submit(self._pieces.read, int(piece)) for piece in windows[number].pieces]

    def _windows(self, epoch: int, lane: int) -> "list[_Window]":
        order = epoch_order(len(self._pieces.lengths), self._seed, epoch).numpy()
        lengths = self._pieces.lengths[order]
        begins = np.cumsum(lengths) - lengths
        first, last = lane * self._lane_rows, (lane + 1) * self._lane_rows
        starts, stops = np.maximum(begins, first), np.minimum(begins + lengths, last)
        (within,) = np.nonzero(starts < stops)
        window_of = (starts[within] - first) // self._window
        parts = np.split(within, np.flatnonzero(np.diff(window_of)) + 1)
        return [_Window(order[part], (starts - begins)[part], (stops - begins)[part]) for part in parts]


@dataclass(frozen=True)
class _Window:
    """Pieces, and which rows of each: from `starts` to before `stops`."""

    pieces: np.ndarray
    starts: np.ndarray
    stops: np.ndarray

    @property
    def num_rows(self) -> int:
        return int((self.stops - self.starts).sum())

    def places(self) -> tuple[np.ndarray, np.ndarray]:
        """For each of the window's rows, in which of its pieces it lies and where there."""
        sizes = self.stops - self.starts
        pieces = np.repeat(np.arange(len(sizes)), sizes)
        return pieces, np.arange(len(pieces)) + np.repeat(self.stops - np.cumsum(sizes), sizes)


class StreamLane:
    """One lane, of a stream that can only be read from its beginning: archives of images, JSON, ...

    Every process reads all of it; to resume, the rows that were used are read again and thrown away undecoded. (That
    is exact, where the state that ``datasets`` itself keeps forgets what its shuffle buffer held.)

    Args:
        rows: the stream.
        num_rows: None when it does not say.
        seed: of the order.
        buffer_size: rows among which the next one is drawn.
    """

    count = 1

    def __init__(self, rows: "IterableDataset", num_rows: int | None, seed: int, buffer_size: int) -> None:
        self.num_rows = num_rows
        # Several shards are interleaved into the buffer, at the price of the 5 s that `datasets` sleeps after each
        # epoch for its threads to end; one shard need not pay it.
        num_shards = min(rows.num_shards, _INTERLEAVED_SHARDS)
        self._rows = rows.shuffle(seed=seed, buffer_size=buffer_size, max_buffer_input_shards=num_shards)

    def rows(self, pool: ThreadPoolExecutor, epoch: int, lane: int, start: int) -> Iterator[dict[str, Any]]:
        self._rows.set_epoch(epoch)
        stream = iter(self._rows)
        for _ in range(start):
            next(stream, None)
        return stream
