"""Tables of any columns: rows with an image and a class, or an error that says which column is wrong."""

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_transinv.data.resident import ResidentSplit
from hf_transinv.data.sources import open_source, open_unlabelled
from hf_transinv.errors import InputError
from tests.fuzz import STRANGE, damaged_bytes, examples, result_or_error
from tests.fuzz.test_images import KINDS

PNG = {"bytes": KINDS["png"], "path": None}
IMAGES = {
    "image": ([PNG, PNG, PNG], datasets.Image()),
    "struct": ([PNG, None, PNG], None),
    "binary": ([KINDS["png"]] * 3, None),
    "no image": ([{"bytes": None, "path": None}] * 3, datasets.Image()),
    "list of images": ([[PNG], [PNG], []], None),
    "text": (["a", "b", "c"], None),
}
LABELS = {
    "classes": ([0, 1, 0], datasets.ClassLabel(names=["a", "b"])),
    "one class": ([0, 0, 0], datasets.ClassLabel(names=["a"])),
    "no classes": ([None, None, None], datasets.ClassLabel(names=["a", "b"])),
    "beyond the classes": ([0, 1, 7], None),
    "negative": ([0, -1, 1], None),
    "huge": ([0, 2**62, 1], None),
    "unsigned": ([0, 2**62, 1], datasets.Value("uint64")),
    "floats": ([0.0, 1.0, float("nan")], None),
    "bools": ([True, False, None], None),
    "text": (["a", "", "c"], None),
    "missing text": (["a", None, None], None),
    "large text": (["a", "b", "a"], datasets.Value("large_string")),
    "dates": (["2001-01-01"] * 3, datasets.Value("string")),
    "nested": ([[0], [1], []], None),
    "nulls": ([None, None, None], None),
    "structs": ([{"a": 1}, {"a": 2}, {"a": 3}], None),
}
NAMES = st.sampled_from(["image", "img", "label", "labels", "target", "fine_label", "", "a.b", "🙂", "bytes", "__x__"])
GIVEN = st.one_of(st.none(), NAMES)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("schemas")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", path / "cache")
        patch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
        yield path


def write(path, columns: dict, rows: int) -> None:
    """A parquet file; the types of the columns stand in it as `datasets` writes them."""
    values = {name: cells[:rows] for name, (cells, _) in columns.items()}
    table = datasets.Dataset.from_dict(values)
    for name, (_, feature) in columns.items():
        if feature is not None and rows:
            table = table.cast_column(name, feature)
    table.to_parquet(path)


@examples(35)
@given(
    st.lists(st.tuples(NAMES, st.sampled_from(sorted(IMAGES))), max_size=2),
    st.lists(st.tuples(NAMES, st.sampled_from(sorted(LABELS))), max_size=2),
    st.sampled_from([0, 1, 3, 3]),
    GIVEN,
    GIVEN,
    st.booleans(),
)
def test_schemas(folder, images, labels, rows, image_column, label_column, streaming):
    columns = {name: IMAGES[kind] for name, kind in images} | {name: LABELS[kind] for name, kind in labels}
    path = folder / "table.parquet"
    write(path, columns, rows)
    options = {"image_column": image_column, "label_column": label_column}
    found = result_or_error(lambda: open_source(str(path), streaming=streaming, **options))
    if not isinstance(found, InputError):
        assert len(found.label_names) >= 2 and set(found.rows.column_names) == {"image", "label"}
        if not streaming:
            split = result_or_error(lambda: ResidentSplit.load(found, image_size=8, show_progress=False))
            assert isinstance(split, InputError) or int(split.labels.max()) < len(found.label_names)
    result_or_error(lambda: open_unlabelled(str(path), image_column=image_column))


@examples(15)
@given(st.data())
def test_damaged_tables(folder, data):
    path = folder / "whole.parquet"
    if not path.exists():
        write(path, {"image": IMAGES["image"], "label": LABELS["classes"]}, 3)
    damaged = folder / "damaged.parquet"
    damaged.write_bytes(data.draw(damaged_bytes(path.read_bytes())))
    found = result_or_error(lambda: open_source(str(damaged)))
    if not isinstance(found, InputError):
        result_or_error(lambda: ResidentSplit.load(found, image_size=8, show_progress=False))


@pytest.mark.parametrize(
    "name",
    ["~nobody-by-that-name/data", "x" * 5000, "a/" + "x" * 5000, "a\0b", "./a\0b", "a\0b.parquet", "", ".", "*"],
)
def test_names_of_datasets_that_are_no_names(folder, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for opening in (open_source, open_unlabelled):
        with pytest.raises(InputError):
            opening(name)


@examples(15)
@given(st.one_of(STRANGE.filter(lambda v: isinstance(v, str)), st.text(max_size=20)))
def test_splits(split):
    assert isinstance(result_or_error(lambda: open_source("digits/target", split=split)), InputError)


def test_metadata_of_a_table_that_lies(folder):
    """What `datasets` believes of the types stands in the file's metadata."""
    path = folder / "lies.parquet"
    images = pa.array([{"bytes": KINDS["png"], "path": None}] * 3)
    table = pa.table({"image": images, "label": pa.array(np.arange(3))})
    for told in ('{"info": {"features": {"image": {"_type": "Evil"}}}}', "{", '{"info": 3}', "[]"):
        pq.write_table(table.replace_schema_metadata({"huggingface": told}), path)
        result_or_error(lambda: open_source(str(path)))
