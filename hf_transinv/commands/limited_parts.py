"""Parts of a check, each in processes of its own within a limit of its own: one that fails or hangs ends no other.

What a part has measured stays, whatever becomes of it: figures are lines of a file that grows (`formats.json_lines`).
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil  # of accelerate
import torch

from hf_transinv.formats.json_lines import JSONLines, read_json_lines

_GRACE = 20.0  # seconds at most from the request to stop to the end by force
_LAST_LINES = 12

DONE, PARTLY, FAILED, SKIPPED = "done", "partly", "failed", "skipped"


@dataclass
class Found:
    """What a part found.

    Attributes:
        part: its name.
        state: done; partly, some of its figures are there; failed; skipped.
        seconds: that it took.
        reason: why, where it was not done.
        ended: when, UTC.
        lines: Markdown.
        figures: the same for programs, each with its name as "figure".
        log: the last lines that its processes wrote, where it was not done.
    """

    part: str
    state: str = DONE
    seconds: float = 0.0
    reason: str = ""
    ended: str = ""
    lines: list[str] = field(default_factory=list)
    figures: list[dict[str, Any]] = field(default_factory=list)
    log: list[str] = field(default_factory=list)

    def fail(self, reason: str, state: str = FAILED) -> None:
        """Note what went wrong; `failed` is not taken back by what went partly wrong."""
        self.state = FAILED if FAILED in (self.state, state) else state
        self.reason = f"{self.reason}; {reason}" if self.reason else reason


@dataclass(frozen=True)
class Part:
    """One part.

    Attributes:
        share: of the time that is left when it begins.
        needs_gpu: whether it is skipped without one.
        run: does it, in processes that write figures.
        show: the figures as Markdown.
    """

    share: float
    needs_gpu: bool
    run: Callable[["LimitedParts", Found], None]
    show: Callable[[list[dict[str, Any]]], list[str]] = lambda figures: []


class LimitedParts:
    """Runs parts one after another, each within a limit of its own.

    Args:
        folder: of the logs, of the figures and of what else parts leave.
        minutes: for all parts together.
        options: what the parts are told.
        variables: of the environment of their processes.
    """

    def __init__(
        self, folder: Path, minutes: float, options: Any = None, variables: Mapping[str, str] | None = None
    ) -> None:
        self.folder, self.options = folder.absolute(), options
        self.variables = {"HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"} | dict(variables or {})
        self.has_gpu = torch.cuda.is_available()
        self.ends = time.monotonic() + 60 * minutes
        self.limit = 0.0
        self.folder.mkdir(parents=True, exist_ok=True)

    def figures(self, part: str) -> Path:
        """The file of a part's figures."""
        return self.folder / f"{part}.jsonl"

    def log(self, part: str) -> Path:
        """The file with what a part's processes write."""
        return self.folder / f"{part}.log"

    def command(
        self, found: Found, *arguments: object, share: float = 1.0, variables: Mapping[str, str] | None = None
    ) -> bool:
        """Run a Python program; what it writes goes to the part's log.

        It is asked to stop, as by Ctrl-C, some seconds before its limit. At the limit it is ended, and so is every
        process that it has started.

        Args:
            found: of the part.
            arguments: of Python.
            share: of the time that is left to the part.
            variables: of the environment, besides the check's.

        Returns:
            Whether it ended well; if not, `found` says why.
        """
        seconds = share * (self.limit - time.monotonic())
        if seconds <= 0:
            found.fail("no time was left", PARTLY)
            return False
        grace = min(_GRACE, 0.2 * seconds)
        environment = os.environ | self.variables | dict(variables or {})
        with self.log(found.part).open("a", encoding="utf-8") as log:
            command = [sys.executable, *map(str, arguments)]
            process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
            try:
                code = process.wait(seconds - grace)
            except subprocess.TimeoutExpired:
                found.fail(f"stopped at its limit of {seconds:.0f} s", PARTLY)
                return False
            finally:
                _end(process, grace)
        if code:
            found.fail(f"exit code {code}")
        return not code

    def transinv(
        self, found: Found, *arguments: object, share: float = 1.0, variables: Mapping[str, str] | None = None
    ) -> bool:
        """Run a command of this library, as `command` does."""
        return self.command(found, "-m", "hf_transinv.commands.cli", *arguments, share=share, variables=variables)

    def take(self, name: str, part: Part) -> Found:
        """Run one part within its share of the time that is left."""
        found, started = Found(name), time.monotonic()
        self.limit = started + max(part.share * (self.ends - started), 1.0)
        if part.needs_gpu and not self.has_gpu:
            found.state, found.reason = SKIPPED, "there is no CUDA device"
        else:
            self.log(name).unlink(missing_ok=True)
            try:
                part.run(self, found)
            except Exception as error:  # the next part goes on
                with self.log(name).open("a", encoding="utf-8") as log:
                    traceback.print_exc(file=log)
                found.fail(f"{type(error).__name__}: {error}")
            self._read_figures(found, part)
        found.seconds = round(time.monotonic() - started, 1)
        found.ended = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        return found

    def note(self, found: Found, name: str, **figure: Any) -> None:
        """Write a figure that this process has measured itself."""
        JSONLines(self.figures(found.part)).append(figure=name, **figure)

    def _read_figures(self, found: Found, part: Part) -> None:
        latest = {line["figure"]: line for line in read_json_lines(self.figures(found.part))}
        found.figures = [line for line in latest.values() if "failed" not in line]
        for name, line in latest.items():
            if "failed" in line:
                found.fail(f"{name}: {line['failed']}", PARTLY)
        if found.state in (PARTLY, FAILED):
            if found.state == PARTLY and not found.figures:
                found.state = FAILED
            if found.figures:
                count = len(found.figures)
                found.reason = f"{count} figure{'s are' if count > 1 else ' is'} there; {found.reason}"
            if self.log(found.part).exists():
                text = self.log(found.part).read_text(encoding="utf-8", errors="replace")
                found.log = [line.rsplit("\r", 1)[-1] for line in text.strip().split("\n")[-_LAST_LINES:]]
        found.lines = part.show(found.figures) if found.figures else []


def _end(process: subprocess.Popen[bytes], grace: float) -> None:
    """Ask a process to stop, and end it with all that it has started, also where that has left its process group."""
    started = _below(process)
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)  # to it alone: a launcher passes it on, and a second one is no request
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(grace)
        started += _below(process)
    with contextlib.suppress(ProcessLookupError, PermissionError):  # there is none, or dead ones only (macOS)
        os.killpg(process.pid, signal.SIGKILL)
    for child in started:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    process.wait()


def _below(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(process.pid).children(recursive=True)
    return []
