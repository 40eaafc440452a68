"""The streaming feed gives what its shuffled stream holds, alike for any number of processes, and resumes exactly."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain

import pytest
import torch

from hf_transinv.data.sources import Source, open_source
from hf_transinv.data.streaming import StreamingFeed
from hf_transinv.errors import InputError
from tests.data.conftest import encode, numbered_pixels

_NUM_ROWS = 23


@pytest.fixture(params=["row groups", "from its beginning"])
def source(request: pytest.FixtureRequest, numbered_parquet: Callable) -> Source:
    """23 rows in 12 row groups; or the same as a stream of which no more is known."""
    path = numbered_parquet(_NUM_ROWS, row_group=2)
    opened = open_source(path, streaming=True)
    return opened if request.param == "row groups" else _from_its_beginning(opened, path)


def _from_its_beginning(opened: Source, path: str) -> Source:
    return replace(opened, rows=open_source(path).rows.to_iterable_dataset(), row_groups=None)


@pytest.fixture
def open_feed() -> Iterator[Callable[..., StreamingFeed]]:
    feeds = []

    def make(*arguments: object, **options: object) -> StreamingFeed:
        feeds.append(StreamingFeed(*arguments, **{"buffer_size": 8, **options}))
        return feeds[-1]

    yield make
    for feed in feeds:
        feed.close()


def _rows_of(feed: StreamingFeed, num_batches: int) -> list[list[int]]:
    """Row numbers, as written into the images; checks that the labels belong to them."""
    batches = []
    for _ in range(num_batches):
        images, labels = feed.next_batch()
        assert images.dtype == torch.uint8 and labels.dtype == torch.int64
        rows = (images[:, 0, 0, 0].int() + 256 * images[:, 1, 0, 0].int()).tolist()
        assert labels.tolist() == [row % 2 for row in rows]
        batches.append(rows)
    return batches


def test_images_are_decoded_exactly(source: Source, open_feed: Callable) -> None:
    images, _ = open_feed(source, 4, 0).next_batch()
    for image in images:
        expected = torch.from_numpy(numbered_pixels(int(image[0, 0, 0])))
        assert torch.equal(image.permute(1, 2, 0), expected)


def test_the_order_of_a_stream_is_that_of_datasets_shuffle(numbered_parquet: Callable, open_feed: Callable) -> None:
    path = numbered_parquet(_NUM_ROWS, row_group=2)
    source = _from_its_beginning(open_source(path, streaming=True), path)
    feed = open_feed(source, 5, seed=3)
    shuffled = source.rows.shuffle(seed=3, buffer_size=8, max_buffer_input_shards=1)
    for epoch in range(2):
        shuffled.set_epoch(epoch)
        labels = [row["label"] for row in shuffled]
        assert [feed.next_batch()[1].tolist() for _ in range(4)] == [labels[i : i + 5] for i in (0, 5, 10, 15)]


@pytest.mark.parametrize("knows_length", [True, False])
def test_an_epoch_covers_whole_batches_without_repetition(
    source: Source, open_feed: Callable, knows_length: bool
) -> None:
    feed = open_feed(replace(source, num_rows=_NUM_ROWS if knows_length else None), 5, 0)
    assert feed.batches_per_epoch == (4 if knows_length or source.row_groups else None)
    epochs = []
    for epoch in range(3):
        assert feed.epoch == epoch and feed.position == 0
        epochs.append(list(chain(*_rows_of(feed, 4))))
    assert all(len(set(rows)) == 20 for rows in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


@pytest.mark.parametrize("world", [2, 4])  # of a batch of 8, which has 2 shards
def test_the_shares_of_all_processes_are_the_batch_of_one(source: Source, open_feed: Callable, world: int) -> None:
    alone = _rows_of(open_feed(source, 8, 3), 5)
    shares = [_rows_of(open_feed(source, 8, 3, rank, world), 5) for rank in range(world)]
    assert [list(chain(*batch)) for batch in zip(*shares, strict=True)] == alone


@pytest.mark.parametrize("stop", [0, 3, 4, 9])
def test_resumed_equals_uninterrupted(source: Source, open_feed: Callable, stop: int) -> None:
    feed = open_feed(source, 5, seed=1)
    _rows_of(feed, stop)
    state = feed.state_dict()
    expected = _rows_of(feed, 9)
    resumed = open_feed(source, 5, seed=1)
    resumed.load_state_dict(state)
    assert _rows_of(resumed, 9) == expected
    resumed.load_state_dict(state)  # also in a feed that has read ahead
    assert _rows_of(resumed, 9) == expected


def test_another_seed_cannot_resume(source: Source, open_feed: Callable) -> None:
    state = open_feed(source, 5, seed=1).state_dict()
    with pytest.raises(InputError, match="seed 1, this run has 2"):
        open_feed(source, 5, seed=2).load_state_dict(state)


def test_close_ends_all_threads_and_loses_nothing(source: Source, open_feed: Callable) -> None:
    before = threading.active_count()
    feed = open_feed(source, 5, seed=1)
    first = _rows_of(feed, 2)
    feed.close()
    assert threading.active_count() == before
    assert first + _rows_of(feed, 3) == _rows_of(open_feed(source, 5, seed=1), 5)


def test_an_image_folder_streams_too(tmp_path: object, open_feed: Callable) -> None:
    for row in range(12):
        folder = tmp_path / "train" / ("dog" if row % 2 else "cat")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{row}.png").write_bytes(encode(numbered_pixels(row)))
    feed = open_feed(open_source(str(tmp_path), streaming=True), 4, 0)
    assert sorted(chain(*_rows_of(feed, 3))) == list(range(12))


def test_skipped_images_are_counted_and_batches_keep_their_size(write_parquet: Callable, open_feed: Callable) -> None:
    images = [encode(numbered_pixels(row)) if row not in (0, 4) else b"garbage" for row in range(12)]
    source = open_source(write_parquet(images, [row % 2 for row in range(12)]), streaming=True)
    alone = open_feed(source, 6, 0, on_bad_image="skip")
    batches = _rows_of(alone, 4)
    assert [len(batch) for batch in batches] == [6] * 4
    assert set(batches[0] + batches[1]) == set(range(12)) - {0, 4}
    assert alone.num_skipped == 4  # two in each epoch
    shares = [open_feed(source, 6, 0, rank, 2, on_bad_image="skip") for rank in range(2)]
    of_ranks = [_rows_of(share, 4) for share in shares]
    assert [list(chain(*batch)) for batch in zip(*of_ranks, strict=True)] == batches
    assert sum(share.num_skipped for share in shares) == 4


def test_bad_images_and_labels_are_named(write_parquet: Callable, open_feed: Callable) -> None:
    good = [encode(numbered_pixels(row)) for row in range(4)]
    feed = open_feed(open_source(write_parquet([*good[:3], good[3][:60]], [0, 1, 0, 1]), streaming=True), 4, 0)
    for _ in range(2):  # asked again, it says the same
        with pytest.raises(InputError, match=r"Row .*train.*--on_bad_image skip"):
            feed.next_batch()
    labelled = write_parquet(good, [0, 1, 0, -1], file_name="train-labels.parquet")
    with pytest.raises(InputError, match="label is -1"):
        open_feed(open_source(labelled, streaming=True), 4, 0, on_bad_image="skip").next_batch()


def test_different_sizes_need_an_image_size(write_parquet: Callable, open_feed: Callable) -> None:
    images = [encode(numbered_pixels(0)), encode(numbered_pixels(1, 8, 12))]
    source = open_source(write_parquet(images, [0, 1]), streaming=True)
    with pytest.raises(InputError, match=r"12x8.*--image_size"):
        open_feed(source, 2, 0).next_batch()
    assert open_feed(source, 2, 0, image_size=5).next_batch()[0].shape == (2, 3, 5, 5)


def test_batches_that_cannot_be_are_refused(source: Source, numbered_parquet: Callable, open_feed: Callable) -> None:
    unknown = replace(_from_its_beginning(source, numbered_parquet(_NUM_ROWS)), num_rows=None)
    with pytest.raises(InputError, match="larger than the data"):
        open_feed(source, _NUM_ROWS + 1, 0)
    with pytest.raises(InputError, match="larger than the data"):
        open_feed(unknown, _NUM_ROWS + 1, 0).next_batch()
    with pytest.raises(InputError, match="shared"):
        open_feed(source, 5, 0, 0, 2)


def test_a_source_that_is_no_stream_is_refused(numbered_parquet: Callable) -> None:
    with pytest.raises(InputError, match="Open it with streaming"):
        StreamingFeed(open_source(numbered_parquet(4)), 2, 0)
