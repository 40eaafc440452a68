"""What both feeds share: the order of an epoch, each process's share of a batch, the check of a saved position."""

from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from hf_transinv.data.pictures import BatchImages
from hf_transinv.errors import InputError


def permutation(num_rows: int, *key: int) -> Tensor:
    """Returns the permutation, int64 [N], that belongs to a key: to (seed, epoch), say.

    Args:
        num_rows: N.
        key: whole numbers from 0 on.
    """
    return torch.randperm(num_rows, generator=generator_of(*key))


def generator_of(*key: int) -> torch.Generator:
    """Returns a new generator that belongs to a key, as of `permutation`."""
    mixed = np.random.SeedSequence(key).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(mixed) >> 1)


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
    """Endless batches, of each this process's share; can be saved and resumed.

    Attributes:
        batch_size: images in a batch of all processes together.
    """

    batch_size: int

    @property
    def num_skipped(self) -> int:
        """How many images this process has skipped as they could not be decoded."""
        ...

    @property
    def skipped(self) -> tuple[str, ...]:
        """The skipped images, each once: where they are and what is wrong."""
        ...

    def wait(self) -> None:
        """Waits until the next batch is ready; raises what `next_batch` would raise."""
        ...

    def next_batch(self) -> tuple[BatchImages, Tensor]:
        """Returns this process's share: images, uint8 [B / world, 3, H, W] each, and labels, int64 [B / world]."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """The position in the data."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from the position of a feed of the same data, seed and batch size."""
        ...

    def close(self) -> None:
        """Stops reading ahead."""
        ...
