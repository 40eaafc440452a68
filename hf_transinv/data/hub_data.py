"""What `datasets` opens itself: datasets on the Hub, and folders on this machine that are made like one."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from hf_transinv.data.classes import Classes, check_number_of_classes
from hf_transinv.data.columns import image_column_of, is_class_label, label_column_of, listed
from hf_transinv.data.folders import local_path
from hf_transinv.data.labelling import renamed
from hf_transinv.data.opened import FilesOpened, Opened
from hf_transinv.data.parquet_files import ParquetFiles
from hf_transinv.errors import InputError
from hf_transinv.resolve.hub_errors import LOG_IN, READ_FAILURES, client_says

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
        """The rows of a split as a stream, and their number; None when it is not said."""
        with _opening(self.name, self._place["name"]):
            rows = self._builder.as_streaming_dataset(split=split)
        # Of a folder of images on the Hub, `datasets` decodes ahead; that is not undone by casting the column.
        rows = rows.decode(False) if rows.features else rows
        splits = rows.info.splits or {}
        return rows, splits[split].num_examples or None if split in splits else None

    def labelled_stream(
        self, split: str, image_column: str | None, label_column: str | None, wanted: Classes | None
    ) -> "tuple[IterableDataset, list[str], int | None, tuple[str, str]]":
        """A stream with the columns ``image`` and ``label``, whose own types have to say the classes.

        Args:
            split: a whole split.
            image_column: as the user named it, if so.
            label_column: the same.
            wanted: the classes that these have to be, in their order; None: any.

        Returns:
            The rows, the classes, the number of rows (None when it is not said), and what the columns were called.

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
            with _opening(self.name, self._place["name"]):
                self._loaded[split] = load_dataset(**self._place, split=split)
        return self._loaded[split]


def open_hub(dataset: str, config: str | None, revision: str | None) -> Opened:
    """Opens a dataset on the Hub, or a local folder that says in its README.md how it is to be read.

    Raises:
        InputError: it cannot be had, or its name is one of a reader of `datasets` and not of data.
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
    with _opening(dataset, config):
        builder = load_dataset_builder(**place)
        names = get_dataset_split_names(place["path"], config, revision=revision)
        is_plain = isinstance(builder.config, ParquetConfig) and builder.config.filters is None
        if not (is_plain and builder.config.data_files and set(names) <= set(builder.config.data_files)):
            return RowsOnly(builder, place, names, dataset)
        files = {split: [str(file) for file in builder.config.data_files[split]] for split in names}
        kind = "folder in Hub shape" if is_local else "Hub"
        parquet = ParquetFiles(files, dataset, builder.info.features)
        return FilesOpened(parquet, dataset, kind, lambda split: load_dataset(**place, split=split))


@contextmanager
def _opening(dataset: str, config: str | None) -> Iterator[None]:
    from datasets.exceptions import DatasetsError

    try:
        yield
    except InputError:
        raise
    except (*READ_FAILURES, DatasetsError, TypeError, AttributeError, LookupError) as error:
        if "corresponds to no data" in str(error):
            raise InputError(f"A split of {dataset} is empty. Choose a split that has rows.") from error
        raise cannot_be_opened(dataset, config, error) from error


def cannot_be_opened(dataset: str, config: str | None, error: Exception) -> InputError:
    """What to say of a dataset that failed to open."""
    of_config = "" if config is None else f", configuration {config!r},"
    return InputError(
        f"The dataset {dataset!r}{of_config} cannot be opened: {client_says(error)} Expected the id of a dataset on "
        f"the Hub that you can reach and read (for a private or gated one {LOG_IN}), a folder in the same shape, "
        "parquet files, a folder of images, or a table of image paths."
    )


@contextmanager
def reading(dataset: str) -> Iterator[None]:
    """What fails while a dataset is read becomes an InputError that says what to do."""
    from datasets.exceptions import DatasetsError

    try:
        yield
    except InputError:
        raise
    except (*READ_FAILURES, DatasetsError) as error:
        raise cannot_be_opened(dataset, None, error) from error
