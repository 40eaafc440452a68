"""What is random in a turn: drawn once for the whole batch, then cut into each process's and micro-batch's part."""

from dataclasses import dataclass, fields, replace
from typing import Any, Self


@dataclass(frozen=True)
class Sampled:
    """Base of dataclasses that hold what was drawn for a batch, sliced by its rows.

    A field is sliced as the batch is (a tensor, another `Sampled`), is None where nothing was drawn, or is a tuple of
    those.
    """

    def __getitem__(self, rows: slice) -> Self:
        return replace(self, **{field.name: _cut(getattr(self, field.name), rows) for field in fields(self)})


def _cut(value: Any, rows: slice) -> Any:
    if isinstance(value, tuple):
        return tuple(_cut(part, rows) for part in value)
    return None if value is None else value[rows]
