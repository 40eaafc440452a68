"""The classes of a split: the names that a label column gives them, and its labels as numbers of these names.

A label column is either a ClassLabel, which numbers names in the file's own description of its columns, or it holds
values (text, whole numbers, true or false). Both become a list of names and one number per row. Names are compared
exactly, never by similarity: two splits that write a class differently are refused, with a hint at the nearest name.
"""

import difflib
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_transinv.data.columns import is_class_label, listed
from hf_transinv.errors import InputError

if TYPE_CHECKING:
    from pyarrow import Array, ChunkedArray

MISSING = np.iinfo(np.int64).min
"""The class number of a row without a label."""

_MOST_CLASSES = 100_000  # several times ImageNet-21k's 21,841: more are identifiers, not classes


@dataclass(frozen=True)
class Classes:
    """The classes of a split.

    Attributes:
        names: in the order of their numbers.
        are_numbered: the column itself holds these numbers (a ClassLabel); else it holds the names as values.
    """

    names: list[str]
    are_numbered: bool


def classes_of(column: "ChunkedArray", feature: Any, name: str) -> tuple[Classes, np.ndarray]:
    """The classes of a label column, and each row's number among them.

    A ClassLabel has its names in its own order. Whole numbers (also 1.0 and 2.0) are named by their digits, in
    numerical order. Text, true and false are their own names, sorted.

    Args:
        column: the labels.
        feature: the column's type, as `datasets` describes it.
        name: the dataset, for errors.

    Returns:
        The classes, and int64 [N]: of a ClassLabel as they are stored, else from 0 on; MISSING without a label.

    Raises:
        InputError: the values are no classes: fractions, numbers too many or too large, or text that is not in UTF-8.
    """
    if is_class_label(feature):
        return Classes(list(feature.names), True), _integers(column, name)
    values, numbers = _distinct(column, name)
    values = _checked(values, name)
    are_signs = set(values) == {-1, 1}
    hidden = [index for index, value in enumerate(values) if _is_number(value) and value < 0 and not are_signs]
    order = sorted(set(range(len(values))).difference(hidden), key=values.__getitem__)
    place = np.full(len(values) + 1, MISSING)
    place[order] = np.arange(len(order))
    place[hidden] = [values[index] for index in hidden]  # -1 is no class: refused when its row is read
    return Classes([str(values[index]) for index in order], False), place[numbers]


def renumbering(classes: Classes, wanted: Classes, found: np.ndarray, name: str) -> np.ndarray | None:
    """The number in `wanted` of each class of `classes`, matched by exact name.

    Args:
        classes: of a split or a file.
        wanted: of the training split, or of a model.
        found: the class numbers that occur, of `classes`; the others need no counterpart.
        name: the dataset, for errors.

    Returns:
        int64 [number of classes], -1 for classes that neither have a counterpart nor occur; None: both are the same.

    Raises:
        InputError: a class that occurs is not among those wanted.
    """
    if classes.names == wanted.names:
        return None
    place = {label: number for number, label in enumerate(wanted.names)}
    numbers = np.array([place.get(label, -1) for label in classes.names], np.int64)
    unknown = [classes.names[number] for number in found if 0 <= number < len(numbers) and numbers[number] < 0]
    if are_places(classes, wanted):
        return np.array([int(label) for label in classes.names], np.int64)
    if unknown:
        raise InputError(
            f"{name} has labels {listed(unknown)}, which are not among the classes {listed(wanted.names)}"
            f"{_nearest(unknown[0], wanted.names)}. Classes are matched by their exact names: make them the same, or "
            "choose splits that have the same classes."
        )
    return numbers


def are_places(classes: Classes, wanted: Classes) -> bool:
    """Whether `classes` are bare numbers and `wanted` names its numbers: the numbers must then be places in it."""
    is_bare = not classes.are_numbered and all(label.isdecimal() for label in classes.names)
    return is_bare and wanted.are_numbered and not set(classes.names) & set(wanted.names)


def apply_renumbering(numbers: np.ndarray, renumbered: np.ndarray | None) -> np.ndarray:
    """Class numbers [N] in their new numbering.

    What is missing, negative or beyond the names stays invalid: it is refused when its row is read.
    """
    if renumbered is None:
        return numbers
    is_inside = (numbers >= 0) & (numbers < len(renumbered))
    outside = np.where(numbers < 0, numbers, np.iinfo(np.int64).max)
    return np.where(is_inside, renumbered[np.where(is_inside, numbers, 0)], outside)


