"""A dataset that is open: its splits by name, and the columns of each as tables of undecoded rows."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from hf_transinv.data.columns import is_class_label
from hf_transinv.data.parquet_files import ParquetFiles

if TYPE_CHECKING:
    from datasets import Dataset


class Opened(Protocol):
    """What every kind of dataset can be asked.

    Attributes:
        name: as the user gave it.
        kind: what it was opened as, in words.
        told: what was read how, and what was not.
        warnings: what is probably not what was meant.
    """

    name: str
    kind: str
    told: list[str]
    warnings: list[str]

    @property
    def split_names(self) -> list[str]: ...

    def num_rows(self, split: str) -> int: ...

    def features(self, split: str) -> Mapping[str, Any]:
        """The types of a split's columns, as `datasets` describes them."""
        ...

    def tables(self, split: str, columns: Sequence[str]) -> "list[Dataset]":
        """A split's columns; in several tables where these say their classes in several ways."""
        ...


class TablesOpened:
    """Splits that are tables already.

    Args:
        splits: the tables of each split; several where they come from several files.
        name: see Opened, as the others.
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
        name: see Opened, as the others.
        load: loads a whole split in another way, where all of its files say the same; default: file by file.
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
