"""A part of the training split, held out for evaluation: the same share of every class, the same rows in every run.

A share of 1/k has k parts without a common row, the folds of a cross-validation.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from hf_transinv.config.checks import check_fold
from hf_transinv.data.batches import permutation
from hf_transinv.errors import InputError

_SEED = 20_260


@dataclass(frozen=True)
class HoldOut:
    """Which part of a split is read.

    Attributes:
        share: of every class, in (0, 1), that is held out.
        part: the part to read: the remainder to train on, or the part held out.
        fold: which part of that share is held out, from 0.

    Raises:
        InputError: a share outside (0, 1), or a fold that it does not have.
    """

    share: float
    part: Literal["train", "held_out"]
    fold: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise InputError(f"validation_share must be in (0, 1), given {self.share}")
        check_fold(self.share, self.fold)

    @property
    def named(self) -> str:
        """The share, and its fold unless it is the first."""
        return f"{self.share:.4g} of every class" + (f" (fold {self.fold})" if self.fold else "")

    def rows(self, labels: np.ndarray) -> np.ndarray:
        """The rows of this part, in ascending order.

        Of a class of n images, round(share n) are held out, give or take one by the fold, at least one and at most
        n - 1. A class of a single image stays in training, and of one with fewer images than there are folds some
        folds hold out none. The rows follow from the labels alone, whatever the run's seed.

        Args:
            labels: class number of each row, int64 [N].

        Returns:
            int64 [rows of this part].
        """
        is_held = np.zeros(len(labels), bool)
        for label in np.unique(labels):
            (rows,) = np.nonzero(labels == label)
            total = len(rows)
            folds = (self.fold, self.fold + 1)
            start, stop = (min(max(fold, round(fold * self.share * total)), total) for fold in folds)
            order = permutation(total, _SEED, total).numpy()
            is_held[rows[order[start : min(stop, start + total - 1)]]] = True
        return np.flatnonzero(is_held if self.part == "held_out" else ~is_held)
