"""The order of lanes is that of a slow reference; a process reads only what it needs, also on its way back."""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from torch import uint8, zeros
from torchvision.io import encode_png

from hf_transinv.data.batches import epoch_order, permutation
from hf_transinv.data.row_groups import ParquetPieces, Pieces, TablePieces, footer_of
from hf_transinv.data.shuffle import PieceLanes
from hf_transinv.data.sources import open_source
from hf_transinv.data.streaming import StreamingFeed

_PNG = encode_png(zeros(3, 4, 4, dtype=uint8)).numpy().tobytes()
_FEATURES = datasets.Features({"image": datasets.Image(decode=False), "label": datasets.Value("int64")})
_SHARDS = (37, 0, 118, 5, 60, 20)  # rows of each file, 240 in all


def write_shards(folder: Path, sizes: tuple[int, ...], row_group: int, encoded: bytes = _PNG) -> list[str]:
    """Files of so many rows, whose labels number the rows of all files; beside them a column that nobody reads."""
    first, paths = 0, []
    for number, size in enumerate(sizes):
        bytes_ = pa.array([encoded]).dictionary_encode().take(pa.array(np.zeros(size, np.int32))).cast(pa.binary())
        image = pa.StructArray.from_arrays([bytes_, pa.nulls(size, pa.string())], ["bytes", "path"])
        columns = {"id": np.arange(size), "label": np.arange(first, first + size), "image": image}
        paths.append(str(folder / f"train-{number:05d}-of-{len(sizes):05d}.parquet"))
        pq.write_table(pa.table(columns), paths[-1], row_group_size=row_group)
        first += size
    return paths


@pytest.fixture
def pieces(tmp_path: Path) -> ParquetPieces:
    footers = {path: footer_of(path) for path in write_shards(tmp_path, _SHARDS, row_group=7)}
    return ParquetPieces(footers, ("image", "label"), lambda path, labels: labels.to_numpy())


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as running:
        yield running


def _rows_in_order(pieces: Pieces) -> list[list[int]]:
    return [pieces.read(piece).column("label").to_pylist() for piece in range(len(pieces.lengths))]


def test_row_groups_are_pieces_with_the_lengths_they_say(pieces: ParquetPieces) -> None:
    rows = _rows_in_order(pieces)
    assert [len(part) for part in rows] == pieces.lengths.tolist()
    assert list(chain(*rows)) == list(range(sum(_SHARDS)))
    table = pieces.read(0)
    assert table.column_names == ["image", "label"]
    assert table.column("image")[3].as_py() == {"bytes": _PNG, "path": None}


def test_a_table_is_cut_into_pieces() -> None:
    cells = [{"bytes": _PNG, "path": None}] * 11
    pieces = TablePieces(datasets.Dataset.from_dict({"image": cells, "label": list(range(11))}, _FEATURES))
    assert list(chain(*_rows_in_order(pieces))) == list(range(11))
    assert pieces.lengths.sum() == 11 and pieces.lengths.max() <= 4


@pytest.mark.parametrize(("batch_size", "count"), [(16, 8), (12, 4), (7, 1), (240, 8)])
@pytest.mark.parametrize("buffer_size", [1, 64, 1000])
def test_the_order_is_that_of_a_slow_reference(
    pieces: ParquetPieces, pool: ThreadPoolExecutor, batch_size: int, count: int, buffer_size: int
) -> None:
    """All rows of the pieces one after the other, cut into lanes; in a lane, pieces that begin in the same stretch of
    rows are a window, and the rows of a window are shuffled."""
    lanes, parts = PieceLanes(pieces, batch_size, seed=5, buffer_size=buffer_size), _rows_in_order(pieces)
    assert lanes.count == count and lanes.num_rows == 240
    stretch = max(1, buffer_size // (2 * count))
    for epoch in range(2):
        rows = [(piece, row) for piece in epoch_order(len(parts), 5, epoch).tolist() for row in parts[piece]]
        size = 240 // batch_size * batch_size // count
        seen = []
        for lane in range(count):
            windows: dict[int, list[int]] = {}
            begins: dict[int, int] = {}
            for place, (piece, row) in enumerate(rows[lane * size : (lane + 1) * size]):
                begin = begins.setdefault(piece, place)
                windows.setdefault(begin // stretch, []).append(row)
            expected = []
            for number, window in enumerate(windows.values()):
                expected += [window[i] for i in permutation(len(window), 5, epoch, 1 + lane, number)]
            for start in (0, 1, size // 2, size - 1, size):
                got = [row["label"] for row in lanes.rows(pool, epoch, lane, start)]
                assert got == expected[start:]
            seen += expected
        assert len(set(seen)) == len(seen) == count * size


def _read_by(monkeypatch: pytest.MonkeyPatch) -> Counter[int]:
    """Counts how often each piece is read from now on."""
    counted: Counter[int] = Counter()
    read = ParquetPieces.read

    def counting(self: ParquetPieces, piece: int) -> pa.Table:
        counted[piece] += 1
        return read(self, piece)

    monkeypatch.setattr(ParquetPieces, "read", counting)
    return counted


@pytest.fixture
def paths(tmp_path: Path) -> str:
    """100 pieces of 8 rows."""
    write_shards(tmp_path, (400, 400), row_group=8)
    return str(tmp_path / "*.parquet")


def _open(paths: str, rank: int, world: int) -> StreamingFeed:
    source = open_source(paths, streaming=True, label_names=[str(row) for row in range(800)])
    return StreamingFeed(source, 16, 0, rank, world, buffer_size=64, image_size=4)


def test_a_process_reads_its_part_alone(paths: str, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = _read_by(monkeypatch)
    together: Counter[int] = Counter()
    for rank in range(4):
        counted.clear()
        feed = _open(paths, rank, 4)
        for _ in range(feed.batches_per_epoch - 3):  # no further: the next epoch is not yet begun
            feed.next_batch()
        feed.close()
        assert max(counted.values()) <= 2 and counted.total() <= 25 + 4  # its 4 lanes begin within a piece
        together += counted
    assert len(together) >= 90 and together.total() <= 100 + 16


def test_a_resume_reads_no_earlier_rows(paths: str, monkeypatch: pytest.MonkeyPatch) -> None:
    feed = _open(paths, 0, 1)
    state = feed.state_dict() | {"position": 45}
    feed.load_state_dict(state)
    counted = _read_by(monkeypatch)
    feed.next_batch()
    feed.close()
    # 90 of 100 pieces are behind it; each of its 16 lanes is in a window of a piece or two and reads one ahead.
    assert counted.total() <= 16 * 3
