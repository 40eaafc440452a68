"""The image column and the label column of a dataset: found by their types, or named by the user."""

from collections.abc import Iterable, Mapping
from typing import Any

from hf_transinv.errors import InputError

LABEL_COLUMN_NAMES = ("label", "labels", "target", "fine_label", "class", "category")

_TEXT = ("string", "large_string", "string_view")
_NUMBERS = ("int", "uint", "float", "bool")


def image_column_of(features: Mapping[str, Any], given: str | None, name: str) -> str:
    """Finds the one image column.

    Args:
        features: the columns' types, by name.
        given: the column that the user named, if any.
        name: the dataset, for errors.

    Raises:
        InputError: there is none, or it is not clear which one is meant.
    """
    if given is not None:
        _check_present(features, given, "--image_column", name)
        if is_text(features[given]):
            raise InputError(
                f"Column {given!r} of {name} holds text, not images. Paths of images are opened from a table on this "
                "machine (.csv, .tsv, .jsonl, .parquet), with the files beside it."
            )
        if not _holds_images(features[given]):
            raise InputError(
                f"Column {given!r} of {name} holds {features[given]}, not images. Name another with --image_column."
            )
        return given
    found = [column for column, feature in features.items() if _is_image(feature)]
    structs = [column for column, feature in features.items() if _is_image_struct(feature)]
    if found and "image" in structs:
        raise InputError(
            f"{name} has the column 'image' (encoded files) beside {listed(found)} of type datasets.Image, and it is "
            "not clear which of them holds the images. Choose one with --image_column."
        )
    found = found or structs
    if not found:
        raise InputError(
            f"{name} has no image column; its columns are {listed(features)}. Expected one of type datasets.Image. "
            "If the encoded files are in a binary column, name it with --image_column; a table of image paths has to "
            "be on this machine, with the files beside it."
        )
    if len(found) > 1 and "image" not in found:
        raise InputError(f"{name} has several image columns: {listed(found)}. Choose one with --image_column.")
    return found[0] if len(found) == 1 else "image"


def has_images(features: Mapping[str, Any], given: str | None) -> bool:
    """Whether the named column, or else any, holds encoded images."""
    if given is not None:
        return given in features and _holds_images(features[given])
    return any(_is_image(feature) or _is_image_struct(feature) for feature in features.values())


def label_column_of(features: Mapping[str, Any], given: str | None, name: str) -> str:
    """Finds the one label column: a ClassLabel, else values of a usual name.

    Args:
        features: the columns' types, by name.
        given: the column that the user named, if any.
        name: the dataset, for errors.

    Raises:
        InputError: there is none, or it is not clear which one is meant.
    """
    if given is not None:
        _check_present(features, given, "--label_column", name)
        if not (is_class_label(features[given]) or _is_plain_label(features[given])):
            raise InputError(
                f"Column {given!r} of {name} holds {features[given]}. Expected one class per image: a ClassLabel, "
                "whole numbers, text, true or false. Name another with --label_column."
            )
        return given
    found = [column for column, feature in features.items() if is_class_label(feature)]
    plain = [c for c in LABEL_COLUMN_NAMES if c in features and _is_plain_label(features[c])]
    if found and plain and "label" not in found:
        raise InputError(
            f"{name} has the column {plain[0]!r} beside {listed(found)} of type ClassLabel, and it is not clear which "
            "of them is the label. Choose one with --label_column."
        )
    found = found or plain
    others = [column for column in LABEL_COLUMN_NAMES if column in features]
    if not found and others:
        raise InputError(
            f"Column {others[0]!r} of {name} holds {features[others[0]]}. Expected one class per image: a ClassLabel, "
            "whole numbers, text, true or false. Name another with --label_column."
        )
    if not found:
        raise InputError(
            f"{name} has no label column; its columns are {listed(features)}. Expected a ClassLabel, or one class per "
            f"image in a column named {listed(LABEL_COLUMN_NAMES)}. Name it with --label_column."
        )
    if len(found) > 1 and "label" not in found:
        raise InputError(f"{name} has several label columns: {listed(found)}. Choose one with --label_column.")
    return found[0] if len(found) == 1 else "label"


def is_class_label(feature: Any) -> bool:
    """Whether a column's type is `datasets.ClassLabel`."""
    from datasets import ClassLabel

    return isinstance(feature, ClassLabel)


def is_text(feature: Any) -> bool:
    """Whether a column's type is text."""
    from datasets import Value

    return isinstance(feature, Value) and feature.dtype in _TEXT


def listed(names: Iterable[Any], most: int = 12) -> str:
    """Names for a message; only the first `most` of them, and their number, where there are more."""
    shown = [repr(name) for name in names]
    return ", ".join(shown[:most]) + (f", ... ({len(shown)} in all)" if len(shown) > most else "")


def _check_present(features: Mapping[str, Any], given: str, flag: str, name: str) -> None:
    if given not in features:
        raise InputError(f"{name} has no column {given!r}; its columns are {listed(features)}. Correct {flag}.")


def _is_image(feature: Any) -> bool:
    from datasets import Image

    return isinstance(feature, Image)


def _is_image_struct(feature: Any) -> bool:
    return isinstance(feature, dict) and set(feature) == {"bytes", "path"}


def _holds_images(feature: Any) -> bool:
    from datasets import Value

    is_binary = isinstance(feature, Value) and feature.dtype in ("binary", "large_binary")
    return _is_image(feature) or _is_image_struct(feature) or is_binary


def _is_plain_label(feature: Any) -> bool:
    from datasets import Value

    return isinstance(feature, Value) and (feature.dtype in _TEXT or feature.dtype.startswith(_NUMBERS))
