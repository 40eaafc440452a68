"""What is random in a turn: drawn once for the whole batch, then cut into each process's and micro-batch's part."""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import torch
from torch import Tensor

from hf_transinv.data.transfer import send_all


@dataclass(frozen=True)
class Sampled:
    """Base of dataclasses that hold what was drawn for a batch, sliced by its rows.

    A field is sliced as the batch is (a tensor, another `Sampled`), is None where nothing was drawn, or is a tuple of
    those.
    """

    def __getitem__(self, rows: slice | Tensor) -> Self:
        return replace(self, **{field.name: _cut(getattr(self, field.name), rows) for field in fields(self)})

    def to(self, device: torch.device) -> Self:
        """The same on a device; to a GPU in one copy, for which nothing waits."""
        return _filled(self, iter(send_all(list(_tensors(self)), device)))


def _cut(value: Any, rows: slice | Tensor) -> Any:
    if isinstance(value, tuple):
        return tuple(_cut(part, rows) for part in value)
    return None if value is None else value[rows]


def _tensors(value: Any) -> Iterator[Tensor]:
    """The tensors in a `Sampled`, in order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Sampled):
        for field in fields(value):
            yield from _tensors(getattr(value, field.name))
    elif isinstance(value, tuple):
        for part in value:
            yield from _tensors(part)


def _filled(value: Any, tensors: Iterator[Tensor]) -> Any:
    """The same with other tensors, in the order of `_tensors`."""
    if isinstance(value, Tensor):
        return next(tensors)
    if isinstance(value, Sampled):
        return replace(value, **{field.name: _filled(getattr(value, field.name), tensors) for field in fields(value)})
    return tuple(_filled(part, tensors) for part in value) if isinstance(value, tuple) else value
