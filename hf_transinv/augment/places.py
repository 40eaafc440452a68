"""Finding a learned augmentation in a folder or a repository of the Hub, and pushing one to the Hub.

A run writes it to OUT/augmentation, and a student's repository has it in augmentation/. It is pushed to augmentation/
as well, so that a student's own config.json, at the root, is left unchanged.
"""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, HfApi

from hf_transinv.augment.saving import CONFIG, WEIGHTS
from hf_transinv.errors import InputError
from hf_transinv.files import read_json
from hf_transinv.resolve.download import fetch
from hf_transinv.resolve.hub_errors import READ_FAILURES, client_says

FOLDER = "augmentation"

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_CARD = """---
library_name: hf_transinv
tags: [hf_transinv, transinv, data-augmentation]
---

# {title}

An augmentation learned by TransInv (ICONIP 2024): it makes images hard for the student, while its teachers' answers
hardly change. It can be used in any training loop:

```python
from hf_transinv.augment.learned_augmentation import LearnedAugmentation

augment = LearnedAugmentation.from_pretrained({name}{revision})
images = augment(images)  # a batch [B, 3, H, W], float in [0, 1] or uint8; one image; a PIL image
```
"""


def find_augmentation(name: str | Path, revision: str | None, **options: Any) -> Path:
    """The folder with a learned augmentation's two files; from the Hub only these two are downloaded.

    Args:
        name: that folder itself, a run's output folder, a student's folder, or USER/NAME on the Hub.
        revision: branch, tag or commit, for the Hub only.
        options: of `fetch`.

    Raises:
        InputError: there is no augmentation, or the Hub cannot be reached.
    """
    # os.path.isdir gives False for a name too long for a path, where pathlib raises.
    local = Path(os.path.abspath(os.path.expanduser(name)))
    if os.path.isdir(local):
        if revision is not None:
            raise InputError(
                f"revision={revision!r} was given for {str(name)!r}, which is a local folder; leave it out."
            )
        return _below(str(name), (local, local / FOLDER, local.parent / FOLDER))
    if isinstance(name, Path) or not _HUB_ID.fullmatch(name) or name.startswith("."):
        raise InputError(f"No folder {str(name)!r}, and it is not a Hub id (user/repo) either. Check the path.")
    for place in (f"{FOLDER}/", ""):
        folder = fetch(name, [f"{place}{CONFIG}", f"{place}{WEIGHTS}"], revision, **options)
        if (folder / place / WEIGHTS).is_file():
            break
    return _below(f"Hub model {name!r}", (folder / FOLDER, folder))


def _below(name: str, places: tuple[Path, ...]) -> Path:
    """The first of the folders that has weights.

    Raises:
        InputError: none has weights, or the first that has them has no config.json.
    """
    for place in places:
        if (place / WEIGHTS).is_file():
            if not (place / CONFIG).is_file():
                raise InputError(
                    f"{name} has {WEIGHTS} without {CONFIG}: it was not learned by TransInv, and has no p, q and r to "
                    "draw from. Give a run of TransInv (its recipes are single_teacher.py and multi_teacher.py)."
                )
            return place
    raise InputError(
        f"{name} holds no learned augmentation; expected {FOLDER}/{CONFIG} and {FOLDER}/{WEIGHTS}, as a run of "
        "TransInv leaves them. Give its output folder, its augmentation/ or the repository it was pushed to."
    )


def refuse_foreign(folder: Path) -> None:
    """Refuse a folder whose config.json is of something else, such as a student.

    Raises:
        InputError: it is.
    """
    if not (folder / CONFIG).is_file():
        return
    try:
        ours = "augmentation" in read_json(folder / CONFIG)
    except (OSError, ValueError):
        ours = False
    if not ours:
        raise InputError(
            f"{str(folder)!r} has a {CONFIG} of something else, and nothing was written. Give another folder, such as "
            f"{str(folder / FOLDER)!r}."
        )


def push_augmentation(
    files: Mapping[str, bytes],
    repo_id: str,
    *,
    commit_message: str,
    private: bool | None,
    token: str | bool | None,
    branch: str | None,
    create_pr: bool | None,
) -> str:
    """Commit files to augmentation/ of a repository, with a short card if it has none.

    Args:
        files: content by name.
        repo_id: USER/NAME; created if it does not exist.
        commit_message: first line of the commit message.
        private: whether a new repository is private; None for the account's default.
        token: of the Hub; None for the environment's.
        branch: created from main if it does not exist; None for main.
        create_pr: whether to open a pull request.

    Returns:
        The URL of the commit.

    Raises:
        InputError: the Hub refused or could not be reached.
    """
    api = HfApi(token=token)
    operations = [CommitOperationAdd(f"{FOLDER}/{name}", content) for name, content in files.items()]
    try:
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        if private and not api.model_info(repo_id).private:
            raise InputError("it exists and is public, and a private one was asked for")
        if branch is not None and not create_pr:
            api.create_branch(repo_id, branch=branch, exist_ok=True)
        if not api.file_exists(repo_id, "README.md", revision=branch):
            at_branch = f", revision={json.dumps(branch)}" if branch else ""
            card = _CARD.format(title=repo_id.rpartition("/")[2], name=json.dumps(repo_id), revision=at_branch)
            operations.append(CommitOperationAdd("README.md", card.encode()))
        return api.create_commit(
            repo_id, operations, commit_message=commit_message, revision=branch, create_pr=create_pr
        )
    except READ_FAILURES as error:
        raise InputError(f"{repo_id} could not be pushed ({client_says(error)})") from error
