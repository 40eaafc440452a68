"""Random numbers of a turn: drawn once for the whole batch, then cut into each process's and micro-batch's part."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Together:
    """Several draws that belong to the same images, cut together.

    Attributes:
        parts: each sliceable by rows as the batch is, or None where nothing is drawn.
    """

    parts: tuple[Any, ...]

    def __getitem__(self, rows: slice) -> "Together":
        return Together(tuple(None if part is None else part[rows] for part in self.parts))
