"""Locates a checkpoint: a name as users write it -> an architecture of timm's registry, or a folder.

A Hub id is brought into the local cache first, so that afterwards there are only folders.
"""

import logging
import os
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import timm

from hf_transinv.config.checks import did_you_mean
from hf_transinv.errors import InputError
from hf_transinv.models.checkpoint_files import check_shards, models_below, read_config, require_safetensors
from hf_transinv.resolve.download import download, files_on_hub
from hf_transinv.resolve.local_hub import local_copy
from hf_transinv.resolve.shipped import model_folder

_logger = logging.getLogger(__name__)

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_HUB_PREFIXES = ("hf-hub", "hf_hub")
_FOLDER_PREFIX = "local-dir"


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
        """Whether timm opens it: its config.json names an `architecture`, one of transformers a `model_type`.

        A timm network that transformers wrapped has both.
        """
        if self.config is None:
            return True
        return "architecture" in self.config and self.config.get("model_type") in (None, "timm_wrapper")


@dataclass(frozen=True)
class _Request:
    """The arguments of `locate`, and the name's parts before and after its first colon."""

    name: str
    revision: str | None
    architecture: str | None
    with_weights: bool

    @property
    def prefix(self) -> str:
        return self.name.partition(":")[0]

    @property
    def rest(self) -> str:
        return self.name.partition(":")[2]

    @property
    def folder(self) -> Path:
        return _absolute(self.rest if self.prefix == _FOLDER_PREFIX else self.name)


def locate(name: str, *, revision: str | None, architecture: str | None, with_weights: bool) -> Location:
    """Finds what a name means, and downloads it if it is on the Hub.

    Args:
        name: see `classifier.open_classifier`, as the others.
        revision: of a Hub id.
        architecture: of a folder without config.json.
        with_weights: whether the weights are needed.

    Raises:
        InputError: nothing is known by that name, the Hub cannot be reached, or there are no safetensors weights while
            `with_weights`.
    """
    request = _Request(name, revision, architecture, with_weights)
    if revision is not None and not _is_hub_id(name) and request.prefix.lower() not in _HUB_PREFIXES:
        raise InputError(f"revision={revision!r} was given for {name!r}, which is not a Hub id; leave it out.")
    for resolve in _RESOLVERS:
        location = resolve(request)
        if location is not None:
            return location
    raise _unknown(request)


def _resolve_hub_prefix(request: _Request) -> Location | None:
    """hf-hub:USER/NAME."""
    if request.prefix.lower() not in _HUB_PREFIXES:
        return None
    _refuse_architecture(request)
    return _on_hub(request, request.rest)


def _resolve_architecture_prefix(request: _Request) -> Location | None:
    """ARCH:FOLDER and ARCH:USER/NAME."""
    if not request.rest or not timm.is_model(request.prefix):
        return None
    if request.architecture not in (None, request.prefix):
        raise InputError(
            f"{request.name!r} names the architecture {request.prefix!r} and {request.architecture!r} was given too; "
            "give one."
        )
    if _is_hub_id(request.rest):
        return _on_hub(request, request.rest, request.prefix)
    return _in_folder(request, _absolute(request.rest), request.prefix)


def _resolve_folder(request: _Request) -> Location | None:
    """local-dir:FOLDER, or a folder that is there. A bare name that timm knows is timm's."""
    # os.path: a name too long for a path is no folder, where pathlib raises.
    is_folder = os.path.isdir(request.folder) and (request.architecture or not timm.is_model(request.name))
    if request.prefix != _FOLDER_PREFIX and not is_folder:
        return None
    shipped = model_folder(request.name)
    if shipped is not None and not os.path.samefile(shipped, request.folder):
        _say_not_shipped(request.name, request.folder)
    return _in_folder(request, request.folder, request.architecture)


def _resolve_shipped(request: _Request) -> Location | None:
    """model_cards/NAME, a small teacher that comes with the library."""
    folder = model_folder(request.name)
    if folder is None:
        return None
    _say_shipped(request.name, folder)
    return _in_folder(request, folder, request.architecture)


def _resolve_timm(request: _Request) -> Location | None:
    """ARCH and ARCH.TAG of timm's registry."""
    _refuse_architecture(request)
    name = request.name
    base, _, tag = name.partition(".")
    if not timm.is_model(base):
        return None
    if os.path.isdir(request.folder):
        _logger.warning("%s: timm's architecture is taken, not the folder of that name here: ./%s", name, name)
    if tag and name not in timm.list_models(f"{base}.*", include_tags=True):
        known = ", ".join(timm.list_pretrained(f"{base}.*")) or "none"
        raise InputError(f"timm's {base} has no weights called {tag!r}; known: {known}.")
    return Location(name, architecture=name)


