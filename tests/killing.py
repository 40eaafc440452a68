"""Kills a run again and again, resumes it each time, and says what became of it. A program: tests launch it.

The parent imports everything once and trains nothing; each start of the run is a fork of it, so a start costs a second
instead of ten. A kill is SIGKILL, at a random moment of the clock or at a random one of the calls that change files;
at those that write, half of the content is in the file by then.
"""

import argparse
import contextlib
import importlib
import json
import os
import random
import runpy
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import safetensors.torch
import torch

import hf_transinv.experiment.methods  # noqa: F401 (imported before the fork)
from hf_transinv.augment import saving
from hf_transinv.record import Metrics, RunRecord
from hf_transinv.training import checkpointing
from hf_transinv.training.checkpointing import checkpoints, last_good
from tests.launching import MULTI_TEACHER

MOST_KILLS_A_RUN = 15


def start(flags: list[str], folder: Path, before: Callable[[], None]) -> int:
    """One start of the recipe in a process of its own; returns its id."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        log = os.open(folder.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        resume = ["--resume_from", "latest"] if (folder / "run.json").exists() else []
        sys.argv = [str(MULTI_TEACHER), *flags, "--output_dir", str(folder), *resume]
        before()
        runpy.run_path(str(MULTI_TEACHER), run_name="__main__")
        folder.with_suffix(".modules").write_text("\n".join(sys.modules))
        code = 0
    finally:
        os._exit(code)


def arm(number: int, said: Path) -> None:
    """Let this process kill itself at one of its calls that change files, the first is 1; 0 counts them only."""
    calls = 0

    def now(name: str) -> bool:
        nonlocal calls
        calls += 1
        if calls == number or not number:
            said.write_text(name if number else str(calls))
        return calls == number

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def guard(name: str) -> None:
        real = getattr(os, name)

        def call(*args, **options):
            if now(name):
                die()
            return real(*args, **options)

        setattr(os, name, call)

    def torn_save(name: str, real: Callable, content: object, path: Path, **options: object) -> None:
        if now(name):
            real(content, path, **options)
            os.truncate(path, path.stat().st_size // 2)
            die()
        real(content, path, **options)

    def torn_line(metrics: Metrics, real: Callable = Metrics.append, **values: object) -> None:
        if now("Metrics.append"):
            with metrics.path.open("a") as file:
                file.write(json.dumps(values)[:40])
            die()
        real(metrics, **values)

    for name in ("replace", "fsync", "unlink", "rmdir", "mkdir"):
        guard(name)
    save_file = partial(torn_save, "save_file", safetensors.torch.save_file)
    checkpointing.save_file = saving.save_file = save_file
    torch.save = partial(torn_save, "torch.save", torch.save)
    Metrics.append = torn_line


def check(folder: Path) -> None:
    """What a reader finds after a kill is whole."""
    if (folder / "run.json").exists():
        RunRecord.read(folder)
    saved = checkpoints(folder / "checkpoints")
    for path in saved:
        if last_good(path.parent, before=path.with_name(f"{path.name}+")) != path:
            raise SystemExit(f"{path} is not whole")
    student = folder / "student"
    if student.exists():
        json.loads((student / "config.json").read_text())
        safetensors.torch.load_file(student / "model.safetensors")
    for picture in (folder / "figures").glob("*.png"):
        if not picture.read_bytes().endswith(b"IEND\xaeB`\x82"):
            raise SystemExit(f"{picture} is not whole")


def wait(pid: int, seconds: float | None) -> int:
    """Kill a process after some seconds, unless it ended before; returns its exit code, negative for a signal."""
    deadline = None if seconds is None else time.monotonic() + seconds
    while deadline is not None and time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.001)
    if deadline is not None:
        os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int)
    parser.add_argument("--at", choices=("calls", "moments"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--flags", nargs=argparse.REMAINDER)
    given = parser.parse_args()
    torch.set_num_threads(1)
    chance, whole, said = random.Random(given.seed), given.folder / "whole", given.folder / "said"

    if wait(start(given.flags, whole, lambda: arm(0, said)), None) != 0:
        raise SystemExit((given.folder / "whole.log").read_text())
    calls = int(said.read_text())
    for name in (given.folder / "whole.modules").read_text().splitlines():
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    begun = time.monotonic()
    if given.at == "moments":
        wait(start(given.flags, given.folder / "again", lambda: None), None)
    length = time.monotonic() - begun

    runs, kills, where = [0], 0, {}
    while True:
        folder, at_call, seconds = given.folder / f"killed{len(runs) - 1}", 0, None
        if kills < given.kills and runs[-1] < MOST_KILLS_A_RUN:
            at_call = chance.randint(1, calls) if given.at == "calls" else 0
            seconds = None if at_call else chance.uniform(0, length)
        code = wait(start(given.flags, folder, partial(arm, at_call, said) if at_call else lambda: None), seconds)
        if code == -signal.SIGKILL:
            check(folder)
            kills, runs[-1] = kills + 1, runs[-1] + 1
            place = said.read_text() if at_call else "moment"
            where[place] = where.get(place, 0) + 1
        elif code != 0:
            raise SystemExit(f"exit code {code}\n{folder.with_suffix('.log').read_text()}")
        elif kills == given.kills:
            break
        else:
            runs.append(0)
    print(json.dumps({"kills": kills, "runs": runs, "where": where, "calls": calls}))


if __name__ == "__main__":
    main()
