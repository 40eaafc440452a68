"""Push to the Hub: a finished output folder, and the student while it is being trained.

The student is at the root of the repository, as timm and transformers expect it, the rest of the run beside it. The
token is that of the environment or of `hf auth login`; this module takes, stores and shows none.
"""

import contextlib
import copy
import logging
import queue
import shlex
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from huggingface_hub import CommitOperationAdd, HfApi, get_token
from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
from torch import Tensor

from hf_transinv.config import OutputConfig
from hf_transinv.errors import InputError
from hf_transinv.files import json_text, plain_state, read_json
from hf_transinv.formats.markdown import escape
from hf_transinv.hub.card import render_card
from hf_transinv.hub.export import export_classifier
from hf_transinv.models.classifier import Classifier
from hf_transinv.record import RunRecord, published
from hf_transinv.resolve.hub_errors import LOG_IN, client_says

logger = logging.getLogger(__name__)

_BESIDE = ("augmentation", "figures", "ema")
_DRAFT = """---
library_name: {library}
pipeline_tag: image-classification
tags: [hf_transinv]
---

# {name}

A student in training, after {step} steps. The finished student and its card will replace it.
"""


def check_token() -> None:
    """Raises InputError where there is no token: before the training, not after hours of it."""
    if not get_token():
        raise InputError(f"push_to_hub needs a token: {LOG_IN}")


def check_finished(folder: Path) -> None:
    """Raises InputError unless the folder is the output of a finished run that made a student."""
    status = RunRecord.read(folder).get("status")
    if status != "finished":
        raise InputError(
            f"the run in {folder} is not finished (its status is {status!r}). Go on with the command it was started "
            f"with and: --output_dir {folder} --resume_from latest"
        )
    if not (folder / "student" / "config.json").is_file() or not any((folder / "student").glob("*.safetensors")):
        raise InputError(f"{folder} holds no student (student/config.json and its weights); nothing was pushed")


def push_run(folder: Path, repo_id: str, *, private: bool = False, revision: str | None = None) -> str:
    """Publish an output folder in one commit.

    What the Hub already has is not sent again: a second push completes a first one that failed, and does nothing when
    nothing changed. The card is rendered for the repository; run.json and the names of the augmentation's teachers
    are stripped of local paths.

    Args:
        folder: the output folder of a finished run.
        repo_id: USER/NAME; created when it does not exist.
        private: create it for its owner alone; a run that was configured with `private` is private in any case.
        revision: branch; created from main when it does not exist; None for the run's `hub_revision`, else main.

    Returns:
        The address.

    Raises:
        InputError: the Hub refused or could not be reached, or the folder's record cannot be read. The folder is not
            changed.
    """
    run = RunRecord.read(folder)
    private = private or run["config"].get("private", False)
    revision = revision or run["config"].get("hub_revision")
    files: dict[Path, Path | bytes] = {**_below(folder / "student", folder / "student")}
    for name in _BESIDE:
        files |= _below(folder / name, folder)
    files[Path("README.md")] = render_card(run, repo_id=repo_id, revision=revision).encode()
    contents = {Path("run.json"): run}
    if (learned := Path("augmentation", "config.json")) in files:
        contents[learned] = _read(folder / learned)
    files |= {path: json_text(published(content)).encode() for path, content in contents.items()}
    try:
        return _commit(files, repo_id, private, revision, "Student trained with hf_transinv")
    except InputError as error:
        command = shlex.join(["transinv", "push", str(folder), repo_id])
        raise InputError(f"{error}; {folder} is complete and unchanged. Complete the push later: {command}") from error


def _read(path: Path) -> dict[str, Any]:
    """A JSON file of the output folder; InputError when it is damaged."""
    try:
        return read_json(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}); nothing was pushed") from error


def _below(folder: Path, start: Path) -> dict[Path, Path]:
    """Path from `start` -> path, of all files below a folder."""
    return {path.relative_to(start): path for path in sorted(folder.rglob("*")) if path.is_file()}


