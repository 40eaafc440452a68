"""Opens datasets on this machine: folders of images, tables of paths, parquet files, saved datasets.

What a folder is opened as follows from its content, and is logged. A folder that could be two things is refused.
"""

import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hf_transinv.data.columns import has_images, is_text, listed
from hf_transinv.data.embedded import EMBEDDED_NAMES, open_embedded
from hf_transinv.data.folders import ImageFolder, local_path
from hf_transinv.data.opened import FilesOpened, Opened, TablesOpened
from hf_transinv.data.parquet_files import ParquetFiles, files_of, sorted_into_splits
from hf_transinv.data.reading import reading
from hf_transinv.data.split_names import in_order, split_kind, split_word
from hf_transinv.data.tables import PathTable, open_path_table
from hf_transinv.data.walk import PARQUET_SUFFIX, TABLE_SUFFIXES, File, Walk, walk
from hf_transinv.errors import InputError

if TYPE_CHECKING:
    from datasets import Dataset

_FILE_SUFFIXES = (PARQUET_SUFFIX, ".arrow", *sorted(TABLE_SUFFIXES))
_ARROW_SUFFIX = ".arrow"
_ARCHIVES_OF_IMAGES = (".tar", ".zip")  # which `datasets` opens
_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".rar", ".7z")
_METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")  # which `datasets` reads beside images


def open_local(
    dataset: str,
    asked: Collection[str] = (),
    image_column: str | None = None,
    label_column: str | None = None,
    with_labels: bool = True,
) -> Opened | None:
    """Opens a dataset on this machine; None when there is none of that name, or only `datasets` can open it.

    Args:
        dataset: embedded name, folder, file or glob.
        asked: splits that the user named.
        image_column: the column that the user named, if any.
        label_column: the same.
        with_labels: False accepts images outside class folders.

    Raises:
        InputError: it cannot be read, or could be read in several ways.
    """
    if dataset in EMBEDDED_NAMES:
        opened = TablesOpened(open_embedded(dataset), dataset, "embedded digits")
        if os.path.isdir(dataset):
            opened.warnings.append(f"the folder of that name here is not read: for it, give ./{dataset}")
        return opened
    if dataset.startswith("digits/"):
        raise InputError(f"There are no embedded digits called {dataset!r}. Choose one of {listed(EMBEDDED_NAMES)}.")
    folder = local_path(dataset)
    if os.path.isdir(folder):
        return _open_folder(dataset, Path(os.path.abspath(folder)), asked, image_column, label_column, with_labels)
    suffix = os.path.splitext(dataset)[1].lower()
    if suffix == PARQUET_SUFFIX:
        return _open_parquet(dataset, files_of(dataset), image_column, label_column)
    if os.path.isfile(folder) and suffix in TABLE_SUFFIXES:
        table = open_path_table(os.path.abspath(folder), image_column)
        return _open_tables(dataset, [(split_word(folder.stem) or "train", table)], label_column)
    if os.path.isfile(folder) and suffix == _ARROW_SUFFIX:
        tables = _arrow_tables(dataset, [File(os.path.abspath(folder), (folder.name,))])
        return TablesOpened(tables, dataset, "arrow file")
    if os.path.isfile(folder):
        advice = "Unpack it and give its folder" if suffix in _ARCHIVES else "Give the folder it is in"
        raise InputError(
            f"{dataset!r} is a file, and not one of {', '.join(_FILE_SUFFIXES)}, which are opened as datasets. "
            f"{advice}."
        )
    if dataset.startswith(("/", "./", "../", "~")) or dataset.count("/") > 1 or suffix in TABLE_SUFFIXES:
        raise InputError(
            f"There is no folder or file {dataset!r}. Correct --dataset, or give the id of a dataset on the Hub."
        )
    return None


