"""A parameter budget: a network must not be much larger than the weights that it is opened for.

Networks are built before their weights are read, and PyTorch allocates memory lazily. A config.json with a wrong
number, such as 10**9 classes, would therefore not raise an error: the process would run out of memory and be killed.
Here the parameters are counted while a network is built.
"""

import contextlib
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from hf_transinv.errors import InputError

MOST_WITHOUT_WEIGHTS = 8_000_000_000
"""Parameters of a network that is opened without weights; timm's largest has 7 billion."""

# The budget exceeds the stored numbers: two layers may share weights, and buffers may have become parameters.
_FACTOR, _MARGIN = 2, 10_000_000
_LEAST_COST = 3000  # counted for each parameter besides its size, so that a billion tiny layers are refused as well
_LARGEST_SIZE = 100_000
"""Of a width, a depth, an image side, a number of classes; ImageNet-21k has 21,841 classes."""


def check_sizes(sizes: Mapping[str, Any], name: str) -> None:
    """Raises InputError when a whole number, alone or in a list, is too large to be a size of a network.

    This must happen before the network is built: for a depth of 10**8 timm first makes a list of 10**8 drop rates.

    Args:
        sizes: arguments of the network by name.
        name: the model, for the error.
    """
    for key, value in sizes.items():
        for number in value if isinstance(value, list | tuple) else [value]:
            if isinstance(number, int) and abs(number) > _LARGEST_SIZE:
                raise InputError(
                    f"The config.json of {name!r} has {key} {number}; expected at most {_LARGEST_SIZE:,}. Correct it, "
                    "or export the model again."
                )


def stored_elements(folder: Path) -> int:
    """How many numbers the safetensors files of a folder hold, according to their headers.

    Raises:
        SafetensorError: a file is damaged.
        OSError: a file cannot be read.
    """
    total = 0
    for path in folder.glob("*.safetensors"):
        with safe_open(str(path), framework="pt") as file:
            total += sum(prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118 (not a dict)
    return total


@contextlib.contextmanager
def no_larger_than(stored: int | None, name: str, new: int = 0) -> Iterator[None]:
    """Sets the parameter budget of networks that are built in the block.

    Args:
        stored: of `stored_elements`; None when there are no weights.
        name: the model, for the error.
        new: parameters to allow besides, of a head of another size.

    Raises:
        InputError: the network exceeds its budget. The parameters so far are not initialised, so they take no memory.
    """
    most = MOST_WITHOUT_WEIGHTS if stored is None else _FACTOR * stored + _MARGIN + new
    counted = 0

    def count(module: nn.Module, key: str, parameter: nn.Parameter | None) -> None:
        nonlocal counted
        if parameter is None:
            return
        counted += parameter.numel() + _LEAST_COST
        if counted > most:
            what = "any network that this library can train" if stored is None else f"its weights ({stored:,} numbers)"
            raise InputError(
                f"Model {name!r} is by its config.json larger than {what}: {key} of a {type(module).__name__} has "
                f"shape {tuple(parameter.shape)}. Correct its config.json, or export the model again."
            )

    hook = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        hook.remove()