def _commit(
    files: Mapping[Path, Path | bytes], repo_id: str, private: bool, revision: str | None, message: str
) -> str:
    """Push files in one commit, all of them or none.

    Args:
        files: path in the repository -> content, or the path of a local file.
        repo_id: USER/NAME.
        private: whether the repository has to be private.
        revision: branch; None: main.
        message: of the commit.

    Returns:
        The repository's address.

    Raises:
        InputError: whatever the client raises.
    """
    operations = [CommitOperationAdd(name.as_posix(), content) for name, content in files.items()]
    api = HfApi()
    try:
        url = api.create_repo(repo_id, private=private or None, exist_ok=True)
        if private and not api.model_info(repo_id).private:
            raise InputError("it exists and is public, and a private one was asked for")
        if revision is not None:
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        api.create_commit(repo_id, operations, commit_message=message, revision=revision)
    except Exception as error:  # whatever the client raises must not cost hours of training
        raise InputError(f"{repo_id} could not be pushed ({client_says(error)})") from error
    return f"{url}/tree/{revision}" if revision else str(url)


class BackgroundPush:
    """Pushes the student while training goes on, as `hub_strategy="every_save"` of transformers does.

    Each push is a commit of the student and a draft of its card, where the finished one will be. A single thread
    writes and uploads; a newer student replaces one that still waits. Training waits only for the copy of the weights
    to the host. A push that fails is a warning.

    Use it as a context manager around the training. On leaving, it waits for the push in progress and drops what
    waits, so that no older student can follow the finished one.

    Args:
        student: the network in training.
        output: repository, privacy, branch, and student steps between two pushes; has push_to_hub and push_every.
        tag: see `export_classifier`.
        image_size: see `export_classifier`; the same of the next two.
        crop_pct: share of the resized shorter side.
        interpolation: by which it was resized.
    """

    def __init__(
        self,
        student: Classifier,
        output: OutputConfig,
        tag: str,
        image_size: int | None = None,
        crop_pct: float = 1.0,
        interpolation: str = "bilinear",
    ) -> None:
        self.student, self.output, self.tag = student, output, tag
        self._images: dict[str, Any] = {
            "image_size": image_size,
            "crop_pct": crop_pct,
            "interpolation": interpolation,
        }
        self._repo_id, self._push_every = output.push_to_hub or "", output.push_every or 0
        self._copy = copy.deepcopy(student).cpu()  # the thread's own
        self._offered = 0
        self._waiting: queue.Queue[tuple[int, dict[str, Tensor]] | None] = queue.Queue(maxsize=1)
        self._has_warned = False

    def __enter__(self) -> Self:
        # The client's bars, one per file, would interrupt that of the training.
        self._shows_bars = not are_progress_bars_disabled()
        if self._shows_bars:
            disable_progress_bars()
        self._thread = threading.Thread(target=self._work, name="push", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._replace(None)
        self._thread.join()
        if self._shows_bars:
            enable_progress_bars()

    def after_checkpoint(self, step: int) -> None:
        """Queue the student as it is now, if the last one was queued `push_every` steps ago."""
        if step - self._offered >= self._push_every:
            self._offered = step
            self._replace((step, plain_state(self.student)))

    def _replace(self, item: tuple[int, dict[str, Tensor]] | None) -> None:
        with contextlib.suppress(queue.Empty):
            self._waiting.get_nowait()
        self._waiting.put(item)

    def _work(self) -> None:
        while (item := self._waiting.get()) is not None:
            step, state = item
            try:
                self._push(step, state)
            except (InputError, OSError) as error:
                if not self._has_warned:
                    logger.warning("step %d: %s. Training goes on, and so do later pushes", step, error)
                self._has_warned = True

    def _push(self, step: int, state: dict[str, Tensor]) -> None:
        self._copy.load_state_dict(state)
        library = "timm" if self._copy.image_processor is None else "transformers"
        output = self.output
        card = _DRAFT.format(library=library, name=escape(self._repo_id.rpartition("/")[2]), step=step)
        with tempfile.TemporaryDirectory() as folder:
            student = Path(folder) / "student"
            extra = {"step": step}
            export_classifier(self._copy, student, card=card, tag=self.tag, extra=extra, **self._images)
            message = f"Student after {step} steps"
            _commit(_below(student, student), self._repo_id, output.private, output.hub_revision, message)
