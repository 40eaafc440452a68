"""A held-out share has the same share of every class, the same rows in every run, and no row twice."""

from pathlib import Path

import numpy as np
import pytest

from hf_transinv.data.hold_out import HoldOut
from hf_transinv.data.sources import open_dataset
from hf_transinv.errors import InputError
from tests.data.conftest import write_encoded


@pytest.mark.parametrize("share", [0.05, 0.1, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("is_sorted", [True, False])
def test_the_share_of_every_class_is_held_out(share: float, is_sorted: bool) -> None:
    labels = np.repeat(np.arange(4), (100, 37, 10, 3))
    labels = labels if is_sorted else np.random.default_rng(0).permutation(labels)
    rest, held = HoldOut(share, "train").rows(labels), HoldOut(share, "held_out").rows(labels)
    assert sorted([*rest, *held]) == list(range(len(labels)))
    for label, size in enumerate((100, 37, 10, 3)):
        count = int((labels[held] == label).sum())
        assert count == min(max(1, round(share * size)), size - 1)
    assert (HoldOut(share, "held_out").rows(labels) == held).all()


def test_a_class_of_one_image_stays_in_training() -> None:
    labels = np.array([0, 1, 1, 2, 2, 2])
    assert labels[HoldOut(0.5, "train").rows(labels)].tolist().count(0) == 1
    assert 0 not in labels[HoldOut(0.5, "held_out").rows(labels)]


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, 2.0])
def test_other_shares_are_refused(share: float) -> None:
    with pytest.raises(InputError, match=r"in \(0, 1\)"):
        HoldOut(share, "train")


def test_both_parts_of_a_split(tmp_path: Path) -> None:
    write_encoded(tmp_path / "train.parquet", ["a"] * 6 + ["b"] * 4, ["a", "b"])
    opened = open_dataset(str(tmp_path))
    rest, held = (opened.source("train", hold_out=HoldOut(0.25, part)) for part in ("train", "held_out"))
    assert rest.class_counts.tolist() == [4, 3] and held.class_counts.tolist() == [2, 1]
    seen = [row["image"]["bytes"] for source in (rest, held) for row in source.rows]
    assert len(set(seen)) == 10
    assert (rest.split, held.split) == ("train without 0.25 of every class", "train, 0.25 of every class held out")
    with pytest.raises(InputError, match="--streaming"):
        opened.source("train", hold_out=HoldOut(0.25, "train"), streaming=True)


def test_nothing_to_hold_out_is_refused(tmp_path: Path) -> None:
    write_encoded(tmp_path / "train.parquet", ["a", "b"], ["a", "b"])
    with pytest.raises(InputError, match="one image in each class, and none to hold out"):
        open_dataset(str(tmp_path)).source("train", hold_out=HoldOut(0.5, "held_out"))
