"""What a Trainer is given beside its objective."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from hf_transinv.config import TrainConfig
from hf_transinv.data.batches import Feed
from hf_transinv.data.mixing import Mixing
from hf_transinv.data.transforms import CropFlip
from hf_transinv.training.validation import Validation


class Push(AbstractContextManager[Any, Any], Protocol):
    """Takes a student to the Hub while it trains; within its context pushes go on."""

    def after_checkpoint(self, step: int) -> None:
        """The checkpoint of a step was written."""


@dataclass(frozen=True)
class TrainerSetup:
    """Data, loop and folder of one training.

    Attributes:
        feeds: batches of the student, and of each player that opens a turn without it.
        base_augmentation: crop and flip, for all players alike.
        config: the loop's.
        max_steps: student steps.
        steps_per_epoch: student steps in a pass over the data; math.inf where it is not known.
        folder: where metrics.jsonl and checkpoints/ go.
        label: shown at the progress bar.
        push: of the student, after checkpoints; for the main process alone.
        mixing: what is done to images and labels in the networks' turns.
        validation: measures the student while it trains; None: nothing does.
        lengths: of a run that was extended: (first step, student steps in all) before and after; the last is
            `max_steps`. Empty: `max_steps` from the beginning.
    """

    feeds: Mapping[str, Feed]
    base_augmentation: CropFlip
    config: TrainConfig
    max_steps: int
    steps_per_epoch: float
    folder: Path
    label: str = ""
    push: Push | None = None
    mixing: Mixing | None = None
    validation: Validation | None = None
    lengths: tuple[tuple[int, int], ...] = ()
