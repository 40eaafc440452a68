"""A million rows in uneven shards: each row once an epoch, for any number of processes, stopped and resumed, in flat
memory. Only the decoder is another one: it would take minutes, and a row is known by its label."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from hf_transinv.data.image_decoder import ImageDecoder
from hf_transinv.data.sources import open_source
from hf_transinv.data.streaming import StreamingFeed
from tests.data.test_shuffle import write_files
from tests.launching import TWO_PROCESSES, succeed

pytestmark = pytest.mark.slow

_NUM_ROWS, _NUM_FILES, _BATCH = 1_000_000, 64, 400
_MEBIBYTE = 2**20


@pytest.fixture(scope="module")
def million(tmp_path_factory: pytest.TempPathFactory) -> str:
    """64 shards of 2,000 to 31,000 rows in row groups of 500; an image column of 1 kB a row."""
    folder = tmp_path_factory.mktemp("million")
    weights = np.random.default_rng(0).uniform(1, 15, _NUM_FILES)
    ends = np.round(np.cumsum(weights) / weights.sum() * _NUM_ROWS).astype(int)
    write_files(folder, tuple(np.diff(ends, prepend=0).tolist()), row_group=500, encoded=bytes(1024))
    return str(folder / "*.parquet")


@pytest.fixture
def open_feed(million: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int, int], StreamingFeed]]:
    pixels, opened = torch.zeros(3, 1, 1, dtype=torch.uint8), []

    def decode(self: ImageDecoder, cell: dict, where: str) -> torch.Tensor:
        assert len(cell["bytes"]) == 1024
        return pixels

    monkeypatch.setattr(ImageDecoder, "__call__", decode)
    source = open_source(million, streaming=True, label_names=[str(row) for row in range(_NUM_ROWS)])

    def make(rank: int, world: int) -> StreamingFeed:
        opened.append(StreamingFeed(source, _BATCH, 0, rank, world, image_size=1, buffer_size=10_000))
        return opened[-1]

    yield make
    for feed in opened:
        feed.close()


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("world", [2, 4])
def test_each_of_a_million_rows_is_seen_once_by_all_processes_together(
    open_feed: Callable[[int, int], StreamingFeed], world: int
) -> None:
    """Each process is stopped and begun anew at another point of the epoch."""
    batches = _NUM_ROWS // _BATCH
    rows = np.zeros((batches, _BATCH), np.int64)
    used: list[list[int]] = [[], [], [], []]
    for rank in range(world):
        feed, own = open_feed(rank, world), slice(rank * _BATCH // world, (rank + 1) * _BATCH // world)
        stop = batches * (rank + 1) // (world + 1) + 7
        for number in range(batches):
            if number == stop:
                state = feed.state_dict()
                feed.close()
                feed = open_feed(rank, world)
                feed.load_state_dict(state)
            rows[number, own] = feed.next_batch()[1]
            if rank == 0 and number % 50 == 0:
                used[4 * number // batches].append(_resident_bytes())
        assert (feed.epoch, feed.position) == (1, 0)
        feed.close()
    assert (np.bincount(rows.ravel(), minlength=_NUM_ROWS) == 1).all()
    # A leak of what a quarter of the process's rows hold would be 1 kB x 1,000,000 / world / 4, or more.
    growth = max(used[3]) - max(used[0])
    assert growth < 1024 * _NUM_ROWS // world // 4, [max(quarter) // _MEBIBYTE for quarter in used]
    # Near any place of the epoch stand rows of the whole split.
    assert (np.ptp(rows, axis=1) > 0.5 * _NUM_ROWS).all()


def test_the_order_does_not_depend_on_the_number_of_processes(open_feed: Callable[[int, int], StreamingFeed]) -> None:
    for start in (0, 1234, 2490):
        seen = []
        for world in (1, 2, 4, 8):
            shares = []
            for rank in range(world):
                feed = open_feed(rank, world)
                feed.load_state_dict(feed.state_dict() | {"position": start})
                shares.append(torch.stack([feed.next_batch()[1] for _ in range(12)]))  # over the end of the epoch
                feed.close()
            seen.append(torch.cat(shares, dim=1))
        assert all(torch.equal(seen[0], other) for other in seen[1:])


_WORKER = """
import json, os, sys, torch
from hf_transinv.data.sources import open_source
from hf_transinv.data.streaming import StreamingFeed

torch.distributed.init_process_group("gloo")
rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
source = open_source(sys.argv[1], streaming=True, label_names=[str(row) for row in range(6000)])
stop, out = int(sys.argv[2]), sys.argv[3]
feed = StreamingFeed(source, 48, 0, rank, world, buffer_size=500)
if os.path.exists(f"{out}-{rank}.json"):
    feed.load_state_dict(json.load(open(f"{out}-{rank}.json"))["state"])
seen = []
while feed.epoch < 2 and len(seen) != stop:
    images, labels = feed.next_batch()
    assert images.shape == (24, 3, 4, 4)
    torch.distributed.all_reduce(labels.clone())  # hangs when a process has a batch less than the other
    seen.append(labels.tolist())
feed.close()
json.dump({"state": feed.state_dict(), "seen": seen}, open(f"{out}-{rank}.json", "w"))
torch.distributed.destroy_process_group()
"""


def test_real_processes_see_each_row_once_and_end_together(tmp_path: Path) -> None:
    """Two epochs of 6,000 rows in five uneven shards, stopped in the middle of the first one and resumed."""
    write_files(tmp_path, (2500, 7, 1200, 293, 2000), row_group=50)
    worker = tmp_path / "worker.py"
    worker.write_text(_WORKER)
    seen: list[list[int]] = []
    for stop in (67, -1):
        succeed(TWO_PROCESSES, worker, tmp_path / "*.parquet", stop, tmp_path / "seen", cwd=tmp_path)
        ranks = [json.loads((tmp_path / f"seen-{rank}.json").read_text())["seen"] for rank in range(2)]
        seen += [one + other for one, other in zip(*ranks, strict=True)]
    for epoch in (seen[:125], seen[125:]):
        assert sorted(row for batch in epoch for row in batch) == list(range(6000))
    assert seen[:125] != seen[125:]
