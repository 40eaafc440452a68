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


@pytest.mark.parametrize("folds", [2, 3, 5, 10])
def test_the_folds_of_a_share_hold_out_each_image_once(folds: int) -> None:
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(5), (100, 37, 10, 3, 2)))
    held = [HoldOut(1 / folds, "held_out", fold).rows(labels) for fold in range(folds)]
    assert sorted(np.concatenate(held)) == list(range(len(labels)))
    for fold, rows in enumerate(held):
        rest = HoldOut(1 / folds, "train", fold).rows(labels)
        assert sorted([*rest, *rows]) == list(range(len(labels)))
        assert set(labels[rest]) == set(range(5))
        for label, size in enumerate((100, 37, 10, 3, 2)):
            assert abs(int((labels[rows] == label).sum()) - size / folds) <= 1


def test_a_class_of_one_image_stays_in_training() -> None:
    labels = np.array([0, 1, 1, 2, 2, 2])
    assert labels[HoldOut(0.5, "train").rows(labels)].tolist().count(0) == 1
    assert all(0 not in labels[HoldOut(0.5, "held_out", fold).rows(labels)] for fold in (0, 1))


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, 2.0])
def test_other_shares_are_refused(share: float) -> None:
    with pytest.raises(InputError, match=r"in \(0, 1\)"):
        HoldOut(share, "train")


@pytest.mark.parametrize(("share", "fold", "last"), [(0.2, 5, 4), (0.2, -1, 4), (0.3, 3, 2), (0.9, 1, 0)])
def test_folds_that_a_share_does_not_have_are_refused(share: float, fold: int, last: int) -> None:
    with pytest.raises(InputError, match=f"validation_fold {fold}: expected 0 to {last}"):
        HoldOut(share, "train", fold)


def test_both_parts_of_a_split(tmp_path: Path) -> None:
    write_encoded(tmp_path / "train.parquet", ["a"] * 6 + ["b"] * 4, ["a", "b"])
    opened = open_dataset(str(tmp_path))
    rest, held = (opened.source("train", hold_out=HoldOut(0.25, part)) for part in ("train", "held_out"))
    assert rest.class_counts.tolist() == [4, 3] and held.class_counts.tolist() == [2, 1]
    seen = [row["image"]["bytes"] for source in (rest, held) for row in source.rows]
    assert len(set(seen)) == 10
    assert (rest.split, held.split) == ("train without 0.25 of every class", "train, 0.25 of every class held out")
    third = opened.source("train", hold_out=HoldOut(0.25, "held_out", 2))
    assert third.split == "train, 0.25 of every class (fold 2) held out"
    with pytest.raises(InputError, match="--streaming"):
        opened.source("train", hold_out=HoldOut(0.25, "train"), streaming=True)


def test_nothing_to_hold_out_is_refused(tmp_path: Path) -> None:
    write_encoded(tmp_path / "train.parquet", ["a", "b"], ["a", "b"])
    with pytest.raises(InputError, match="one image in each class, and none to hold out"):
        open_dataset(str(tmp_path)).source("train", hold_out=HoldOut(0.5, "held_out"))
    write_encoded(tmp_path / "train.parquet", ["a"] * 2 + ["b"] * 2, ["a", "b"])
    with pytest.raises(InputError, match="too few images in each class for fold 2, and none to hold out"):
        open_dataset(str(tmp_path)).source("train", hold_out=HoldOut(0.25, "held_out", 2))
