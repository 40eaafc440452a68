"""JSON as dataclasses: what was written is read again, and what does not fit is named."""

import json
from dataclasses import dataclass, field

import pytest

from hf_transinv.errors import InputError
from hf_transinv.formats.typed_json import as_json, read_as


@dataclass(frozen=True)
class Inner:
    size: int
    share: float | None = None


@dataclass(frozen=True)
class Outer:
    name: str
    origin: str | None
    is_new: bool = False
    pair: tuple[float, float] = (0.0, 1.0)
    inner: Inner = Inner(1)
    named: dict[str, tuple[Inner, ...]] = field(default_factory=dict)
    note: str | None = None

    def __post_init__(self) -> None:
        if not self.name:
            raise InputError("name is empty")


def test_what_was_written_is_read_again():
    flat = Outer("a", None, pair=(0.5, 2.0), note="x")
    content = json.loads(json.dumps(as_json(flat) | {"inner": as_json(flat.inner), "unknown": [1]}))
    assert content["origin"] is None and content["inner"] == {"size": 1}
    assert read_as(Outer, content, "file") == flat
    assert "note" not in as_json(Outer("a", None))


def test_whole_numbers_are_numbers_and_nested_fields_are_read():
    content = {"name": "a", "origin": "b", "pair": [1, 2], "named": {"k": [{"size": 3, "share": 1}]}}
    found = read_as(Outer, content, "file")
    assert found.pair == (1.0, 2.0) and isinstance(found.pair[0], float)
    assert found.named == {"k": (Inner(3, 1.0),)}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": 3}, "file.name: expected text, found 3"),
        ({"name": None}, "file.name: expected text, found None"),
        ({"name": ""}, "file: name is empty"),
        ({"is_new": 1}, "file.is_new: expected true or false, found 1"),
        ({"pair": [0.5]}, r"file.pair: expected a list of 2, found \[0.5\]"),
        ({"pair": "ab"}, "file.pair: expected a list, found 'ab'"),
        ({"inner": {"size": True}}, "file.inner.size: expected a whole number, found True"),
        ({"inner": {"size": 10**400}}, "file.inner.size: expected a whole number below"),
        ({"inner": {}}, "file.inner.size is missing"),
        ({"inner": []}, r"file.inner: expected an object, found \[\]"),
        ({"named": {"k": [{"size": "1"}]}}, r"file.named.k\[0\].size: expected a whole number, found '1'"),
        ({"named": []}, r"file.named: expected an object, found \[\]"),
        ({"note": "\ud800"}, "file.note: expected text in Unicode"),
    ],
)
def test_a_value_of_another_type_is_named(change, said):
    with pytest.raises(InputError, match=said):
        read_as(Outer, {"name": "a", "origin": None} | change, "file")


def test_a_field_without_default_has_to_be_there():
    with pytest.raises(InputError, match=r"file\.origin is missing"):
        read_as(Outer, {"name": "a"}, "file")
