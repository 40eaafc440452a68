"""Two players that alternate by what they achieve, not by a count: hysteresis on a measured disagreement."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from hf_transinv.data.transfer import read_later
from hf_transinv.objectives.turns import AUGMENTATION


class TurnSwitch(nn.Module):
    """Whose phase it is: hysteresis on the mean disagreement, the same on all processes, part of the checkpoint.

    Each turn adds the disagreement of the whole batch to a sum on the device. With several processes that number is
    all-reduced, which is queued on the device like the gradients and gives all of them the same bits. Only every
    `look_every` turns does the host read the sum and compare it with a threshold, so all processes decide alike. The
    copy to the host is queued behind the forward pass: while the host waits for it, the device has the backward pass.

    Args:
        lower: mean disagreement below which the student's phase ends.
        upper: mean disagreement above which the augmenter's phase ends; larger than `lower`.
        most_turns: turns after which a phase ends whatever the disagreement.
        look_every: turns between two looks, at most `most_turns`.

    Attributes:
        total: sum of the disagreement over the turns since the last look, a scalar on the device.
        student_plays: whose phase it is; the student's at first.
        in_a_row: turns of this phase.
        looked_over: turns in `total`.
        switches: phases that have ended.
        capped: how many of them ended because of `most_turns`.
        last: mean disagreement at the last look in nats, nan before the first.
    """

    total: Tensor
    _COUNTS = ("student_plays", "in_a_row", "looked_over", "switches", "capped")

    def __init__(self, lower: float, upper: float, most_turns: int, look_every: int) -> None:
        super().__init__()
        self.lower, self.upper, self.most_turns, self.look_every = lower, upper, most_turns, look_every
        self.register_buffer("total", torch.zeros(()))
        self.student_plays, self.last = True, math.nan
        self._read: Callable[[], float] = lambda: math.nan  # of a turn in which nothing was added
        self.in_a_row = self.looked_over = self.switches = self.capped = 0

    def get_extra_state(self) -> Tensor:
        """What the host knows, as float64: on the device, reading it would mean waiting in each turn."""
        return torch.tensor([*(float(getattr(self, name)) for name in self._COUNTS), self.last], dtype=torch.float64)

    def set_extra_state(self, state: Tensor) -> None:
        """The opposite of `get_extra_state`."""
        *counts, self.last = state.tolist()
        for name, value in zip(self._COUNTS, counts, strict=True):
            setattr(self, name, int(value))
        self.student_plays = bool(self.student_plays)

    @property
    def player(self) -> str:
        """Who plays the next turn."""
        return "student" if self.student_plays else AUGMENTATION

    def add(self, disagreement: Tensor) -> None:
        """Within a turn, before its backward pass: take note.

        Args:
            disagreement: this process's part of a micro-batch's share in the batch's mean, a scalar; the parts of all
                micro-batches and processes add up.
        """
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(disagreement)
        self.total += disagreement
        if self._looks(self.looked_over + 1, self.in_a_row + 1):
            self._read = read_later(self.total)  # of the last micro-batch, that is what counts

    def end_turn(self) -> None:
        """After a turn: let the other one play if it is time."""
        self.in_a_row += 1
        self.looked_over += 1
        if not self._looks(self.looked_over, self.in_a_row):
            return
        self.last = self._read() / self.looked_over
        self.total.zero_()
        self.looked_over = 0
        at_cap = self.in_a_row >= self.most_turns
        passed = self.last < self.lower if self.student_plays else self.last > self.upper
        if passed or at_cap:
            self.student_plays = not self.student_plays
            self.in_a_row = 0
            self.switches += 1
            self.capped += not passed

    def _looks(self, looked_over: int, in_a_row: int) -> bool:
        """Whether a turn ends with a look, by the numbers of turns with it."""
        return looked_over >= self.look_every or in_a_row >= self.most_turns
