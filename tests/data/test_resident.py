"""The decoded split and its feed: what is in the tensors, what an epoch covers, whose share is whose."""

from collections.abc import Callable
from itertools import chain

import datasets
import numpy as np
import pytest
import torch
from scipy.stats import binom, chi2

from hf_transinv.data.image_decoder import decoding_threads
from hf_transinv.data.resident import ResidentFeed, ResidentSplit
from hf_transinv.data.sources import open_source
from hf_transinv.errors import InputError
from tests.data.conftest import encode, numbered_pixels


def _load(path: str, **options: object) -> ResidentSplit:
    return ResidentSplit.load(open_source(path), show_progress=False, **options)


def _numbered_split(num_rows: int) -> ResidentSplit:
    images = torch.arange(num_rows, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 2, 2)
    return ResidentSplit(images, torch.arange(num_rows), [str(number) for number in range(num_rows)])


def test_all_rows_are_decoded_in_order(numbered_parquet: Callable) -> None:
    split = _load(numbered_parquet(600))  # more than two chunks
    expected = np.stack([numbered_pixels(row) for row in range(600)])
    np.testing.assert_array_equal(split.images.permute(0, 2, 3, 1).numpy(), expected)
    assert split.images.dtype == torch.uint8 and split.labels.dtype == torch.int64
    assert split.labels.tolist() == [row % 2 for row in range(600)]
    assert split.label_names == ["cat", "dog"] and split.num_skipped == 0 and len(split) == 600


def test_take_gathers_images_and_labels() -> None:
    images, labels = _numbered_split(9).take(torch.tensor([7, 0, 7]))
    assert images[:, 0, 0, 0].tolist() == [7, 0, 7] and labels.tolist() == [7, 0, 7]


# Label noise


def _one_class(num_rows: int = 20_000, num_classes: int = 10) -> ResidentSplit:
    """Every label is 0."""
    names = [str(number) for number in range(num_classes)]
    return ResidentSplit(torch.zeros(num_rows, 3, 1, 1, dtype=torch.uint8), torch.zeros(num_rows).long(), names)


@pytest.mark.parametrize("share", [0.001, 0.2, 0.5, 0.8, 0.999])
def test_a_share_of_the_labels_is_drawn_uniformly_from_all_classes(share: float) -> None:
    """A label of 0 is another one with a probability of share (1 - 1/10)."""
    split = _one_class()
    noisy = split.with_label_noise(share)
    others = noisy.labels[noisy.labels != 0]
    low, high = binom.ppf([1e-4, 1 - 1e-4], len(split), 0.9 * share)
    assert low <= len(others) <= high
    counts, expected = others.bincount(minlength=10)[1:], len(others) / 9
    assert len(counts) == 9 and ((counts - expected) ** 2 / expected).sum() < chi2.ppf(0.999, 8)
    assert noisy.images is split.images and noisy.label_names == split.label_names
    assert noisy.labels.dtype == torch.int64 and not split.labels.any(), "the split itself stays as it is"


def test_the_noise_is_independent_of_the_label() -> None:
    """As often on the last class as on the first; each replaced label is right with a probability of 1/2."""
    split = _numbered_split(2)
    labels = torch.arange(20_000) % 2
    noisy = ResidentSplit(split.images, labels, split.label_names).with_label_noise(0.6)
    for label in (0, 1):
        changed = (noisy.labels[labels == label] != label).sum()
        low, high = binom.ppf([1e-4, 1 - 1e-4], 10_000, 0.3)
        assert low <= changed <= high


def test_the_noise_is_always_the_same_and_grows_with_its_share() -> None:
    split = _one_class(500)
    torch.manual_seed(1)
    some = split.with_label_noise(0.3)
    torch.manual_seed(2)
    assert torch.equal(_one_class(500).with_label_noise(0.3).labels, some.labels)
    more = split.with_label_noise(0.7)
    changed = some.labels != 0
    assert torch.equal(more.labels[changed], some.labels[changed])
    assert (more.labels != 0).sum() > changed.sum()


def test_no_noise_is_the_split_itself() -> None:
    split = _one_class(5)
    assert split.with_label_noise(0.0) is split


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(InputError, match=r"label_noise.*in \[0, 1\)"):
        _one_class(5).with_label_noise(share)


def test_different_sizes_need_an_image_size(write_parquet: Callable) -> None:
    path = write_parquet([encode(numbered_pixels(0)), encode(numbered_pixels(1, 8, 12))], [0, 1])
    with pytest.raises(InputError, match=r"(?s)Row 1 .*12x8.*6x6.*--image_size"):
        _load(path)
    assert _load(path, image_size=5).images.shape == (2, 3, 5, 5)
    with pytest.raises(InputError, match="--image_size"):  # a size is not a matter of --on_bad_image
        _load(path, on_bad_image="skip")


def test_oblong_images_need_an_image_size(write_parquet: Callable) -> None:
    path = write_parquet([encode(numbered_pixels(row, 8, 12)) for row in range(2)], [0, 1])
    with pytest.raises(InputError, match=r"not a square.*--image_size"):
        _load(path)


@pytest.mark.parametrize("bad", [0, 1, 2])
@pytest.mark.parametrize("kind", ["truncated", "corrupt", "missing"])
def test_bad_images_are_named_or_skipped(write_parquet: Callable, bad: int, kind: str) -> None:
    images: list[bytes | None] = [encode(numbered_pixels(row)) for row in range(3)]
    images[bad] = {"truncated": images[bad][:60], "corrupt": b"garbage", "missing": None}[kind]
    path = write_parquet(images, [0, 1, 0])
    with pytest.raises(InputError, match=f"Row {bad} of .*train.*--on_bad_image skip"):
        _load(path)
    split = _load(path, on_bad_image="skip")
    kept = [row for row in range(3) if row != bad]
    assert split.num_skipped == 1 and split.labels.tolist() == [row % 2 for row in kept]
    assert split.images[:, 0, 0, 0].tolist() == kept


