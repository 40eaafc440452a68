"""The files that record a run: metrics.jsonl as it goes on, and run.json with config, versions, times and results."""

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
    """The versions of packages, the hardware, and the commit of this library.

    Returns:
        "versions": package -> version; "hardware": cpu_threads, cpu_cores, machine, and with GPUs accelerator (its
        name) and accelerators (how many); "commit": see `_commit`.
    """
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    hardware: dict[str, Any] = {
        "cpu_threads": torch.get_num_threads(),
        "cpu_cores": os.cpu_count(),
        "machine": platform.machine(),
    }
    if torch.cuda.is_available():
        hardware["accelerator"] = torch.cuda.get_device_name()
        hardware["accelerators"] = torch.cuda.device_count()
    return {"versions": versions, "hardware": hardware, "commit": _commit()}


def _commit() -> str | None:
    """The commit of this checkout, followed by "+" when files differ from it; None outside a checkout."""
    folder = Path(__file__).parent
    if not (folder.parent / ".git").exists():  # an installed package may lie in another project's checkout
        return None
    command = ["git", "-C", str(folder), "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


class RunRecord:
    """Writes run.json of one output folder; `run.read_run` gives its content types.

    Args:
        folder: the output folder.
        recipe: name of the recipe.
        config: all fields, flat, as `config.as_dict` returns them.

    Attributes:
        path: of run.json.
        content: what the file holds after the next `update`.
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
        """Read the run.json of a folder, as it was written.

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
        """Add entries to the content; the next `update` writes them."""
        self.content |= entries | {"seconds": round(time.time() - self._started, 1)}

    def update(self, **entries: Any) -> None:
        """Add entries and write the file."""
        self.add(**entries)
        write_json(self.path, self.content)


def command_line() -> str:
    """The command line of this process: `transinv NAME ...`, or a recipe as recipes/NAME.py, wherever it is."""
    program, *flags = sys.argv
    if program.startswith("transinv "):
        return " ".join([program, *map(shlex.quote, flags)])
    script = Path(program)
    is_recipe = script.is_absolute() and script.parent.name == "recipes"
    return shlex.join([f"recipes/{script.name}" if is_recipe else program, *flags])


# A prefix such as --flag= or ARCH:, then a path from the root, or one that leaves the working directory; two parts at
# least, or "5 /6" would be one.
_EMBEDDED_PATH = re.compile(r"(?<![\w/.~-])(?:\.\.)?/(?:[^\s/'\"`]+/)+([^\s/'\"`]*)")
_PREFIX = re.compile(r"(?:--?[\w-]+=|[\w.-]{2,}:)?")


def published(content: Any) -> Any:
    """A copy without paths of this machine, absolute or to its parent folders: of each, the last part remains.

    Args:
        content: of run.json, or any part of it.
    """
    if isinstance(content, Mapping):
        return {published(key): published(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [published(value) for value in content]
    return _without_path(content) if isinstance(content, str) else content


def _without_path(text: str) -> str:
    found = _PREFIX.match(text)
    prefix = found.group() if found else ""
    path = text[len(prefix) :]
    for kind in (PurePosixPath, PureWindowsPath):
        if "\n" not in path and " " not in path and _is_of_machine(kind(path)) and not path.startswith("//"):
            return prefix + _last_part(kind(path))
    return _EMBEDDED_PATH.sub(lambda path: _last_part(PurePosixPath(path.group())), text)


def _is_of_machine(path: PurePosixPath | PureWindowsPath) -> bool:
    return path.is_absolute() or path.parts[:1] == ("..",)


def _last_part(path: PurePosixPath | PureWindowsPath) -> str:
    """The last part of a path; of ROOT/OUT/student: OUT/student."""
    return "/".join(path.parts[-2:]) if path.name == "student" and len(path.parts) > 2 else path.name


class Metrics:
    """Writes metrics.jsonl, one JSON object per line.

    Args:
        path: the file.
        step: where a resumed run goes on; lines of later steps are removed, since those steps are trained again.
    """

    def __init__(self, path: Path, step: int = 0) -> None:
        self.path = path
        kept = [line for line in read_metrics(path) if line["step"] <= step]
        atomic_write_text(path, "".join(json.dumps(line) + "\n" for line in kept))

    def append(self, **values: Any) -> None:
        """Append one line."""
        with self.path.open("a") as file:
            file.write(json.dumps(values) + "\n")


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read metrics.jsonl up to the first line that is damaged, such as a last one that was cut off."""
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


def flat_config(config: Mapping[str, Any]) -> dict[str, int | float | str | bool]:
    """What trackers take as hyperparameters."""
    return {
        name: value if isinstance(value, int | float | str | bool) else str(value) for name, value in config.items()
    }
