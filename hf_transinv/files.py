"""Files written as a whole or not at all, JSON, and tensors in the form that safetensors takes."""

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

# In indented JSON. A string holds no line break, so none is taken for a list.
_NUMBERS = re.compile(r"\[\n\s*([^\[\]{}\"]+?)\n\s*\]")
_NEXT_LINE = re.compile(r",\n\s*")


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Replaces a file by what the block writes; if the block raises, the file stays as it was.

    Yields:
        Where to write. The name ends in ".part", so a writer that infers the format from the suffix must be told it.
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
    """Writes a text file in UTF-8, as a whole or not at all."""
    with atomic_write(path) as partial:
        partial.write_text(text, encoding="utf-8")


def put_in_place(partial: Path, folder: Path) -> None:
    """Renames the folder `partial` to `folder`. An existing `folder` is removed only after the new one is in place."""
    older = folder.with_name(f".{folder.name}.older")
    shutil.rmtree(older, ignore_errors=True)
    if folder.exists():
        os.replace(folder, older)
    os.replace(partial, folder)
    shutil.rmtree(older, ignore_errors=True)


def write_json(path: Path, content: Any) -> None:
    """Writes a JSON file, as a whole or not at all."""
    atomic_write_text(path, json_text(content))


def json_text(content: Any) -> str:
    """JSON that is indented, with each list of numbers on one line."""
    return _NUMBERS.sub(lambda found: f"[{_NEXT_LINE.sub(', ', found[1])}]", json.dumps(content, indent=2)) + "\n"


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
    """A module's state as contiguous tensors on the CPU that share no memory, as safetensors requires."""
    return {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in module.state_dict().items()
    }
