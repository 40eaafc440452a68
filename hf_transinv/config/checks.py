"""Checks that several configurations share, and the fields whose values are a closed set."""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import field, fields
from typing import Any

from hf_transinv.errors import InputError


def choice(default: Any, known: Iterable[Any], is_closed: bool = True) -> Any:
    """A field of a dataclass whose values are known beforehand; --help shows them.

    Args:
        default: of the field; a tuple where it takes several of the values.
        known: the values, in the order in which they are shown.
        is_closed: whether `check_choices` refuses all others; else the dataclass checks the value itself.
    """
    return field(default=default, metadata={"choices": tuple(known), "is_closed": is_closed})


def check_choices(config: Any) -> None:
    """Raises InputError unless the fields of a dataclass that `choice` made have known values."""
    for one in fields(config):
        value = getattr(config, one.name)
        if one.metadata.get("is_closed") and value is not None:
            for given in value if isinstance(value, tuple | list) else [value]:
                one_of(one.name, given, one.metadata["choices"])


def one_of(name: str, value: Any, known: Sequence[Any]) -> None:
    """Raises InputError unless `value` is one of the `known` values of the field `name`."""
    if value not in known:
        raise InputError(f"{name} {value!r} is not one of {', '.join(map(str, known))}{did_you_mean(value, known)}")


def did_you_mean(value: object, known: Iterable[object], most: int = 1) -> str:
    """The known values nearest to one that is not: "; did you mean adamw?", or nothing where none is near.

    Args:
        value: that is not known.
        known: values.
        most: how many are named.
    """
    near = difflib.get_close_matches(str(value), list(map(str, known)), n=most)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def at_least(name: str, value: float, least: float) -> None:
    """Raises InputError unless the field `name` is at least `least`; NaN is not."""
    if not value >= least:  # the comparison is false for NaN
        raise InputError(f"{name} must be at least {least}, given {value}")


def check_fold(share: float, fold: int) -> None:
    """Raises InputError for a fold of the cross-validation that a share does not have.

    Args:
        share: of every class, in (0, 1), that is held out.
        fold: which part of that share, from 0.
    """
    folds = int(1 / share + 1e-9)  # 1 / 0.2 need not be exactly 5
    if not 0 <= fold < folds:
        raise InputError(f"validation_fold {fold}: expected 0 to {folds - 1}, since validation_share is {share:g}")
