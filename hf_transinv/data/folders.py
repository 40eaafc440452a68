"""Folders of images: the first folder below a split is the class, as torchvision's ImageFolder has it.

    ROOT/class/.../image.png            one split, called train
    ROOT/split/class/.../image.png      splits are the folders that are named like one (Train, val, seg_test, ...)

``datasets`` guesses splits from every part of a path, and so puts the test images of a class called *train* into the
training split (CIFAR-100 has such a class). Here the place in the path decides.
"""

import os
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from hf_transinv.data.split_names import in_order, split_kind
from hf_transinv.data.walk import File, Walk
from hf_transinv.errors import InputError

if TYPE_CHECKING:
    from datasets import Dataset

_SHOWN = 3  # paths or folders in a message


def local_path(name: str) -> Path:
    """A name as a path, "~" replaced.

    Whether it exists is to be asked of `os.path`: pathlib raises where a name is too long for a path.
    """
    return Path(name if "\0" in name else os.path.expanduser(name))


class ImageFolder:
    """The splits and classes of a folder of images.

    Args:
        walk: of the folder.
        asked: splits that the user named: folders of these names are splits, whatever their names.

    Attributes:
        splits: the images of each split by class, all splits with the same classes in sorted order; empty when the
            images do not lie in class folders.
        told: notes on what was not read, and on what is unusual.

    Raises:
        InputError: some image lies outside a class folder, beside others that do not.
    """

    def __init__(self, walk: Walk, asked: Collection[str] = ()) -> None:
        self.walk = walk
        self.told: list[str] = []
        self.splits: dict[str, dict[str, list[File]]] = {}
        split_folders = self._split_folders(asked)
        depth = 1 if split_folders else 0
        tops = self._top_folders()
        if not tops or (not split_folders and all(map(split_kind, tops))):
            return  # ROOT/image.png, or ROOT/train/image.png: no classes
        by_split: dict[str, list[File]] = {split: [] for split in in_order(split_folders or {"train"})}
        for file in walk.images:
            split = "train" if not split_folders else file.folders[0] if file.folders else ""
            if split in by_split:
                by_split[split].append(file)
        self._refuse_splits_below_classes(split_folders)
        classes = self._classes(split_folders, depth)
        for split, files in by_split.items():
            outside = [file for file in files if len(file.folders) <= depth]
            if outside:
                raise InputError(
                    f"{outside[0].path} lies outside a class folder, as do {len(outside)} of the {len(files)} images "
                    f"of split {split!r}. Expected ROOT/class/image or ROOT/split/class/image; move or remove it."
                )
            self.splits[split] = {name: [] for name in classes}
            for file in files:
                self.splits[split][file.folders[depth]].append(file)
        self._say_what_is_odd(split_folders, depth)

    @property
    def read(self) -> list[File]:
        """The images of all splits."""
        return [file for split in self.splits.values() for files in split.values() for file in files]

    @property
    def classes(self) -> list[str]:
        """The class folders, the same for every split."""
        return list(next(iter(self.splits.values()), {}))

    def open(self) -> "dict[str, Dataset]":
        """Every split with the columns ``image`` and ``label``."""
        from datasets import ClassLabel, Dataset, Features, Image

        features = Features({"image": Image(decode=False), "label": ClassLabel(names=self.classes)})
        opened = {}
        for split, by_class in self.splits.items():
            labelled = [(file, label) for label, files in enumerate(by_class.values()) for file in files]
            columns = {"image": [file.path for file, _ in labelled], "label": [label for _, label in labelled]}
            opened[split] = Dataset.from_dict(columns, features)
        return opened

    def levels(self) -> str:
        """The folders with images, for a message: "train/cat/ (20 images), train/dog/ (10 images)"."""
        shapes: Counter[tuple[str, ...]] = Counter(file.folders for file in self.walk.images)
        shown = [f"{'/'.join(folders) or '.'}/ ({count} images)" for folders, count in sorted(shapes.items())[:_SHOWN]]
        return ", ".join(shown) + (f", ... ({len(shapes)} folders with images)" if len(shapes) > _SHOWN else "")

    def _top_folders(self) -> list[str]:
        return [file.folders[0] for file in self.walk.images if file.folders]

    def _split_folders(self, asked: Collection[str]) -> set[str]:
        """Folders at the top that are splits: named like one, or asked for, and with images in class folders."""
        nested = {file.folders[0] for file in self.walk.images if len(file.folders) > 1}
        return {name for name in nested if split_kind(name) or name in asked}

    def _refuse_splits_below_classes(self, split_folders: set[str]) -> None:
        nested = [file for file in self.walk.images if len(file.folders) > 1]
        if (
            len(set(self._top_folders())) > 1
            and nested
            and not split_folders
            and all(split_kind(file.folders[1]) for file in nested)
        ):
            first = os.path.join(self.walk.root, nested[0].folders[0])
            raise InputError(
                f"The splits of {self.walk.root} lie below other folders: {self.levels()}. Expected ROOT/class/image "
                f"or ROOT/split/class/image: give one of these folders, such as {first}, or put the splits at the top."
            )

    def _classes(self, split_folders: set[str], depth: int) -> list[str]:
        """The class folders, sorted: those with images and empty ones, but not those with other files only."""
        inside = [folder for folder in self.walk.folders if not split_folders or folder[0] in split_folders]
        candidates = {folder[depth] for folder in inside if len(folder) > depth}
        files = [file for file in self.walk.files if len(file.folders) > depth]
        files = [file for file in files if not split_folders or file.folders[0] in split_folders]
        with_files = {file.folders[depth] for file in files}
        pictures = {*self.walk.images, *self.walk.unreadable_images()}
        with_pictures = {file.folders[depth] for file in files if file in pictures}
        for folder in sorted(with_files - with_pictures):
            self.told.append(f"{folder}/ holds no images and is no class")
        classes = sorted(candidates - (with_files - with_pictures))
        is_nested = any(len(file.folders) > depth + 1 for file in files)
        if len(classes) == 1 and is_nested:
            place = os.path.join(self.walk.root, *([] if split_folders else classes))
            advice = "" if split_folders else f" If these are its splits or classes, give that folder: {place}."
            raise InputError(
                f"All images of {self.walk.root} lie in one class folder, {classes[0]!r}, which has folders of its "
                f"own: {self.levels()}. Expected ROOT/class/image or ROOT/split/class/image.{advice}"
            )
        return classes

    def _say_what_is_odd(self, split_folders: set[str], depth: int) -> None:
        beside = Counter(folder for folder in self._top_folders() if split_folders and folder not in self.splits)
        for folder, count in sorted(beside.items()):
            if split_kind(folder):
                self.told.append(f"{folder}/ is no split to use: its {count} images lie in no class folders")
            else:
                self.told.append(f"{folder}/ beside the splits is not read: {count} images")
        at_root = sum(not file.folders for file in self.walk.images) if split_folders else 0
        if at_root:
            self.told.append(f"{at_root} images beside the splits are not read")
        deeper = [file for file in self.read if len(file.folders) > depth + 1]
        if deeper:
            self.told.append(
                f"{len(deeper)} images lie deeper than their class folder, such as {deeper[0]}: the class is the "
                f"first folder {'below the split' if depth else 'of the path'} ({deeper[0].folders[depth]!r})"
            )
