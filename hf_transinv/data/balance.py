"""Even classes: weights by inverse frequency, and an order in which every class occurs equally often."""

from collections.abc import Sequence

import torch
from torch import Tensor

from hf_transinv.data.batches import permutation
from hf_transinv.errors import InputError


def balanced_weights(counts: Sequence[int]) -> Tensor:
    """The weight of each class, inverse to its frequency: w_c = N / (C n_c), float32 [C].

    The mean weight of a training image is 1, so the loss keeps its size.

    Args:
        counts: n_c, training images of each of the C classes, N in all.

    Raises:
        InputError: a class has none.
    """
    _check_counts(counts)
    number = torch.tensor(counts, dtype=torch.float64)
    return (number.sum() / (len(counts) * number)).float()


class BalancedOrder:
    """An endless order of rows in which every class occurs equally often, and so does every row of a class.

    The n-th row of the endless sequence is of class n mod C, and the rows of a class take turns, in an order that
    depends on the seed. An epoch is a part of that sequence, shuffled. So at the end of each epoch no class has
    occurred more than once more often than another, and no row more than once more often than another of its class.

    Args:
        labels: int64 [N], class numbers.
        num_classes: C.
        epoch_rows: rows in an epoch.
        seed: of the order, from 0 on.

    Raises:
        InputError: a class has no row.
    """

    def __init__(self, labels: Tensor, num_classes: int, epoch_rows: int, seed: int) -> None:
        labels = labels.cpu()
        self.counts = torch.bincount(labels, minlength=num_classes)
        _check_counts(self.counts.tolist())
        self.epoch_rows, self.seed = epoch_rows, seed
        shuffled = permutation(len(labels), seed, 0, 1)
        self._by_class = shuffled[labels[shuffled].argsort(stable=True)]
        self._first = self.counts.cumsum(0) - self.counts

    def __call__(self, epoch: int) -> Tensor:
        """The rows of an epoch, counted from 0, in order: int64 [epoch_rows]."""
        start = epoch * self.epoch_rows
        number = torch.arange(start, start + self.epoch_rows)
        kind, turn = number % len(self.counts), number // len(self.counts)
        rows = self._by_class[self._first[kind] + turn % self.counts[kind]]
        return rows[permutation(self.epoch_rows, self.seed, epoch)]


def _check_counts(counts: Sequence[int]) -> None:
    empty = [str(label) for label, count in enumerate(counts) if not count]
    if empty:
        raise InputError(
            f"classes cannot be balanced: no training image has label number {', '.join(empty[:10])}. Leave out "
            "class_weights and sampler, or add images (label_noise may have taken the last one)"
        )
