"""Finds what comes with the library, from any working directory: configurations, launch files, small teachers.

In a wheel they are in the package, below assets/. In a checkout they are beside it, where they are edited (setup.py).
"""

import os
import re
from pathlib import Path

_PACKAGE = Path(__file__).parents[1]
_IN_CHECKOUT = {"configs": "recipes/configs", "accelerate": "recipes/accelerate", "model_cards": "model_cards"}
_MODEL = re.compile(r"(?:\./)?model_cards/(\w+)/?")
_CONFIG = re.compile(r"(?:\./)?(?:recipes/configs/)?(\w+)(?:\.yaml)?")
_LAUNCH_FILE = re.compile(r"(?:\./)?(?:recipes/accelerate/)?(\w+)(?:\.yaml)?")


def config_folder() -> Path:
    """The folder of the configurations."""
    return _folder("configs")


def config_file(name: str) -> str:
    """The path of a configuration: the file of that name, or else the one that comes with the library.

    Args:
        name: a path, or the bare name of a shipped one; `recipes/configs/NAME.yaml` works outside a checkout, too.

    Returns:
        The path; `name` itself where there is neither.
    """
    return _file(name, _CONFIG, "configs")


def launch_file(name: str) -> str:
    """The same as `config_file` for a configuration of `accelerate launch`."""
    return _file(name, _LAUNCH_FILE, "accelerate")


def model_folder(name: str) -> Path | None:
    """The folder of a small teacher that comes with the library, for `model_cards/NAME`; None: there is none."""
    found = _MODEL.fullmatch(name)
    folder = _folder("model_cards") / found[1] if found else None
    return folder if folder and os.path.isdir(folder) else None


def _file(name: str, pattern: re.Pattern[str], kind: str) -> str:
    found = pattern.fullmatch(name)
    if not found or os.path.isfile(name):  # pathlib raises where a name is too long for a path
        return name
    path = _folder(kind) / f"{found[1]}.yaml"
    return str(path) if os.path.isfile(path) else name


def _folder(kind: str) -> Path:
    inside = _PACKAGE / "assets" / kind
    return inside if inside.is_dir() else _PACKAGE.parent / _IN_CHECKOUT[kind]
