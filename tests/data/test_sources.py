"""Every kind of dataset opens with its columns and names; everything else is refused with what to do."""

from collections.abc import Callable
from pathlib import Path

import datasets
import numpy as np
import pytest

from hf_transinv.data.resident import ResidentSplit
from hf_transinv.data.sources import default_eval_split, open_source, open_unlabelled, split_names
from hf_transinv.errors import InputError
from tests.data.conftest import encode, numbered_pixels

_IMAGES = [encode(numbered_pixels(row)) for row in range(10)]


def _write(path: Path, columns: dict[str, tuple[object, list]]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    features = datasets.Features({name: feature for name, (feature, _) in columns.items()})
    datasets.Dataset.from_dict({name: values for name, (_, values) in columns.items()}, features).to_parquet(path)
    return str(path)


def _images(num_rows: int) -> tuple[object, list]:
    return datasets.Image(), [{"bytes": image, "path": None} for image in _IMAGES[:num_rows]]


def _classes(names: list[str], labels: list[int]) -> tuple[object, list]:
    return datasets.ClassLabel(names=names), labels


def _labels(source: object) -> list[int]:
    return [row["label"] for row in source.rows]


@pytest.mark.parametrize("streaming", [False, True])
def test_a_folder_in_hub_shape(tmp_path: Path, streaming: bool) -> None:
    labels = _classes(["cat", "dog"], [0, 1, 1])
    _write(tmp_path / "data/train-00000-of-00001.parquet", {"img": _images(3), "kind": labels})
    _write(tmp_path / "data/test-00000-of-00001.parquet", {"img": _images(3), "kind": labels})
    source = open_source(str(tmp_path), split="test", streaming=streaming)
    rows = list(source.rows)
    assert source.streaming is streaming and source.label_names == ["cat", "dog"] and len(rows) == 3
    assert rows[1] == {"image": {"bytes": _IMAGES[1], "path": None}, "label": 1}
    assert split_names(str(tmp_path)) == ["train", "test"]
    with pytest.raises(InputError, match=r"'validation'.*train, test"):
        open_source(str(tmp_path), split="validation", streaming=streaming)


def test_parquet_files_are_sorted_into_splits_by_their_names(tmp_path: Path) -> None:
    for split, rows in (("train-0", 2), ("train-1", 3), ("test", 4)):
        _write(
            tmp_path / f"{split}.parquet",
            {"image": _images(rows), "label": _classes(["cat", "dog"], [0] * rows)},
        )
    pattern = str(tmp_path / "*.parquet")
    assert split_names(pattern) == ["train", "test"]
    assert open_source(pattern).num_rows == 5 and open_source(pattern, split="test").num_rows == 4
    assert open_source(str(tmp_path / "train-1.parquet")).num_rows == 3
    with pytest.raises(InputError, match="No parquet file matches"):
        open_source(str(tmp_path / "none.parquet"))


def _image_folder(root: Path, split: str, counts: dict[str, int]) -> None:
    for name, count in counts.items():
        (root / split / name).mkdir(parents=True)
        for row in range(count):
            (root / split / name / f"{row}.png").write_bytes(_IMAGES[row])


@pytest.mark.parametrize("streaming", [False, True])
def test_an_image_folder_with_a_class_called_train_leaks_nothing(tmp_path: Path, streaming: bool) -> None:
    _image_folder(tmp_path, "train", {"boat": 3, "train": 2})
    _image_folder(tmp_path, "test", {"boat": 1, "train": 4})
    train = open_source(str(tmp_path), split="train", streaming=streaming)
    test = open_source(str(tmp_path), split="test", streaming=streaming)
    assert (train.num_rows, test.num_rows) == (5, 5) and split_names(str(tmp_path)) == ["train", "test"]
    assert train.label_names == test.label_names == ["boat", "train"]
    assert _labels(train) == [0, 0, 0, 1, 1] and _labels(test) == [0, 1, 1, 1, 1]


def test_an_image_folder_without_splits_is_train_and_decodes(tmp_path: Path) -> None:
    _image_folder(tmp_path, ".", {"cat": 2, "dog": 1})
    assert split_names(str(tmp_path)) == ["train"]
    split = ResidentSplit.load(open_source(str(tmp_path)), show_progress=False)
    np.testing.assert_array_equal(split.images[1].permute(1, 2, 0).numpy(), numbered_pixels(1))
    assert split.labels.tolist() == [0, 0, 1]


def test_an_image_outside_its_class_folder_is_noticed(tmp_path: Path) -> None:
    _image_folder(tmp_path, ".", {"cat": 2, "dog": 1})
    (tmp_path / "stray.png").write_bytes(_IMAGES[0])
    with pytest.raises(InputError, match=r"stray.png lies outside a class folder, as do 1 of the 4 images"):
        open_source(str(tmp_path))


@pytest.mark.parametrize("streaming", [False, True])
def test_the_embedded_digits(streaming: bool) -> None:
    sizes = {("source", "train"): 723, ("source", "test"): 178, ("target", "train"): 100, ("target", "test"): 796}
    seen = []
    for (half, split), num_rows in sizes.items():
        source = open_source(f"digits/{half}", split=split, streaming=streaming)
        rows = list(source.rows)
        assert source.num_rows == len(rows) == num_rows
        assert source.label_names == (list("01234") if half == "source" else list("56789"))
        counts = np.bincount([row["label"] for row in rows])
        assert len(counts) == 5 and (split != "train" or half == "source" or (counts == 20).all())
        seen += [row["image"]["bytes"] for row in rows]
    assert len(seen) == 1797 == sum(sizes.values())
    assert split_names("digits/target") == ["train", "test"]
    with pytest.raises(InputError, match="'digits/source', 'digits/target'"):
        open_source("digits/both")


def test_the_digits_are_the_original_ones() -> None:
    # The first row of optdigits.tes, a zero, as its 8x8 counts of 0 to 16.
    zero = [
        [0, 0, 5, 13, 9, 1, 0, 0],
        [0, 0, 13, 15, 10, 15, 5, 0],
        [0, 3, 15, 2, 0, 11, 8, 0],
        [0, 4, 12, 0, 0, 8, 8, 0],
    ]
    zero += [
        [0, 5, 8, 0, 0, 9, 8, 0],
        [0, 4, 11, 0, 1, 12, 7, 0],
        [0, 2, 14, 5, 10, 12, 0, 0],
        [0, 0, 6, 13, 10, 0, 0, 0],
    ]
    split = ResidentSplit.load(open_source("digits/source"), show_progress=False)
    assert split.labels[0] == 0
    np.testing.assert_array_equal(split.images[0, 1].numpy(), np.rint(np.array(zero) * 255 / 16))


@pytest.mark.parametrize("dataset", ["parquet", "digits"])
def test_slices_take_their_share(dataset: str, numbered_parquet: Callable) -> None:
    name = numbered_parquet(100) if dataset == "parquet" else "digits/target"
    first, rest = open_source(name, split="train[:90%]"), open_source(name, split="train[90%:]")
    assert (first.num_rows, rest.num_rows) == (90, 10)
    assert _labels(first) + _labels(rest) == _labels(open_source(name))
    with pytest.raises(InputError, match=r"slice.*--streaming"):
        open_source(name, split="train[:90%]", streaming=True)
    with pytest.raises(InputError, match="is empty"):
        open_source(name, split="train[:0]")
    with pytest.raises(InputError, match=r"train\[:x\]"):
        open_source(name, split="train[:x]")


@pytest.mark.parametrize("streaming", [False, True])
def test_an_empty_split_is_refused(write_parquet: Callable, streaming: bool) -> None:
    with pytest.raises(InputError, match="is empty"):
        open_source(write_parquet([], []), streaming=streaming)


def test_the_label_column_must_be_unique_or_named(tmp_path: Path) -> None:
    fine = _classes(["cat", "dog"], [0, 1])
    coarse = _classes(["pet", "wild"], [0, 0])
    path = _write(tmp_path / "train.parquet", {"img": _images(2), "fine_label": fine, "coarse_label": coarse})
    with pytest.raises(InputError, match=r"'fine_label', 'coarse_label'.*--label_column"):
        open_source(path)
    assert open_source(path, label_column="fine_label").label_names == ["cat", "dog"]
    assert open_source(path, label_column="coarse_label").label_names == ["pet", "wild"]
    with pytest.raises(InputError, match=r"no column 'label'.*fine_label.*--label_column"):
        open_source(path, label_column="label")
    with pytest.raises(InputError, match="--label_column"):
        open_source(path, label_column="img")
    path = _write(tmp_path / "both.parquet", {"img": _images(2), "other": coarse, "label": fine})
    assert open_source(path).label_names == ["cat", "dog"]


def test_the_image_column_must_be_unique_or_named(tmp_path: Path) -> None:
    label = _classes(["cat", "dog"], [0, 1])
    path = _write(tmp_path / "train.parquet", {"left": _images(2), "right": _images(2), "label": label})
    with pytest.raises(InputError, match=r"'left', 'right'.*--image_column"):
        open_source(path)
    assert list(open_source(path, image_column="right").rows)[1]["image"]["bytes"] == _IMAGES[1]
    with pytest.raises(InputError, match=r"not images.*--image_column"):
        open_source(path, image_column="label")
    with pytest.raises(InputError, match="no column 'middle'"):
        open_source(path, image_column="middle")


def test_images_as_plain_bytes_or_structs_are_taken(tmp_path: Path) -> None:
    label = _classes(["cat", "dog"], [0, 1])
    binary = _write(tmp_path / "binary.parquet", {"data": (datasets.Value("binary"), _IMAGES[:2]), "label": label})
    assert list(open_source(binary, image_column="data").rows)[1]["image"]["bytes"] == _IMAGES[1]
    struct = {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}
    path = _write(tmp_path / "struct.parquet", {"data": (struct, _images(2)[1]), "label": label})
    assert list(open_source(path).rows)[1]["image"]["bytes"] == _IMAGES[1]


def test_a_dataset_without_images_or_labels_is_refused(tmp_path: Path) -> None:
    text = (datasets.Value("string"), ["x", "y"])
    path = _write(tmp_path / "text.parquet", {"text": text, "label": _classes(["cat", "dog"], [0, 1])})
    with pytest.raises(InputError, match="no image column; its columns are 'text', 'label'"):
        open_source(path)
    path = _write(tmp_path / "unlabelled.parquet", {"image": _images(2), "text": text})
    with pytest.raises(InputError, match="no label column; its columns are 'image', 'text'"):
        open_source(path)


def test_string_labels_are_numbered_in_sorted_order(tmp_path: Path) -> None:
    path = _write(
        tmp_path / "train.parquet", {"image": _images(4), "labels": (datasets.Value("string"), ["d", "a", "d", "b"])}
    )
    source = open_source(path)
    assert source.label_names == ["a", "b", "d"] and _labels(source) == [2, 0, 2, 1]
    assert _labels(open_source(path, label_names=["d", "b", "a"])) == [0, 2, 0, 1]
    with pytest.raises(InputError, match=r"'b'.*not among"):
        open_source(path, label_names=["a", "d"])
    stream = open_source(path, streaming=True)
    assert stream.label_names == ["a", "b", "d"] and _labels(stream) == [2, 0, 2, 1]


def test_integer_labels_are_named_by_their_numbers(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.parquet", {"image": _images(3), "target": (datasets.Value("int32"), [20, 3, 20])})
    for streaming in (False, True):
        source = open_source(path, streaming=streaming)
        assert source.label_names == ["3", "20"] and _labels(source) == [1, 0, 1]
    path = _write(tmp_path / "c.parquet", {"image": _images(3), "target": (datasets.Value("int32"), [2, 0, 2])})
    for streaming in (False, True):  # numbers beside a split that names its numbers
        source = open_source(path, label_names=["x", "y", "z"], streaming=streaming)
        assert source.label_names == ["x", "y", "z"] and _labels(source) == [2, 0, 2]
    path = _write(tmp_path / "b.parquet", {"image": _images(2), "label": (datasets.Value("int64"), [0, 10**9])})
    with pytest.raises(InputError, match="no class number"):
        open_source(path)


@pytest.mark.parametrize("streaming", [False, True])
def test_classes_of_another_split_are_matched_by_their_exact_names(write_parquet: Callable, streaming: bool) -> None:
    path = write_parquet(_IMAGES[:3], [0, 1, 1])
    source = open_source(path, label_names=["dog", "bird", "cat"], streaming=streaming)
    assert source.label_names == ["dog", "bird", "cat"] and _labels(source) == [2, 0, 0]
    with pytest.raises(InputError, match=r"'cat'.*not among the classes 'Cat', 'dog'.*nearest to 'cat' is 'Cat'"):
        _labels(open_source(path, label_names=["Cat", "dog"], streaming=streaming))


@pytest.mark.parametrize("names", [["cat"], []])
def test_fewer_than_two_classes_are_refused(tmp_path: Path, names: list[str]) -> None:
    labels = _classes(names, [0, 0]) if names else (datasets.Value("int64"), [0, 0])
    path = _write(tmp_path / "train.parquet", {"image": _images(2), "label": labels})
    with pytest.raises(InputError, match="Expected at least two"):
        open_source(path)


def test_an_image_folder_of_one_class_is_refused(tmp_path: Path) -> None:
    _image_folder(tmp_path, "train", {"cat": 2})
    with pytest.raises(InputError, match="Expected at least two"):
        open_source(str(tmp_path))


def test_datasets_that_are_not_there_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="There is no folder"):
        open_source(str(tmp_path / "none"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="cannot be opened"):
        open_source(str(tmp_path / "empty"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    for act in (lambda: open_source("nobody/nothing"), lambda: split_names("nobody/nothing")):
        with pytest.raises(InputError, match=r"'nobody/nothing'.*cannot be opened"):
            act()


def test_a_file_that_is_no_parquet_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "train.parquet"
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(InputError, match="cannot be opened"):
        open_source(str(path))


def test_the_split_to_evaluate_on() -> None:
    assert default_eval_split(["train", "validation", "test"]) == "test"
    assert default_eval_split(["train", "validation"]) == "validation"
    assert default_eval_split(["train", "val"]) == "val"
    with pytest.raises(InputError, match=r"train, extra.*--eval_split"):
        default_eval_split(["train", "extra"])


def _first_pixels(source: object) -> list[int]:
    """The numbers of the images, see `numbered_pixels`."""
    return ResidentSplit.load(source, show_progress=False).images[:, 0, 0, 0].tolist()


def test_unlabelled_parquet_opens_for_its_images(tmp_path: Path) -> None:
    path = _write(tmp_path / "pictures.parquet", {"photo": _images(4), "taken": (datasets.Value("string"), ["x"] * 4)})
    source = open_unlabelled(path)
    assert (source.split, source.num_rows) == ("train", 4)
    assert _first_pixels(source) == [0, 1, 2, 3]
    assert open_unlabelled(path, split="train[1:3]").num_rows == 2
    with pytest.raises(InputError, match="no label column"):
        open_source(path)


def test_unlabelled_folder_of_loose_images_opens(tmp_path: Path) -> None:
    for row in (2, 0, 1):
        (tmp_path / f"{row}.png").write_bytes(_IMAGES[row])
    assert _first_pixels(open_unlabelled(str(tmp_path))) == [0, 1, 2]
    (tmp_path / "empty").mkdir()
    assert _first_pixels(open_unlabelled(str(tmp_path))) == [0, 1, 2]


def test_unlabelled_takes_the_evaluation_split_and_ignores_broken_labels(tmp_path: Path) -> None:
    for split, rows in (("train", 3), ("test", 2)):
        columns = {"image": _images(rows), "label": _classes(["cat", "dog"], [-1] * rows)}
        _write(tmp_path / f"data/{split}-00000-of-00001.parquet", columns)
    source = open_unlabelled(str(tmp_path))
    assert (source.split, source.num_rows) == ("test", 2)
    assert _labels(source) == [0, 0]
    for row in (0, 1):
        (tmp_path / "folders/dog").mkdir(parents=True, exist_ok=True)
        (tmp_path / f"folders/dog/{row}.png").write_bytes(_IMAGES[row])
    assert _first_pixels(open_unlabelled(str(tmp_path / "folders"))) == [0, 1]
