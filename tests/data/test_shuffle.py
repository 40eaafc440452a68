"""The order of shards is that of a slow reference; a process reads only what it needs, also on its way back."""

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

from hf_transinv.data.batches import permutation
from hf_transinv.data.row_groups import ParquetRowGroups, RowGroups, TableRowGroups, footer_of
from hf_transinv.data.shuffle import RowGroupShards
from hf_transinv.data.sources import open_source
from hf_transinv.data.streaming import StreamingFeed

_PNG = encode_png(zeros(3, 4, 4, dtype=uint8)).numpy().tobytes()
_FEATURES = datasets.Features({"image": datasets.Image(decode=False), "label": datasets.Value("int64")})
_FILES = (37, 0, 118, 5, 60, 20)  # rows of each file, 240 in all


def write_files(folder: Path, sizes: tuple[int, ...], row_group: int, encoded: bytes = _PNG) -> list[str]:
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
def row_groups(tmp_path: Path) -> ParquetRowGroups:
    footers = {path: footer_of(path) for path in write_files(tmp_path, _FILES, row_group=7)}
    return ParquetRowGroups(footers, ("image", "label"), lambda path, labels: labels.to_numpy())


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as running:
        yield running


def _rows_in_order(row_groups: RowGroups) -> list[list[int]]:
    return [row_groups.read(group).column("label").to_pylist() for group in range(len(row_groups.lengths))]


def test_row_groups_have_the_lengths_they_say(row_groups: ParquetRowGroups) -> None:
    rows = _rows_in_order(row_groups)
    assert [len(part) for part in rows] == row_groups.lengths.tolist()
    assert list(chain(*rows)) == list(range(sum(_FILES)))
    table = row_groups.read(0)
    assert table.column_names == ["image", "label"]
    assert table.column("image")[3].as_py() == {"bytes": _PNG, "path": None}


def test_a_table_is_cut_into_row_groups() -> None:
    cells = [{"bytes": _PNG, "path": None}] * 11
    row_groups = TableRowGroups(datasets.Dataset.from_dict({"image": cells, "label": list(range(11))}, _FEATURES))
    assert list(chain(*_rows_in_order(row_groups))) == list(range(11))
    assert row_groups.lengths.sum() == 11 and row_groups.lengths.max() <= 4


@pytest.mark.parametrize(("batch_size", "count"), [(16, 8), (12, 4), (7, 1), (240, 8)])
@pytest.mark.parametrize("buffer_size", [1, 64, 1000])
def test_the_order_is_that_of_a_slow_reference(
    row_groups: ParquetRowGroups, pool: ThreadPoolExecutor, batch_size: int, count: int, buffer_size: int
) -> None:
    """All rows of the row groups one after the other, cut into shards; row groups of a shard that begin in the same
    stretch of rows fill one buffer, and the rows of a buffer are shuffled."""
    shards, parts = RowGroupShards(row_groups, batch_size, seed=5, buffer_size=buffer_size), _rows_in_order(row_groups)
    assert shards.count == count and shards.num_rows == 240
    stretch = max(1, buffer_size // (2 * count))
    for epoch in range(2):
        rows = [(group, row) for group in permutation(len(parts), 5, epoch).tolist() for row in parts[group]]
        size = 240 // batch_size * batch_size // count
        seen = []
        for shard in range(count):
            buffers: dict[int, list[int]] = {}
            begins: dict[int, int] = {}
            for place, (group, row) in enumerate(rows[shard * size : (shard + 1) * size]):
                begin = begins.setdefault(group, place)
                buffers.setdefault(begin // stretch, []).append(row)
            expected = []
            for number, buffer in enumerate(buffers.values()):
                expected += [buffer[i] for i in permutation(len(buffer), 5, epoch, 1 + shard, number)]
            for start in (0, 1, size // 2, size - 1, size):
                got = [row["label"] for row in shards.rows(pool, epoch, shard, start)]
                assert got == expected[start:]
            seen += expected
        assert len(set(seen)) == len(seen) == count * size


def _read_by(monkeypatch: pytest.MonkeyPatch) -> Counter[int]:
    """Counts how often each row group is read from now on."""
    counted: Counter[int] = Counter()
    read = ParquetRowGroups.read

    def counting(self: ParquetRowGroups, group: int) -> pa.Table:
        counted[group] += 1
        return read(self, group)

    monkeypatch.setattr(ParquetRowGroups, "read", counting)
    return counted


@pytest.fixture
def paths(tmp_path: Path) -> str:
    """100 row groups of 8 rows."""
    write_files(tmp_path, (400, 400), row_group=8)
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
        assert max(counted.values()) <= 2 and counted.total() <= 25 + 4  # its 4 shards begin within a row group
        together += counted
    assert len(together) >= 90 and together.total() <= 100 + 16


def test_a_resume_reads_no_earlier_rows(paths: str, monkeypatch: pytest.MonkeyPatch) -> None:
    feed = _open(paths, 0, 1)
    state = feed.state_dict() | {"position": 45}
    feed.load_state_dict(state)
    counted = _read_by(monkeypatch)
    feed.next_batch()
    feed.close()
    # 90 of 100 row groups are behind it; each of its 16 shards has a buffer of one or two and reads one ahead.
    assert counted.total() <= 16 * 3
