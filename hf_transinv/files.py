"""Files that are there whole or not at all, JSON, and the tensors that safetensors takes."""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Where to write in the block; when that ends well, what was written takes the name `path`, else nothing stays.

    The place ends in ".part" and not as `path` does: a writer that goes by endings has to be told its format.
    """
    partial = path.with_name(f".{path.name}.part")
    try:
        yield partial
        with partial.open("r+b") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def atomic_write_text(path: Path, text: str) -> None:
    """Write a text file, UTF-8."""
    with atomic_write(path) as partial:
        partial.write_text(text, encoding="utf-8")


def put_in_place(partial: Path, folder: Path) -> None:
    """Rename `partial` to `folder`; an older folder steps aside first and goes only when the new one stands."""
    older = folder.with_name(f".{folder.name}.older")
    shutil.rmtree(older, ignore_errors=True)
    if folder.exists():
        os.replace(folder, older)
    os.replace(partial, folder)
    shutil.rmtree(older, ignore_errors=True)


def write_json(path: Path, content: Any) -> None:
    """Write JSON so that the file is there whole or not at all."""
    atomic_write_text(path, json.dumps(content, indent=2) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not JSON in UTF-8, or not an object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(content, dict):
        raise ValueError(f"expected a JSON object, found {type(content).__name__}")
    return content


def plain_state(module: nn.Module) -> dict[str, Tensor]:
    """A module's state as contiguous tensors that share no memory (safetensors takes no other)."""
    return {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in module.state_dict().items()
    }
