"""Tables that name images by their paths: every form opens, URLs and riddles are refused with the reason."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hf_transinv.data.resident import ResidentSplit
from hf_transinv.data.sources import open_dataset, open_source, open_unlabelled
from hf_transinv.errors import InputError
from tests.data.conftest import encode, numbered_pixels

_LABELS = ["b", "a", "b", "c"]


def _images(folder: Path, count: int = 4) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"img_{row}.png" for row in range(count)]
    for row, path in enumerate(paths):
        path.write_bytes(encode(numbered_pixels(row)))
    return paths


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix in (".csv", ".tsv"):
        separator = "," if path.suffix == ".csv" else "\t"
        lines = [separator.join(rows[0]), *(separator.join(map(str, row.values())) for row in rows)]
        path.write_text("\n".join(lines) + "\n")
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    else:
        path.write_text("\n".join(map(json.dumps, rows)))


def _numbers(source: Any) -> list[int]:
    return ResidentSplit.load(source, show_progress=False).images[:, 0, 0, 0].tolist()


_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet")


@pytest.mark.parametrize("suffix", _SUFFIXES)
@pytest.mark.parametrize("column", ["image", "file_name", "path", "anything"])
@pytest.mark.parametrize("paths", ["relative", "absolute", "backslashes"])
def test_paths_of_every_kind(tmp_path: Path, suffix: str, column: str, paths: str) -> None:
    files = _images(tmp_path / "images")
    told = {
        "relative": [f"images/{file.name}" for file in files],
        "absolute": [str(file) for file in files],
        "backslashes": [f"images\\{file.name}" for file in files],
    }[paths]
    table = tmp_path / f"train{suffix}"
    _write(table, [{column: path, "label": label} for path, label in zip(told, _LABELS, strict=True)])
    for dataset in (tmp_path, table):
        for streaming in (False, True):
            source = open_source(str(dataset), streaming=streaming)
            assert source.label_names == ["a", "b", "c"] and source.columns == (column, "label")
            assert [row["label"] for row in source.rows] == [1, 0, 1, 2]
        assert _numbers(open_source(str(dataset), image_column=column)) == [0, 1, 2, 3]


@pytest.mark.parametrize("suffix", _SUFFIXES)
@pytest.mark.parametrize("whole", [True, False])
def test_names_of_files_wherever_they_lie(tmp_path: Path, suffix: str, whole: bool) -> None:
    files = [*_images(tmp_path / "part_1", 2), tmp_path / "part_2/img_2.png", tmp_path / "part_2/img_3.png"]
    _images(tmp_path / "part_2")
    for file in ("img_0", "img_1"):
        (tmp_path / f"part_2/{file}.png").unlink()
    names = [file.name if whole else file.stem for file in files]
    table = tmp_path / f"labels{suffix}"
    _write(table, [{"id": name, "breed": label} for name, label in zip(names, _LABELS, strict=True)])
    source = open_source(str(table), label_column="breed")
    assert source.label_names == ["a", "b", "c"] and _numbers(source) == [0, 1, 2, 3]
    told = open_dataset(str(table)).opened.told
    kind = "file names" if whole else "names without suffix"
    assert f"'id' holds {kind} of images below {tmp_path}" in told


def test_splits_by_the_names_of_tables(tmp_path: Path) -> None:
    _images(tmp_path / "images")
    for split, rows in (("train", 4), ("val", 2)):
        _write(
            tmp_path / f"my_{split}.csv",
            [{"image": f"images/img_{row}.png", "label": _LABELS[row]} for row in range(rows)],
        )
    _write(tmp_path / "test.csv", [{"image": f"images/img_{row}.png"} for row in range(3)])
    _write(tmp_path / "classes.csv", [{"label": "a", "meaning": "apple"}])
    opened = open_dataset(str(tmp_path))
    assert opened.split_names == ["train", "val"]
    assert [opened.source(split).num_rows for split in opened.split_names] == [4, 2]
    told = "\n".join(opened.opened.told)
    assert "test.csv has no label column: split 'test' is no split to use" in told and "not read: 2 .csv" in told
    assert open_unlabelled(str(tmp_path), split="val").num_rows == 2


@pytest.mark.parametrize("column", ["split", "set", "data set", "Subset"])
def test_splits_by_a_column(tmp_path: Path, column: str) -> None:
    _images(tmp_path)
    splits = ["train", "train", "test", "train"]
    rows = [{"file": f"img_{row}.png", "label": _LABELS[row], column: splits[row]} for row in range(4)]
    _write(tmp_path / "all.csv", rows)
    opened = open_dataset(str(tmp_path))
    classes = opened.source("train").classes
    assert opened.split_names == ["train", "test"] and _numbers(opened.source("test", classes=classes)) == [2]
    assert f"splits by the column {column!r}" in opened.opened.told


def test_one_metadata_for_both_splits(tmp_path: Path) -> None:
    for split in ("train", "test"):
        _images(tmp_path / split)
    rows = [
        {"file_name": f"{split}/img_{row}.png", "label": _LABELS[row]}
        for split in ("train", "test")
        for row in range(4)
    ]
    _write(tmp_path / "metadata.csv", rows)
    opened = open_dataset(str(tmp_path))
    assert opened.split_names == ["train", "test"]
    assert [opened.source(split).class_counts.tolist() for split in opened.split_names] == [[1, 2, 1]] * 2


def test_images_that_no_table_names_are_counted(tmp_path: Path) -> None:
    for split in ("train", "test"):
        _images(tmp_path / split)
        _write(tmp_path / split / "metadata.csv", [{"file_name": f"img_{n}.png", "label": _LABELS[n]} for n in (0, 1)])
    opened = open_dataset(str(tmp_path))
    assert opened.source("train").num_rows == 2 and "not read: 4 .png" in opened.opened.told


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    _images(tmp_path)
    rows = [{"image": f"img_{row}.png", "label": "ab"[row % 2]} for row in range(6)]
    _write(tmp_path / "train.csv", rows)
    with pytest.raises(InputError, match=r"Row 4 \(.*img_4\.png\).*cannot be read"):
        ResidentSplit.load(open_source(str(tmp_path)), show_progress=False)


@pytest.mark.parametrize("suffix", _SUFFIXES)
@pytest.mark.parametrize("dataset", ["folder", "file"])
def test_addresses_are_refused_with_the_reason(tmp_path: Path, suffix: str, dataset: str) -> None:
    rows = [{"image": f"https://example.org/{row}.jpg", "label": "ab"[row]} for row in range(2)]
    _write(tmp_path / f"train{suffix}", rows)
    with pytest.raises(InputError, match=r"addresses in its column 'image'.*Download the images"):
        open_source(str(tmp_path if dataset == "folder" else tmp_path / f"train{suffix}"))


@pytest.mark.parametrize("suffix", _SUFFIXES)
def test_paths_that_lead_nowhere_are_refused(tmp_path: Path, suffix: str) -> None:
    _write(tmp_path / f"train{suffix}", [{"image": f"gone/{row}.png", "label": "ab"[row]} for row in range(2)])
    with pytest.raises(InputError, match=r"no image column.*image: 'gone/0\.png'.*--image_column") as error:
        open_source(str(tmp_path / f"train{suffix}"))
    assert str(tmp_path) in str(error.value)


def test_class_folders_beside_a_table_of_the_same_images_are_asked_for(tmp_path: Path) -> None:
    files = [*_images(tmp_path / "part_1", 2), *_images(tmp_path / "part_2", 3)[2:]]
    for row in (0, 1):
        (tmp_path / f"part_2/img_{row}.png").unlink()
    _write(tmp_path / "labels.csv", [{"id": file.stem, "dx": "ab"[row % 2]} for row, file in enumerate(files)])
    with pytest.raises(InputError, match=r"in folders \('part_1', 'part_2'\) and the table .*labels\.csv.*not clear"):
        open_source(str(tmp_path))
    assert open_source(str(tmp_path / "labels.csv"), label_column="dx").label_names == ["a", "b"]


@pytest.mark.parametrize("sidecar", [".json", ".csv"])
def test_a_file_beside_each_image_is_no_table(tmp_path: Path, sidecar: str) -> None:
    for name in "ab":
        for file in _images(tmp_path / name):
            file.with_suffix(sidecar).write_text('{"image": "img_0.png", "label": "x"}')
    source = open_source(str(tmp_path))
    assert source.label_names == ["a", "b"] and source.num_rows == 8


def test_two_columns_of_paths_are_asked_for(tmp_path: Path) -> None:
    _images(tmp_path)
    _write(
        tmp_path / "train.csv", [{"image": f"img_{n}.png", "mask": f"img_{3 - n}.png", "label": n} for n in range(4)]
    )
    with pytest.raises(InputError, match=r"several columns that name images: 'image', 'mask'"):
        open_source(str(tmp_path))
    assert _numbers(open_source(str(tmp_path), image_column="mask")) == [3, 2, 1, 0]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"image,label\nimg_0.png,caf\xe9\n", "save it again in UTF-8"),
        (b"image,label\nimg_0.png\n", "cannot be read"),
        (b"image,image\nimg_0.png,a\n", "there are two columns 'image'"),
        (b"image,label\n", "has no rows"),
    ],
)
def test_a_table_that_cannot_be_read_is_named(tmp_path: Path, content: bytes, said: str) -> None:
    _images(tmp_path)
    (tmp_path / "train.csv").write_bytes(content)
    with pytest.raises(InputError, match=rf"train\.csv.*{said}"):
        open_source(str(tmp_path / "train.csv"))


def test_a_column_that_is_not_there_is_refused(tmp_path: Path) -> None:
    _images(tmp_path)
    _write(tmp_path / "train.csv", [{"image": f"img_{row}.png", "label": row} for row in range(4)])
    with pytest.raises(InputError, match=r"no column 'picture'; its columns are 'image', 'label'"):
        open_source(str(tmp_path), image_column="picture")


def test_paths_of_images_in_a_table_of_images_do_not_count_from_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _images(tmp_path / "elsewhere")
    cells = [{"bytes": None, "path": f"img_{row}.png"} for row in range(2)]
    (tmp_path / "data").mkdir()
    pq.write_table(pa.table({"image": cells, "label": ["a", "b"]}), tmp_path / "data/train.parquet")
    monkeypatch.chdir(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=r"'img_0\.png' does not say relative to which folder"):
        ResidentSplit.load(open_source(str(tmp_path / "data")), show_progress=False)
