"""A part of the training split, held out for evaluation: the same share of every class, the same rows in every run."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from hf_transinv.data.batches import permutation
from hf_transinv.errors import InputError

_SEED = 20_260


@dataclass(frozen=True)
class HoldOut:
    """Which part of a split is read.

    Attributes:
        share: of every class, in (0, 1), that is held out.
        part: the part to read: the remainder to train on, or the part held out.

    Raises:
        InputError: a share outside (0, 1).
    """

    share: float
    part: Literal["train", "held_out"]

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise InputError(f"validation_share must be in (0, 1), given {self.share}")

    def rows(self, labels: np.ndarray) -> np.ndarray:
        """The rows of this part, in ascending order.

        Of a class of n images, round(share n) are held out, at least one and at most n - 1. A class of a single image
        stays in training. The rows follow from the labels alone, whatever the run's seed.

        Args:
            labels: class number of each row, int64 [N].

        Returns:
            int64 [rows of this part].
        """
        is_held = np.zeros(len(labels), bool)
        for label in np.unique(labels):
            (rows,) = np.nonzero(labels == label)
            count = min(max(1, round(self.share * len(rows))), len(rows) - 1)
            order = permutation(len(rows), _SEED, len(rows)).numpy()
            is_held[rows[order[:count]]] = True
        return np.flatnonzero(is_held if self.part == "held_out" else ~is_held)
