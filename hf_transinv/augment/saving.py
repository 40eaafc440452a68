"""A learned augmentation on disk: its weights (phi, logits of p, q and r) and a readable config.json."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hf_transinv.augment.learned import AugmentationConfig, AugmentationPanel
from hf_transinv.augment.primitives import PrimitiveConfig
from hf_transinv.errors import InputError
from hf_transinv.files import atomic_write, plain_state, read_json, write_json
from hf_transinv.models.param_budget import check_sizes, no_larger_than, stored_elements

CONFIG, WEIGHTS = "config.json", "augmentation.safetensors"


def save_augmentation(panel: AugmentationPanel, teacher_names: Sequence[str], folder: Path) -> Path:
    """Write a learned augmentation: its weights, and a config.json with its config, the teachers, p, q and r.

    Args:
        panel: the augmentation models and the selection among them.
        teacher_names: one name per model.
        folder: made if it does not exist.

    Returns:
        The folder.

    Raises:
        InputError: the disk is full.
    """
    save_weights(panel, folder)
    p, q, r, *_ = (values.tolist() for values in panel.selection())
    learned = {"teachers": list(teacher_names), "p": p, "q": q, "r": r}
    write_json(folder / CONFIG, {"augmentation": asdict(panel.config), **learned})
    return folder


def save_weights(augmentation: nn.Module, folder: Path) -> None:
    """Write the state of any learned augmentation to augmentation.safetensors.

    Args:
        augmentation: whose state is written.
        folder: made if it does not exist.

    Raises:
        InputError: the disk is full.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with atomic_write(folder / WEIGHTS) as partial:
            save_file(plain_state(augmentation), partial)
    except SafetensorError as error:
        raise InputError(f"{folder} could not be written ({error}). Is the disk full?") from error


def load_augmentation(folder: str | Path) -> AugmentationPanel:
    """The learned augmentation of a finished run.

    Args:
        folder: with its config.json and augmentation.safetensors.

    Raises:
        InputError: the folder has none, or a damaged one.
    """
    folder = Path(folder)
    config, teachers = read_config(folder)
    num_stored, state = _read_weights(folder)
    with no_larger_than(num_stored, str(folder)):
        panel = AugmentationPanel(len(teachers), config)
    try:
        panel.load_state_dict({"excess": panel.excess, **state})  # of training alone; earlier versions had none
    except RuntimeError as error:  # a tensor is missing, unknown or of another shape
        raise InputError(f"{folder} holds no learned augmentation that can be loaded: {error}") from error
    return panel


def read_config(folder: Path) -> tuple[AugmentationConfig, list[str]]:
    """The config of a learned augmentation, and the names of its teachers, from its config.json.

    Raises:
        InputError: the file cannot be read, or a field of it is missing, unknown, of another type or out of range.
    """
    path = folder / CONFIG
    try:
        saved = read_json(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} of a learned augmentation cannot be read: {error}") from error
    teachers = _checked_names(saved, "teachers", path)
    given = dict(_checked_object(saved, "augmentation", path))
    floor = given.pop("q_min", 0)
    if floor != 0:
        raise InputError(f"{path} has q_min {floor!r}, a floor of q, which there is no more: expected 0 or none")
    primitive = _checked_object(given, "primitive", path)
    primitives = _checked_names(given, "primitives", path)
    scalars = {name: value for name, value in given.items() if name not in ("primitive", "primitives")}
    _check_scalars(scalars, AugmentationConfig(), path)
    _check_scalars(primitive, PrimitiveConfig(), path)
    check_sizes(primitive, str(folder))
    try:
        config = AugmentationConfig(tuple(primitives), PrimitiveConfig(**primitive), **scalars)
    except InputError as error:
        raise InputError(f"{path} holds no learned augmentation that can be loaded: {error}") from error
    return config, teachers


def _checked_object(saved: Mapping[str, Any], name: str, path: Path) -> dict[str, Any]:
    value = saved.get(name)
    if not isinstance(value, dict):
        raise InputError(f"{path} has {name} {value!r}; expected an object, as a run of TransInv writes it")
    return value


def _checked_names(saved: Mapping[str, Any], name: str, path: Path) -> list[str]:
    value = saved.get(name)
    if not isinstance(value, list) or not value or not all(isinstance(one, str) for one in value):
        raise InputError(f"{path} has {name} {value!r}; expected a list of names")
    return value


def _check_scalars(given: Mapping[str, Any], default: AugmentationConfig | PrimitiveConfig, path: Path) -> None:
    """Refuse fields that a config does not have, and values of another type than its default's."""
    known = {field.name: type(getattr(default, field.name)) for field in fields(default)}
    for name, value in given.items():
        if name not in known:
            raise InputError(f"{path} has the unknown field {name!r}; expected {', '.join(known)}")
        accepted = (int, float) if known[name] is float else (known[name],)
        if type(value) not in accepted:
            raise InputError(f"{path} has {name} {value!r}; expected a value of type {known[name].__name__}")


def _read_weights(folder: Path) -> tuple[int, dict[str, Tensor]]:
    """How many numbers the weights of a folder hold, and the weights themselves."""
    try:
        return stored_elements(folder), load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{folder} holds no learned augmentation that can be loaded: {error}") from error
