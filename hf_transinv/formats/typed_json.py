"""JSON into dataclasses and back: every field is checked, and an error names the field and what was expected there."""

import reprlib
import types
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from hf_transinv.errors import InputError

T = TypeVar("T")

_SCALARS: dict[type, tuple[type | types.UnionType, str]] = {
    str: (str, "text"),
    bool: (bool, "true or false"),
    int: (int, "a whole number"),
    float: (int | float, "a number"),
}
_LARGEST = 2**63  # no count is larger, and floats hold all below


def read_as(kind: type[T], content: Any, where: str) -> T:
    """Read a JSON object as a dataclass.

    Args:
        kind: the dataclass. Its fields are text, numbers, booleans, dataclasses, dict[str, ...], tuples, Any, or one
            of those or None.
        content: the object, as `json.loads` returns it. Keys that are no fields are ignored; a field that is missing
            has its default.
        where: what the content is, for error messages.

    Raises:
        InputError: a field is missing and has no default, or its value is of another type; or what the dataclass
            itself refuses.
    """
    if not isinstance(content, Mapping):
        raise _wrong(where, "an object", content)
    assert is_dataclass(kind)
    types_of = get_type_hints(kind)
    values = {}
    for field in fields(kind):
        if field.name in content:
            values[field.name] = _value(types_of[field.name], content[field.name], f"{where}.{field.name}")
        elif _is_required(field):
            raise InputError(f"{where}.{field.name} is missing")
    try:
        return kind(**values)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def as_json(instance: Any) -> dict[str, Any]:
    """The fields of a dataclass as `read_as` reads them, without those that are None by default."""
    values = {field: getattr(instance, field.name) for field in fields(instance)}
    return {field.name: value for field, value in values.items() if value is not None or _is_required(field)}


def _is_required(field: Field) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _value(kind: Any, value: Any, where: str) -> Any:
    arguments = get_args(kind)
    if kind is Any:
        return value
    if types.NoneType in arguments:
        (kind,) = (argument for argument in arguments if argument is not types.NoneType)
        return None if value is None else _value(kind, value, where)
    if get_origin(kind) is dict:
        if not isinstance(value, Mapping):
            raise _wrong(where, "an object", value)
        return {_value(str, key, where): _value(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    if get_origin(kind) is tuple:
        if not isinstance(value, list | tuple):
            raise _wrong(where, "a list", value)
        kinds = arguments[:1] * len(value) if Ellipsis in arguments else arguments
        if len(value) != len(kinds):
            raise _wrong(where, f"a list of {len(kinds)}", value)
        return tuple(_value(kinds[index], item, f"{where}[{index}]") for index, item in enumerate(value))
    return _scalar(kind, value, where) if kind in _SCALARS else read_as(kind, value, where)


def _scalar(kind: type, value: Any, where: str) -> Any:
    accepted, expected = _SCALARS[kind]
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
        raise _wrong(where, expected, value)
    if isinstance(value, int) and abs(value) >= _LARGEST:
        raise _wrong(where, f"{expected} below 2^63", value)
    if isinstance(value, str) and not _is_unicode(value):
        raise _wrong(where, "text in Unicode", value)
    return kind(value)


def _is_unicode(text: str) -> bool:
    """Whether the text can be written: JSON can hold halves of surrogate pairs, UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _wrong(where: str, expected: str, found: Any) -> InputError:
    return InputError(f"{where}: expected {expected}, found {reprlib.repr(found)}")
