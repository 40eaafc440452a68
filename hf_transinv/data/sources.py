"""The one door to data: a name becomes rows of an undecoded image and a class number, with the classes' names.

A dataset is a Hub id, or lies on this machine (see ``local``): a folder in the shape of a Hub repository, parquet
files, a folder of images, a table of image paths, what `datasets` saved to disk, or one of the embedded
``digits/source`` and ``digits/target``.
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_transinv.data.classes import (
    MISSING,
    Classes,
    apply_renumbering,
    check_number_of_classes,
    classes_of,
    look_alikes,
    renumbering,
    union,
)
from hf_transinv.data.columns import image_column_of, is_class_label, label_column_of, listed
from hf_transinv.data.hold_out import HoldOut
from hf_transinv.data.hub_data import RowsOnly, cannot_be_opened, open_hub
from hf_transinv.data.local import open_local
from hf_transinv.data.opened import FilesOpened, Opened
from hf_transinv.data.pieces import ParquetPieces, PieceRows, Pieces, TablePieces, as_labels
from hf_transinv.data.split_names import default_eval_split, find_split, spec_parts
from hf_transinv.errors import InputError
from hf_transinv.hub_errors import READ_FAILURES, client_says

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset
    from pyarrow import ChunkedArray

__all__ = ["Source", "default_eval_split", "open_dataset", "open_source", "open_unlabelled", "split_names"]


@dataclass(frozen=True)
class Source:
    """A split of a dataset, opened and checked, not yet decoded.

    Attributes:
        rows: exactly two columns, ``image`` ({'bytes', 'path'}, undecoded) and ``label`` (class number).
        label_names: the classes, in the order of their numbers.
        num_rows: None when a stream does not say.
        name: the dataset as the user gave it.
        split: the split as it is called in the dataset.
        streaming: whether ``rows`` are read as they are needed.
        pieces: of a stream, to read its rows in another order; None when it can only be read from its beginning.
        columns: what the columns of images and labels are called in the dataset.
        class_counts: images of each class, int64 [C]; None when a stream does not say.
        are_numbered: whether the dataset itself numbers its classes (a ClassLabel).
        bases: the splits that ``split`` takes its rows from.
    """

    rows: "Dataset | IterableDataset | PieceRows"
    label_names: list[str]
    num_rows: int | None
    name: str
    split: str
    streaming: bool
    pieces: Pieces | None = None
    columns: tuple[str, str] = ("image", "label")
    class_counts: np.ndarray | None = field(default=None, compare=False)
    are_numbered: bool = True
    bases: tuple[str, ...] = ()

    def where(self, row: int, cell: dict[str, Any] | None = None) -> str:
        """Names a row for an error, by its file where there is one."""
        path = f" ({cell['path']})" if cell and cell.get("path") else ""
        return f"Row {row}{path} of {self.name}, split {self.split!r}"

    @property
    def classes(self) -> Classes:
        return Classes(self.label_names, self.are_numbered)


class OpenDataset:
    """A dataset whose splits can be opened one after another; its folder is walked once.

    Args:
        opened: what it is.
    """

    def __init__(self, opened: Opened) -> None:
        self.opened = opened

    @property
    def split_names(self) -> list[str]:
        return self.opened.split_names

    def source(
        self,
        split: str = "train",
        *,
        image_column: str | None = None,
        label_column: str | None = None,
        streaming: bool = False,
        classes: Classes | None = None,
        hold_out: HoldOut | None = None,
    ) -> Source:
        """Opens one split.

        Args:
            split: a split, or a slice of one such as ``train[:90%]`` (not with streaming).
            image_column: None finds the one image column by its type.
            label_column: None finds the one label column by its type and name.
            streaming: read rows as they are needed instead of all at once.
            classes: of the training split when this is another one; labels are numbered as there.
            hold_out: the part of the split that is read; None: all of it.

        Raises:
            InputError: no such split; no image or label column; no rows; fewer than two classes; classes that are not
                those of the training split.
        """
        opened, split = self.opened, find_split(split, self.opened.split_names)
        if streaming and ("[" in split or "+" in split or hold_out):
            raise InputError(
                f"split {split!r}{' with a part held out' if hold_out else ' is a slice, which'} cannot be had of a "
                "stream, which does not know its ends. Leave out --streaming, or give a whole split."
            )
        name = f"{opened.name}, split {split!r},"
        if isinstance(opened, RowsOnly) and streaming:
            return _of_stream(opened, split, name, image_column, label_column, classes)
        parts = self._parts(split)
        if not sum(stop - start for _, start, stop in parts):
            raise InputError(f"{name} is empty. Choose a split that has rows.")
        features = opened.features(parts[0][0])
        columns = image_column_of(features, image_column, name), label_column_of(features, label_column, name)
        bases = tuple(dict.fromkeys(base for base, _, _ in parts))
        common: dict[str, Any] = {"name": opened.name, "split": split, "columns": columns, "bases": bases}
        if streaming and isinstance(opened, FilesOpened):
            return _of_files(opened, split, name, classes, common)
        rows, found = _labelled(opened, parts, columns, classes, name)
        numbers = _numbers(rows)
        if hold_out is not None:
            kept = hold_out.rows(numbers)
            rows, numbers = rows.select(kept), numbers[kept]
            share = f"{hold_out.share:.4g} of every class"
            common["split"] = (
                f"{split}, {share} held out" if hold_out.part == "held_out" else f"{split} without {share}"
            )
            if not len(numbers):
                raise InputError(f"{name} has one image in each class, and none to hold out. Add images.")
        common |= {"class_counts": _counts(numbers, len(found.names)), "are_numbered": found.are_numbered}
        if streaming:
            stream = TablePieces(rows)
            return Source(PieceRows(stream), found.names, len(rows), streaming=True, pieces=stream, **common)
        return Source(rows, found.names, len(rows), streaming=False, **common)

    def unlabelled(self, split: str | None = None, image_column: str | None = None) -> Source:
        """Opens one split for its images alone: labels are not read, and none are needed.

        Args:
            split: a split or a slice of one; None: test or validation, or the only one there is.
            image_column: None finds the one image column by its type.

        Returns:
            A Source whose labels are all 0, of one class without a name.

        Raises:
            InputError: no such split; no image column; no rows.
        """
        from datasets import Image, concatenate_datasets

        opened = self.opened
        if split is None:
            names = opened.split_names
            split = names[0] if len(names) == 1 else default_eval_split(names)
        split = find_split(split, opened.split_names)
        name = f"{opened.name}, split {split!r},"
        parts = self._parts(split)
        if not sum(stop - start for _, start, stop in parts):
            raise InputError(f"{name} is empty. Choose a split that has rows.")
        column = image_column_of(opened.features(parts[0][0]), image_column, name)
        found = []
        for base, start, stop in parts:
            tables = [
                _renamed(table.cast_column(column, Image(decode=False)), {column: "image"})
                for table in self._tables(base, [column])
            ]
            found.append(concatenate_datasets(tables).select(range(start, stop)))
        rows = concatenate_datasets(found)
        labelled = rows.add_column("label", np.zeros(len(rows), np.int64))
        return Source(labelled, [""], len(rows), opened.name, split, False, columns=(column, ""))

    def _parts(self, split: str) -> list[tuple[str, int, int]]:
        opened = self.opened
        try:
            return spec_parts(split, opened.split_names, opened.num_rows)
        except (ValueError, AssertionError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"{opened.name} cannot give split {split!r} ({error}). Its splits are "
                f"{', '.join(opened.split_names)}; a slice is written like 'train[:90%]'."
            ) from error

    def _tables(self, split: str, columns: Sequence[str]) -> "list[Dataset]":
        with _reading(self.opened.name):
            return self.opened.tables(split, columns)


def open_dataset(
    dataset: str,
    *,
    config: str | None = None,
    revision: str | None = None,
    asked: Collection[str | None] = (),
    image_column: str | None = None,
    label_column: str | None = None,
    with_labels: bool = True,
) -> OpenDataset:
    """Opens a dataset.

    Args:
        dataset: Hub id, local folder, file or glob, or embedded name.
        config: which configuration of a Hub dataset.
        revision: branch, tag or commit of a Hub dataset.
        asked: splits that the user named, as far as any.
        image_column: the column that the user named, if any.
        label_column: the same.
        with_labels: False: images that lie in no class folders will do.

    Raises:
        InputError: no such dataset or configuration, or it cannot be read.
    """
    names = [name.partition("[")[0] for name in asked if name]
    with _reading(dataset):
        opened = open_local(dataset, names, image_column, label_column, with_labels)
        return OpenDataset(open_hub(dataset, config, revision) if opened is None else opened)


def open_source(
    dataset: str,
    *,
    config: str | None = None,
    split: str = "train",
    image_column: str | None = None,
    label_column: str | None = None,
    streaming: bool = False,
    revision: str | None = None,
    label_names: Sequence[str] | None = None,
) -> Source:
    """Opens one split of a dataset: `open_dataset`, then `OpenDataset.source`.

    Args:
        label_names: the classes of the training split when this is another one; their order is then kept.

    Raises:
        InputError: see both.
    """
    columns = {"image_column": image_column, "label_column": label_column}
    opened = open_dataset(dataset, config=config, revision=revision, asked=[split], **columns)
    classes = None if label_names is None else Classes(list(label_names), True)
    return opened.source(split, streaming=streaming, classes=classes, **columns)


def open_unlabelled(
    dataset: str,
    *,
    config: str | None = None,
    split: str | None = None,
    image_column: str | None = None,
    revision: str | None = None,
) -> Source:
    """Opens one split for its images alone: `open_dataset`, then `OpenDataset.unlabelled`.

    Raises:
        InputError: see both.
    """
    options = {"asked": [split], "image_column": image_column, "with_labels": False}
    opened = open_dataset(dataset, config=config, revision=revision, **options)
    return opened.unlabelled(split, image_column)


def split_names(dataset: str, config: str | None = None, revision: str | None = None) -> list[str]:
    """Lists the splits of a dataset.

    Raises:
        InputError: no such dataset or configuration.
    """
    return open_dataset(dataset, config=config, revision=revision).split_names


def cannot_be_read_on(source: Source, error: Exception) -> InputError:
    """What to say of a source that could be opened and then, in spite of all retries, not read to its end."""
    return InputError(f"{source.name}, split {source.split!r}, cannot be read any further: {client_says(error)}")


def warnings_of(source: Source) -> list[str]:
    """What is odd about the classes of a split."""
    pairs = look_alikes(source.label_names)
    return [
        f"the classes {one!r} and {other!r} have names that look alike, and are two classes" for one, other in pairs
    ]


@contextmanager
def _reading(dataset: str) -> Iterator[None]:
    from datasets.exceptions import DatasetsError

    try:
        yield
    except InputError:
        raise
    except (*READ_FAILURES, DatasetsError) as error:
        raise cannot_be_opened(dataset, None, error) from error


def _labelled(
    opened: Opened, parts: list[tuple[str, int, int]], columns: tuple[str, str], wanted: Classes | None, name: str
) -> "tuple[Dataset, Classes]":
    """The rows of all parts, their labels numbered as in `wanted`, or as all of them together call their classes."""
    from datasets import concatenate_datasets

    by_split: dict[str, list[tuple[Dataset, Classes, np.ndarray]]] = {}
    for base in dict.fromkeys(base for base, _, _ in parts):
        with _reading(opened.name):
            tables = opened.tables(base, columns)
        for table in tables:
            labels = table.with_format("arrow")[:][columns[1]]
            by_split.setdefault(base, []).append((table, *classes_of(labels, table.features[columns[1]], name)))
    classes = wanted or union([found for tables in by_split.values() for _, found, _ in tables])
    check_number_of_classes(classes.names, name)
    whole = {
        base: concatenate_datasets([_numbered(*table, columns, classes, name) for table in tables])
        for base, tables in by_split.items()
    }
    return concatenate_datasets([whole[base].select(range(start, stop)) for base, start, stop in parts]), classes


def _numbered(
    table: "Dataset", classes: Classes, numbers: np.ndarray, columns: tuple[str, str], wanted: Classes, name: str
) -> "Dataset":
    """A table with the columns ``image`` and ``label``, whose labels are numbers of the wanted classes."""
    from datasets import ClassLabel, Image

    image, label = columns
    renumbered = renumbering(classes, wanted, np.unique(numbers), name)
    feature = ClassLabel(names=wanted.names)
    # Cast first: a table that is renamed and then cast gives rows at a tenth of the speed.
    rows = table.cast_column(image, Image(decode=False))
    if is_class_label(table.features[label]) and renumbered is None:
        return _renamed(rows, {image: "image", label: "label"}).select_columns(["image", "label"])
    rows = _renamed(rows.remove_columns(label), {image: "image"})
    return rows.add_column("label", as_labels(apply_renumbering(numbers, renumbered)), feature=feature)


def _renamed(rows: "Dataset", names: dict[str, str]) -> "Dataset":
    changed = {old: new for old, new in names.items() if old != new}
    return rows.rename_columns(changed) if changed else rows


def _numbers(rows: "Dataset") -> np.ndarray:
    import pyarrow.compute as pc

    return pc.fill_null(rows.select_columns("label").with_format("arrow")[:]["label"], MISSING).to_numpy()


def _counts(numbers: np.ndarray, num_classes: int) -> np.ndarray:
    return np.bincount(numbers[(numbers >= 0) & (numbers < num_classes)], minlength=num_classes)


def _of_files(opened: FilesOpened, split: str, name: str, wanted: Classes | None, common: dict[str, Any]) -> Source:
    """A stream of parquet files. Their labels are read first where nothing else says the classes, or they are here."""
    files, label = opened.files, common["columns"][1]
    paths = [path for group in files.groups(split, common["columns"]) for path in group]
    features = {path: files.features_of(path)[label] for path in paths}

    def found_in(path: str, labels: "ChunkedArray") -> tuple[Classes, np.ndarray]:
        return classes_of(labels, features[path], name)

    def numbers_of(path: str, labels: "ChunkedArray") -> np.ndarray:
        found, numbers = found_in(path, labels)
        return apply_renumbering(numbers, renumbering(found, classes, np.unique(numbers), name))

    footers = {path: files.footers[path] for path in files.files[split]}
    pieces = ParquetPieces(footers, common["columns"], numbers_of)
    counts = None
    are_named = all(is_class_label(feature) for feature in features.values())
    if are_named and any("://" in path for path in paths):  # a Hub's labels would cost a request for every piece
        classes = wanted or union([Classes(list(feature.names), True) for feature in features.values()])
    else:
        with _reading(opened.name):
            labels = pieces.read_labels()
        classes = wanted or union([found_in(path, column)[0] for path, column in _joined(labels, features).items()])
        numbers = [numbers_of(path, column) for path, column in labels.items()]
        counts = _counts(np.concatenate(numbers), len(classes.names))
    check_number_of_classes(classes.names, name)
    common |= {"class_counts": counts, "are_numbered": classes.are_numbered}
    return Source(PieceRows(pieces), classes.names, int(pieces.lengths.sum()), streaming=True, pieces=pieces, **common)


def _joined(labels: "dict[str, ChunkedArray]", features: dict[str, Any]) -> "dict[str, ChunkedArray]":
    """Labels of files that hold values of one type as one column: their classes are sorted together."""
    import pyarrow as pa

    joined: dict[str, tuple[str, list[Any]]] = {}
    for path, column in labels.items():
        joined.setdefault(repr(features[path]), (path, []))[1].extend(column.chunks)
    return {path: pa.chunked_array(chunks) for path, chunks in joined.values()}


def _of_stream(
    opened: RowsOnly,
    split: str,
    name: str,
    image_column: str | None,
    label_column: str | None,
    wanted: Classes | None,
) -> Source:
    """A stream that can only be read from its beginning; its own types have to say the classes."""
    from datasets import Image

    rows, num_rows = opened.stream(split)
    if num_rows == 0:
        raise InputError(f"{name} is empty. Choose a split that has rows.")
    features = rows.features or {}
    columns = image_column_of(features, image_column, name), label_column_of(features, label_column, name)
    feature = features[columns[1]]
    if not is_class_label(feature):
        raise InputError(
            f"The labels of {name} have no names (type {feature.dtype}), so streaming cannot know the classes before "
            "it has read all rows. Leave out --streaming, or store the column as a datasets.ClassLabel."
        )
    names = list(feature.names)
    check_number_of_classes(names, name)
    if wanted is not None and names != wanted.names:
        raise InputError(
            f"The classes of {name} are {listed(names)}, but {listed(wanted.names)} were expected, and a stream "
            "cannot be numbered anew. Leave out --streaming, or choose splits that have the same classes in the same "
            "order."
        )
    rows = rows.cast_column(columns[0], Image(decode=False)).select_columns(list(columns))
    rows = _renamed(rows, dict(zip(columns, ("image", "label"), strict=True)))
    return Source(rows, names, num_rows, opened.name, split, True, columns=columns, bases=(split,))
