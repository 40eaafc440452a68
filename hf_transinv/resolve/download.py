"""Downloads a model repository of the Hub into the local cache: configuration and safetensors, nothing else."""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from hf_transinv.errors import InputError
from hf_transinv.resolve.hub_errors import LOG_IN, READ_FAILURES, causes, client_says

_CONFIG_FILES = ["config.json", "preprocessor_config.json", "processor_config.json"]
_WEIGHT_FILES = ["model.safetensors", "model.safetensors.index.json", "model-*-of-*.safetensors"]
_SHA256 = re.compile(r"[0-9a-f]{64}")


def download(repo_id: str, revision: str | None, with_weights: bool) -> Path:
    """Downloads a repository, or finds it in the cache when the Hub cannot be reached.

    Args:
        repo_id: USER/NAME.
        revision: branch, tag or commit; None for main.
        with_weights: False downloads the configuration alone.

    Returns:
        The repository's snapshot in the cache.

    Raises:
        InputError: it cannot be downloaded (the message says why), or its weights arrived damaged.
    """
    return fetch(repo_id, _CONFIG_FILES + (_WEIGHT_FILES if with_weights else []), revision)


def fetch(
    repo_id: str,
    patterns: Sequence[str],
    revision: str | None,
    *,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    force_download: bool = False,
    local_files_only: bool = False,
) -> Path:
    """Downloads the files of a repository that match a pattern.

    Args:
        repo_id: USER/NAME.
        patterns: of paths in the repository.
        revision: branch, tag or commit; None for main.
        token: instead of the environment's or that of `hf auth login`; False for none.
        cache_dir: instead of the Hub client's.
        force_download: download cached files again.
        local_files_only: look in the cache only.

    Returns:
        The repository's snapshot in the cache.

    Raises:
        InputError: as `download`.
    """
    options: dict[str, Any] = {"revision": revision, "allow_patterns": list(patterns), "token": token}
    options |= {"cache_dir": cache_dir, "force_download": force_download, "local_files_only": local_files_only}
    try:
        folder = Path(str(snapshot_download(repo_id, **options)))
    except READ_FAILURES as error:
        reason = _why(error, repo_id, revision)
        raise InputError(f"Hub model {repo_id!r} {reason} The Hub client says: {client_says(error)}") from error
    for pattern in patterns:
        for weights in folder.glob(pattern):
            if weights.suffix == ".safetensors":
                _refuse_damaged(repo_id, weights)
    return folder


def files_on_hub(repo_id: str, revision: str | None) -> list[str]:
    """Names of all files of the repository; none if the Hub cannot be reached."""
    try:
        return sorted(HfApi().list_repo_files(repo_id, revision=revision))
    except READ_FAILURES:
        return []


def _why(error: BaseException, repo_id: str, revision: str | None) -> str:
    """Says why it failed (gated, missing, no such revision, Hub out of reach) and what to do."""
    page, kinds = f"{constants.ENDPOINT}/{repo_id}", tuple(causes(error))
    if _any(kinds, GatedRepoError):  # a subclass of RepositoryNotFoundError
        return f"is gated and not open to you. Ask for access at {page} and {LOG_IN}."
    if _any(kinds, RepositoryNotFoundError):
        return (
            "does not exist, or is private and not open to you, and no local folder has that name. Check the id; for "
            f"a private one {LOG_IN}."
        )
    if _any(kinds, RevisionNotFoundError):
        return f"has no revision {revision!r}. Its branches, tags and commits are at {page}/commits."
    if _any(kinds, HFValidationError):
        return "could not be reached: that is no Hub id (USER/NAME)."
    at = f" at revision {revision!r}" if revision else ""
    if constants.HF_HUB_OFFLINE:
        return (
            f"could not be reached{at}, since HF_HUB_OFFLINE is set, and is not, or not wholly, in the cache "
            f"{constants.HF_HUB_CACHE}. Load it once with HF_HUB_OFFLINE=0."
        )
    return f"could not be reached{at}, or not be read to its end. Check the network and your token, and try again."


def _any(errors: tuple[BaseException, ...], kind: type[BaseException]) -> bool:
    return any(isinstance(error, kind) for error in errors)


def _refuse_damaged(repo_id: str, weights: Path) -> None:
    """Raises InputError unless the content of a file has the SHA-256 by which the cache names it.

    The Hub's client checks only the size of what it downloads.
    """
    blob = weights.resolve()
    if not _SHA256.fullmatch(blob.name):
        return
    with blob.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != blob.name:
        raise InputError(
            f"{weights.name} of Hub model {repo_id!r} is damaged: its SHA-256 is not the one that the Hub announced. "
            f"Remove {blob} and try again."
        )
