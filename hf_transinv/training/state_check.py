"""Whether what a checkpoint holds has the form of this run's own state, before any of it is taken over."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from hf_transinv.errors import InputError

# Libraries may add to the states of their own between versions: there a key that only one side has is no fault.
_OF_LIBRARIES = ("optimizers", "schedules")
_NEVER_MISSING = ("state", "param_groups", "params")
_TEXTS = ("warned", "warnings")  # lists of any length: what went wrong until then
_LATER = ("validation",)  # checkpoints of earlier versions lack it


def check_state(found: Any, own: Mapping[str, Any]) -> None:
    """Compare the state that was read with the one that this run would write now.

    Args:
        found: as it was read.
        own: of this run; numbers may differ, keys, lengths, shapes and kinds may not. What an optimizer holds of its
            parameters is not compared: a run that has not begun has none.

    Raises:
        InputError: says where they differ.
    """
    optional = {name for name in _LATER if isinstance(found, Mapping) and name not in found}
    _check(found, {name: state for name, state in own.items() if name not in (*_TEXTS, *optional)}, "its state")
    for name in _TEXTS:
        texts = found.get(name)
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise InputError(f"its state, {name}: expected a list of texts")
    for kind in _OF_LIBRARIES:
        for name, state in own[kind].items():
            _check(found[kind][name], state, f"its state, {kind}, {name}", lenient=True)


def _check(found: Any, own: Any, where: str, lenient: bool = False) -> None:
    if isinstance(own, Mapping):
        _expect(isinstance(found, Mapping), where, "a dict", found)
        missing = [str(key) for key in own if key not in found and (not lenient or key in _NEVER_MISSING)]
        if missing:
            raise InputError(f"{where} has no {', '.join(missing)}")
        for key in own.keys() & found.keys():
            if key in _OF_LIBRARIES:
                _check(found[key], dict.fromkeys(own[key]), f"{where}, {key}")
            elif key != "state":
                _check(found[key], own[key], f"{where}, {key}", lenient)
    elif isinstance(own, list | tuple):
        _expect(isinstance(found, list | tuple), where, "a list", found)
        if len(found) != len(own):
            raise InputError(f"{where} has {len(found)} entries, expected {len(own)}")
        for index, (one, expected) in enumerate(zip(found, own, strict=True)):
            _check(one, expected, f"{where}, {index}", lenient)
    elif isinstance(own, Tensor):
        _expect(isinstance(found, Tensor), where, "a tensor", found)
        if (found.shape, found.dtype) != (own.shape, own.dtype):
            raise InputError(
                f"{where} is {list(found.shape)} of {found.dtype}, expected {list(own.shape)} of {own.dtype}"
            )
    elif isinstance(own, bool | str):
        _expect(isinstance(found, type(own)), where, f"a {type(own).__name__}", found)
    elif isinstance(own, int):
        _expect(isinstance(found, int) and not isinstance(found, bool), where, "a whole number", found)
    elif isinstance(own, float):
        _expect(isinstance(found, int | float) and not isinstance(found, bool), where, "a number", found)


def _expect(holds: bool, where: str, kind: str, found: Any) -> None:
    if not holds:
        raise InputError(f"{where} is a {type(found).__name__}, expected {kind}")
