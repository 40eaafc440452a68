"""Parts of a check, each in processes of its own within a limit of its own: one that fails or hangs ends no other."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

_GRACE = 20  # seconds from the request to stop to the end by force


@dataclass
class Found:
    """What a part found.

    Attributes:
        part: its name.
        seconds: that it took.
        state: done, skipped, failed or stopped at its limit.
        reason: why, where it was not done.
        lines: Markdown.
        numbers: the same for programs.
    """

    part: str
    seconds: float = 0.0
    state: str = "done"
    reason: str = ""
    lines: list[str] = field(default_factory=list)
    numbers: dict[str, Any] = field(default_factory=dict)


class LimitedParts:
    """Runs parts one after another, each within a limit of its own.

    Args:
        folder: of the logs and of what parts leave.
        minutes: for all parts together.
        run: configuration of a real run, for the parts.
        tiny: whether parts are to be as small as they can.
    """

    def __init__(self, folder: Path, minutes: float, run: str, tiny: bool) -> None:
        self.folder, self.run, self.tiny = folder.absolute(), run, tiny
        self.has_gpu = torch.cuda.is_available()
        self.ends = time.monotonic() + 60 * minutes
        self.limit = 0.0
        self.folder.mkdir(parents=True, exist_ok=True)

    def command(self, found: Found, *arguments: str, cpu: bool = False) -> str | None:
        """Run one command; what it says goes to a log, and is returned where it ended well.

        A command that is not done at the part's limit is asked to stop, as by Ctrl-C, and then ended.
        """
        log, out = self.folder / f"{found.part}.log", self.folder / f"{found.part}.out"
        left = self.limit - time.monotonic()
        if left <= 0:
            found.state, found.reason = "stopped", "no time was left"
            return None
        variables = os.environ | {"HF_HUB_OFFLINE": "1"} | ({"ACCELERATE_USE_CPU": "true"} if cpu else {})
        with log.open("a", encoding="utf-8") as errors, out.open("w", encoding="utf-8") as said:
            process = subprocess.Popen([sys.executable, *arguments], stdout=said, stderr=errors, env=variables)
            try:
                code = process.wait(left)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(_GRACE)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
                found.state, found.reason = "stopped", f"at its limit, see {log.name}"
                return None
        if code:
            lines = log.read_text(encoding="utf-8", errors="replace").split()
            found.state = "failed"
            found.reason = f"exit code {code}: {' '.join(lines[-40:])} (see {log.name})"
            return None
        return out.read_text(encoding="utf-8", errors="replace")

    def transinv(self, found: Found, *arguments: object, cpu: bool = False) -> str | None:
        """Run a command of this library."""
        return self.command(found, "-m", "hf_transinv.commands.cli", *map(str, arguments), cpu=cpu)

    def take(self, name: str, part: "Part") -> Found:
        """Run one part within its share of the time that is left."""
        found, started = Found(name), time.monotonic()
        self.limit = started + max(part.share * (self.ends - started), 1.0)
        if part.needs_gpu and not self.has_gpu:
            found.state, found.reason = "skipped", "there is no CUDA device"
        else:
            part.run(self, found)
        found.seconds = round(time.monotonic() - started, 1)
        return found


@dataclass(frozen=True)
class Part:
    """One part.

    Attributes:
        share: of the time that is left when it begins.
        needs_gpu: whether it is skipped without one.
        run: does it, and notes what it found.
    """

    share: float
    needs_gpu: bool
    run: Callable[[LimitedParts, Found], None]
