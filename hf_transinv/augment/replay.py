"""Experience replay of augmentation models (TeachAugment; Suzuki, CVPR 2022).

Every so many student steps phi is copied. For each batch of the student the batch is cut into chunks, and each chunk
is augmented by the model of today or by one of the copies: priority 1 for today's, decay^age for a copy, the newest
being of age 1. Copies never learn.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hf_transinv.errors import InputError

TODAY = -1
"""Instead of the place of a copy: the model as it is."""


@dataclass(frozen=True)
class ReplayDraws:
    """Which model augments each image; on the CPU.

    Attributes:
        chunk: number of its chunk, [B], ascending.
        place: of the copy in the buffer, or TODAY, [B].
    """

    chunk: Tensor
    place: Tensor

    def __getitem__(self, rows: slice) -> "ReplayDraws":
        return ReplayDraws(self.chunk[rows], self.place[rows])

    def runs(self) -> list[tuple[Tensor, Tensor]]:
        """The images by chunk: for each size of chunk that occurs, its rows [G, n] and their copies' places [G].

        One entry as a rule; micro-batches that cut a chunk in two, or a batch that the chunks do not divide, have
        more.
        """
        _, sizes = self.chunk.unique_consecutive(return_counts=True)
        starts = sizes.cumsum(0) - sizes
        return [
            (rows := starts[sizes == size].unsqueeze(1) + torch.arange(size), self.place[rows[:, 0]])
            for size in sizes.unique().tolist()
        ]


class ReplayBuffer(nn.Module):
    """The copies of a module's parameters. Its state has the same tensors from the first step to the last.

    Args:
        module: whose parameters are copied.
        copy_steps: steps between two copies.
        capacity: copies kept; the oldest makes room.
        decay: of the priority, in (0, 1].

    Attributes:
        steps: counted so far, by `after_step`.
    """

    def __init__(self, module: nn.Module, copy_steps: int, capacity: int, decay: float = 0.9) -> None:
        super().__init__()
        if copy_steps < 1 or capacity < 1 or not 0 < decay <= 1:
            raise InputError(
                f"The replay buffer needs copy_steps and capacity of at least 1 and a decay in (0, 1]; "
                f"given {copy_steps}, {capacity} and {decay}"
            )
        self.copy_steps, self.capacity, self.decay = copy_steps, capacity, decay
        self.steps = 0
        for name, parameter in module.named_parameters():
            empty = torch.zeros(capacity, *parameter.shape, dtype=parameter.dtype, device=parameter.device)
            self.register_buffer(_flat(name), empty)

    @property
    def num_made(self) -> int:
        """Copies ever made."""
        return self.steps // self.copy_steps

    @torch.no_grad()
    def after_step(self, module: nn.Module) -> None:
        """Count a step; copy the module when it is time."""
        self.steps += 1
        if self.steps % self.copy_steps == 0:
            place = (self.num_made - 1) % self.capacity
            for name, parameter in module.named_parameters():
                self.get_buffer(_flat(name))[place].copy_(parameter)

    def priorities(self) -> Tensor:
        """Of each place in the buffer, 0 where nothing is yet, and, last, of today's model: [capacity + 1]."""
        made, places = self.num_made, torch.arange(self.capacity)
        age = (made - 1 - places) % self.capacity + 1
        return torch.cat([torch.where(places < made, self.decay**age, 0.0), torch.ones(1)])

    def draw(self, batch_size: int, chunks: int, generator: torch.Generator) -> ReplayDraws | None:
        """Draw a model for each chunk of a batch; None as long as there is no copy.

        A chunk has ceil(batch_size / chunks) images, the last one what is left.
        """
        if not self.num_made:
            return None
        place = torch.multinomial(self.priorities(), chunks, replacement=True, generator=generator)
        chunk = torch.arange(batch_size) // -(-batch_size // chunks)
        return ReplayDraws(chunk, torch.where(place == self.capacity, TODAY, place)[chunk])

    @torch.no_grad()
    def stacked(self, places: Tensor, today: nn.Module) -> Mapping[str, Tensor]:
        """Parameters of the models at these places [G] (TODAY: the given one) by name, [G, ...] each."""
        return {
            name: torch.stack([parameter if p == TODAY else self.get_buffer(_flat(name))[p] for p in places.tolist()])
            for name, parameter in today.named_parameters()
        }

    def get_extra_state(self) -> Tensor:
        """The steps: a tensor for the checkpoint; kept as an integer so that nobody waits for the device."""
        return torch.tensor(self.steps)

    def set_extra_state(self, state: Tensor) -> None:
        self.steps = int(state)


def _flat(name: str) -> str:
    return name.replace(".", "__")
