"""A class is what a table says, in whatever type and under whatever reader: the same names, the same numbers."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hf_transinv.data.classes import Classes, look_alikes
from hf_transinv.data.resident import ResidentSplit
from hf_transinv.data.sources import open_dataset, open_source
from hf_transinv.errors import InputError
from tests.data.conftest import encode, numbered_pixels, write_encoded

_IMAGES = [encode(numbered_pixels(row)) for row in range(6)]
_TEXT = ["b", "a", "b", "c", "a", "c"]
_NUMBERS = [20, 10, 20, 30, 10, 30]
_PLACES = [1, 0, 1, 2, 0, 2]
# Type of the column -> its values, and the names of the classes in their order.
_COLUMNS: dict[str, tuple[Any, list[str]]] = {
    "string": (pa.array(_TEXT, pa.string()), ["a", "b", "c"]),
    "large_string": (pa.array(_TEXT, pa.large_string()), ["a", "b", "c"]),
    "string_view": (pa.array(_TEXT, pa.string_view()), ["a", "b", "c"]),
    "dictionary": (pa.array(_TEXT).dictionary_encode(), ["a", "b", "c"]),
    "bool": (pa.array([value == "b" for value in _TEXT]), ["False", "True"]),
    "int8": (pa.array(_NUMBERS, pa.int8()), ["10", "20", "30"]),
    "uint16": (pa.array(_NUMBERS, pa.uint16()), ["10", "20", "30"]),
    "int64": (pa.array(_NUMBERS, pa.int64()), ["10", "20", "30"]),
    "float32": (pa.array(_NUMBERS, pa.float32()), ["10", "20", "30"]),
    "float64": (pa.array(_NUMBERS, pa.float64()), ["10", "20", "30"]),
    "years": (pa.array([2021, 2019, 2021, 2100, 2019, 2100]), ["2019", "2021", "2100"]),
    "signs": (pa.array([1, -1, 1, 1, -1, 1]), ["-1", "1"]),
}


def _expected(kind: str) -> list[int]:
    if kind in ("bool", "signs"):
        return [1, 0, 1, 0, 0, 0] if kind == "bool" else [1, 0, 1, 1, 0, 1]
    return _PLACES


def _labels(source: Any) -> list[int]:
    return [row["label"] for row in source.rows]


def _image_column() -> pa.Array:
    return pa.array([{"bytes": image, "path": None} for image in _IMAGES])


def test_names_that_look_alike() -> None:
    assert look_alikes(["Cat", "cat", "ca t", "dog", "-1", "1", "01"]) == [("Cat", "cat"), ("Cat", "ca t")]


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("kind", _COLUMNS)
def test_parquet(tmp_path: Path, kind: str, streaming: bool) -> None:
    values, names = _COLUMNS[kind]
    try:
        values.nbytes  # noqa: B018 (which `datasets` asks for when it keeps a table)
    except pa.ArrowTypeError as error:
        pytest.skip(f"pyarrow {pa.__version__}: {error}")
    pq.write_table(pa.table({"image": _image_column(), "label": values}), tmp_path / "train.parquet", row_group_size=2)
    for dataset in (tmp_path, tmp_path / "train.parquet", tmp_path / "*.parquet"):
        source = open_source(str(dataset), streaming=streaming)
        assert source.label_names == names and _labels(source) == _expected(kind)
        assert source.class_counts.tolist() == np.bincount(_expected(kind)).tolist()


def _save_images(folder: Path) -> None:
    folder.mkdir(parents=True)
    for row, image in enumerate(_IMAGES):
        (folder / f"{row}.png").write_bytes(image)


def _as_csv(folder: Path, labels: list[Any], **options: Any) -> None:
    _save_images(folder / "train")
    separator, name = options.get("separator", ","), options.get("name", "metadata.csv")
    rows = [f"file_name{separator}label", *(f"{row}.png{separator}{label}" for row, label in enumerate(labels))]
    (folder / "train" / name).write_text("\n".join(rows) + "\n", encoding=options.get("encoding", "utf-8"))


def _as_lines(folder: Path, labels: list[Any]) -> None:
    _save_images(folder / "images")
    lines = [json.dumps({"image": f"images/{row}.png", "label": label}) for row, label in enumerate(labels)]
    (folder / "train.jsonl").write_text("\n".join(lines))


def _as_list(folder: Path, labels: list[Any]) -> None:
    _save_images(folder / "images")
    rows = [{"image": f"images/{row}.png", "label": label} for row, label in enumerate(labels)]
    (folder / "train.json").write_text(json.dumps(rows))


def _as_saved(folder: Path, labels: list[Any]) -> None:
    features = {"image": [{"bytes": image, "path": None} for image in _IMAGES], "label": labels}
    rows = datasets.Dataset.from_dict(features).cast_column("image", datasets.Image())
    datasets.DatasetDict({"train": rows}).save_to_disk(folder)


def _as_one_saved(folder: Path, labels: list[Any]) -> None:
    features = {"image": [{"bytes": image, "path": None} for image in _IMAGES], "label": labels}
    datasets.Dataset.from_dict(features).cast_column("image", datasets.Image()).save_to_disk(folder)


def _as_class_folders(folder: Path, labels: list[Any]) -> None:
    for row, label in enumerate(labels):
        (folder / str(label)).mkdir(parents=True, exist_ok=True)
        (folder / str(label) / f"{row}.png").write_bytes(_IMAGES[row])


_READERS: dict[str, Callable[[Path, list[Any]], None]] = {
    "metadata.csv": _as_csv,
    "semicolons": lambda folder, labels: _as_csv(folder, labels, separator=";"),
    "tabs": lambda folder, labels: _as_csv(folder, labels, separator="\t", name="table.tsv"),
    "byte order mark": lambda folder, labels: _as_csv(folder, labels, encoding="utf-8-sig"),
    "JSON lines": _as_lines,
    "JSON": _as_list,
    "save_to_disk": _as_saved,
    "save_to_disk of one split": _as_one_saved,
}


@pytest.mark.parametrize("reader", _READERS)
@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (_TEXT, ["a", "b", "c"]),
        (_NUMBERS, ["10", "20", "30"]),
        ([20.0, 10.0, 20.0, 30.0, 10.0, 30.0], ["10", "20", "30"]),
        (["NA", "FR", "NA", "US", "FR", "US"], ["FR", "NA", "US"]),
    ],
    ids=["text", "numbers", "floats", "NA"],
)
def test_tables(tmp_path: Path, reader: str, labels: list[Any], names: list[str]) -> None:
    _READERS[reader](tmp_path / "data", labels)
    for streaming in (False, True):
        source = open_source(str(tmp_path / "data"), streaming=streaming)
        assert source.label_names == names and _labels(source) == _PLACES
        assert source.columns[1] == "label"
    split = ResidentSplit.load(open_source(str(tmp_path / "data")), show_progress=False)
    assert split.images[:, 0, 0, 0].tolist() == list(range(6))


def test_class_folders(tmp_path: Path) -> None:
    _as_class_folders(tmp_path, _TEXT)
    source = open_source(str(tmp_path))
    assert source.label_names == ["a", "b", "c"] and _labels(source) == [0, 0, 1, 1, 2, 2]


def test_zeros_in_front_make_another_name(tmp_path: Path) -> None:
    _as_csv(tmp_path, ["01", "1", "01", "02", "1", "02"])
    source = open_source(str(tmp_path))
    assert source.label_names == ["01", "02", "1"] and _labels(source) == [0, 2, 0, 1, 2, 1]


def test_a_missing_number_is_a_missing_label(tmp_path: Path) -> None:
    _as_csv(tmp_path, ["20.0", "10.0", "", "30.0", "10.0", "30.0"])
    source = open_source(str(tmp_path))
    assert source.label_names == ["10", "20", "30"] and _labels(source) == [1, 0, None, 2, 0, 2]
    with pytest.raises(InputError, match=r"Row 2 \(.*2\.png\).*label is missing"):
        ResidentSplit.load(source, show_progress=False)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (["a", "", "b"] * 2, r"the label '': a class without a name, or a missing label"),
        (["a", " ", "b"] * 2, r"the label ' '"),
        ([0.5, 1.0, 2.0] * 2, r"such as 0\.5, which is no class"),
        ([0, 10**6, 1] * 2, r"go up to 1000000, which is no class number"),
        ([["a", "b"], ["a"], ["b"]] * 2, r"'label' of .* Expected one class per image"),
    ],
    ids=["empty", "blank", "fractions", "identifiers", "several labels"],
)
def test_values_that_are_no_classes_are_refused(tmp_path: Path, labels: list, said: str, streaming: bool) -> None:
    pq.write_table(pa.table({"image": _image_column(), "label": labels}), tmp_path / "train.parquet")
    with pytest.raises(InputError, match=said):
        open_source(str(tmp_path), label_column="label", streaming=streaming)


def test_several_labels_per_image_are_called_that_without_a_named_column(tmp_path: Path) -> None:
    labels = [["a", "b"], ["a"], ["b"]] * 2
    pq.write_table(pa.table({"image": _image_column(), "label": labels}), tmp_path / "train.parquet")
    with pytest.raises(InputError, match=r"Column 'label' of .* holds List.*Expected one class per image"):
        open_source(str(tmp_path))


def test_a_hidden_label_is_named_by_its_row(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": _image_column(), "label": [0, 1, 0, -1, 1, 0]}), tmp_path / "train.parquet")
    source = open_source(str(tmp_path))
    assert source.label_names == ["0", "1"] and source.class_counts.tolist() == [3, 2]
    with pytest.raises(InputError, match=r"Row 3 of .*the label is -1"):
        ResidentSplit.load(source, show_progress=False)


# Which column


def _write(path: Path, **columns: tuple[Any, list]) -> str:
    features = datasets.Features({"image": datasets.Image()} | {name: kind for name, (kind, _) in columns.items()})
    values = {"image": [{"bytes": image, "path": None} for image in _IMAGES]}
    values |= {name: column for name, (_, column) in columns.items()}
    datasets.Dataset.from_dict(values, features).to_parquet(path)
    return str(path)


_HOSPITAL = (datasets.ClassLabel(names=["north", "south"]), [0, 1] * 3)


@pytest.mark.parametrize("plain", [(datasets.Value("string"), _TEXT), (datasets.Value("int64"), _NUMBERS)])
@pytest.mark.parametrize("name", ["label", "labels", "target", "class", "category"])
def test_a_plain_label_beside_another_class_label_is_asked_for(tmp_path: Path, plain: tuple, name: str) -> None:
    path = _write(tmp_path / "train.parquet", **{name: plain, "hospital": _HOSPITAL})
    with pytest.raises(InputError, match=rf"'{name}' beside 'hospital'.*--label_column"):
        open_source(path)
    assert _labels(open_source(path, label_column=name)) == _PLACES
    assert open_source(path, label_column="hospital").label_names == ["north", "south"]


def test_a_class_label_called_label_is_the_label(tmp_path: Path) -> None:
    label = (datasets.ClassLabel(names=["x", "y", "z"]), _PLACES)
    path = _write(
        tmp_path / "train.parquet", label=label, hospital=_HOSPITAL, target=(datasets.Value("string"), _TEXT)
    )
    assert open_source(path).label_names == ["x", "y", "z"]


@pytest.mark.parametrize("streaming", [False, True])
def test_an_image_struct_beside_a_mask_is_asked_for(tmp_path: Path, streaming: bool) -> None:
    black = io.BytesIO(encode(np.zeros((6, 6, 3), np.uint8))).getvalue()
    struct = {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}
    features = datasets.Features({"image": struct, "mask": datasets.Image(), "label": datasets.Value("string")})
    cells = [{"bytes": image, "path": None} for image in _IMAGES]
    rows = {"image": cells, "mask": [{"bytes": black, "path": None}] * 6, "label": _TEXT}
    datasets.Dataset.from_dict(rows, features).to_parquet(tmp_path / "train.parquet")
    with pytest.raises(InputError, match=r"'image' \(encoded files\) beside 'mask'.*--image_column"):
        open_source(str(tmp_path), streaming=streaming)
    source = open_source(str(tmp_path), image_column="image", streaming=streaming)
    assert [row["image"]["bytes"] for row in source.rows] == _IMAGES


# Classes of two splits


def _save(path: Path, splits: dict[str, tuple[list[str], list[str] | None]]) -> None:
    saved = {}
    for split, (labels, names) in splits.items():
        write_encoded(path / f"{split}.parquet", labels, names)
        saved[split] = datasets.Dataset.from_parquet(str(path / f"{split}.parquet"))
        (path / f"{split}.parquet").unlink()
    datasets.DatasetDict(saved).save_to_disk(path)


def _write_splits(path: Path, shape: str, splits: dict[str, tuple[list[str], list[str] | None]]) -> str:
    if shape == "saved":
        _save(path, splits)
        return str(path)
    if shape == "arrow":
        _save(path / "saved", splits)
        for split in splits:
            next((path / "saved" / split).glob("*.arrow")).rename(path / f"{split}.arrow")
            for left in (path / "saved" / split).iterdir():
                left.unlink()
            (path / "saved" / split).rmdir()
        (path / "saved" / "dataset_dict.json").unlink()
        (path / "saved").rmdir()
        return str(path)
    for split, (labels, names) in splits.items():
        write_encoded(path / "data" / f"{split}-00000-of-00001.parquet", labels, names)
    if shape == "described":
        (path / "README.md").write_text(
            "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: data/train-*\n"
            "  - split: test\n    path: data/test-*\n---\n"
        )
    return str(path / "data" / "*.parquet") if shape == "glob" else str(path)


_SHAPES = ("folder", "glob", "described", "saved", "arrow")
_OF_TRAIN = (["a", "b", "c", "a"], ["a", "b", "c"])


@pytest.mark.parametrize(
    ("shape", "test"),
    [
        *((shape, (["b", "c", "b"], ["b", "c"])) for shape in _SHAPES),
        *((shape, (["b", "c", "b"], ["c", "b", "a"])) for shape in _SHAPES),
        *((shape, (["b", "c", "b"], None)) for shape in ("folder", "glob", "saved", "arrow")),
    ],
)
def test_each_split_is_numbered_by_what_its_own_file_says(tmp_path: Path, shape: str, test: tuple) -> None:
    opened = open_dataset(_write_splits(tmp_path, shape, {"train": _OF_TRAIN, "test": test}))
    for streaming in (False, True):
        train = opened.source("train", streaming=streaming)
        assert train.label_names == ["a", "b", "c"] and _labels(train) == [0, 1, 2, 0]
        assert _labels(opened.source("test", classes=train.classes)) == [1, 2, 1]


@pytest.mark.parametrize("shape", _SHAPES)
@pytest.mark.parametrize("other", ["B", "b ", "b-", "ｂ", "d"])
def test_another_spelling_is_another_class_and_refused(tmp_path: Path, shape: str, other: str) -> None:
    test = ([other, "c", other], [other, "c"])
    opened = open_dataset(_write_splits(tmp_path, shape, {"train": _OF_TRAIN, "test": test}))
    train = opened.source("train")
    near = "" if other == "d" else f".*nearest to {other!r} is 'b'"
    with pytest.raises(InputError, match=rf"has labels {other!r}, which are not among.*'a', 'b', 'c'{near}"):
        opened.source("test", classes=train.classes)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_files_of_one_split_with_numbers_of_their_own(tmp_path: Path, kind: str, streaming: bool) -> None:
    for number, (labels, names) in enumerate(((["a", "b", "a"], ["a", "b"]), (["b", "c", "c"], ["b", "c"]))):
        path = tmp_path / f"train-0000{number}.parquet"
        write_encoded(path, labels, names)
        if kind == "arrow":
            datasets.Dataset.from_parquet(str(path)).save_to_disk(tmp_path / "saved")
            next((tmp_path / "saved").glob("*.arrow")).rename(path.with_suffix(".arrow"))
            path.unlink()
    for left in (tmp_path / "saved").glob("*.json"):
        left.unlink()
    source = open_source(str(tmp_path), streaming=streaming)
    assert source.label_names == ["a", "b", "c"] and sorted(_labels(source)) == [0, 0, 1, 1, 2, 2]
    assert source.class_counts.tolist() == [2, 2, 2]


def test_numbers_beside_names_are_places_and_checked(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pq.write_table(pa.table({"image": _image_column(), "label": [0, 2, 1, 0, 2, 1]}), tmp_path / "test.parquet")
    opened = open_dataset(str(tmp_path))
    named = Classes(["x", "y", "z"], are_numbered=True)
    assert _labels(opened.source("test", classes=named)) == [0, 2, 1, 0, 2, 1]
    assert "numbers its classes and does not name them: the order of the training split is taken" in caplog.text
    with pytest.raises(InputError, match="which are not among the classes"):  # of text: 0 is none of them
        opened.source("test", classes=Classes(["x", "y", "z"], are_numbered=False))
    short = opened.source("test", classes=Classes(["x", "y"], are_numbered=True))
    with pytest.raises(InputError, match=r"Row 1 of .*the label is 2"):
        ResidentSplit.load(short, show_progress=False)
