"""Push the output folder of a finished run to the Hub, or complete a push that failed.

transinv push OUT USER/NAME
    as the run was configured; what the Hub already has is not sent again
transinv push OUT USER/NAME --private --hub_revision BRANCH
    to a branch of a private repository
"""

import sys
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from hf_transinv.errors import InputError
from hf_transinv.experiment.arguments import parse
from hf_transinv.hub.push import check_finished, check_token, push_run


@dataclass
class PushConfig:
    """Where to.

    Attributes:
        private: create the repository for its owner alone; default: as the run was configured.
        hub_revision: branch, created when it does not exist; default: as the run was configured, else main.
    """

    private: bool = False
    hub_revision: str | None = None


def main(description: str = __doc__ or "") -> None:
    """The whole command.

    Args:
        description: for --help.
    """
    places = list(takewhile(lambda token: not token.startswith("-"), sys.argv[1:]))
    (target,) = parse([PushConfig], sys.argv[1 + len(places) :], description=description, operands="OUT USER/NAME")
    if len(places) != 2:
        raise InputError(f"expected OUT USER/NAME before any flag, given {' '.join(places) or 'neither'}; see --help")
    folder, repo_id = Path(places[0]), places[1]
    check_finished(folder)
    check_token()
    print(f"Published: {push_run(folder, repo_id, private=target.private, revision=target.hub_revision)}")
