"""The digits that come with the library: two small problems, one to train teachers on and one to train students on.

``digits/source`` is the digits 0 to 4. ``digits/target`` is the digits 5 to 9, with 20 labelled training images per
class. ``digits/README.md`` beside this file describes the images and their origin.
"""

from collections import Counter
from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datasets import Dataset

EMBEDDED_NAMES = ("digits/source", "digits/target")

_TEST_EVERY = 5
_TRAIN_PER_CLASS = 20


def open_embedded(name: str) -> "dict[str, Dataset]":
    """Opens one of the embedded problems.

    Args:
        name: one of ``EMBEDDED_NAMES``.

    Returns:
        The splits ``train`` and ``test``, columns ``image`` and ``label``.
    """
    import pyarrow.parquet
    from datasets import ClassLabel, Dataset, Features, Image

    path = files("hf_transinv.data") / "digits" / "digits.parquet"
    with path.open("rb") as file:
        table = pyarrow.parquet.read_table(file)
    images, digits = table["image"].to_pylist(), table["label"].to_pylist()
    first_digit = 0 if name == "digits/source" else 5
    splits: dict[str, list[int]] = {"train": [], "test": []}
    seen: Counter[int] = Counter()
    for row, digit in enumerate(digits):
        if first_digit <= digit < first_digit + 5:
            splits["train" if _is_for_training(name, seen[digit]) else "test"].append(row)
            seen[digit] += 1
    names = [str(digit) for digit in range(first_digit, first_digit + 5)]
    features = Features({"image": Image(), "label": ClassLabel(names=names)})
    return {
        split: Dataset.from_dict(
            {"image": [images[row] for row in rows], "label": [digits[row] - first_digit for row in rows]}, features
        )
        for split, rows in splits.items()
    }


def _is_for_training(name: str, nth_of_its_digit: int) -> bool:
    if name == "digits/source":
        return nth_of_its_digit % _TEST_EVERY != _TEST_EVERY - 1
    return nth_of_its_digit < _TRAIN_PER_CLASS
