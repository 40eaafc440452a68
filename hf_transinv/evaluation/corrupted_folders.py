"""Corrupted images in a folder, in the layouts that the authors of CIFAR-C and ImageNet-C publish.

CIFAR-C      NAME.npy, uint8 [5 N, H, W, 3], the severities one after another, and labels.npy [5 N]
             (zenodo.org/records/2535967 and 3555552: N = 10,000, 32 pixels)
ImageNet-C   NAME/SEVERITY/CLASS/*.JPEG, or one level deeper: noise/NAME/SEVERITY/CLASS/*.JPEG
             (zenodo.org/records/2235448: 50,000 images each, 224 pixels)
"""

import logging
import os
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from hf_transinv.augment.corruptions.severities import SEVERITIES
from hf_transinv.data.classes import nearest_name
from hf_transinv.data.folders import local_path
from hf_transinv.data.sources import open_source
from hf_transinv.errors import InputError
from hf_transinv.evaluation.conditions import Condition
from hf_transinv.evaluation.splits import ArraySplit, SourceSplit, Split

logger = logging.getLogger(__name__)

_WORDNET_ID = re.compile(r"n\d{8}")

Opened = dict[Condition, Callable[[], Split]]


def open_corrupted_folder(folder: str | Path, conditions: Sequence[Condition], label_names: Sequence[str]) -> Opened:
    """Find the images of each condition in a folder, and check everything that needs no decoding.

    Args:
        folder: in one of the two layouts.
        conditions: corruptions at severities, none of them clean.
        label_names: the dataset's classes, by number.

    Returns:
        For each condition a function that opens its images, so that 75 folders of 50,000 files are listed only when
        needed.

    Raises:
        InputError: something is missing or of another type or size, or labels are not those of the dataset.
    """
    folder = local_path(str(folder))
    if not os.path.isdir(folder):
        raise InputError(f"corrupted_folder {folder} is not a folder.")
    if (folder / "labels.npy").exists() or any(folder.glob("*.npy")):
        return _open_arrays(folder, conditions, list(label_names))
    if any(_corruption_folder(folder, condition.corruption) for condition in conditions):
        return {condition: _image_opener(folder, condition, list(label_names)) for condition in conditions}
    raise InputError(
        f"corrupted_folder {folder} has neither labels.npy (CIFAR-C: NAME.npy and labels.npy) nor a folder called "
        f"{conditions[0].corruption} (ImageNet-C: NAME/SEVERITY/CLASS/*.JPEG)."
    )


# CIFAR-C


def _open_arrays(folder: Path, conditions: Sequence[Condition], label_names: list[str]) -> Opened:
    labels = _checked_labels(folder / "labels.npy", len(label_names))
    names = dict.fromkeys(condition.corruption for condition in conditions)
    images = {name: _checked_images(folder / f"{name}.npy", len(labels)) for name in names}
    opened: Opened = {}
    for condition in conditions:
        num_images = len(labels) // len(SEVERITIES)
        rows = slice((condition.severity - 1) * num_images, condition.severity * num_images)
        opened[condition] = partial(ArraySplit, images[condition.corruption][rows], labels[rows], label_names)
    return opened


def _load(path: Path, expected: str) -> np.ndarray:
    if not path.is_file():
        raise InputError(f"There is no {path}; expected {expected}.")
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise InputError(f"{path} cannot be read ({error}); expected {expected}.") from error


def _checked_labels(path: Path, num_classes: int) -> np.ndarray:
    expected = "integers [5 N], the labels of five severities one after another"
    labels = _load(path, expected)
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or len(labels) == 0 or len(labels) % len(SEVERITIES):
        raise InputError(f"{path} holds {labels.dtype} {list(labels.shape)}; expected {expected}.")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= num_classes:
        raise InputError(
            f"{path} holds labels from {low} to {high}; expected 0 to {num_classes - 1}, as the dataset has "
            f"{num_classes} classes."
        )
    return labels


def _checked_images(path: Path, num_labels: int) -> np.ndarray:
    expected = f"uint8 [{num_labels}, H, W, 3], H = W, as labels.npy has {num_labels} labels"
    images = _load(path, expected)
    is_square_rgb = images.ndim == 4 and images.shape[1] == images.shape[2] and images.shape[3] == 3
    if images.dtype != np.uint8 or not is_square_rgb or len(images) != num_labels:
        raise InputError(f"{path} holds {images.dtype} {list(images.shape)}; expected {expected}.")
    return images


# ImageNet-C


def _corruption_folder(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / name, *sorted(folder.glob(f"*/{name}"))) if path.is_dir()), None)


def _image_opener(folder: Path, condition: Condition, label_names: list[str]) -> Callable[[], Split]:
    of_corruption = _corruption_folder(folder, condition.corruption)
    if of_corruption is None:
        raise InputError(f"There is no folder {condition.corruption} in {folder} or one level below; expected one.")
    images = of_corruption / str(condition.severity)
    inside = images.iterdir() if images.is_dir() else ()
    classes = sorted(path.name for path in inside if path.is_dir() and not path.name.startswith("."))
    if not classes:
        raise InputError(f"There is no {images} with a folder for each class; expected {images}/CLASS/*.JPEG.")
    renumber = _renumber(classes, label_names, images)
    return lambda: SourceSplit(open_source(str(images.resolve())), renumber=renumber, label_names=label_names)


def _renumber(classes: list[str], label_names: list[str], folder: Path) -> list[int]:
    """The dataset's class numbers of sorted class folders."""
    number = {name: index for index, name in enumerate(label_names)}
    unknown = [name for name in classes if name not in number]
    if not unknown:
        return [number[name] for name in classes]
    # ImageNet's classes are numbered in the order of their WordNet ids, which are the names of the folders.
    if len(classes) == len(label_names) and all(map(_WORDNET_ID.fullmatch, classes)):
        logger.warning(
            "%s: class folders are WordNet ids; their order is taken for that of the dataset's classes", folder
        )
        return list(range(len(classes)))
    near = nearest_name(unknown[0], label_names)
    raise InputError(
        f"{folder} has {len(classes)} class folders, {len(unknown)} of which are not called like one of the dataset's "
        f"{len(label_names)} classes ({', '.join(unknown[:3])}{', ...' if len(unknown) > 3 else ''}"
        f"{f'; the nearest to {unknown[0]!r} is {near!r}' if near else ''}); expected folders with the exact names of "
        "the classes, or one for each with its WordNet id."
    )
