"""Datasets on the Hub say their classes in as many ways as files here; each is read by what its own file says."""

import io
import json
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hf_transinv.data.sources import open_dataset, open_source
from hf_transinv.errors import InputError
from tests.data.conftest import encode, numbered_pixels, write_encoded
from tests.loopback_hub import LoopbackHub
from tests.loopback_hub.fixture import hub, hub_here, hub_of_datasets

__all__ = ["hub", "hub_here", "hub_of_datasets"]

_IMAGES = [encode(numbered_pixels(row)) for row in range(6)]
_TEXT = ["b", "a", "b", "c", "a", "c"]
_PLACES = [1, 0, 1, 2, 0, 2]


@pytest.fixture(autouse=True)
def _no_exports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "USE_PARQUET_EXPORT", False)


def _labels(source: Any) -> list[int]:
    return [row["label"] for row in source.rows]


def _file(path: Path, labels: list[str], names: list[str] | None) -> bytes:
    write_encoded(path, labels, names)
    return path.read_bytes()


def _parquet(values: Any) -> bytes:
    file = io.BytesIO()
    cells = pa.array([{"bytes": image, "path": None} for image in _IMAGES])
    pq.write_table(pa.table({"image": cells, "label": values}), file)
    return file.getvalue()


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    ("values", "names"),
    [
        (pa.array(_TEXT, pa.large_string()), ["a", "b", "c"]),
        (pa.array(_TEXT).dictionary_encode(), ["a", "b", "c"]),
        (pa.array([20, 10, 20, 30, 10, 30]), ["10", "20", "30"]),
        (pa.array([20.0, 10.0, 20.0, 30.0, 10.0, 30.0]), ["10", "20", "30"]),
    ],
    ids=["large_string", "dictionary", "numbers", "floats"],
)
def test_values(hub_of_datasets: LoopbackHub, values: Any, names: list[str], streaming: bool) -> None:
    hub_of_datasets.put("lab/values", {"data/train-00000-of-00001.parquet": _parquet(values)}, "dataset")
    source = open_source("lab/values", streaming=streaming)
    assert source.label_names == names and _labels(source) == _PLACES
    assert source.class_counts.tolist() == [2, 2, 2]


@pytest.mark.parametrize("described", [False, True])
def test_each_file_is_numbered_by_its_own_names(hub_of_datasets: LoopbackHub, tmp_path: Path, described: bool) -> None:
    files = {
        "data/train-00000-of-00002.parquet": _file(tmp_path / "0.parquet", ["a", "b", "a"], ["a", "b"]),
        "data/train-00001-of-00002.parquet": _file(tmp_path / "1.parquet", ["c", "b", "a"], ["c", "b", "a"]),
        "data/test-00000-of-00001.parquet": _file(tmp_path / "2.parquet", ["b", "c"], ["b", "c"]),
    }
    if described:
        patterns = "".join(f"  - split: {split}\n    path: data/{split}-*\n" for split in ("train", "test"))
        card = f"---\nconfigs:\n- config_name: default\n  data_files:\n{patterns}---\n"
        files["README.md"] = card.encode()
    hub_of_datasets.put("lab/apart", files, "dataset")
    opened = open_dataset("lab/apart")
    for streaming in (False, True):
        train = opened.source("train", streaming=streaming)
        assert train.label_names == ["c", "b", "a"] and _labels(train) == [2, 1, 2, 0, 1, 2]
        assert _labels(opened.source("test", classes=train.classes)) == [1, 0]
        with pytest.raises(InputError, match="'b', 'c', which are not among"):
            opened.source("test", classes=type(train.classes)(["B", "C", "a"], True))


@pytest.mark.parametrize("table", ["metadata.csv", "metadata.jsonl"])
def test_metadata_beside_images(hub_of_datasets: LoopbackHub, table: str) -> None:
    files = {}
    for split in ("train", "test"):
        files |= {f"{split}/{row}.png": image for row, image in enumerate(_IMAGES)}
        rows = [{"file_name": f"{row}.png", "label": label} for row, label in enumerate(_TEXT)]
        lines = [json.dumps(row) for row in rows]
        if table.endswith("csv"):
            lines = ["file_name,label", *(f"{row['file_name']},{row['label']}" for row in rows)]
        files[f"{split}/{table}"] = "\n".join([*lines, ""]).encode()
    hub_of_datasets.put("lab/beside", files, "dataset")
    opened = open_dataset("lab/beside")
    train = opened.source("train")
    assert train.label_names == ["a", "b", "c"] and _labels(train) == _PLACES
    assert _labels(opened.source("test", classes=train.classes)) == _PLACES
    with pytest.raises(InputError, match="no names"):  # a stream of them does not say the classes beforehand
        opened.source("train", streaming=True)


def test_a_table_of_paths_is_refused_with_the_reason(hub_of_datasets: LoopbackHub) -> None:
    files = {"train.csv": b"image,label\nimages/0.png,a\nimages/1.png,b\n", "README.md": b"# Pictures\n"}
    hub_of_datasets.put("lab/paths", files, "dataset")
    with pytest.raises(InputError, match="a table of image paths has to be on this machine"):
        open_source("lab/paths")
    with pytest.raises(InputError, match=r"'image' of .* holds text, not images.*on this machine"):
        open_source("lab/paths", image_column="image")