def _open_folder(
    dataset: str,
    folder: Path,
    asked: Collection[str],
    image_column: str | None,
    label_column: str | None,
    with_labels: bool,
) -> Opened | None:
    if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
        return TablesOpened(_saved_tables(dataset, folder), dataset, "saved by datasets")
    found = walk(folder)
    if _is_described(folder, found):
        return None
    metadata = [file for file in found.files if file.parts[-1] in _METADATA]
    if metadata:
        tables = [(_split_of(file) or "train", _open_table(file.path, image_column, found)) for file in metadata]
        return _open_tables(dataset, tables, label_column, found)
    parquet = found.with_suffix((PARQUET_SUFFIX,))
    opened = _open_parquet(dataset, parquet, image_column, label_column, found) if parquet else None
    if opened is not None:
        return opened
    arrow = found.with_suffix((_ARROW_SUFFIX,))
    if arrow and not found.images:
        opened = TablesOpened(_arrow_tables(dataset, arrow), dataset, "arrow files")
        return _with_unread(opened, found, found.unread(arrow))
    if not found.images and found.with_suffix(_ARCHIVES_OF_IMAGES):
        return None
    tables = _path_tables(found, image_column)
    if not with_labels and found.images:
        return _open_tables(dataset, tables, label_column, found) if tables else _open_loose(dataset, found)
    images = ImageFolder(found, asked)
    if tables and len(images.classes) > 1:
        table = tables[0][1].path
        raise InputError(
            f"{folder} holds images in folders ({listed(images.classes)}) and the table {table}, whose rows name "
            f"images, and it is not clear which of the two says the classes. Give --dataset {table} for the table; "
            "for the folders, move the table elsewhere."
        )
    if tables:
        return _open_tables(dataset, tables, label_column, found)
    if images.splits:
        opened = TablesOpened(images.open(), dataset, "image folder", images.told)
        return _with_unread(opened, found, found.unread(images.read))
    for file in (*_tables(found), *parquet):
        _open_table(file.path, image_column, found)  # raises what is wrong with it
    raise _unreadable(folder, found, images)


def _open_parquet(
    dataset: str, files: list[File], image_column: str | None, label_column: str | None, found: Walk | None = None
) -> Opened | None:
    """Opens parquet files with images, or with paths of images; None when those of a folder have neither."""
    splits = sorted_into_splits(files)
    parquet = ParquetFiles({split: [file.path for file in of_split] for split, of_split in splits.items()}, dataset)
    features = [parquet.features(split) for split in splits]
    have_images = any(has_images(of_split, image_column) for of_split in features)
    have_text = any(
        is_text(feature)
        for of_split in features
        for column, feature in of_split.items()
        if image_column in (None, column)
    )
    if have_images or not have_text:
        opened = FilesOpened(parquet, dataset, "parquet files")
        read = [file for of_split in splits.values() for file in of_split]
        unnamed = sorted(file.parts[-1] for file in set(files).difference(read))
        if unnamed:
            opened.warnings.append(f"not read, as their names say no split: {listed(unnamed)}")
        return opened if found is None else _with_unread(opened, found, found.unread(read))
    paths = [(split, file.path) for split, of_split in splits.items() for file in of_split]
    if found is None:
        tables = [(split, open_path_table(path, image_column)) for split, path in paths]
        return _open_tables(dataset, tables, label_column)
    tables = [(split, table) for split, path in paths if (table := _path_table(path, image_column, found))]
    return _open_tables(dataset, tables, label_column, found) if tables else None


def _open_tables(
    dataset: str, tables: list[tuple[str, PathTable]], label_column: str | None, found: Walk | None = None
) -> Opened:
    """Opens tables of paths, each with its split."""
    opened: dict[str, list[PathTable]] = {}
    for split, table in tables:
        opened.setdefault(split, []).append(table)
    twice = [split for split, of_split in opened.items() if len(of_split) > 1]
    if twice:
        paths = [table.path for table in opened[twice[0]]]
        raise InputError(f"Several tables are of split {twice[0]!r}: {listed(paths)}. Give the one that is meant.")
    flat = {split: of_split[0] for split, of_split in opened.items()}
    told: list[str] = []
    labelled = [split for split, table in flat.items() if table.has_labels(label_column)]
    for split in [split for split in flat if labelled and split not in labelled]:
        name = os.path.basename(flat.pop(split).path)
        told.append(f"{name} has no label column: split {split!r} is no split to use")
    splits: dict[str, Dataset] = {}
    for split, table in flat.items():
        told.append(f"images by the column {table.image_column!r} of {os.path.basename(table.path)}")
        by_split = table.by_split(split) if len(flat) == 1 else {split: None}
        splits |= {name: table.open(rows) for name, rows in by_split.items()}
        told += table.told
    splits = {split: splits[split] for split in in_order(splits)}
    result = TablesOpened(splits, dataset, "table of image paths", told)
    if found is None:
        return result
    named = {path for table in flat.values() for path in table.files} | {table.path for table in flat.values()}
    return _with_unread(result, found, found.unread(file for file in found.files if file.path in named))


