"""Ending a run in good order: a signal asks, the loop stops between two turns, on all processes alike.

A process that has lost another one cannot end in good order; it says so and ends at once.
"""

import contextlib
import signal
from collections.abc import Iterator
from types import TracebackType
from typing import Any

import torch
from accelerate import Accelerator


class ProcessLost(RuntimeError):
    """Another process of the run has ended, or cannot be reached any more."""


@contextlib.contextmanager
def noticing_lost_processes() -> Iterator[None]:
    """Tell what torch.distributed says when another process is gone from every other error.

    Gloo's errors have no type of their own; they name their source file.

    Raises:
        ProcessLost: instead of the library's error.
    """
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, torch.distributed.DistError) and "/gloo/" not in str(error):
            raise
        if "connectFullMesh" in str(error):
            raise ProcessLost(
                "the processes of this run cannot connect to each other. On each machine, set GLOO_SOCKET_IFNAME to "
                f"the network interface by which the others reach it, such as eth0 ({error})"
            ) from error
        raise ProcessLost(
            "another process of this run has ended or cannot be reached; what it wrote says why. Go on from the last "
            f"checkpoint with the same command, --output_dir and --resume_from latest ({error})"
        ) from error


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

    def made(self, accelerator: Accelerator, must_stop: bool = False) -> bool:
        """Whether any process was asked to stop, or must by itself; all of them must ask together."""
        must_stop = must_stop or self._signalled
        if accelerator.num_processes == 1:
            return must_stop
        flag = torch.tensor(float(must_stop), device=accelerator.device)
        return bool(accelerator.reduce(flag, "sum") > 0)

    def _note(self, number: int, frame: Any) -> None:
        self._signalled = True
        signal.signal(number, self._earlier[number])
