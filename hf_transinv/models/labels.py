"""Which column of a model's logits answers for which class of a dataset.

Counts agree, names agree or are unknown: the order is trusted. The same names in another order: by name. Other
names: the order is trusted, with a warning. Counts differ: an error, unless a mapping by name is asked for.
"""

import logging
from collections import Counter, defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from hf_transinv.errors import InputError

logger = logging.getLogger(__name__)

_MOST_LISTED = 10


def label_key(name: str) -> str:
    """The name by which classes are compared: without case, underscores and hyphens ("Tinca_tinca": "tinca tinca")."""
    return " ".join(name.lower().replace("_", " ").replace("-", " ").split())


def class_columns(
    model_names: Sequence[str] | None, num_classes: int, data_names: Sequence[str], match_labels: bool = False
) -> Tensor | None:
    """Which columns of the logits to evaluate among.

    Args:
        model_names: the model's classes by column, or None when nobody knows them.
        num_classes: columns of the logits.
        data_names: the dataset's classes, by number.
        match_labels: map every class of the dataset to the column of its name, whatever the counts.

    Returns:
        int64 [number of the dataset's classes], the column of each; None for all of them in their order.

    Raises:
        InputError: the counts differ and no mapping was asked for, or one was and a class has no column.
    """
    if match_labels:
        return _matched(model_names, data_names)
    if num_classes != len(data_names):
        raise _other_count(model_names, num_classes, data_names)
    if model_names is None:
        return None
    keys, data_keys = [label_key(name) for name in model_names], [label_key(name) for name in data_names]
    if keys == data_keys:
        return None
    if sorted(keys) == sorted(data_keys):
        logger.info("the model has the classes of the data in another order: they are mapped by name")
        return _matched(model_names, data_names)
    logger.warning(
        "the model and the data have %d classes each, %d of them with the same name; the order is trusted. "
        "To map them by name: --match_labels",
        num_classes,
        len(set(keys) & set(data_keys)),
    )
    return None


def _matched(model_names: Sequence[str] | None, data_names: Sequence[str]) -> Tensor:
    if model_names is None:
        raise InputError("match_labels: the model's label names are not known; add label_names to its config.json.")
    columns = _columns_by_name(model_names, data_names)
    twice = {column for column in columns if column is not None and columns.count(column) > 1}
    missing = [name for name, column in zip(data_names, columns, strict=True) if column is None or column in twice]
    if missing:
        raise InputError(
            f"match_labels: {len(missing)} of the data's {len(data_names)} classes have no class of the model "
            f"({len(model_names)} classes) to themselves: {_listed(missing)}. Evaluate on classes the model knows."
        )
    return torch.tensor(columns)


def _columns_by_name(model_names: Sequence[str], data_names: Sequence[str]) -> list[int | None]:
    """The column of each class: by the whole name, else by the one column that shares a synonym ("tench, Tinca")."""
    by_key, by_synonym = defaultdict(list), defaultdict(set)
    for column, name in enumerate(model_names):
        by_key[label_key(name)].append(column)
        for synonym in _synonyms(name):
            by_synonym[synonym].add(column)
    asked = Counter(label_key(name) for name in data_names)
    columns: list[int | None] = []
    for name in data_names:
        key = label_key(name)
        if len(by_key[key]) == asked[key]:
            # ImageNet calls two of its classes "crane": the first of the data is the first of the model.
            columns.append(by_key[key][[label_key(other) for other in data_names[: len(columns)]].count(key)])
            continue
        shared = set(by_key[key]).union(*(by_synonym[synonym] for synonym in _synonyms(name)))
        columns.append(shared.pop() if len(shared) == 1 else None)
    return columns


def _synonyms(name: str) -> list[str]:
    return [key for key in map(label_key, name.split(",")) if key]


def _other_count(model_names: Sequence[str] | None, num_classes: int, data_names: Sequence[str]) -> InputError:
    counts = f"The classifier has {num_classes} classes, the data {len(data_names)}"
    train = f"Evaluate on the data it was trained for, or open it with num_classes={len(data_names)} and train."
    if model_names is None:
        return InputError(f"{counts}, and the classifier's label names are not known. {train}")
    same = sum(column is not None for column in _columns_by_name(model_names, data_names))
    return InputError(
        f"{counts}; {same} of the data's classes have a name that the classifier knows. To map them by name and "
        f"evaluate among those classes alone: --match_labels. {train}"
    )


def _listed(names: Sequence[str]) -> str:
    more = f", ... ({len(names)} in all)" if len(names) > _MOST_LISTED else ""
    return ", ".join(repr(name) for name in names[:_MOST_LISTED]) + more
