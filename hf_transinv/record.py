"""What happened: metrics.jsonl while a run goes on, run.json with its config, versions, timings and results."""

import json
import os
import platform
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import torch

from hf_transinv.errors import InputError
from hf_transinv.files import atomic_write_text, read_json, write_json

PACKAGES = ("torch", "timm", "transformers", "datasets", "accelerate", "huggingface-hub", "safetensors", "hf-transinv")


def environment() -> dict[str, Any]:
    """Versions, hardware and the commit of the code that runs."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    hardware = {"cpu_threads": torch.get_num_threads(), "cpu_cores": os.cpu_count(), "machine": platform.machine()}
    if torch.cuda.is_available():
        hardware["accelerator"] = torch.cuda.get_device_name()
        hardware["accelerators"] = torch.cuda.device_count()
    return {"versions": versions, "hardware": hardware, "commit": _commit()}


def _commit() -> str | None:
    """The commit of this checkout, "+" behind it when files differ; None outside a checkout."""
    folder = Path(__file__).parent
    if not (folder.parent / ".git").exists():  # an installed package may lie in the checkout of something else
        return None
    command = ["git", "-C", str(folder), "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


class RunRecord:
    """run.json of one output folder.

    Args:
        folder: the output folder.
        recipe: which recipe runs.
        config: flat and plain, see `config.as_dict`.
    """

    def __init__(self, folder: Path, recipe: str, config: dict[str, Any]) -> None:
        self.path = folder / "run.json"
        self._started = time.time()
        self.content: dict[str, Any] = {
            "recipe": recipe,
            "status": "running",
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "command": command_line(),
            "config": config,
            **environment(),
        }

    @staticmethod
    def read(folder: Path) -> dict[str, Any]:
        """The run.json of a folder.

        Raises:
            InputError: there is none, or it is damaged.
        """
        try:
            run = read_json(folder / "run.json")
        except (OSError, ValueError) as error:
            raise InputError(f"{folder} holds no run (run.json: {error})") from error
        if not isinstance(run.get("config"), dict) or not isinstance(run.get("rows", {}), dict):
            raise InputError(f"{folder} holds no run (run.json: expected a config and rows, name -> value)")
        return run

    def add(self, **entries: Any) -> None:
        """Add entries, which the file gets with the next `update`."""
        self.content |= entries | {"seconds": round(time.time() - self._started, 1)}

    def update(self, **entries: Any) -> None:
        """Add entries and write the file."""
        self.add(**entries)
        write_json(self.path, self.content)


def command_line() -> str:
    """How this process was started: a command of `transinv`, or a recipe as the README has it, wherever it lies."""
    program, *flags = sys.argv
    if program.startswith("transinv "):
        return " ".join([program, *map(shlex.quote, flags)])
    script = Path(program)
    is_recipe = script.is_absolute() and script.parent.name == "recipes"
    return shlex.join([f"recipes/{script.name}" if is_recipe else program, *flags])


# A prefix such as --flag= or ARCH:, then a path from the root; two parts at least, or "5 /6" would be one.
_EMBEDDED_PATH = re.compile(r"(?<![\w/.~-])/(?:[^\s/'\"`]+/)+([^\s/'\"`]*)")
_PREFIX = re.compile(r"(?:--?[\w-]+=|[\w.-]{2,}:)?")


def published(content: Any) -> Any:
    """The form in which run.json leaves this machine: absolute paths shrink to their last part.

    Args:
        content: of run.json, or any part of it; left as it is.
    """
    if isinstance(content, Mapping):
        return {published(key): published(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [published(value) for value in content]
    return _without_path(content) if isinstance(content, str) else content


def _without_path(text: str) -> str:
    prefix = _PREFIX.match(text).group()
    path = text[len(prefix) :]
    for kind in (PurePosixPath, PureWindowsPath):
        if "\n" not in path and " " not in path and kind(path).is_absolute() and not path.startswith("//"):
            return prefix + _last_part(kind(path))
    return _EMBEDDED_PATH.sub(lambda found: _last_part(PurePosixPath(found.group())), text)


def _last_part(path: PurePosixPath | PureWindowsPath) -> str:
    """OUT of ROOT/OUT/student, else the last part."""
    return "/".join(path.parts[-2:]) if path.name == "student" and len(path.parts) > 2 else path.name


class Metrics:
    """metrics.jsonl: one JSON object a line, appended while training goes on.

    Args:
        path: the file.
        step: when a run resumes: lines after this step are of a future that is trained again, and go.
    """

    def __init__(self, path: Path, step: int = 0) -> None:
        self.path = path
        kept = [line for line in read_metrics(path) if line["step"] <= step]
        atomic_write_text(path, "".join(json.dumps(line) + "\n" for line in kept))

    def append(self, **values: Any) -> None:
        """Write one line."""
        with self.path.open("a") as file:
            file.write(json.dumps(values) + "\n")


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All lines of a metrics.jsonl up to the first that is no line of metrics, such as a last one that was cut off."""
    if not path.exists():
        return []
    lines = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            content = json.loads(line)
        except (ValueError, RecursionError):
            break
        if not isinstance(content, dict) or not isinstance(content.get("step"), int):
            break
        lines.append(content)
    return lines


def flat_numbers(learned: Mapping[str, Any]) -> dict[str, float]:
    """{"p": [[a, b]]} -> {"p/1/1": a, "p/1/2": b}: what trackers take."""
    flat = {}
    for name, value in learned.items():
        if isinstance(value, list):
            flat |= flat_numbers({f"{name}/{index}": item for index, item in enumerate(value, 1)})
        else:
            flat[name] = value
    return flat
