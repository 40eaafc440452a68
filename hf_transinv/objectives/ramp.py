"""A number that rises over the first steps of a run."""

import torch
from torch import Tensor, nn


class Ramp(nn.Module):
    """A weight that rises linearly; it counts on the device, so that nothing waits.

    Args:
        weight: at the end.
        steps: in which it rises from 0; 0: it is there from the start.
    """

    count: Tensor

    def __init__(self, weight: float, steps: int) -> None:
        super().__init__()
        self.final, self.steps = weight, steps
        self.register_buffer("count", torch.zeros(()))

    @property
    def weight(self) -> Tensor | float:
        """At this step: a scalar on the device while it rises, or a number."""
        return self.final if self.steps == 0 else self.final * (self.count / self.steps).clamp(max=1.0)
