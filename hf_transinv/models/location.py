"""Where a checkpoint lies: a name as users write it -> an architecture of timm's registry, or a folder.

A Hub id is brought into the local cache first, so that afterwards there are only folders. Weights are safetensors or
nothing: a pickle runs code when it is loaded.
"""

import difflib
import logging
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import timm

from hf_transinv.errors import InputError
from hf_transinv.files import read_json
from hf_transinv.models.param_budget import check_sizes
from hf_transinv.resolve.download import download, files_on_hub
from hf_transinv.resolve.local_hub import local_copy
from hf_transinv.resolve.shipped import model_folder

_logger = logging.getLogger(__name__)

_PICKLE_SUFFIXES = (".bin", ".pth", ".pt", ".ckpt", ".pkl", ".tar")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_OF_LOADING = ("checkpoint_path", "cache_dir", "features_only")
_SHARD = re.compile(r"[\w.-]+\.safetensors")
_CONVERSION = (
    "Convert it where you trust its author: safetensors.torch.save_file(torch.load(FILE, weights_only=True), "
    "'model.safetensors')"
)


@dataclass(frozen=True)
class Location:
    """What a name led to.

    Attributes:
        name: as it was given.
        architecture: timm architecture, for timm's registry and for a folder without config.json; else None.
        folder: local folder with the checkpoint; None for timm's registry.
        config: content of the folder's config.json; None where there is none.
    """

    name: str
    architecture: str | None = None
    folder: Path | None = None
    config: dict[str, Any] | None = None

    @property
    def is_timm(self) -> bool:
        """Timm names an `architecture`, transformers a `model_type`; a timm network that it wrapped has both."""
        if self.config is None:
            return True
        return "architecture" in self.config and self.config.get("model_type") in (None, "timm_wrapper")


def locate(name: str, *, revision: str | None, architecture: str | None, with_weights: bool) -> Location:
    """Find what `name` means; bring it here if it lies on the Hub.

    Raises:
        InputError: nothing is known by that name, the Hub cannot be reached, or there are no safetensors weights while
            `with_weights`.
    """
    prefix, _, rest = name.partition(":")
    if prefix.lower() in ("hf-hub", "hf_hub"):
        _refuse_architecture(name, architecture)
        return _on_hub(name, rest, revision, with_weights)
    if revision is not None and not _is_hub_id(name):
        raise InputError(f"revision={revision!r} was given for {name!r}, which is not a Hub id; leave it out.")
    if rest and timm.is_model(prefix):
        if architecture not in (None, prefix):
            raise InputError(
                f"{name!r} names the architecture {prefix!r} and {architecture!r} was given too; give one."
            )
        if _is_hub_id(rest):
            return _on_hub(name, rest, revision, with_weights, prefix)
        return _in_folder(name, _local(rest), with_weights, prefix)
    folder = _local(rest if prefix == "local-dir" else name)
    # os.path: a name too long for a path is no folder, where pathlib raises.
    if prefix == "local-dir" or (os.path.isdir(folder) and (architecture or not timm.is_model(name))):
        return _in_folder(name, folder, with_weights, architecture)
    shipped = model_folder(name)
    if shipped is not None:
        _say_shipped(name, shipped)
        return _in_folder(name, shipped, with_weights, architecture)
    _refuse_architecture(name, architecture)
    if timm.is_model(name.partition(".")[0]):
        if os.path.isdir(folder):
            _logger.warning("%s: timm's architecture is taken, not the folder of that name here: ./%s", name, name)
        return Location(name, architecture=_known_architecture(name))
    if _is_hub_id(name):
        return _on_hub(name, name, revision, with_weights)
    if os.path.isfile(folder):
        raise InputError(f"{name!r} is a file; give the folder it lies in, or ARCH:FOLDER if there is no config.json.")
    if "/" in name or "\\" in name:
        raise InputError(f"No folder {name!r}, and it is not a Hub id (user/repo) either. Check the path.")
    raise InputError(f"Unknown model {name!r}. {_suggestions(name)}")


@cache
def _say_shipped(name: str, folder: Path) -> None:
    """Once for each."""
    _logger.info("%s is no folder here: the copy that comes with the library is read, %s", name, folder)


def _local(name: str) -> Path:
    """A name as a path from the root of the disk, "~" replaced: libraries look for relative ones elsewhere, too."""
    return Path(os.path.abspath(os.path.expanduser(name)))


def _refuse_architecture(name: str, architecture: str | None) -> None:
    if architecture is not None:
        raise InputError(
            f"architecture={architecture!r} was given for {name!r}; it is for a local folder without config.json only."
        )


def _is_hub_id(name: str) -> bool:
    return bool(_HUB_ID.fullmatch(name.partition("@")[0])) and not name.startswith(".") and not os.path.isdir(name)


def _known_architecture(name: str) -> str:
    base, _, tag = name.partition(".")
    if tag and name not in timm.list_models(f"{base}.*", include_tags=True):
        known = ", ".join(timm.list_pretrained(f"{base}.*")) or "none"
        raise InputError(f"timm's {base} has no weights called {tag!r}; known: {known}.")
    return name


