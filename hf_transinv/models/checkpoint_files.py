"""Checks of a checkpoint's files before anything is built from them.

Weights are safetensors or nothing: a pickle runs code when it is loaded.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from hf_transinv.errors import InputError
from hf_transinv.files import read_json
from hf_transinv.models.param_budget import check_sizes, stored_elements

_PICKLE_SUFFIXES = (".bin", ".pth", ".pt", ".ckpt", ".pkl", ".tar")
_LOADING_ARGUMENTS = ("checkpoint_path", "cache_dir", "features_only")
_SHARD = re.compile(r"[\w.-]+\.safetensors")
_CONVERSION = (
    "Convert it where you trust its author: safetensors.torch.save_file(torch.load(FILE, weights_only=True), "
    "'model.safetensors')"
)


def read_config(name: str, path: Path) -> dict[str, Any]:
    """The content of a config.json of timm or transformers.

    Args:
        name: the model, for errors.
        path: of the file.

    Raises:
        InputError: it is not JSON, belongs to neither library, or holds values that must not be believed.
    """
    try:
        config = read_json(path)
    except (OSError, ValueError) as error:
        raise InputError(f"The config.json of {name!r} is not JSON ({error}). Export the model again.") from error
    if not {"architecture", "model_type"} & config.keys():
        raise InputError(
            f"The config.json of {name!r} has neither `architecture` (timm) nor `model_type` (transformers); expected "
            "a model saved by one of them."
        )
    _check_values(name, config)
    return config


def _check_values(name: str, config: dict[str, Any]) -> None:
    """Raises InputError for values that would take all memory, make a new head silently, or run unknown code."""
    parts = {part: config.get(part) or {} for part in ("model_args", "pretrained_cfg")}
    for key, values in parts.items():
        if not isinstance(values, dict):
            raise InputError(f"The config.json of {name!r} has {key} {values!r}; expected an object.")
    check_sizes(parts["model_args"], name)
    loading = [key for key in parts["model_args"] if key.startswith("pretrained") or key in _LOADING_ARGUMENTS]
    if loading:
        raise InputError(
            f"The config.json of {name!r} has {loading[0]} in model_args, which says how to load the model, not "
            "what it is. Remove it from there."
        )
    for part in (config, *parts.values()):
        # Checked first, as transformers makes a name for each class before anything else.
        counts = {key: part[key] for key in ("num_classes", "num_labels") if part.get(key) is not None}
        check_sizes(counts, name)
        wrong = [key for key, count in counts.items() if type(count) is not int or count < 0]
        if wrong:
            raise InputError(f"The config.json of {name!r} has {wrong[0]} {counts[wrong[0]]!r}; expected a number.")
    stored = config.get("num_classes", parts["pretrained_cfg"].get("num_classes"))
    built = parts["model_args"].get("num_classes")
    if None not in (stored, built) and stored != built:  # timm would make a new head, silently
        raise InputError(
            f"The config.json of {name!r} has num_classes {stored}, and {built} in its model_args. Correct it, or "
            "export the model again."
        )
    kernels = [value for key, value in config.items() if "attn_implementation" in key and "/" in str(value)]
    if kernels:
        raise InputError(
            f"The config.json of {name!r} names code on the Hub for its attention ({kernels[0]}), which is never run. "
            "Remove it from there."
        )


def check_shards(name: str, folder: Path) -> None:
    """Raises InputError unless an index of shards names safetensors files of its own folder alone.

    An index might name pickles as well.

    Args:
        name: the model, for errors.
        folder: of the model.
    """
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return
    try:
        weight_map = read_json(index).get("weight_map")
    except (OSError, ValueError) as error:
        raise InputError(f"The {index.name} of {name!r} cannot be read ({error}). Export the model again.") from error
    if not isinstance(weight_map, dict):
        raise InputError(f"The {index.name} of {name!r} cannot be read (no weight_map). Export the model again.")
    others = [file for file in weight_map.values() if not (isinstance(file, str) and _SHARD.fullmatch(file))]
    if others:
        raise InputError(
            f"The {index.name} of {name!r} leads to {others[0]!r}; expected safetensors of the same folder, as a "
            "pickle can run code when it is loaded. Export the model again."
        )


def models_below(folder: Path) -> list[Path]:
    """Folders in a folder that hold a model, such as the checkpoints of a run; the newest first."""
    found = [path.parent for path in folder.glob("*/config.json") if any(path.parent.glob("model*.safetensors"))]
    return sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)


def require_safetensors(name: str, files: list[str], below: Sequence[Path] = ()) -> None:
    """Raises InputError unless there are safetensors weights; the message says what to do with other files.

    Args:
        name: the model, for errors.
        files: names of the files in its folder.
        below: folders in it that hold models.
    """
    if {"model.safetensors", "model.safetensors.index.json"} & set(files):
        return
    if below:
        raise InputError(
            f"{name!r} holds no weights itself, but there are models in its folders: give one, such as {below[0]}."
        )
    if "adapter_model.safetensors" in files:
        raise InputError(
            f"{name!r} is an adapter (LoRA) without its model. Merge the two (peft: merge_and_unload) and "
            "save the result."
        )
    others = [file for file in files if file.endswith(".safetensors")]
    if others:
        raise InputError(f"{name!r} holds {', '.join(others)}; expected model.safetensors. Rename it.")
    pickles = [file for file in files if file.endswith(_PICKLE_SUFFIXES)]
    if pickles:
        raise InputError(
            f"{name!r} holds its weights as a pickle only ({', '.join(pickles)}), which can run code when loaded; "
            f"expected model.safetensors. {_CONVERSION}."
        )
    raise InputError(f"{name!r} holds no weights; expected model.safetensors.")


def count_stored(name: str, folder: Path) -> int:
    """How many numbers the weights of a model hold.

    Args:
        name: the model, for errors.
        folder: of the model.

    Raises:
        InputError: a weights file is damaged.
    """
    try:
        return stored_elements(folder)
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"The weights of {name!r} cannot be loaded: {error}. Fetch the file again, or export the model again."
        ) from error
