"""The state a run resumes from: everything, whole or not at all.

A checkpoint is a folder `step_00001200/`: the players and whatever moves without an optimizer as safetensors, the rest
(optimizers, schedules, generators, positions in the data) in `training.pt`, and `manifest.json`, written last, with
the SHA-256 of each file. It is written beside its place and renamed, and renamed again before it is removed, so under
its final name it is always complete; what is missing or changed there has been damaged since, and is refused.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from hf_transinv.errors import InputError
from hf_transinv.files import plain_state, read_json

_NAME = re.compile(r"step_\d{8}")


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder, oldest first."""
    return sorted(path for path in folder.iterdir() if _NAME.fullmatch(path.name)) if os.path.isdir(folder) else []


def last_good(folder: Path, before: Path | None = None) -> Path | None:
    """The newest checkpoint in a folder, or the newest older than another, that is not damaged; None without one."""
    older = [path for path in checkpoints(folder) if before is None or path.name < before.name]
    return next((path for path in reversed(older) if not _damage(path)), None)


def save_state(folder: Path, step: int, modules: Mapping[str, nn.Module], training: dict[str, Any], keep: int) -> Path:
    """Write the checkpoint of a step and remove all but the newest `keep`.

    Raises:
        InputError: it cannot be written (a full disk, say); the earlier checkpoints are untouched.
    """
    final, temporary = folder / f"step_{step:08d}", folder / f".step_{step:08d}.part"
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        for name, module in modules.items():
            save_file(plain_state(module), temporary / f"{name}.safetensors")
        torch.save(training, temporary / "training.pt")
        digests = {path.name: _sha256(path) for path in sorted(temporary.iterdir())}
        (temporary / "manifest.json").write_text(json.dumps({"step": step, "sha256": digests}, indent=2) + "\n")
        for path in temporary.iterdir():
            with path.open("r+b") as file:
                os.fsync(file.fileno())
        if final.exists():
            discard(final)
        os.replace(temporary, final)
    except (
        OSError,
        SafetensorError,
        RuntimeError,
    ) as error:  # safetensors' and torch's writers have errors of their own
        shutil.rmtree(temporary, ignore_errors=True)
        good = last_good(folder)
        last = f"the last good one is {good}" if good else "there is no earlier one"
        raise InputError(f"checkpoint {final} could not be written ({error}); {last}. Is the disk full?") from error
    tidy(folder, keep)
    return final


def tidy(folder: Path, keep: int) -> None:
    """Remove all checkpoints but the newest `keep`, and what a process that was killed has left."""
    for old in checkpoints(folder)[:-keep]:
        discard(old)
    for left in folder.glob(".step_*"):
        shutil.rmtree(left, ignore_errors=True)


def discard_later(path: Path, keep: int) -> None:
    """Remove the checkpoints later than one, of a future that is trained again from there; then `tidy`."""
    for later in checkpoints(path.parent):
        if later.name > path.name:
            discard(later)
    tidy(path.parent, keep)


def discard(path: Path) -> None:
    """Remove a checkpoint; a process that is killed meanwhile leaves no half of it under its name."""
    aside = path.with_name(f".{path.name}.gone")
    shutil.rmtree(aside, ignore_errors=True)
    os.replace(path, aside)
    shutil.rmtree(aside)


def load_state(path: Path, modules: Mapping[str, nn.Module]) -> dict[str, Any]:
    """Load a checkpoint into the modules; returns what was saved as `training`.

    Raises:
        InputError: a file is missing, damaged or of another model; the message names it and the last good checkpoint
            before it. Nothing is changed, in the folder or in the modules, unless a file is of another model.
    """
    damage = _damage(path)
    if damage:
        raise InputError(f"checkpoint {path}: {damage}{_instead(path)}")
    digests = _digests(path)
    unknown = [name for name in modules if f"{name}.safetensors" not in digests]
    if unknown:
        raise InputError(f"checkpoint {path} does not fit this run: it has no {', '.join(unknown)}")
    try:
        training = torch.load(path / "training.pt", weights_only=True, map_location="cpu")
        states = {name: load_file(path / f"{name}.safetensors") for name in modules}
    except Exception as error:  # the readers of both formats raise nearly any type on broken bytes
        raise InputError(f"checkpoint {path} is damaged ({error}){_instead(path)}") from error
    for name, module in modules.items():
        try:
            module.load_state_dict(states[name])
        except RuntimeError as error:  # other names or shapes
            raise InputError(f"checkpoint {path} does not fit this run: {error}") from error
    return training


def _damage(path: Path) -> str | None:
    """What happened to a checkpoint's files after they were written; None: nothing."""
    if not path.is_dir():
        return "there is no such folder"
    try:
        for name, digest in _digests(path).items():
            if _sha256(path / name) != digest:
                return f"{name} is damaged (its SHA-256 differs)"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except OSError as error:
        return f"it cannot be read ({error})"
    except ValueError:
        return "manifest.json is damaged"
    return None


def _instead(path: Path) -> str:
    good = last_good(path.parent, before=path)
    return f"; the last good one before it: --resume_from {good}" if good else "; there is no good one before it"


def _digests(path: Path) -> dict[str, str]:
    """File -> SHA-256.

    Raises:
        OSError: manifest.json cannot be read.
        ValueError: it does not hold that.
    """
    digests = read_json(path / "manifest.json").get("sha256")
    if not isinstance(digests, dict) or not all(isinstance(digest, str) for digest in digests.values()):
        raise ValueError("expected sha256, file -> digest")
    return digests


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