def test_a_split_of_bad_images_only_is_refused(write_parquet: Callable) -> None:
    path = write_parquet([b"garbage", b"rubbish"], [0, 1])
    with pytest.raises(InputError, match="not one image"):
        _load(path, on_bad_image="skip")
    with pytest.raises(InputError, match="not one image"):
        _load(path, on_bad_image="skip", image_size=4)


@pytest.mark.parametrize(
    ("label", "label_type", "said"),
    [
        (None, None, "missing"),
        (-1, None, "-1"),
        (-1, datasets.Value("int64"), "-1"),
        (None, datasets.Value("string"), "missing"),
    ],
)
def test_bad_labels_are_named(write_parquet: Callable, label: object, label_type: object, said: str) -> None:
    is_text = label_type == datasets.Value("string")
    labels = ["a", "b", label] if is_text else [0, 1, label]
    path = write_parquet([encode(numbered_pixels(row)) for row in range(3)], labels, label_type=label_type)
    for on_bad_image in ("raise", "skip"):
        with pytest.raises(InputError, match=f"Row 2 .*label is {said}"):
            _load(path, on_bad_image=on_bad_image)


def test_labels_beyond_the_names_are_named(write_parquet: Callable) -> None:
    images = [encode(numbered_pixels(row)) for row in range(3)]
    path = write_parquet(images, [0, 1, 2], label_type=datasets.Value("int64"))
    source = open_source(path, label_names=["cat", "dog"])
    with pytest.raises(InputError, match=r"Row 2 .*label is 2.*0 to 1"):
        ResidentSplit.load(source, show_progress=False)


def test_options_that_make_no_sense_are_refused(numbered_parquet: Callable) -> None:
    path = numbered_parquet(2)
    with pytest.raises(InputError, match="on_bad_image"):
        _load(path, on_bad_image="ignore")
    with pytest.raises(InputError, match="image_size"):
        _load(path, image_size=0)
    with pytest.raises(InputError, match="stream"):
        ResidentSplit.load(open_source(path, streaming=True))


def _labels_of(feed: ResidentFeed, num_batches: int) -> list[list[int]]:
    return [feed.next_batch()[1].tolist() for _ in range(num_batches)]


def test_an_epoch_covers_whole_batches_without_repetition() -> None:
    feed = ResidentFeed(_numbered_split(23), batch_size=5, seed=0)
    assert feed.batches_per_epoch == 4
    epochs = []
    for epoch in range(3):
        assert feed.epoch == epoch
        epochs.append(list(chain(*_labels_of(feed, 4))))
    assert all(len(set(rows)) == 20 for rows in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_images_and_labels_stay_together() -> None:
    images, labels = ResidentFeed(_numbered_split(23), batch_size=8, seed=0).next_batch()
    assert images[:, 0, 0, 0].tolist() == labels.tolist()


@pytest.mark.parametrize("world", [2, 4])
def test_the_shares_of_all_processes_are_the_batch_of_one(world: int) -> None:
    split = _numbered_split(23)
    alone = _labels_of(ResidentFeed(split, 8, seed=3), 6)
    shares = [_labels_of(ResidentFeed(split, 8, 3, rank, world), 6) for rank in range(world)]
    assert [list(chain(*batch)) for batch in zip(*shares, strict=True)] == alone


@pytest.mark.parametrize("stop", [0, 3, 4, 9])
def test_resumed_equals_uninterrupted(stop: int) -> None:
    split = _numbered_split(23)
    feed = ResidentFeed(split, 5, seed=1)
    _labels_of(feed, stop)
    state = feed.state_dict()
    resumed = ResidentFeed(split, 5, seed=1)
    resumed.load_state_dict(state)
    assert resumed.epoch == feed.epoch and _labels_of(resumed, 9) == _labels_of(feed, 9)


def test_the_order_depends_on_the_seed_alone() -> None:
    split = _numbered_split(23)
    torch.manual_seed(5)
    first = _labels_of(ResidentFeed(split, 5, seed=1), 6)
    torch.manual_seed(6)
    assert _labels_of(ResidentFeed(split, 5, seed=1), 6) == first
    assert _labels_of(ResidentFeed(split, 5, seed=2), 6) != first


def test_another_seed_or_batch_size_cannot_resume() -> None:
    split = _numbered_split(23)
    state = ResidentFeed(split, 5, seed=1).state_dict()
    with pytest.raises(InputError, match="seed 1, this run has 2"):
        ResidentFeed(split, 5, seed=2).load_state_dict(state)
    with pytest.raises(InputError, match="batch_size 5, this run has 4"):
        ResidentFeed(split, 4, seed=1).load_state_dict(state)


@pytest.mark.parametrize(("batch_size", "world", "said"), [(24, 1, "larger"), (9, 2, "shared"), (0, 1, "shared")])
def test_batches_that_cannot_be_are_refused(batch_size: int, world: int, said: str) -> None:
    with pytest.raises(InputError, match=said):
        ResidentFeed(_numbered_split(23), batch_size, seed=0, world=world)


@pytest.mark.parametrize(
    ("cells", "threads"),
    [
        ([{"bytes": b"x" * 2000, "path": None}, {"bytes": b"x" * 6000, "path": None}, None], 1),
        ([{"bytes": b"x" * 2000, "path": None}, {"bytes": b"x" * 9000, "path": None}], 4),
        ([{"bytes": None, "path": "a.png"}], 4),
        ([None], 4),
    ],
)
def test_one_thread_decodes_small_images(cells: list, threads: int) -> None:
    assert decoding_threads(cells, most=4) == threads
