"""Data on the local disk that ``datasets`` does not open as one would expect: image folders and loose parquet files.

An image folder is ``ROOT/class/image.png``, or with splits ``ROOT/split/class/image.png``. ``datasets`` guesses its
splits from every part of the path, and so puts the test images of a class called *train* into the training split
(CIFAR-100 has such a class). Here the first level is the split and the second the class, whatever they are called.
"""

import os
import re
from collections.abc import Iterable
from glob import glob
from pathlib import Path
from typing import TYPE_CHECKING

from hf_transinv.errors import InputError

if TYPE_CHECKING:
    from datasets import Dataset

IMAGE_SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"))
SPLIT_NAMES = ("train", "training", "test", "testing", "validation", "valid", "val", "dev", "eval")

# What makes a folder one for `datasets`: rows in files, or a table beside the images.
_TABLE_SUFFIXES = frozenset((".parquet", ".arrow", ".csv", ".tsv", ".json", ".jsonl", ".tar", ".zip"))


def local_path(name: str) -> Path:
    """A name as a path, "~" replaced; ask `os.path`, not it, whether it is there: names may be too long for a path."""
    return Path(os.path.expanduser(name))


def is_image_folder(folder: Path) -> bool:
    """Tells whether a folder holds images in folders, and no table that says more about them."""
    has_images = False
    for path in _files(folder, levels=3):
        if path.suffix.lower() in _TABLE_SUFFIXES:
            return False
        has_images = has_images or path.suffix.lower() in IMAGE_SUFFIXES
    return has_images


def open_loose_images(folder: Path) -> "dict[str, Dataset] | None":
    """Opens pictures that lie directly in a folder, without classes: one split ``train`` with the column ``image``.

    Returns:
        None when there are folders in it: then it is an image folder.
    """
    from datasets import Dataset, Features, Image

    if _subfolders(folder):
        return None
    paths = sorted(path for path in _files(folder, levels=1) if path.suffix.lower() in IMAGE_SUFFIXES)
    return {"train": Dataset.from_dict({"image": [str(path) for path in paths]}, Features({"image": Image()}))}


def open_image_folder(folder: Path) -> "dict[str, Dataset]":
    """Opens an image folder.

    Returns:
        The splits (one called ``train`` when the folder has none), columns ``image`` and ``label``; the classes are
        the names of their folders in sorted order, the same for all splits.

    Raises:
        InputError: some image lies outside a class folder.
    """
    from datasets import ClassLabel, Dataset, Features, Image

    children = _subfolders(folder)
    has_splits = all(_subfolders(child) for child in children)
    split_folders = {child.name: child for child in children} if has_splits else {"train": folder}
    classes = sorted({child.name for split_folder in split_folders.values() for child in _subfolders(split_folder)})
    features = Features({"image": Image(), "label": ClassLabel(names=classes)})
    splits = {}
    for split, split_folder in split_folders.items():
        found = _labelled_images(split_folder, classes)
        num_images = sum(path.suffix.lower() in IMAGE_SUFFIXES for path in split_folder.rglob("*"))
        if num_images != len(found):
            raise InputError(
                f"{split_folder} holds {num_images} images, {len(found)} of them directly in a class folder. "
                "Expected ROOT/class/image or ROOT/split/class/image, all to the same depth."
            )
        columns = {"image": [str(path) for path, _ in found], "label": [label for _, label in found]}
        splits[split] = Dataset.from_dict(columns, features)
    return splits


def parquet_splits(pattern: str) -> dict[str, list[str]]:
    """Sorts parquet files into splits by their names: ``test-00000.parquet`` and ``test/0.parquet`` are ``test``.

    Args:
        pattern: a file or a glob.

    Returns:
        The files by split; those with no split in their names are ``train``.

    Raises:
        InputError: there is no such file.
    """
    paths = sorted(glob(str(local_path(pattern)), recursive=True))
    if not paths:
        raise InputError(f"No parquet file matches {pattern!r}. Correct --dataset.")
    splits: dict[str, list[str]] = {}
    for path in paths:
        splits.setdefault(_split_in(path), []).append(path)
    return splits


def _split_in(path: str) -> str:
    for word in re.split(r"[^a-z]+", Path(path).stem.lower()):
        if word in SPLIT_NAMES:
            return word
    folder = Path(path).parent.name
    return folder if folder in SPLIT_NAMES else "train"


def _labelled_images(folder: Path, classes: list[str]) -> list[tuple[Path, int]]:
    images = []
    for label, name in enumerate(classes):
        paths = (folder / name).glob("*")
        images += [(path, label) for path in sorted(paths) if path.suffix.lower() in IMAGE_SUFFIXES]
    return images


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _files(folder: Path, levels: int) -> Iterable[Path]:
    for path in folder.iterdir():
        if path.is_dir() and levels > 1:
            yield from _files(path, levels - 1)
        elif path.is_file():
            yield path
