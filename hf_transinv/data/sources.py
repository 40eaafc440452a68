"""The one door to data: a name becomes rows of an undecoded image and a class number, with the classes' names.

A dataset is a Hub id, a local folder in the shape of a Hub repository, parquet files, an image folder, or one of the
embedded ``digits/source`` and ``digits/target``.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hf_transinv.data.columns import image_column_of, label_column_of, named_labels
from hf_transinv.data.embedded import EMBEDDED_NAMES, open_embedded
from hf_transinv.data.folders import (
    is_image_folder,
    local_path,
    open_image_folder,
    open_loose_images,
    parquet_splits,
)
from hf_transinv.data.pieces import ParquetPieces, Pieces, TablePieces
from hf_transinv.errors import InputError
from hf_transinv.hub_errors import LOG_IN, READ_FAILURES, client_says

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset

# Tried in this order.
_EVAL_SPLITS = ("test", "testing", "validation", "valid", "val", "dev", "eval")


@dataclass(frozen=True)
class Source:
    """A split of a dataset, opened and checked, not yet decoded.

    Attributes:
        rows: exactly two columns, ``image`` ({'bytes', 'path'}, undecoded) and ``label`` (class number).
        label_names: the classes, in the order of their numbers.
        num_rows: None when a stream does not say.
        name: the dataset as the user gave it.
        split: the split as the user gave it.
        streaming: whether ``rows`` is an IterableDataset.
        pieces: of a stream, to read its rows in another order; None when it can only be read from its beginning.
    """

    rows: "Dataset | IterableDataset"
    label_names: list[str]
    num_rows: int | None
    name: str
    split: str
    streaming: bool
    pieces: Pieces | None = None

    def where(self, row: int) -> str:
        """Names a row for an error."""
        return f"Row {row} of {self.name}, split {self.split!r}"


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
    """Opens one split of a dataset.

    Args:
        dataset: Hub id, local folder, parquet file or glob, image folder, or embedded name.
        config: which configuration of a Hub dataset.
        split: a split, or a slice of one such as ``train[:90%]`` (not with streaming).
        image_column: None finds the one image column by its type.
        label_column: None finds the one label column by its type and name.
        streaming: read rows as they are needed instead of all at once.
        revision: branch, tag or commit of a Hub dataset.
        label_names: the classes of the training split when this is another one; their order is then kept.

    Raises:
        InputError: no such dataset, configuration or split; no image or label column; no rows; fewer than two classes.
    """
    if streaming and "[" in split:
        raise InputError(
            f"split {split!r} is a slice, which a stream cannot know the ends of. Leave out --streaming, or give a "
            "whole split."
        )
    opened = _open_local(dataset)
    name = f"{dataset}, split {split!r},"
    files = None
    if opened is not None:
        rows = _take_split(opened, split, dataset)
        num_rows = len(rows)
    elif streaming:
        rows, files = _stream(dataset, config, split, revision)
        num_rows = _told_rows(rows, split)
    else:
        rows = _load(dataset, config, split, revision)
        num_rows = len(rows)
    if num_rows == 0:
        raise InputError(f"{name} is empty. Choose a split that has rows.")
    rows, columns = _two_columns(rows, image_column, label_column, name)
    rows, names = named_labels(rows, label_names, name)
    if not streaming:
        return Source(rows, names, num_rows, dataset, split, False)
    if opened is not None:
        return Source(rows.to_iterable_dataset(), names, num_rows, dataset, split, True, TablePieces(rows))
    if files is None:
        return Source(rows, names, num_rows, dataset, split, True)
    try:
        pieces = ParquetPieces(files, columns, rows.features)
    except READ_FAILURES as error:
        raise _not_opened(dataset, config, error) from error
    if not pieces.lengths.sum():
        raise InputError(f"{name} is empty. Choose a split that has rows.")
    return Source(rows, names, int(pieces.lengths.sum()), dataset, split, True, pieces)


def open_unlabelled(
    dataset: str,
    *,
    config: str | None = None,
    split: str | None = None,
    image_column: str | None = None,
    revision: str | None = None,
) -> Source:
    """Opens one split for its images alone: labels are not read, and none are needed.

    Args:
        dataset: as in `open_source`, or a folder of pictures.
        config: which configuration of a Hub dataset.
        split: a split or a slice of one; None: test or validation, or the only one there is.
        image_column: None finds the one image column by its type.
        revision: branch, tag or commit of a Hub dataset.

    Returns:
        A Source whose labels are all 0, of one class without a name.

    Raises:
        InputError: no such dataset, configuration or split; no image column; no rows.
    """
    folder = local_path(dataset)
    loose = open_loose_images(folder) if os.path.isdir(folder) and is_image_folder(folder) else None
    if split is None:
        names = list(loose) if loose else split_names(dataset, config, revision)
        split = names[0] if len(names) == 1 else default_eval_split(names)
    opened = loose or _open_local(dataset)
    rows = _load(dataset, config, split, revision) if opened is None else _take_split(opened, split, dataset)
    name = f"{dataset}, split {split!r},"
    if len(rows) == 0:
        raise InputError(f"{name} is empty. Choose a split that has rows.")
    from datasets import Image

    image = image_column_of(rows.features, image_column, name)
    rows = rows.cast_column(image, Image(decode=False)).select_columns([image])
    rows = rows.rename_column(image, "image") if image != "image" else rows
    return Source(rows.add_column("label", [0] * len(rows)), [""], len(rows), dataset, split, False)


def split_names(dataset: str, config: str | None = None, revision: str | None = None) -> list[str]:
    """Lists the splits of a dataset.

    Raises:
        InputError: no such dataset or configuration.
    """
    opened = _open_local(dataset)
    if opened is not None:
        return list(opened)
    if _is_parquet(dataset):
        return list(parquet_splits(dataset))
    import datasets

    try:
        return datasets.get_dataset_split_names(_resolved(dataset), config, revision=revision)
    except READ_FAILURES as error:
        raise _not_opened(dataset, config, error) from error


def default_eval_split(names: Sequence[str]) -> str:
    """Chooses the split to evaluate on.

    Raises:
        InputError: none is named as one to evaluate on.
    """
    for name in _EVAL_SPLITS:
        if name in names:
            return name
    raise InputError(
        f"None of the splits {', '.join(names)} is called {', '.join(_EVAL_SPLITS)}. Name one with --eval_split; a "
        "slice such as 'train[90%:]' serves when the data has only one (then train on 'train[:90%]')."
    )


def _open_local(dataset: str) -> "dict[str, Dataset] | None":
    """Opens what ``datasets`` is not asked for: the embedded digits and image folders; None for everything else."""
    if dataset in EMBEDDED_NAMES:
        return open_embedded(dataset)
    if dataset.startswith("digits/"):
        raise InputError(
            f"There are no embedded digits called {dataset!r}. Choose one of {', '.join(EMBEDDED_NAMES)}."
        )
    folder = local_path(dataset)
    if os.path.isdir(folder):
        return open_image_folder(folder) if is_image_folder(folder) else None
    looks_local = dataset.startswith(("/", "./", "../", "~")) or dataset.count("/") > 1
    if looks_local and not _is_parquet(dataset):
        raise InputError(f"There is no folder {dataset!r}. Correct --dataset, or give the id of a dataset on the Hub.")
    return None


def _is_parquet(dataset: str) -> bool:
    return dataset.endswith(".parquet")


def _resolved(dataset: str) -> str:
    folder = local_path(dataset)
    return str(folder) if os.path.isdir(folder) else dataset


def _take_split(opened: "dict[str, Dataset]", split: str, dataset: str) -> "Dataset":
    from datasets import ReadInstruction, concatenate_datasets

    try:
        parts = ReadInstruction.from_spec(split).to_absolute({name: len(rows) for name, rows in opened.items()})
    except (ValueError, AssertionError) as error:
        raise _no_split(dataset, split, list(opened), error) from error
    return concatenate_datasets([opened[part.splitname].select(range(part.from_, part.to)) for part in parts])


def _load(dataset: str, config: str | None, split: str, revision: str | None) -> "Dataset":
    import datasets

    with _opening(dataset, config, split, revision):
        return datasets.load_dataset(**_place(dataset, config, revision), split=split)


def _stream(
    dataset: str, config: str | None, split: str, revision: str | None
) -> "tuple[IterableDataset, list[str] | None]":
    """Returns the stream, and its files if they are parquet."""
    import datasets
    from datasets.packaged_modules.parquet.parquet import ParquetConfig

    with _opening(dataset, config, split, revision):
        builder = datasets.load_dataset_builder(**_place(dataset, config, revision))
        rows = builder.as_streaming_dataset(split=split)
        # Of a folder of images on the Hub, `datasets` decodes ahead; that is not undone by casting the column.
        rows = rows.decode(False) if rows.features else rows
    is_plain = isinstance(builder.config, ParquetConfig) and builder.config.filters is None
    files = (builder.config.data_files or {}).get(split) if is_plain else None
    return rows, None if files is None else [str(file) for file in files]


def _place(dataset: str, config: str | None, revision: str | None) -> dict[str, Any]:
    if _is_parquet(dataset):
        return {"path": "parquet", "data_files": parquet_splits(dataset)}
    return {"path": _resolved(dataset), "name": config, "revision": revision}


@contextmanager
def _opening(dataset: str, config: str | None, split: str, revision: str | None) -> Iterator[None]:
    import datasets

    try:
        yield
    except ValueError as error:
        if "corresponds to no data" in str(error):
            raise InputError(f"{dataset}, split {split!r}, is empty. Choose a split that has rows.") from error
        names = split_names(dataset, config, revision)
        if split.split("[")[0] in names:
            raise _not_opened(dataset, config, error) from error
        raise _no_split(dataset, split, names, error) from error
    except (*READ_FAILURES, datasets.exceptions.DatasetsError, TypeError, AttributeError, LookupError) as error:
        raise _not_opened(dataset, config, error) from error


def _told_rows(rows: "IterableDataset", split: str) -> int | None:
    splits = rows.info.splits or {}
    return splits[split].num_examples or None if split in splits else None


def _two_columns(
    rows: "Dataset | IterableDataset", image_column: str | None, label_column: str | None, name: str
) -> "tuple[Dataset | IterableDataset, tuple[str, str]]":
    """Returns the rows with the columns ``image`` and ``label``, and what these were called."""
    from datasets import Image

    features = rows.features or {}
    image = image_column_of(features, image_column, name)
    label = label_column_of(features, label_column, name)
    # Cast first: a stream that is renamed and then cast gives rows at a tenth of the speed.
    rows = rows.cast_column(image, Image(decode=False)).select_columns([image, label])
    renamed = {old: new for old, new in ((image, "image"), (label, "label")) if old != new}
    return rows.rename_columns(renamed) if renamed else rows, (image, label)


def cannot_be_read_on(source: Source, error: Exception) -> InputError:
    """What to say of a source that could be opened and then, in spite of all retries, not read to its end."""
    return InputError(f"{source.name}, split {source.split!r}, cannot be read any further: {client_says(error)}")


def _no_split(dataset: str, split: str, names: list[str], error: Exception) -> InputError:
    return InputError(
        f"{dataset} cannot give split {split!r} ({error}). Its splits are {', '.join(names)}; a slice is written like "
        "'train[:90%]'."
    )


def _not_opened(dataset: str, config: str | None, error: Exception) -> InputError:
    of_config = "" if config is None else f", configuration {config!r},"
    return InputError(
        f"The dataset {dataset!r}{of_config} cannot be opened: {client_says(error)} Expected the id of a dataset "
        f"on the Hub that you can reach and read (for a private or gated one {LOG_IN}), a folder in the same shape, "
        ".parquet files or an image folder."
    )
