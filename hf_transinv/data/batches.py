"""What both feeds agree on: the order of an epoch, each process's share of a batch, which saved positions fit."""

from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from hf_transinv.errors import InputError


def epoch_order(num_rows: int, seed: int, epoch: int) -> Tensor:
    """Returns the permutation, int64 [N], of an epoch."""
    return permutation(num_rows, seed, epoch)


def permutation(num_rows: int, *key: int) -> Tensor:
    """Returns the permutation, int64 [N], that belongs to a key of numbers from 0 on."""
    mixed = np.random.SeedSequence(key).generate_state(1, np.uint64)[0]
    generator = torch.Generator().manual_seed(int(mixed) >> 1)
    return torch.randperm(num_rows, generator=generator)


def share_of_batch(batch_size: int, rank: int, world: int) -> slice:
    """Returns the rows of each batch that belong to a process.

    Raises:
        InputError: the batch cannot be shared equally.
    """
    if batch_size < 1 or batch_size % world:
        raise InputError(
            f"A batch of {batch_size} images cannot be shared equally by {world} processes. "
            f"Give a multiple of {world}."
        )
    return slice(rank * batch_size // world, (rank + 1) * batch_size // world)


def check_same_feed(state: dict[str, int], own: dict[str, int]) -> None:
    """Raises InputError when a saved position belongs to another order of the data."""
    for name in ("seed", "batch_size"):
        if state[name] != own[name]:
            raise InputError(
                f"The saved position in the data belongs to {name} {state[name]}, this run has {own[name]}. "
                "Resume with the same value."
            )


class Feed(Protocol):
    """Endless batches: this process's part of each; resumable."""

    batch_size: int
    num_skipped: int
    skipped: tuple[str, ...]

    def wait(self) -> None:
        """Waits until `next_batch` has one at hand; raises what it would raise."""
        ...

    def next_batch(self) -> tuple[Tensor, Tensor]: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...
    def close(self) -> None: ...
