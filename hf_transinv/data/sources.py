"""Opens data by name: rows of an undecoded image and a class number, and the names of the classes.

A dataset is a Hub id, or is on this machine (see ``local``): a folder in the shape of a Hub repository, parquet files,
a folder of images, a table of image paths, what `datasets` saved to disk, ``digits/source``, ``digits/target``.
"""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from hf_transinv.data.classes import Classes
from hf_transinv.data.columns import image_column_of, label_column_of
from hf_transinv.data.hold_out import HoldOut
from hf_transinv.data.hub_data import RowsOnly, open_hub
from hf_transinv.data.labelling import class_counts, labelled_row_groups, labelled_rows, numbers_in, renamed
from hf_transinv.data.local import open_local
from hf_transinv.data.opened import FilesOpened, Opened, Source
from hf_transinv.data.reading import reading
from hf_transinv.data.row_groups import SequentialRows, TableRowGroups
from hf_transinv.data.split_names import default_eval_split, find_split, spec_parts
from hf_transinv.errors import InputError
from hf_transinv.resolve.local_hub import local_copy

__all__ = ["Source", "default_eval_split", "open_dataset", "open_source", "open_unlabelled", "split_names"]


class OpenDataset:
    """A dataset whose splits can be opened one after another; its folder is walked only once.

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
                f"split {split!r}{' with a part held out' if hold_out else ' is a slice, which'} cannot be read as a "
                "stream, which does not know its ends. Leave out --streaming, or give a whole split."
            )
        name = f"{opened.name}, split {split!r},"
        if isinstance(opened, RowsOnly) and streaming:
            rows, names, num_rows, columns = opened.labelled_stream(split, image_column, label_column, classes)
            return Source(rows, names, num_rows, opened.name, split, True, columns=columns, bases=(split,))
        parts = self._parts(split)
        if not sum(stop - start for _, start, stop in parts):
            raise InputError(f"{name} is empty. Choose a split that has rows.")
        features = opened.features(parts[0][0])
        columns = image_column_of(features, image_column, name), label_column_of(features, label_column, name)
        bases = tuple(dict.fromkeys(base for base, _, _ in parts))
        common: dict[str, Any] = {"name": opened.name, "split": split, "columns": columns, "bases": bases}
        if streaming and isinstance(opened, FilesOpened):
            row_groups, found, counts = labelled_row_groups(opened.files, split, columns, classes, name)
            common |= {"class_counts": counts, "are_numbered": found.are_numbered}
            num_rows = int(row_groups.lengths.sum())
            return Source(
                SequentialRows(row_groups), found.names, num_rows, streaming=True, row_groups=row_groups, **common
            )
        rows, found = labelled_rows(opened, parts, columns, classes, name)
        numbers = numbers_in(rows)
        if hold_out is not None:
            kept = hold_out.rows(numbers)
            rows, numbers = rows.select(kept), numbers[kept]
            part = hold_out.named
            common["split"] = f"{split}, {part} held out" if hold_out.part == "held_out" else f"{split} without {part}"
            if not len(numbers):
                few = (
                    f"too few images in each class for fold {hold_out.fold}"
                    if hold_out.fold
                    else "one image in each class"
                )
                raise InputError(f"{name} has {few}, and none to hold out. Add images.")
        common |= {"class_counts": class_counts(numbers, len(found.names)), "are_numbered": found.are_numbered}
        if streaming:
            stream = TableRowGroups(rows)
            return Source(SequentialRows(stream), found.names, len(rows), streaming=True, row_groups=stream, **common)
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
            tables = []
            for table in opened.tables(base, [column]):
                with reading(opened.name):
                    images = table.cast_column(column, Image(decode=False))
                tables.append(renamed(images, {column: "image"}))
            found.append(concatenate_datasets(tables).select(range(start, stop)))
        rows = concatenate_datasets(found)
        labelled = rows.add_column("label", np.zeros(len(rows), np.int64))
        return Source(labelled, [""], len(rows), opened.name, split, False, columns=(column, ""))

    def _parts(self, split: str) -> list[tuple[str, int, int]]:
        return spec_parts(split, self.opened.split_names, self.opened.num_rows, self.opened.name)


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
        with_labels: False accepts images outside class folders.

    Raises:
        InputError: no such dataset or configuration, or it cannot be read.
    """
    names = [name.partition("[")[0] for name in asked if name]
    opened = open_local(dataset, names, image_column, label_column, with_labels)
    if opened is not None and (config or revision):
        given = f"dataset_config {config}" if config else f"dataset_revision {revision}"
        raise InputError(
            f"{given} was given for {dataset!r}, which is on this machine ({opened.kind}) and has none. Leave it out, "
            "or give the id of a dataset on the Hub."
        )
    if opened is None:
        place = str(local_copy("datasets", dataset, revision) or dataset)
        if place != dataset and not config:
            opened = open_local(place, names, image_column, label_column, with_labels)
        opened = open_hub(place, config, revision) if opened is None else opened
        opened.name = dataset
    return OpenDataset(opened)


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
        dataset: Hub id, local folder, file or glob, or embedded name.
        config: which configuration of a Hub dataset.
        split: a split, or a slice of one such as ``train[:90%]`` (not with streaming).
        image_column: None finds the one image column by its type.
        label_column: None finds the one label column by its type and name.
        streaming: read rows as they are needed instead of all at once.
        revision: branch, tag or commit of a Hub dataset.
        label_names: the classes of the training split when this is another one; their order is then kept.

    Raises:
        InputError: see both.
    """
    opened = open_dataset(
        dataset,
        config=config,
        revision=revision,
        asked=[split],
        image_column=image_column,
        label_column=label_column,
    )
    classes = None if label_names is None else Classes(list(label_names), True)
    return opened.source(
        split, image_column=image_column, label_column=label_column, streaming=streaming, classes=classes
    )


def open_unlabelled(
    dataset: str,
    *,
    config: str | None = None,
    split: str | None = None,
    image_column: str | None = None,
    revision: str | None = None,
) -> Source:
    """Opens one split for its images alone: `open_dataset`, then `OpenDataset.unlabelled`.

    Args:
        dataset: Hub id, local folder, file or glob, or embedded name.
        config: which configuration of a Hub dataset.
        split: a split or a slice of one; None: test or validation, or the only one there is.
        image_column: None finds the one image column by its type.
        revision: branch, tag or commit of a Hub dataset.

    Raises:
        InputError: see both.
    """
    opened = open_dataset(
        dataset, config=config, revision=revision, asked=[split], image_column=image_column, with_labels=False
    )
    return opened.unlabelled(split, image_column)


def split_names(dataset: str, config: str | None = None, revision: str | None = None) -> list[str]:
    """Lists the splits of a dataset.

    Raises:
        InputError: no such dataset or configuration.
    """
    return open_dataset(dataset, config=config, revision=revision).split_names
