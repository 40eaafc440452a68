"""Where a checkpoint lies: a name as users write it -> an architecture of timm's registry, or a folder.

A Hub id is brought into the local cache first, so that afterwards there are only folders. Weights are safetensors or
nothing: a pickle runs code when it is loaded.
"""

import difflib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm

from hf_transinv.errors import InputError
from hf_transinv.models.download import download, files_on_hub

_PICKLE_SUFFIXES = (".bin", ".pth", ".pt", ".ckpt", ".pkl", ".tar")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
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
        """timm names an `architecture`, transformers a `model_type`; a timm network that it wrapped has both."""
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
        return _in_folder(name, Path(rest), with_weights, prefix)
    folder = Path(rest if prefix == "local-dir" else name)
    if prefix == "local-dir" or (folder.is_dir() and (architecture or not timm.is_model(name))):
        return _in_folder(name, folder, with_weights, architecture)
    _refuse_architecture(name, architecture)
    if timm.is_model(name.partition(".")[0]):
        return Location(name, architecture=_known_architecture(name))
    if _is_hub_id(name):
        return _on_hub(name, name, revision, with_weights)
    if folder.is_file():
        raise InputError(f"{name!r} is a file; give the folder it lies in, or ARCH:FOLDER if there is no config.json.")
    if "/" in name or "\\" in name:
        raise InputError(f"No folder {name!r}, and it is not a Hub id (user/repo) either. Check the path.")
    raise InputError(f"Unknown model {name!r}. {_suggestions(name)}")


def _refuse_architecture(name: str, architecture: str | None) -> None:
    if architecture is not None:
        raise InputError(
            f"architecture={architecture!r} was given for {name!r}; it is for a local folder without config.json only."
        )


def _is_hub_id(name: str) -> bool:
    return bool(_HUB_ID.fullmatch(name.partition("@")[0])) and not name.startswith(".") and not Path(name).is_dir()


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
    if not folder.is_dir():
        raise InputError(f"No folder {str(folder)!r} (model {name!r}). Check the path.")
    if with_weights:
        _require_safetensors(name, sorted(path.name for path in folder.iterdir()))
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
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"The config.json of {name!r} is not JSON ({error}). Export the model again.") from error
    if not isinstance(config, dict) or not {"architecture", "model_type"} & config.keys():
        raise InputError(
            f"The config.json of {name!r} has neither `architecture` (timm) nor `model_type` (transformers); expected "
            "a model saved by one of them."
        )
    return config


def _require_safetensors(name: str, files: list[str]) -> None:
    """Raises InputError unless `files` (names) hold safetensors weights; says what to do about a pickle."""
    if {"model.safetensors", "model.safetensors.index.json"} & set(files):
        return
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


def _on_hub(name: str, hub_id: str, revision: str | None, with_weights: bool) -> Location:
    repo_id, _, written = hub_id.partition("@")
    if written and revision not in (None, written):
        raise InputError(f"{name!r} names revision {written!r} and revision={revision!r} was given too; give one.")
    revision = written or revision
    folder = download(repo_id, revision, with_weights)
    if with_weights and not any(folder.glob("model*.safetensors")):
        _require_safetensors(name, files_on_hub(repo_id, revision))
    if not (folder / "config.json").is_file():
        raise InputError(f"Hub model {repo_id!r} has no config.json; expected a model of timm or transformers.")
    return Location(name, folder=folder, config=_read_config(name, folder / "config.json"))
