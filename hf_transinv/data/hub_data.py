"""What `datasets` itself opens: datasets on the Hub, and folders on this machine in the shape of one."""

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hf_transinv.data.classes import Classes, check_number_of_classes
from hf_transinv.data.columns import image_column_of, is_class_label, label_column_of, listed
from hf_transinv.data.folders import local_path
from hf_transinv.data.labelling import renamed
from hf_transinv.data.opened import FilesOpened, Opened
from hf_transinv.data.parquet_files import ParquetFiles
from hf_transinv.data.reading import reading
from hf_transinv.errors import InputError

if TYPE_CHECKING:
    from datasets import Dataset, DatasetBuilder, IterableDataset


class RowsOnly:
    """Splits that only `datasets` itself can read: archives of images, CSV or JSON on the Hub, its own cache.

    Args:
        builder: the dataset.
        place: the arguments of `load_dataset`.
        names: of its splits.
        name: see `opened.Opened`.
    """

    def __init__(self, builder: "DatasetBuilder", place: Mapping[str, Any], names: Sequence[str], name: str) -> None:
        self._builder, self._place, self._names = builder, dict(place), list(names)
        self.name, self.kind = name, f"opened by datasets ({type(builder).__name__.lower()})"
        self.told: list[str] = []
        self.warnings: list[str] = []
        self._loaded: dict[str, Dataset] = {}

    @property
    def split_names(self) -> list[str]:
        return self._names

    def num_rows(self, split: str) -> int:
        return len(self._load(split))

    def features(self, split: str) -> Mapping[str, Any]:
        return self._load(split).features

    def tables(self, split: str, columns: Sequence[str]) -> "list[Dataset]":
        return [self._load(split).select_columns(list(columns))]

    def stream(self, split: str) -> "tuple[IterableDataset, int | None]":
        """The rows of a split as a stream, and their number; None when the dataset does not say."""
        with reading(self.name, self._place["name"]):
            rows = self._builder.as_streaming_dataset(split=split)
        # `datasets` decodes images of a folder on the Hub ahead of their use, which casting the column does not stop.
        rows = rows.decode(False) if rows.features else rows
        splits = rows.info.splits or {}
        return rows, splits[split].num_examples or None if split in splits else None

    def labelled_stream(
        self, split: str, image_column: str | None, label_column: str | None, wanted: Classes | None
    ) -> "tuple[IterableDataset, list[str], int | None, tuple[str, str]]":
        """A stream with the columns ``image`` and ``label``; its label column must be a ClassLabel.

        Args:
            split: a whole split.
            image_column: the column that the user named, if any.
            label_column: the same.
            wanted: the classes that the stream must have, in this order; None: any.

        Returns:
            The rows, the classes, the number of rows (None when the dataset does not say), and the columns' own names.

        Raises:
            InputError: no image or label column, no names of the classes, other classes than those wanted.
        """
        from datasets import Image

        name = f"{self.name}, split {split!r},"
        rows, num_rows = self.stream(split)
        if num_rows == 0:
            raise InputError(f"{name} is empty. Choose a split that has rows.")
        features = rows.features or {}
        columns = image_column_of(features, image_column, name), label_column_of(features, label_column, name)
        feature = features[columns[1]]
        if not is_class_label(feature):
            raise InputError(
                f"The labels of {name} have no names (type {feature.dtype}), so streaming cannot know the classes "
                "before it has read all rows. Leave out --streaming, or store the column as a datasets.ClassLabel."
            )
        check_number_of_classes(feature.names, name)
        if wanted is not None and list(feature.names) != wanted.names:
            raise InputError(
                f"The classes of {name} are {listed(feature.names)}, but {listed(wanted.names)} were expected, and "
                "a stream cannot be numbered anew. Leave out --streaming, or choose splits with the same classes in "
                "the same order."
            )
        rows = rows.cast_column(columns[0], Image(decode=False)).select_columns(list(columns))
        return renamed(rows, dict(zip(columns, ("image", "label"), strict=True))), feature.names, num_rows, columns

    def _load(self, split: str) -> "Dataset":
        from datasets import load_dataset

        if split not in self._loaded:
            with reading(self.name, self._place["name"]):
                self._loaded[split] = load_dataset(**self._place, split=split)
        return self._loaded[split]


def open_hub(dataset: str, config: str | None, revision: str | None) -> Opened:
    """Opens a dataset on the Hub, or a local folder whose README.md says how it is to be read.

    Args:
        dataset: Hub id or folder.
        config: which configuration of it.
        revision: branch, tag or commit on the Hub.

    Raises:
        InputError: it cannot be read, or it is the name of a reader of `datasets` and not of data.
    """
    from datasets import get_dataset_split_names, load_dataset, load_dataset_builder
    from datasets.packaged_modules import _PACKAGED_DATASETS_MODULES
    from datasets.packaged_modules.parquet.parquet import ParquetConfig

    if dataset in _PACKAGED_DATASETS_MODULES:
        raise InputError(
            f"{dataset!r} is the name of a reader of `datasets`, not of data, and there is no folder of that name "
            "here. Correct --dataset: a path, or USER/NAME on the Hub."
        )
    folder = local_path(dataset)
    is_local = os.path.isdir(folder)
    place = {"path": os.path.abspath(folder) if is_local else dataset, "name": config, "revision": revision}
    with reading(dataset, config):
        builder = load_dataset_builder(**place)
    with reading(dataset, config):
        names = get_dataset_split_names(place["path"], config, revision=revision)
    is_plain = isinstance(builder.config, ParquetConfig) and builder.config.filters is None
    if not (is_plain and builder.config.data_files and set(names) <= set(builder.config.data_files)):
        return RowsOnly(builder, place, names, dataset)

    def load(split: str) -> "Dataset":
        with reading(dataset, config):
            return load_dataset(**place, split=split)

    files = {split: [str(file) for file in builder.config.data_files[split]] for split in names}
    kind = "folder in Hub shape" if is_local else "Hub"
    return FilesOpened(ParquetFiles(files, dataset, builder.info.features), dataset, kind, load)
