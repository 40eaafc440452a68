"""Parquet files, sorted into splits; each file says for itself what its columns are and what its classes are called.

``datasets`` takes the types of all files from the first one, and so reads the class numbers of all other files in the
order of the first. Here files that name their classes differently are read separately.
"""

import glob
import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import TYPE_CHECKING, Any

from hf_transinv.data.columns import is_class_label, listed
from hf_transinv.data.folders import local_path
from hf_transinv.data.reading import reading
from hf_transinv.data.row_groups import footer_of
from hf_transinv.data.split_names import in_order, split_word
from hf_transinv.data.walk import File
from hf_transinv.errors import InputError

if TYPE_CHECKING:
    from datasets import Dataset
    from pyarrow import Schema
    from pyarrow.parquet import FileMetaData

_FOOTERS_AT_ONCE = 16


class ParquetFiles:
    """Files by split.

    Args:
        files: their paths, or addresses ``hf://...``, by split.
        name: the dataset, for errors.
        told: the types of columns as given beside the files (in a README.md), for files that do not say them.
    """

    def __init__(self, files: Mapping[str, Sequence[str]], name: str, told: Mapping[str, Any] | None = None) -> None:
        self.files = {split: list(paths) for split, paths in files.items()}
        self.name, self._told = name, dict(told or {})
        self._features: dict[str, dict[str, Any]] = {}

    @cached_property
    def footers(self) -> "dict[str, FileMetaData]":
        """The footer of every file.

        The first one is read alone: what `datasets` then caches about the folder saves the threads requests.

        Raises:
            InputError: a file cannot be read.
        """
        paths = [path for files in self.files.values() for path in files]
        with reading(self.name), ThreadPoolExecutor(_FOOTERS_AT_ONCE) as pool:
            footers = [footer_of(path) for path in paths[:1]]
            footers += pool.map(footer_of, paths[1:])
        return dict(zip(paths, footers, strict=True))

    def num_rows(self, split: str) -> int:
        return sum(self.footers[path].num_rows for path in self.files[split])

    def features_of(self, path: str) -> dict[str, Any]:
        """The types of a file's columns, as `datasets` describes them; classes as this file names them."""
        if path not in self._features:
            footer = self.footers[path]
            with reading(self.name):
                schema = footer.schema.to_arrow_schema()
            self._features[path] = _features(schema, self._told)
        return self._features[path]

    def features(self, split: str) -> dict[str, Any]:
        """The types of a split's columns, as its first file has them."""
        return self.features_of(self.files[split][0])

    def groups(self, split: str, columns: Sequence[str]) -> list[list[str]]:
        """The files of a split, grouped by the types that they give to some columns.

        Args:
            split: of the files.
            columns: whose types are compared.

        Raises:
            InputError: a file lacks a column.
        """
        groups: dict[str, list[str]] = {}
        for path in self.files[split]:
            features = self.features_of(path)
            missing = [column for column in columns if column not in features]
            if missing:
                raise InputError(
                    f"{path} has no column {missing[0]!r}, which other files of {self.name} have; its columns are "
                    f"{listed(features)}. Give files of the same columns."
                )
            groups.setdefault(repr([features[column] for column in columns]), []).append(path)
        return list(groups.values())

    def load(self, split: str, columns: Sequence[str]) -> "list[Dataset]":
        """Loads columns of a split.

        Args:
            split: of the files.
            columns: to load.

        Returns:
            A table for each group of files.

        Raises:
            InputError: a file cannot be read.
        """
        from datasets import Features, load_dataset

        tables = []
        for group in self.groups(split, columns):
            if "::" in group[0] and "://" not in group[0]:
                raise InputError(f"{group[0]} has '::' in its path, which `datasets` takes for an archive. Rename it.")
            found = self.features_of(group[0])
            features = Features({column: found[column] for column in columns})
            files = {"train": [path if "://" in path else glob.escape(path) for path in group]}
            with reading(self.name):
                table = load_dataset(
                    "parquet", data_files=files, columns=list(columns), features=features, split="train"
                )
            tables.append(table)
        return tables


def files_of(pattern: str) -> list[File]:
    """The parquet files that a path or a glob means.

    Args:
        pattern: path or glob.

    Returns:
        The files; their parts are relative to the folder that they have in common.

    Raises:
        InputError: there is no such file.
    """
    path = os.path.abspath(local_path(pattern))
    if os.path.isfile(path):
        folder, name = os.path.split(path)
        above = os.path.basename(folder)
        return [File(path, (above, name) if split_word(above) == above.lower() else (name,))]
    matches = [] if "\0" in path else glob.glob(path, recursive=True)
    paths = sorted(found for found in matches if os.path.isfile(found))
    if not paths:
        raise InputError(f"No parquet file matches {pattern!r}. Correct --dataset.")
    root = os.path.commonpath([os.path.dirname(found) for found in paths])
    return [File(found, tuple(os.path.relpath(found, root).split(os.sep))) for found in paths]


def sorted_into_splits(files: Sequence[File]) -> dict[str, list[File]]:
    """Sorts files into splits, by the first of their folders, or else by their own name, that is named like a split.

    Returns:
        The files by split. Files without a split are ``train`` where all are without one; else they are left out.
    """
    splits: dict[str, list[File]] = {}
    for file in files:
        stem = os.path.splitext(file.parts[-1])[0]
        word = next((word for part in (*file.folders, stem) if (word := split_word(part))), "")
        splits.setdefault(word, []).append(file)
    unnamed = splits.pop("", [])
    return {split: splits[split] for split in in_order(splits)} or ({"train": unnamed} if unnamed else {})


def _features(schema: "Schema", told: Mapping[str, Any]) -> dict[str, Any]:
    from datasets import ClassLabel, Features, Image

    said = _said_of_columns(schema.metadata or {})
    features: dict[str, Any] = {}
    for column in schema:
        try:
            kind = Features.from_arrow_schema(_only(column))[column.name]
        except (ValueError, NotImplementedError):
            kind = str(column.type)  # a type that `datasets` does not know, of a column that is not used
        of_file = said.get(column.name)
        of_file = of_file if isinstance(of_file, dict) else {}
        names = of_file.get("names")
        if of_file.get("_type") == "Image" and isinstance(kind, dict):
            kind = Image(decode=False)
        elif of_file.get("_type") == "ClassLabel" and _are_names(names) and _is_integer(column):
            kind = ClassLabel(names=names)
        elif column.name in told and isinstance(told[column.name], Image) and isinstance(kind, dict):
            kind = Image(decode=False)
        elif column.name in told and is_class_label(told[column.name]) and _is_integer(column):
            kind = told[column.name]
        features[column.name] = kind
    return features


def _said_of_columns(metadata: Mapping[bytes, bytes]) -> dict[str, Any]:
    """What `datasets` has written into a file about its columns; nothing where that is not in its format."""
    try:
        content = json.loads(metadata.get(b"huggingface", b"{}"))
    except (ValueError, RecursionError):  # no JSON, or nested too deeply
        return {}
    for key in ("info", "features"):
        content = content.get(key) if isinstance(content, dict) else None
    return content if isinstance(content, dict) else {}


def _are_names(names: Any) -> bool:
    """Whether these are names of classes: texts, all different."""
    return isinstance(names, list) and all(isinstance(name, str) for name in names) and len(set(names)) == len(names)


def _is_integer(column: Any) -> bool:
    import pyarrow as pa

    return pa.types.is_integer(column.type)


def _only(column: Any) -> "Schema":
    import pyarrow as pa

    return pa.schema([column.remove_metadata()])