def _resolve_hub_id(request: _Request) -> Location | None:
    """USER/NAME."""
    return _on_hub(request, request.name) if _is_hub_id(request.name) else None


_RESOLVERS = (
    _resolve_hub_prefix,
    _resolve_architecture_prefix,
    _resolve_folder,
    _resolve_shipped,
    _resolve_timm,
    _resolve_hub_id,
)
"""Asked in this order; the first one that returns a location decides."""


def _unknown(request: _Request) -> InputError:
    name = request.name
    if os.path.isfile(request.folder):
        return InputError(f"{name!r} is a file; give the folder it is in, or ARCH:FOLDER if there is no config.json.")
    if "/" in name or "\\" in name:
        return InputError(f"No folder {name!r}, and it is not a Hub id (user/repo) either. Check the path.")
    return InputError(f"Unknown model {name!r}{_suggestions(name)}")


@cache
def _say_shipped(name: str, folder: Path) -> None:
    """Logs once per name where a shipped model is read from."""
    _logger.info("%s is no folder here: the copy that comes with the library is read, %s", name, folder)


@cache
def _say_not_shipped(name: str, folder: Path) -> None:
    """The same where a folder here has the name of a shipped model."""
    _logger.info("%s: the folder here is read, %s, not the copy that comes with the library", name, folder)


def _absolute(name: str) -> Path:
    """A name as an absolute path, "~" replaced: libraries look for relative ones elsewhere, too."""
    return Path(os.path.abspath(os.path.expanduser(name)))


def _refuse_architecture(request: _Request) -> None:
    if request.architecture is not None:
        raise InputError(
            f"architecture={request.architecture!r} was given for {request.name!r}; it is for a local folder without "
            "config.json only."
        )


def _is_hub_id(name: str) -> bool:
    return bool(_HUB_ID.fullmatch(name.partition("@")[0])) and not name.startswith(".") and not os.path.isdir(name)


def _suggestions(name: str) -> str:
    near = did_you_mean(name, timm.list_models(include_tags=False), most=3) or "."
    return f"{near} Give one of timm.list_models(), a Hub id (user/repo) or an existing folder."


def _in_folder(request: _Request, folder: Path, architecture: str | None) -> Location:
    name = request.name
    if not os.path.isdir(folder):
        raise InputError(f"No folder {str(folder)!r} (model {name!r}). Check the path.")
    if request.with_weights:
        require_safetensors(name, sorted(path.name for path in folder.iterdir()), models_below(folder))
        check_shards(name, folder)
    config_file = folder / "config.json"
    if not config_file.is_file():
        if architecture is None:
            raise InputError(
                f"Folder {str(folder)!r} has no config.json, so its architecture is unknown. Name it: ARCH:{folder}, "
                "with ARCH a name of timm, such as resnet32_cifar."
            )
        if not timm.is_model(architecture):
            raise InputError(f"Unknown architecture {architecture!r}{_suggestions(architecture)}")
        return Location(name, architecture=architecture, folder=folder)
    if architecture is not None:
        raise InputError(
            f"{name!r}: the folder has a config.json, which names its architecture; leave {architecture!r} out."
        )
    return Location(name, folder=folder, config=read_config(name, config_file))


def _on_hub(request: _Request, hub_id: str, architecture: str | None = None) -> Location:
    name, (repo_id, _, written) = request.name, hub_id.partition("@")
    if written and request.revision not in (None, written):
        raise InputError(
            f"{name!r} names revision {written!r} and revision={request.revision!r} was given too; give one."
        )
    revision = written or request.revision
    copy = local_copy("models", repo_id, revision)
    if copy is not None:
        return _in_folder(request, copy, architecture)
    folder = download(repo_id, revision, request.with_weights)
    if request.with_weights:
        if not any(folder.glob("model*.safetensors")):
            require_safetensors(name, files_on_hub(repo_id, revision))
        check_shards(name, folder)
    if architecture is not None:
        return _in_folder(request, folder, architecture)
    if not (folder / "config.json").is_file():
        raise InputError(f"Hub model {repo_id!r} has no config.json; expected a model of timm or transformers.")
    return Location(name, folder=folder, config=read_config(name, folder / "config.json"))
