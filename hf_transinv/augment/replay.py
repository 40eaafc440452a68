"""Experience replay of augmentation models (TeachAugment; Suzuki, CVPR 2022).

phi is copied every few student steps. Each batch of the student is cut into chunks. A chunk is augmented by the
current model, with priority 1, or by one of the copies, with priority decay^age, where the newest copy has age 1.
Copies are never trained.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hf_transinv.errors import InputError

TODAY = -1
"""The current model, where the place of a copy is expected."""


@dataclass(frozen=True)
class ReplayDraws:
    """The model that augments each image; on the CPU.

    Attributes:
        chunk: number of the image's chunk, int64 [B], ascending.
        place: place of the copy in the buffer, or TODAY, int64 [B].
    """

    chunk: Tensor
    place: Tensor

    def __getitem__(self, rows: slice) -> "ReplayDraws":
        return ReplayDraws(self.chunk[rows], self.place[rows])

    def runs(self) -> list[tuple[Tensor, Tensor]]:
        """The images by chunk: for each size n of a chunk, the rows of its chunks [G, n] and their places [G].

        Usually there is one size. There are more where a micro-batch cuts a chunk in two, or where the batch is not
        divisible into chunks.
        """
        _, sizes = self.chunk.unique_consecutive(return_counts=True)
        starts = sizes.cumsum(0) - sizes
        return [
            (rows := starts[sizes == size].unsqueeze(1) + torch.arange(size), self.place[rows[:, 0]])
            for size in sizes.unique().tolist()
        ]


class ReplayBuffer(nn.Module):
    """The copies of a module's parameters. The tensors of its state stay the same throughout a run.

    Args:
        module: the module to copy.
        copy_steps: steps between two copies.
        capacity: number of copies kept; the oldest is overwritten.
        decay: of the priority, in (0, 1].

    Attributes:
        steps: counted so far by `after_step`.
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
        """The number of copies made so far, those overwritten included."""
        return self.steps // self.copy_steps

    @torch.no_grad()
    def after_step(self, module: nn.Module) -> None:
        """Count a step, and copy the module when a copy is due."""
        self.steps += 1
        if self.steps % self.copy_steps == 0:
            place = (self.num_made - 1) % self.capacity
            for name, parameter in module.named_parameters():
                self.get_buffer(_flat(name))[place].copy_(parameter)

    def priorities(self) -> Tensor:
        """The priorities of the places in the buffer (0 while empty), then of the current model: [capacity + 1]."""
        made, places = self.num_made, torch.arange(self.capacity)
        age = (made - 1 - places) % self.capacity + 1
        return torch.cat([torch.where(places < made, self.decay**age, 0.0), torch.ones(1)])

    def draw(self, batch_size: int, chunks: int, generator: torch.Generator) -> ReplayDraws | None:
        """Draw a model for each chunk of a batch; None while there is no copy.

        A chunk has ceil(batch_size / chunks) images; the last one has the rest.
        """
        if not self.num_made:
            return None
        place = torch.multinomial(self.priorities(), chunks, replacement=True, generator=generator)
        chunk = torch.arange(batch_size) // -(-batch_size // chunks)
        return ReplayDraws(chunk, torch.where(place == self.capacity, TODAY, place)[chunk])

    @torch.no_grad()
    def stacked(self, places: Tensor, today: nn.Module) -> Mapping[str, Tensor]:
        """The parameters, by name, of the models at places [G], with `today` for TODAY: [G, ...] each."""
        return {
            name: torch.stack([parameter if p == TODAY else self.get_buffer(_flat(name))[p] for p in places.tolist()])
            for name, parameter in today.named_parameters()
        }

    def get_extra_state(self) -> Tensor:
        """The steps, as a tensor for the checkpoint; in use they are an integer, which never waits for the device."""
        return torch.tensor(self.steps)

    def set_extra_state(self, state: Tensor) -> None:
        self.steps = int(state)


def _flat(name: str) -> str:
    return name.replace(".", "__")
