"""An opened dataset, with the columns of its splits as tables of undecoded rows; and an opened split."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from hf_transinv.data.classes import Classes
from hf_transinv.data.columns import is_class_label
from hf_transinv.data.parquet_files import ParquetFiles
from hf_transinv.data.row_groups import RowGroups, SequentialRows

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset


class Opened(Protocol):
    """The interface of an opened dataset of any kind.

    Attributes:
        name: as the user gave it.
        kind: what it was opened as, in words.
        told: notes on what was read, how, and what was not.
        warnings: what the user probably did not mean.
    """

    name: str
    kind: str
    told: list[str]
    warnings: list[str]

    @property
    def split_names(self) -> list[str]:
        """Its splits, those to train on first."""
        ...

    def num_rows(self, split: str) -> int:
        """Rows of a split."""
        ...

    def features(self, split: str) -> Mapping[str, Any]:
        """The types of a split's columns, as `datasets` describes them."""
        ...

    def tables(self, split: str, columns: Sequence[str]) -> "list[Dataset]":
        """A split's columns; in several tables where their types name the classes differently."""
        ...


@dataclass(frozen=True)
class Source:
    """A split of a dataset, opened and checked, not yet decoded.

    Attributes:
        rows: exactly two columns, ``image`` ({'bytes', 'path'}, undecoded) and ``label`` (class number).
        label_names: the classes, in the order of their numbers.
        num_rows: None when a stream does not say.
        name: the dataset as the user gave it.
        split: the split's name in the dataset.
        streaming: whether ``rows`` are read as they are needed.
        row_groups: of a stream, to read its rows in another order; None when it can only be read from its beginning.
        columns: the names of the image column and the label column in the dataset.
        class_counts: images of each class, int64 [C]; None when a stream does not say.
        are_numbered: whether the dataset itself numbers its classes (a ClassLabel).
        bases: the splits that ``split`` takes its rows from.
    """

    rows: "Dataset | IterableDataset | SequentialRows"
    label_names: list[str]
    num_rows: int | None
    name: str
    split: str
    streaming: bool
    row_groups: RowGroups | None = None
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


class TablesOpened:
    """Splits that are tables already.

    Args:
        splits: the tables of each split; several where they come from several files.
        name: see Opened.
        kind: see Opened.
        told: see Opened.
    """

    def __init__(
        self, splits: "Mapping[str, Dataset | list[Dataset]]", name: str, kind: str, told: Sequence[str] = ()
    ) -> None:
        self.splits = {split: tables if isinstance(tables, list) else [tables] for split, tables in splits.items()}
        self.name, self.kind = name, kind
        self.told: list[str] = list(told)
        self.warnings: list[str] = []

    @property
    def split_names(self) -> list[str]:
        return list(self.splits)

    def num_rows(self, split: str) -> int:
        return sum(map(len, self.splits[split]))

    def features(self, split: str) -> Mapping[str, Any]:
        return self.splits[split][0].features

    def tables(self, split: str, columns: Sequence[str]) -> "list[Dataset]":
        return [table.select_columns(list(columns)) for table in self.splits[split]]


class FilesOpened:
    """Splits that are parquet files.

    Args:
        files: the files.
        name: see Opened.
        kind: see Opened.
        load: loads a whole split in another way, used where all its files give the same types; default: file by file.
    """

    def __init__(
        self, files: ParquetFiles, name: str, kind: str, load: "Callable[[str], Dataset] | None" = None
    ) -> None:
        self.files, self.name, self.kind, self._load = files, name, kind, load
        self.told: list[str] = []
        self.warnings: list[str] = []

    @property
    def split_names(self) -> list[str]:
        return list(self.files.files)

    def num_rows(self, split: str) -> int:
        return self.files.num_rows(split)

    def features(self, split: str) -> Mapping[str, Any]:
        return self.files.features(split)

    def tables(self, split: str, columns: Sequence[str]) -> "list[Dataset]":
        if self._load is not None and len(self.files.groups(split, columns)) == 1:
            loaded, own = self._load(split).select_columns(list(columns)), self.files.features(split)
            if all(loaded.features[name] == own[name] for name in columns if is_class_label(own[name])):
                return [loaded]
        return self.files.load(split, columns)
