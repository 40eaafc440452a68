"""Which column is the image and which is the label: found by their types, or named by the user."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hf_transinv.errors import InputError

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset

LABEL_COLUMN_NAMES = ("label", "labels", "target", "fine_label")

_MOST_CLASSES = 100_000  # several times ImageNet-21k's 21,841: a larger number is an identifier, not a class


def image_column_of(features: dict[str, Any], given: str | None, name: str) -> str:
    """Finds the one image column.

    Args:
        features: the columns' types, by name.
        given: the column that the user named, if any.
        name: the dataset, for errors.

    Raises:
        InputError: there is none, or several.
    """
    if given is not None:
        _check_present(features, given, "--image_column", name)
        if not _holds_images(features[given]):
            raise InputError(
                f"Column {given!r} of {name} holds {features[given]}, not images. Name one with --image_column."
            )
        return given
    found = [column for column, feature in features.items() if _is_image(feature)]
    found = found or [column for column, feature in features.items() if _is_image_struct(feature)]
    if not found:
        raise InputError(
            f"{name} has no image column; its columns are {_listed(features)}. Expected one of type datasets.Image. "
            "If the encoded files are in a binary column, name it with --image_column."
        )
    if len(found) > 1 and "image" not in found:
        raise InputError(f"{name} has several image columns: {_listed(found)}. Choose one with --image_column.")
    return found[0] if len(found) == 1 else "image"


def label_column_of(features: dict[str, Any], given: str | None, name: str) -> str:
    """Finds the one label column: a ClassLabel, else integers or strings under a usual name.

    Args:
        features: the columns' types, by name.
        given: the column that the user named, if any.
        name: the dataset, for errors.

    Raises:
        InputError: there is none, or several.
    """
    if given is not None:
        _check_present(features, given, "--label_column", name)
        if not (_is_class_label(features[given]) or _is_plain_label(features[given])):
            raise InputError(
                f"Column {given!r} of {name} holds {features[given]}. Expected one class an image: a ClassLabel, "
                "integers or strings. Name another with --label_column."
            )
        return given
    found = [column for column, feature in features.items() if _is_class_label(feature)]
    found = found or [c for c in LABEL_COLUMN_NAMES if c in features and _is_plain_label(features[c])]
    if not found:
        raise InputError(
            f"{name} has no label column; its columns are {_listed(features)}. Expected a ClassLabel, or integers or "
            f"strings named {_listed(LABEL_COLUMN_NAMES)}. Name it with --label_column."
        )
    if len(found) > 1 and "label" not in found:
        raise InputError(f"{name} has several label columns: {_listed(found)}. Choose one with --label_column.")
    return found[0] if len(found) == 1 else "label"


def named_labels(
    rows: "Dataset | IterableDataset", label_names: Sequence[str] | None, name: str
) -> "tuple[Dataset | IterableDataset, list[str]]":
    """Makes the column ``label`` one of class numbers, and says what the classes are called.

    A ClassLabel has its names. Integers are called by their numbers. Strings are numbered in sorted order.

    Args:
        rows: with a column ``label``.
        label_names: the names to use (those of the training split, when this is another one), if any.
        name: the dataset, for errors.

    Raises:
        InputError: the names cannot be known, or are not those asked for, or are fewer than two.
    """
    feature = rows.features["label"]
    if _is_class_label(feature):
        names = list(feature.names)
        if label_names is not None and names != list(label_names):
            raise InputError(
                f"The classes of {name} are {_listed(names)}, but {_listed(label_names)} were expected. "
                "Choose splits that have the same classes in the same order."
            )
    elif label_names is not None and feature.dtype != "string":
        names = list(label_names)
    elif _is_stream(rows):
        raise InputError(
            f"The labels of {name} have no names (type {feature.dtype}), so streaming cannot know the classes before "
            "it has read all rows. Leave out --streaming, or store the column as a datasets.ClassLabel."
        )
    elif feature.dtype == "string":
        rows, names = _numbered(rows, label_names, name)
    else:
        names = _number_names(rows, name)
    if len(names) < 2:
        raise InputError(f"{name} has {len(names)} class ({_listed(names)}). Expected at least two.")
    return rows, names


def check_label(value: int | None, label_names: Sequence[str], where: str) -> int:
    """Returns a row's label, or says which row has none or one beyond the label names.

    Raises:
        InputError: the label is missing, negative, or beyond the names.
    """
    if value is None:
        raise InputError(f"{where}: the label is missing. Expected a class from 0 to {len(label_names) - 1}.")
    if not 0 <= value < len(label_names):
        raise InputError(
            f"{where}: the label is {value}. Expected a class from 0 to {len(label_names) - 1}, as there are "
            f"{len(label_names)} label names. "
            "(-1 often marks the hidden labels of a test split: choose another split.)"
        )
    return value


def _numbered(rows: "Dataset", label_names: Sequence[str] | None, name: str) -> "tuple[Dataset, list[str]]":
    from datasets import ClassLabel

    values = rows["label"][:]
    names = sorted({value for value in values if value is not None}) if label_names is None else list(label_names)
    number = {label: index for index, label in enumerate(names)}
    unknown = sorted({value for value in values if value is not None and value not in number})
    if unknown:
        raise InputError(f"{name} has labels {_listed(unknown)}, which are not among the classes {_listed(names)}.")
    numbers = [None if value is None else number[value] for value in values]
    rows = rows.remove_columns("label").add_column("label", numbers, feature=ClassLabel(names=names))
    return rows, names


def _number_names(rows: "Dataset", name: str) -> list[str]:
    highest = max((value for value in rows["label"][:] if value is not None), default=-1)
    if highest >= _MOST_CLASSES:
        raise InputError(
            f"The labels of {name} go up to {highest}, which is no class number. Name the label column with "
            "--label_column."
        )
    return [str(number) for number in range(highest + 1)]


def _check_present(features: dict[str, Any], given: str, flag: str, name: str) -> None:
    if given not in features:
        raise InputError(f"{name} has no column {given!r}; its columns are {_listed(features)}. Correct {flag}.")


def _is_stream(rows: "Dataset | IterableDataset") -> bool:
    from datasets import IterableDataset

    return isinstance(rows, IterableDataset)


def _is_image(feature: Any) -> bool:
    from datasets import Image

    return isinstance(feature, Image)


def _is_image_struct(feature: Any) -> bool:
    return isinstance(feature, dict) and set(feature) == {"bytes", "path"}


def _holds_images(feature: Any) -> bool:
    from datasets import Value

    is_binary = isinstance(feature, Value) and feature.dtype in ("binary", "large_binary")
    return _is_image(feature) or _is_image_struct(feature) or is_binary


def _is_class_label(feature: Any) -> bool:
    from datasets import ClassLabel

    return isinstance(feature, ClassLabel)


def _is_plain_label(feature: Any) -> bool:
    from datasets import Value

    return isinstance(feature, Value) and (feature.dtype == "string" or feature.dtype.startswith(("int", "uint")))


def _listed(names: Any, most: int = 12) -> str:
    names = [repr(name) for name in names]
    return ", ".join(names[:most]) + (f", ... ({len(names)} in all)" if len(names) > most else "")
