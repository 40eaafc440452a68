"""Ending a run in good order: a signal asks, the loop stops between two turns, on all processes alike."""

import contextlib
import signal
from types import TracebackType
from typing import Any

import torch
from accelerate import Accelerator


class StopRequest:
    """While it is entered, the first SIGINT or SIGTERM is a request, a second one ends the process as usual."""

    def __enter__(self) -> "StopRequest":
        self._signalled = False
        self._earlier: dict[int, Any] = {}
        with contextlib.suppress(ValueError):  # not the main thread: nothing to catch there
            for number in (signal.SIGINT, signal.SIGTERM):
                self._earlier[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._earlier.items():
            signal.signal(number, handler)

    def made(self, accelerator: Accelerator) -> bool:
        """Whether any process was asked to stop; all of them must ask together."""
        if accelerator.num_processes == 1:
            return self._signalled
        flag = torch.tensor(float(self._signalled), device=accelerator.device)
        return bool(accelerator.reduce(flag, "sum") > 0)

    def _note(self, number: int, frame: Any) -> None:
        self._signalled = True
        signal.signal(number, self._earlier[number])
