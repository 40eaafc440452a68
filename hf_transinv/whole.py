"""Files that are there whole or not at all: written beside their place, then renamed."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
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


def write_whole(path: Path, text: str) -> None:
    """Write a text file, UTF-8."""
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def put_in_place(partial: Path, folder: Path) -> None:
    """Rename `partial` to `folder`; an older folder steps aside first and goes only when the new one stands."""
    older = folder.with_name(f".{folder.name}.older")
    shutil.rmtree(older, ignore_errors=True)
    if folder.exists():
        os.replace(folder, older)
    os.replace(partial, folder)
    shutil.rmtree(older, ignore_errors=True)