def _suggestions(name: str) -> str:
    nearest = difflib.get_close_matches(name, timm.list_models(include_tags=False), n=5, cutoff=0.5)
    known = f"The nearest names that timm knows: {', '.join(nearest)}. " if nearest else ""
    return known + "Give one of timm.list_models(), a Hub id (user/repo) or an existing folder."


def _in_folder(name: str, folder: Path, with_weights: bool, architecture: str | None = None) -> Location:
    if not os.path.isdir(folder):
        raise InputError(f"No folder {str(folder)!r} (model {name!r}). Check the path.")
    if with_weights:
        _require_safetensors(name, sorted(path.name for path in folder.iterdir()), _models_below(folder))
        _check_shards(name, folder)
    config_file = folder / "config.json"
    if not config_file.is_file():
        if architecture is None:
            raise InputError(
                f"Folder {str(folder)!r} has no config.json, so its architecture is unknown. Name it: ARCH:{folder}, "
                "with ARCH a name of timm, such as resnet32_cifar."
            )
        if not timm.is_model(architecture):
            raise InputError(f"Unknown architecture {architecture!r}. {_suggestions(architecture)}")
        return Location(name, architecture=architecture, folder=folder)
    if architecture is not None:
        raise InputError(
            f"{name!r}: the folder has a config.json, which names its architecture; leave {architecture!r} out."
        )
    return Location(name, folder=folder, config=_read_config(name, config_file))


def _read_config(name: str, path: Path) -> dict[str, Any]:
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
    """Raises InputError for what would be believed before it is looked at, or would run code of others."""
    parts = {part: config.get(part) or {} for part in ("model_args", "pretrained_cfg")}
    for part, values in parts.items():
        if not isinstance(values, dict):
            raise InputError(f"The config.json of {name!r} has {part} {values!r}; expected names with values.")
    check_sizes(parts["model_args"], name)
    loading = [key for key in parts["model_args"] if key.startswith("pretrained") or key in _OF_LOADING]
    if loading:
        raise InputError(
            f"The config.json of {name!r} has {loading[0]} in model_args, which says how to load it and not what it "
            "is. Remove it from there."
        )
    for part in (config, *parts.values()):
        # transformers makes a name for each class before anything else.
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


def _check_shards(name: str, folder: Path) -> None:
    """Raises InputError unless all that an index leads to are safetensors of the same folder: it may name pickles."""
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return
    try:
        files = set(read_json(index)["weight_map"].values())
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise InputError(f"The {index.name} of {name!r} cannot be read ({error}). Export the model again.") from error
    others = [file for file in files if not (isinstance(file, str) and _SHARD.fullmatch(file))]
    if others:
        raise InputError(
            f"The {index.name} of {name!r} leads to {others[0]!r}; expected safetensors of the same folder, as a "
            "pickle can run code when it is loaded. Export the model again."
        )


def _models_below(folder: Path) -> list[Path]:
    """Folders in a folder that hold a model, the newest first: the checkpoints of a training, say."""
    found = [path.parent for path in folder.glob("*/config.json") if any(path.parent.glob("model*.safetensors"))]
    return sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)


def _require_safetensors(name: str, files: list[str], below: Sequence[Path] = ()) -> None:
    """Raises InputError unless `files` (names) hold safetensors weights; says what to do about others.

    Args:
        name: of the model, for errors.
        files: in its folder.
        below: folders in it that hold models.
    """
    if {"model.safetensors", "model.safetensors.index.json"} & set(files):
        return
    if below:
        raise InputError(f"{name!r} holds no weights itself, but models in its folders: give one, such as {below[0]}.")
    if "adapter_model.safetensors" in files:
        raise InputError(
            f"{name!r} is an adapter (LoRA) without the model that it belongs to. Merge the two (peft: "
            "merge_and_unload) and save the model."
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


def _on_hub(
    name: str, hub_id: str, revision: str | None, with_weights: bool, architecture: str | None = None
) -> Location:
    repo_id, _, written = hub_id.partition("@")
    if written and revision not in (None, written):
        raise InputError(f"{name!r} names revision {written!r} and revision={revision!r} was given too; give one.")
    revision = written or revision
    copy = local_copy("models", repo_id, revision)
    if copy is not None:
        return _in_folder(name, copy, with_weights, architecture)
    folder = download(repo_id, revision, with_weights)
    if with_weights:
        if not any(folder.glob("model*.safetensors")):
            _require_safetensors(name, files_on_hub(repo_id, revision))
        _check_shards(name, folder)
    if architecture is not None:
        return _in_folder(name, folder, with_weights, architecture)
    if not (folder / "config.json").is_file():
        raise InputError(f"Hub model {repo_id!r} has no config.json; expected a model of timm or transformers.")
    return Location(name, folder=folder, config=_read_config(name, folder / "config.json"))