def union(parts: Sequence[Classes]) -> Classes:
    """The classes of several files of a split: in the order of a file that has all of them, else sorted."""
    names = {label for part in parts for label in part.names}
    whole = next((part for part in parts if len(part.names) == len(names)), None)
    are_numbered = all(part.are_numbered for part in parts)
    return Classes(sorted(names) if whole is None else whole.names, are_numbered)


def look_alikes(names: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of classes whose names differ only in case, spaces, punctuation or Unicode normalisation."""
    seen: dict[str, str] = {}
    pairs = []
    for label in names:
        other = seen.setdefault(_folded(label), label)
        if other != label:
            pairs.append((other, label))
    return pairs


def check_number_of_classes(names: Sequence[str], name: str) -> None:
    """Raises InputError for fewer than two classes."""
    if len(names) < 2:
        raise InputError(f"{name} has {len(names)} class ({listed(names)}). Expected at least two.")


def check_label(value: int | None, label_names: Sequence[str], where: str) -> int:
    """Returns a row's label if it is a class.

    Args:
        value: the label.
        label_names: the classes.
        where: the row, for errors.

    Raises:
        InputError: the label is missing, negative, or beyond the names.
    """
    if value is None or value == MISSING:
        raise InputError(f"{where}: the label is missing. Expected a class from 0 to {len(label_names) - 1}.")
    if not 0 <= value < len(label_names):
        raise InputError(
            f"{where}: the label is {value}. Expected a class from 0 to {len(label_names) - 1}, as there are "
            f"{len(label_names)} label names. "
            "(-1 often marks the hidden labels of a test split: choose another split.)"
        )
    return value


def nearest_name(label: str, names: Sequence[str]) -> str | None:
    """The name that another one was probably meant to be."""
    folded = next((known for known in names if _folded(known) == _folded(label)), None)
    return folded or next(iter(difflib.get_close_matches(label, names, n=1)), None)


def _nearest(label: str, names: Sequence[str]) -> str:
    near = nearest_name(label, names)
    return "" if near is None else f" (the nearest to {label!r} is {near!r})"


def _folded(label: str) -> str:
    if label.lstrip("-").isdecimal():
        return label  # -1 and 1
    text = unicodedata.normalize("NFKC", label).casefold()
    return "".join(character for character in text if character.isalnum()) or text


def _integers(column: "ChunkedArray", name: str) -> np.ndarray:
    import pyarrow as pa
    import pyarrow.compute as pc

    try:
        numbers = pc.cast(column, "int64")
    except pa.ArrowInvalid as error:  # one of them is too large
        raise InputError(f"The labels of {name} are no class numbers: {error}. Correct them.") from error
    return pc.fill_null(numbers, MISSING).to_numpy()


def _distinct(column: "ChunkedArray", name: str) -> tuple[list[Any], np.ndarray]:
    """The values that occur, and the place of each row's value among them; -1 where there is none.

    Raises:
        InputError: a text is not in UTF-8.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_dictionary(column.type):
        column = pc.cast(column, column.type.value_type)
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
    if pa.types.is_string_view(column.type):
        column = pc.cast(column, pa.string())
    encoded: Array = column.combine_chunks().dictionary_encode() if column.num_chunks != 1 else column.chunk(0)
    if not pa.types.is_dictionary(encoded.type):
        encoded = encoded.dictionary_encode()
    places = pc.fill_null(pc.cast(encoded.indices, "int64"), -1).to_numpy(zero_copy_only=False)
    try:
        values = encoded.dictionary.to_pylist()
    except UnicodeDecodeError as error:
        raise InputError(f"A label of {name} is not in UTF-8 ({error}). Save the data again.") from error
    return values, places


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _checked(values: list[Any], name: str) -> list[Any]:
    """The values, whole numbers as such.

    Raises:
        InputError: they are no classes.
    """
    fractions = [value for value in values if isinstance(value, float) and not value.is_integer()]
    if fractions:
        raise InputError(
            f"The labels of {name} are numbers such as {fractions[0]}, which is no class. Name the label column with "
            "--label_column."
        )
    values = [int(value) if isinstance(value, float) else value for value in values]
    largest = max((value for value in values if _is_number(value)), key=abs, default=0)
    if abs(largest) >= _MOST_CLASSES or len(values) > _MOST_CLASSES:
        found = f"go up to {largest}, which is" if abs(largest) >= _MOST_CLASSES else f"have {len(values):,} values,"
        raise InputError(f"The labels of {name} {found} no class number. Name the label column with --label_column.")
    empty = [value for value in values if isinstance(value, str) and not value.strip()]
    if empty:
        raise InputError(
            f"{name} has the label {empty[0]!r}: a class without a name, or a missing label. Fill it in, or leave out "
            "those rows."
        )
    return values
