"""Local copies of what lies on the Hub: a Hub id means a folder of this machine where HF_TRANSINV_LOCAL_HUB says so.

    HF_TRANSINV_LOCAL_HUB=DIR
    DIR/datasets/USER/NAME    a dataset, in any shape that is opened from a folder
    DIR/models/USER/NAME      a model, with model.safetensors and, but for ARCH:USER/NAME, config.json

Configurations then name the same ids everywhere, and a machine without a network runs them. An id that has no folder
there is looked up on the Hub as ever; so is one with a revision, which a folder does not have.
"""

import logging
import os
from functools import cache
from pathlib import Path
from typing import Literal

_logger = logging.getLogger(__name__)

VARIABLE = "HF_TRANSINV_LOCAL_HUB"


def local_copy(kind: Literal["datasets", "models"], hub_id: str, revision: str | None = None) -> Path | None:
    """The folder to read instead of a repository of the Hub; None: there is none. It is said when one is taken.

    Args:
        kind: of the repository.
        hub_id: USER/NAME.
        revision: what was asked for, if anything.
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
    """Once for each."""
    _logger.info("%s: the copy in %s is read, not the Hub (%s)", hub_id, folder, VARIABLE)