def _path_tables(found: Walk, image_column: str | None) -> list[tuple[str, PathTable]]:
    """The tables of a folder whose rows name existing images; if some are named like a split, only those."""
    opened = [(_split_of(file), _path_table(file.path, image_column, found)) for file in _tables(found)]
    tables = [(split, table) for split, table in opened if table]
    named = [(split, table) for split, table in tables if split]
    return named or [("train", table) for _, table in tables]


def _tables(found: Walk) -> list[File]:
    """Tables at the top or one folder below it, except those beside an image and with the image's name."""
    named = {os.path.splitext(image.path)[0] for image in found.images}
    files = [file for file in found.with_suffix(TABLE_SUFFIXES) if len(file.folders) < 2]
    return [file for file in files if os.path.splitext(file.path)[0] not in named]


def _open_table(path: str, image_column: str | None, found: Walk) -> PathTable:
    below = os.path.join(os.path.dirname(path), "")
    return open_path_table(path, image_column, [image for image in found.images if image.path.startswith(below)])


def _path_table(path: str, image_column: str | None, found: Walk) -> PathTable | None:
    """Opens a table that names images; None for other tables."""
    try:
        return _open_table(path, image_column, found)
    except InputError:
        return None


def _split_of(file: File) -> str | None:
    """The split that a file's own name says, or else the name of its folder."""
    stem = os.path.splitext(file.parts[-1])[0]
    return split_word(stem) or (split_word(file.folders[-1]) if file.folders else None)


def _saved_tables(dataset: str, folder: Path) -> "dict[str, Dataset]":
    from datasets import DatasetDict, load_from_disk

    try:
        saved = load_from_disk(str(folder))
    except Exception as error:  # a state.json of something else surfaces anywhere in `datasets`
        raise InputError(f"{dataset!r} was saved by `datasets` and cannot be read again: {error}") from error
    return dict(saved) if isinstance(saved, DatasetDict) else {str(saved.split or "train"): saved}


def _is_described(folder: Path, found: Walk) -> bool:
    """Whether a README.md says, as on the Hub, which files belong to which split, or the types of their columns."""
    if not (folder / "README.md").is_file() or not found.with_suffix((*_FILE_SUFFIXES, *_ARCHIVES_OF_IMAGES)):
        return False
    from huggingface_hub import DatasetCard

    try:
        told = DatasetCard.load(folder / "README.md", ignore_metadata_errors=True).data.to_dict()
    except Exception:  # a README.md may hold anything; what cannot be parsed describes nothing
        return False
    return bool({"configs", "dataset_info"} & told.keys())


def _arrow_tables(dataset: str, files: Sequence[File]) -> "dict[str, list[Dataset]]":
    """The tables of each split; every file names its classes itself."""
    from datasets import Dataset

    splits = sorted_into_splits(files)
    with reading(dataset):
        return {split: [Dataset.from_file(file.path) for file in of_split] for split, of_split in splits.items()}


def _open_loose(dataset: str, found: Walk) -> Opened:
    """Opens images without classes. Their splits are the top folders, if any of these is named like a split."""
    from datasets import Dataset, Features, Image

    by_split: dict[str, list[File]] = {}
    for file in found.images:
        split = file.folders[0] if file.folders and split_kind(file.folders[0]) else ""
        by_split.setdefault(split, []).append(file)
    beside = by_split.pop("", [])
    by_split = by_split or {"train": beside}
    features = Features({"image": Image(decode=False)})
    splits = {
        split: Dataset.from_dict({"image": [file.path for file in by_split[split]]}, features)
        for split in in_order(by_split)
    }
    opened = TablesOpened(splits, dataset, "images")
    return _with_unread(opened, found, found.unread(file for files in by_split.values() for file in files))


def _with_unread(opened: Opened, found: Walk, unread: str) -> Opened:
    if unread:
        opened.told.append(f"not read: {unread}")
    lost = found.unreadable_images()
    if lost:
        opened.warnings.append(
            f"{len(lost)} images are of kinds that are not decoded here, such as {lost[0]}, and are left out: convert "
            "them to JPEG or PNG to use them"
        )
    return opened


def _unreadable(folder: Path, found: Walk, images: ImageFolder) -> InputError:
    if not found.images:
        inside = found.unread(()) or "nothing"
        return InputError(
            f"The folder {folder} cannot be opened as a dataset: no image or table is in it that can be read (there "
            f"is {inside}). Expected images in class folders, a table of image paths, or parquet files."
        )
    return InputError(
        f"The images in {folder} have no classes: {images.levels()}. Expected ROOT/class/image or "
        "ROOT/split/class/image, or a table (.csv, .tsv, .jsonl, .parquet) with the path and the class of each."
    )
