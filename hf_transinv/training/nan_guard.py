"""A run ends when its numbers are no longer finite, and says what was at fault."""

import math
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor

from hf_transinv.data.pictures import BatchImages
from hf_transinv.data.transforms import to_float
from hf_transinv.models.teacher import EMATeacher, fault_of
from hf_transinv.objectives.objective import Objective
from hf_transinv.training.checkpointing import last_good


class TrainingDiverged(RuntimeError):
    """A loss is not finite, and no checkpoint holds what came of it.

    On the CPU it is seen before an optimizer steps on it; on other devices at the next line of metrics, since looking
    at the loss of each turn would mean waiting for it.
    """


class LossMonitor:
    """The terms of all losses since the last line of metrics.

    Args:
        accelerator: the run's.
        objective: whose weights and teachers may be at fault.
        checkpoints: the folder that may hold the last good one.

    Attributes:
        values: what each turn added, by player/term.
        looks_at_once: whether each turn's are looked at; if not, the means alone.
    """

    def __init__(self, accelerator: Accelerator, objective: Objective, checkpoints: Path) -> None:
        self.accelerator, self.objective, self.checkpoints = accelerator, objective, checkpoints
        self.values: dict[str, list[Tensor]] = defaultdict(list)
        # Elsewhere a look at a loss would wait for the device.
        self.looks_at_once = accelerator.device.type == "cpu"
        self.looked_at_step = 0
        self._images: BatchImages | None = None

    def add(self, player: str, terms: Mapping[str, Tensor], images: BatchImages, step: int) -> None:
        """A turn's terms, each a scalar without graph; its images, as fed, are for the search of a fault.

        Raises:
            TrainingDiverged: one is not finite, on the CPU.
        """
        self._images = images
        named = {f"{player}/{name}": value for name, value in terms.items()}
        for name, value in named.items():
            self.values[name].append(value)
        if self.looks_at_once:
            self._check({name: value.item() for name, value in named.items()}, step, step)

    def take_means(self, step: int) -> dict[str, float]:
        """Means of what was added since they were last taken, over all processes; waits for the device.

        Raises:
            TrainingDiverged: one is not finite.
        """
        names = sorted(self.values)
        if not names:
            return {}
        means = torch.stack([torch.stack(self.values[name]).mean() for name in names])
        values = dict(zip(names, self.accelerator.reduce(means, "mean").tolist(), strict=True))
        self.values.clear()
        self._check(values, self.looked_at_step, step)
        self.looked_at_step = step
        return values

    def check_own(self, step: int) -> None:
        """Look at what this process alone has added, and at the weights; raises as above."""
        means = {name: torch.stack(values).mean().item() for name, values in sorted(self.values.items())}
        self._check(means, self.looked_at_step, step)
        self.check_weights(step)

    def check_weights(self, step: int) -> None:
        """Raises TrainingDiverged if a player's weights or statistics are not all finite."""
        for name, module in self.objective.players.items():
            numbers = (x for x in module.state_dict().values() if x.is_floating_point())
            if not all(x.isfinite().all() for x in numbers):
                raise TrainingDiverged(f"weights of {name} are not finite at step {step}; {self._advice()}")

    def _check(self, values: Mapping[str, float], since: int, step: int) -> None:
        for name in sorted(values, key=lambda term: term.endswith("/total")):
            if not math.isfinite(values[name]):
                where = name.replace("/", " turn, term ")
                when = f"at step {step}" if since == step else f"between steps {since} and {step}"
                raise TrainingDiverged(f"{where} is {values[name]} {when}; {self._advice()}")

    def _advice(self) -> str:
        good = last_good(self.checkpoints)
        last = f"the last good checkpoint is {good}" if good else "there is no checkpoint yet"
        # An average follows the student: it is not to blame.
        asked = [teacher for teacher in self.objective.teachers if not isinstance(teacher, EMATeacher)]
        fault = None
        if self._images is not None:
            images = self._images if isinstance(self._images, Tensor) else self._images.squares()
            with self.accelerator.autocast():
                fault = next(filter(None, (fault_of(teacher, to_float(images)) for teacher in asked)), None)
        return f"{fault}; {last}" if fault else f"{last}. Try a smaller learning_rate or max_grad_norm"
