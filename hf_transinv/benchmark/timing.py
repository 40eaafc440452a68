"""Clocks, rounds and medians."""

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch

from hf_transinv.formats.terminal import stages


@dataclass(frozen=True)
class Spread:
    """What the rounds gave: their median, the smallest and the largest."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        return cls(statistics.median(values), min(values), max(values))


class Stopwatch:
    """Marks on the clock of a device. On a GPU they wait in its queue, and the host waits when they are read."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._marks: list[Any] = []

    def mark(self) -> None:
        """Set a mark behind all work that was given to the device."""
        if self.device.type == "cpu":
            self._marks.append(time.perf_counter())
            return
        event = torch.Event(self.device, enable_timing=True)
        event.record()
        self._marks.append(event)

    def laps(self) -> list[float]:
        """Seconds from each mark to the next, once the device has come to the last one."""
        if self.device.type == "cpu":
            return [after - before for before, after in pairwise(self._marks)]
        self._marks[-1].synchronize()
        return [before.elapsed_time(after) / 1000 for before, after in pairwise(self._marks)]


def seconds_a_call(call: Callable[[], Any], count: int, device: torch.device) -> float:
    """Mean seconds of `count` calls in a row."""
    watch = Stopwatch(device)
    watch.mark()
    for _ in range(count):
        call()
    watch.mark()
    return watch.laps()[0] / count


def repeats(seconds: float, estimate: float) -> int:
    """How many calls of about `estimate` seconds take at least `seconds`."""
    return max(1, math.ceil(seconds / max(estimate, 1e-6)))


@dataclass(frozen=True)
class Work:
    """Something to be measured: a call, and the device whose clock counts."""

    call: Callable[[], Any]
    device: torch.device


def measure_in_rounds(works: Mapping[str, Work], rounds: int, seconds: float, label: str) -> dict[str, list[float]]:
    """Seconds per call of each, one figure per round; warmed up, and one after another in every round.

    Args:
        works: by name.
        rounds: figures of each.
        seconds: time for each figure, at least.
        label: shown at the progress bar.
    """
    counts = {}
    for name, work in works.items():
        seconds_a_call(work.call, 1, work.device)
        counts[name] = repeats(seconds, seconds_a_call(work.call, 1, work.device))
    figures: dict[str, list[float]] = {name: [] for name in works}
    for _ in stages(range(rounds), label, "round"):
        for name, work in works.items():
            figures[name].append(seconds_a_call(work.call, counts[name], work.device))
    return figures
