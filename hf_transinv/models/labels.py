"""Which column of a model's logits belongs to which class of a dataset.

Classes are matched by their exact names, never by names that look alike. The same names in another order are mapped.
Other names, or another number of classes, are refused unless the user says what is meant: a mapping by name (where
the names of ImageNet's classes, "tench, Tinca tinca", may match in one of their synonyms), or that the order is the
same. Where the model has no names, the order is trusted, with a warning.
"""

import logging
from collections import Counter, defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from hf_transinv.data.classes import nearest_name
from hf_transinv.errors import InputError

logger = logging.getLogger(__name__)

_MOST_LISTED = 10


def class_columns(
    model_names: Sequence[str] | None,
    num_classes: int,
    data_names: Sequence[str],
    match_labels: bool = False,
    trust_order: bool = False,
) -> Tensor | None:
    """The column of the logits for each class of a dataset.

    Args:
        model_names: the model's classes by column, or None when they are not known.
        num_classes: columns of the logits.
        data_names: the dataset's classes, by number.
        match_labels: map every class of the dataset to the column of its name, whatever the counts.
        trust_order: class k of the dataset is column k, whatever they are called.

    Returns:
        int64 [number of the dataset's classes], the column of each; None for all of them in their order.

    Raises:
        InputError: names or counts differ and neither flag says what is meant, or a class has no column.
    """
    if match_labels and trust_order:
        raise InputError("give match_labels or trust_label_order, not both: one maps by name, the other by place")
    if match_labels:
        return _matched(model_names, data_names)
    if num_classes != len(data_names):
        raise _other_count(model_names, num_classes, data_names)
    if trust_order or list(data_names) == (None if model_names is None else list(model_names)):
        return None
    if model_names is None:
        logger.warning("the model does not say what its %d classes are called: their order is trusted", num_classes)
        return None
    if sorted(model_names) == sorted(data_names):
        logger.warning("the model has the classes of the data in another order: they are mapped by name")
        return _matched(model_names, data_names)
    raise _other_names(model_names, data_names)


def _matched(model_names: Sequence[str] | None, data_names: Sequence[str]) -> Tensor:
    if model_names is None:
        raise InputError("match_labels: the model's label names are not known; add label_names to its config.json.")
    columns = _columns_by_name(model_names, data_names)
    twice = {column for column in columns if column is not None and columns.count(column) > 1}
    missing = [name for name, column in zip(data_names, columns, strict=True) if column is None or column in twice]
    if missing:
        raise InputError(
            f"match_labels: {len(missing)} of the data's {len(data_names)} classes have no class of the model "
            f"({len(model_names)} classes) to themselves: {_listed(missing)}{_nearest(missing[0], model_names)}. "
            "Evaluate on classes the model knows, by the same names."
        )
    return torch.tensor(columns)


def _columns_by_name(model_names: Sequence[str], data_names: Sequence[str]) -> list[int | None]:
    """The column of each class: by the whole name, else by the one column that shares a synonym ("tench, Tinca")."""
    by_name, by_synonym = defaultdict(list), defaultdict(set)
    for column, name in enumerate(model_names):
        by_name[name].append(column)
        for synonym in _synonyms(name):
            by_synonym[synonym].add(column)
    asked = Counter(data_names)
    columns: list[int | None] = []
    for place, name in enumerate(data_names):
        if len(by_name[name]) == asked[name]:
            # ImageNet calls two of its classes "crane": the first of the data is the first of the model.
            columns.append(by_name[name][list(data_names[:place]).count(name)])
            continue
        shared = set(by_name[name]).union(*(by_synonym[synonym] for synonym in _synonyms(name)))
        columns.append(shared.pop() if len(shared) == 1 else None)
    return columns


def _synonyms(name: str) -> list[str]:
    return [synonym.strip() for synonym in name.split(",") if synonym.strip()]


def _other_names(model_names: Sequence[str], data_names: Sequence[str]) -> InputError:
    known = set(model_names)
    unknown = [name for name in data_names if name not in known]
    return InputError(
        f"{len(unknown)} of the data's {len(data_names)} classes are not called like one of the model's: "
        f"{_listed(unknown)}{_nearest(unknown[0], model_names)}; the model has {_listed(model_names)}. If class k of "
        "the data is column k of the model whatever they are called: --trust_label_order. To map classes by their "
        "synonyms as well: --match_labels."
    )


def _nearest(name: str, model_names: Sequence[str]) -> str:
    near = nearest_name(name, model_names)
    return "" if near is None else f" (the nearest to {name!r} is {near!r})"


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
