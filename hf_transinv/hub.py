"""A finished output folder -> the Hub: the student at the root of the repository, how it came about beside it."""

from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi, get_token
from huggingface_hub.errors import HTTPError  # of httpx or httpx2, whichever this version stands on

from hf_transinv.errors import InputError

_BESIDE = ("augmentation", "figures")


def check_token() -> None:
    """Raises InputError before hours of training when the Hub could not be written to afterwards."""
    if not get_token():
        raise InputError("push_to_hub needs a token: run `hf auth login` or set HF_TOKEN")


def push_run(folder: Path, repo_id: str) -> str:
    """Publish an output folder in one commit; returns the repository's address.

    Args:
        folder: the output folder of a finished run.
        repo_id: USER/NAME; created when it does not exist.

    Raises:
        InputError: the Hub refused or could not be reached; the local folder is as it was.
    """
    files = {path.relative_to(folder / "student"): path for path in sorted((folder / "student").rglob("*"))}
    for name in _BESIDE:
        files |= {path.relative_to(folder): path for path in sorted((folder / name).rglob("*"))}
    files[Path("run.json")] = folder / "run.json"
    operations = [CommitOperationAdd(name.as_posix(), path) for name, path in files.items() if path.is_file()]
    api = HfApi()
    try:
        url = api.create_repo(repo_id, exist_ok=True)
        api.create_commit(repo_id, operations, commit_message="Student trained with hf_transinv")
    except (HTTPError, OSError, ValueError) as error:
        raise InputError(f"{repo_id} could not be pushed ({error}); {folder} is complete and unchanged") from error
    return str(url)
