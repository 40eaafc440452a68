"""Tables that name images by their paths: CSV, TSV, JSON lines, JSON, and parquet with a column of text.

A path is absolute, or relative to the folder of its table. Addresses on the web are refused: no image is downloaded
during a run, and the content of an address may change.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hf_transinv.data.columns import LABEL_COLUMN_NAMES, listed
from hf_transinv.data.folders import local_path
from hf_transinv.data.reading import reading
from hf_transinv.data.split_names import split_kind
from hf_transinv.data.table_files import column_values, read_table
from hf_transinv.data.walk import File, walk
from hf_transinv.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

_TRIED = 20  # values of a column that are looked up on the disk to see whether it holds paths
_SPLIT_COLUMNS = ("split", "set", "subset", "partition", "data set", "data_set")


@dataclass(frozen=True)
class PathTable:
    """A table with a column of paths.

    Attributes:
        path: of the table itself.
        table: all of its columns.
        image_column: the column of paths.
        files: the images, from the root of the disk, one per row; empty where the cell was.
        told: how it was read.
    """

    path: str
    table: "pa.Table"
    image_column: str
    files: list[str]
    told: list[str] = field(default_factory=list)

    def by_split(self, default: str) -> Mapping[str, list[int] | None]:
        """The rows of each split: by a column that says it, else by the first folder of the paths.

        Args:
            default: the name of the split when there is only one.

        Returns:
            The rows by split; None for all of them.
        """
        for name in self.table.column_names:
            if name.lower() in _SPLIT_COLUMNS and name != self.image_column:
                said = [str(value) for value in column_values(self.table, name, self.path)]
                if all(split_kind(value) for value in said):
                    self.told.append(f"splits by the column {name!r}")
                    return _rows_by(said)
        root = os.path.dirname(self.path)
        first = [os.path.relpath(file, root).split(os.sep)[0] if file else "" for file in self.files]
        if len(set(first)) > 1 and all(split_kind(folder) for folder in first):
            self.told.append("splits by the first folder of the paths")
            return _rows_by(first)
        return {default: None}

    def has_labels(self, label_column: str | None) -> bool:
        """Whether it has the named column, or one of a usual name.

        Args:
            label_column: the column that the user named, if any.
        """
        names = LABEL_COLUMN_NAMES if label_column is None else (label_column,)
        return any(name in self.table.column_names for name in names)

    def open(self, rows: list[int] | None) -> "Dataset":
        """The table with undecoded images in place of the paths.

        Args:
            rows: to take; None: all of them.
        """
        import pyarrow as pa
        from datasets import Dataset, DatasetInfo, Features, Image
        from datasets.table import InMemoryTable

        images = [{"bytes": None, "path": file} if file else None for file in self.files]
        kind = Image(decode=False).pa_type
        columns = {name: _plain(self.table[name]) for name in self.table.column_names}
        table = pa.table({**columns, self.image_column: pa.array(images, kind)})
        table = table if rows is None else table.take(rows)
        with reading(self.path):  # the other columns may be of any type
            features = Features.from_arrow_schema(table.schema)
        features[self.image_column] = Image(decode=False)
        return Dataset(InMemoryTable(table), DatasetInfo(features=features))


def open_path_table(path: str, image_column: str | None, images: Sequence[File] | None = None) -> PathTable:
    """Opens a table and finds its column of paths: the one that was named, or the one whose values name files.

    A value is the path of an image, or the name of one below the table's folder, with or without its suffix, if only
    one image there has that name.

    Args:
        path: of a .csv, .tsv, .jsonl, .ndjson, .json or .parquet file.
        image_column: the column that the user named, if any.
        images: all images below the table's folder; default: looked for when they are needed.

    Raises:
        InputError: it cannot be read, or no column, or several, name images that are there.
    """
    table = read_table(path)
    if not table.num_rows:
        raise InputError(f"The table {path} has no rows. Give one that has.")
    if image_column is not None and image_column not in table.column_names:
        raise InputError(
            f"The table {path} has no column {image_column!r}; its columns are {listed(table.column_names)}. Correct "
            "--image_column."
        )
    names = [image_column] if image_column else [name for name in table.column_names if _may_name(table[name].type)]
    values = {
        name: ["" if value is None else str(value) for value in column_values(table, name, path)] for name in names
    }
    folder = os.path.dirname(os.path.abspath(path))
    found = [name for name in names if _hold_paths(values[name], folder)]
    if found:
        return _path_table(path, table, found, values, lambda value: _resolved(value, folder))
    below = walk(folder).images if images is None else images
    for told, by_name in (
        ("file names", _unique(below, whole=True)),
        ("names without suffix", _unique(below, whole=False)),
    ):
        found = [name for name in names if _are_names_of(values[name], by_name)]
        if found:
            lookup = lambda value, known=by_name: known.get(value) or _resolved(value, folder)  # noqa: E731
            result = _path_table(path, table, found, values, lookup)
            result.told.append(f"{result.image_column!r} holds {told} of images below {folder}")
            return result
    raise _no_paths(path, folder, table, values)


def _path_table(
    path: str, table: "pa.Table", found: list[str], values: dict[str, list[str]], lookup: Callable[[str], str]
) -> PathTable:
    if len(found) > 1:
        raise InputError(
            f"The table {path} has several columns that name images: {listed(found)}. Choose: --image_column."
        )
    return PathTable(path, table, found[0], [lookup(value) if value else "" for value in values[found[0]]])


def _hold_paths(values: list[str], folder: str) -> bool:
    tried = [value for value in values if value][:_TRIED]
    return any("://" not in value and os.path.isfile(_resolved(value, folder)) for value in tried)


def _unique(images: Sequence[File], whole: bool) -> dict[str, str]:
    """Names of files, whole or without suffix -> the path of the image, where only one has that name."""
    paths: dict[str, str | None] = {}
    for image in images:
        name = image.parts[-1] if whole else os.path.splitext(image.parts[-1])[0]
        paths[name] = None if name in paths else image.path
    return {name: path for name, path in paths.items() if path is not None}


def _are_names_of(values: list[str], images: Mapping[str, str]) -> bool:
    tried = [value for value in values if value][:_TRIED]
    # Most, not all: images may be missing; and all different, which classes are not.
    return len(set(tried)) == len(tried) and sum(value in images for value in tried) * 2 > len(tried)


def _resolved(value: str, folder: str) -> str:
    path = os.path.join(folder, local_path(value))
    if os.sep == "/" and "\\" in value and not os.path.exists(path):
        path = os.path.join(folder, value.replace("\\", "/"))  # a table that was written on Windows
    return os.path.normpath(path)


def _no_paths(path: str, folder: str, table: "pa.Table", values: Mapping[str, list[str]]) -> InputError:
    first = {name: next((value for value in column if value), "") for name, column in values.items()}
    urls = [name for name, value in first.items() if "://" in value]
    if urls:
        return InputError(
            f"The table {path} has addresses in its column {urls[0]!r} ({first[urls[0]]!r}), not files: nothing is "
            "downloaded during a run. Download the images and give their paths."
        )
    tried = "; ".join(f"{name}: {value!r}" for name, value in first.items() if value)
    return InputError(
        f"The table {path} has no image column; its columns are {listed(table.column_names)}. Expected encoded "
        f"images, or paths of images that are there (seen from {folder}); the first values are {tried or 'no text'}. "
        "Correct them, or name the column with --image_column."
    )


def _rows_by(names: Iterable[str]) -> Mapping[str, list[int]]:
    rows: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        rows.setdefault(name, []).append(row)
    return rows


def _may_name(kind: "pa.DataType") -> bool:
    import pyarrow as pa

    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_integer)
    return any(test(kind) for test in tests)


def _plain(column: "pa.ChunkedArray") -> "pa.ChunkedArray":
    """A column with the categories of pandas replaced by their values."""
    import pyarrow as pa

    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
