"""Checks that several configurations share."""

from collections.abc import Sequence

from hf_transinv.errors import InputError


def one_of(name: str, value: str, known: Sequence[str]) -> None:
    """Raises InputError unless `value` is one of the `known` values of the field `name`."""
    if value not in known:
        raise InputError(f"{name} {value!r} is not one of {', '.join(known)}")


def at_least(name: str, value: float, least: float) -> None:
    """Raises InputError unless the field `name` is at least `least`; NaN is not."""
    if not value >= least:  # the comparison is false for NaN
        raise InputError(f"{name} must be at least {least}, given {value}")
