"""The state a run resumes from: everything, whole or not at all.

A checkpoint is a folder `step_00001200/`: the players and whatever moves without an optimizer as safetensors, the rest
(optimizers, schedules, generators, positions in the data) in `training.pt`, and `manifest.json`, written last, with
the SHA-256 of each file. It is written beside its place and renamed, so under its final name it is always complete.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hf_transinv.errors import InputError

_NAME = re.compile(r"step_\d{8}")


def checkpoints(folder: Path) -> list[Path]:
    """The complete checkpoints in a folder, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(
        path for path in folder.iterdir() if _NAME.fullmatch(path.name) and (path / "manifest.json").exists()
    )


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
            with path.open("rb") as file:
                os.fsync(file.fileno())
        if final.exists():
            shutil.rmtree(final)
        os.replace(temporary, final)
    except (
        OSError,
        SafetensorError,
        RuntimeError,
    ) as error:  # safetensors' and torch's writers have errors of their own
        shutil.rmtree(temporary, ignore_errors=True)
        older = checkpoints(folder)
        last = f"the last good one is {older[-1]}" if older else "there is no earlier one"
        raise InputError(f"checkpoint {final} could not be written ({error}); {last}. Is the disk full?") from error
    for old in checkpoints(folder)[:-keep]:
        shutil.rmtree(old)
    return final


def plain_state(module: nn.Module) -> dict[str, Tensor]:
    """A module's state as contiguous tensors that share no memory (safetensors takes no other)."""
    return {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in module.state_dict().items()
    }


def load_state(path: Path, modules: Mapping[str, nn.Module]) -> dict[str, Any]:
    """Load a checkpoint into the modules; returns what was saved as `training`.

    Raises:
        InputError: a file is missing, damaged or of another model; the message names it and the checkpoint before it.
    """
    try:
        manifest = json.loads((path / "manifest.json").read_text())
        for name, digest in manifest["sha256"].items():
            if _sha256(path / name) != digest:
                raise InputError(f"checkpoint {path}: {name} is damaged (its SHA-256 differs){_instead(path)}")
        unknown = [name for name in modules if f"{name}.safetensors" not in manifest["sha256"]]
        if unknown:
            raise InputError(f"checkpoint {path} does not fit this run: it has no {', '.join(unknown)}")
        for name, module in modules.items():
            module.load_state_dict(load_file(path / f"{name}.safetensors"))
        return torch.load(path / "training.pt", weights_only=True, map_location="cpu")
    except FileNotFoundError as error:
        raise InputError(f"checkpoint {path}: {Path(error.filename).name} is missing{_instead(path)}") from error
    except (KeyError, TypeError, json.JSONDecodeError, SafetensorError, UnpicklingError) as error:
        raise InputError(f"checkpoint {path} is damaged ({error}){_instead(path)}") from error
    except RuntimeError as error:
        raise InputError(f"checkpoint {path} does not fit this run: {error}") from error


def _instead(path: Path) -> str:
    older = [other for other in checkpoints(path.parent) if other.name < path.name]
    return f"; the one before it is --resume_from {older[-1]}" if older else ""


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
