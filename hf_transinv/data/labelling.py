"""Labels of a whole split as numbers of one list of classes, however its tables and files write them."""

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_transinv.data.classes import (
    MISSING,
    Classes,
    apply_renumbering,
    are_places,
    check_number_of_classes,
    classes_of,
    renumbering,
    union,
)
from hf_transinv.data.columns import is_class_label
from hf_transinv.data.opened import Opened
from hf_transinv.data.parquet_files import ParquetFiles
from hf_transinv.data.reading import reading
from hf_transinv.data.row_groups import ParquetRowGroups, as_labels

if TYPE_CHECKING:
    from datasets import Dataset
    from pyarrow import ChunkedArray

logger = logging.getLogger(__name__)


def labelled_rows(
    opened: Opened, parts: Sequence[tuple[str, int, int]], columns: tuple[str, str], wanted: Classes | None, name: str
) -> "tuple[Dataset, Classes]":
    """Rows of one or several splits, with labels of one numbering.

    Args:
        opened: the dataset.
        parts: (split, first row, row behind the last), see `split_names.spec_parts`.
        columns: the names of the image column and the label column.
        wanted: the classes to number by; None: those of all tables of these splits together.
        name: the dataset, for errors.

    Returns:
        The columns ``image`` (undecoded) and ``label``, and the classes.

    Raises:
        InputError: fewer than two classes, or others than those wanted.
    """
    from datasets import concatenate_datasets

    by_split: dict[str, list[tuple[Dataset, Classes, np.ndarray]]] = {}
    for base in dict.fromkeys(base for base, _, _ in parts):
        for table in opened.tables(base, columns):
            with reading(opened.name):
                labels = table.with_format("arrow")[:][columns[1]]
            by_split.setdefault(base, []).append((table, *classes_of(labels, table.features[columns[1]], name)))
    found_classes = [found for tables in by_split.values() for _, found, _ in tables]
    classes = wanted or union(found_classes)
    if any(are_places(found, classes) for found in found_classes):
        logger.warning("%s numbers its classes and does not name them: the order of the training split is taken", name)
    check_number_of_classes(classes.names, name)
    whole = {
        base: concatenate_datasets([_numbered(opened.name, *table, columns, classes, name) for table in tables])
        for base, tables in by_split.items()
    }
    return concatenate_datasets([whole[base].select(range(start, stop)) for base, start, stop in parts]), classes


def numbers_in(rows: "Dataset") -> np.ndarray:
    """The column ``label``, int64 [N]; MISSING where a row has no label."""
    import pyarrow.compute as pc

    labels = rows.select_columns("label").with_format("arrow")[:]["label"]
    return pc.fill_null(pc.cast(labels, "int64"), MISSING).to_numpy()


def class_counts(numbers: np.ndarray, num_classes: int) -> np.ndarray:
    """Images of each class, int64 [C]; images without a class are not counted."""
    return np.bincount(numbers[(numbers >= 0) & (numbers < num_classes)], minlength=num_classes)


def labelled_row_groups(
    files: ParquetFiles, split: str, columns: tuple[str, str], wanted: Classes | None, name: str
) -> tuple[ParquetRowGroups, Classes, np.ndarray | None]:
    """The row groups of parquet files, with labels of one numbering although each file has its own.

    All labels are read beforehand where the columns' types do not name the classes, and where the files are on this
    machine.

    Args:
        files: by split.
        split: which of them.
        columns: the names of the image column and the label column.
        wanted: the classes to number by; None: those of all files together.
        name: the dataset, for errors.

    Returns:
        The row groups, the classes, and the images of each class; None where the labels were not read.

    Raises:
        InputError: fewer than two classes, or others than those wanted.
    """
    paths = [path for group in files.groups(split, columns) for path in group]
    features = {path: files.features_of(path)[columns[1]] for path in paths}

    def numbers_of(path: str, labels: "ChunkedArray") -> np.ndarray:
        found, numbers = classes_of(labels, features[path], name)
        return apply_renumbering(numbers, renumbering(found, classes, np.unique(numbers), name))

    row_groups = ParquetRowGroups({path: files.footers[path] for path in files.files[split]}, columns, numbers_of)
    are_named = all(is_class_label(feature) for feature in features.values())
    if are_named and any("://" in path for path in paths):  # a Hub's labels would cost a request for every row group
        classes = wanted or union([Classes(list(feature.names), True) for feature in features.values()])
        check_number_of_classes(classes.names, name)
        return row_groups, classes, None
    with reading(files.name):
        labels = row_groups.read_labels()
    together = _joined(labels, features)
    classes = wanted or union([classes_of(column, features[path], name)[0] for path, column in together.items()])
    check_number_of_classes(classes.names, name)
    numbers = [numbers_of(path, column) for path, column in labels.items()]
    return row_groups, classes, class_counts(np.concatenate(numbers), len(classes.names))


def renamed(rows: Any, names: dict[str, str]) -> Any:
    """A table or stream with some columns renamed."""
    changed = {old: new for old, new in names.items() if old != new}
    return rows.rename_columns(changed) if changed else rows


def _numbered(
    dataset: str,
    table: "Dataset",
    classes: Classes,
    numbers: np.ndarray,
    columns: tuple[str, str],
    wanted: Classes,
    name: str,
) -> "Dataset":
    """A table with the columns ``image`` and ``label``, whose labels are numbers of the wanted classes."""
    from datasets import ClassLabel, Image

    image, label = columns
    renumbered = renumbering(classes, wanted, np.unique(numbers), name)
    # Cast first: a table that is renamed and then cast gives rows at a tenth of the speed.
    with reading(dataset):
        rows = table.cast_column(image, Image(decode=False))
    if is_class_label(table.features[label]) and renumbered is None:
        return renamed(rows, {image: "image", label: "label"}).select_columns(["image", "label"])
    rows = renamed(rows.remove_columns(label), {image: "image"})
    feature = ClassLabel(names=wanted.names)
    return rows.add_column("label", as_labels(apply_renumbering(numbers, renumbered)), feature=feature)


def _joined(labels: "dict[str, ChunkedArray]", features: dict[str, Any]) -> "dict[str, ChunkedArray]":
    """Joins the labels of files whose values have the same type into one column: their classes are sorted together."""
    import pyarrow as pa

    joined: dict[str, tuple[str, list[Any]]] = {}
    for path, column in labels.items():
        joined.setdefault(repr(features[path]), (path, []))[1].extend(column.chunks)
    return {path: pa.chunked_array(chunks) for path, chunks in joined.values()}
