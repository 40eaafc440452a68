"""Local copies of Hub repositories: with HF_TRANSINV_LOCAL_HUB set, a Hub id may mean a folder on this machine.

    HF_TRANSINV_LOCAL_HUB=DIR
    DIR/datasets/USER/NAME    a dataset, in any shape that is opened from a folder
    DIR/models/USER/NAME      a model, with model.safetensors and, but for ARCH:USER/NAME, config.json

So configurations name the same ids everywhere, and also run on a machine without a network. An id without a folder
there is looked up on the Hub as usual. So is an id with a revision, as a folder has none.
"""

import logging
import os
from functools import cache
from pathlib import Path
from typing import Literal

_logger = logging.getLogger(__name__)

VARIABLE = "HF_TRANSINV_LOCAL_HUB"


def local_copy(kind: Literal["datasets", "models"], hub_id: str, revision: str | None = None) -> Path | None:
    """The folder to read instead of a repository of the Hub; None: there is none. Logs when one is used.

    Args:
        kind: of the repository.
        hub_id: USER/NAME.
        revision: that was asked for, if any.
    """
    root = os.environ.get(VARIABLE)
    parts = hub_id.split("/")
    if not root or revision or len(parts) != 2 or {"", ".", ".."} & set(parts):
        return None
    folder = Path(os.path.abspath(os.path.expanduser(root)), kind, *parts)
    if not os.path.isdir(folder):
        return None
    _say(hub_id, folder)
    return folder


@cache
def _say(hub_id: str, folder: Path) -> None:
    """Logs once per repository."""
    _logger.info("%s: the copy in %s is read, not the Hub (%s)", hub_id, folder, VARIABLE)
