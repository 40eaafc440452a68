"""What a run gives its tracker (`report_to`), by accelerate: each row of the run has a run of its own there.

    at its start    the settings that the row used, and no others
    on the way      what `training.tracked` names
    at its end      eval/top1, eval/macro_f1, eval/corrupted, eval/no_kin, and for the published student the figures

TensorBoard's are in the folders of the rows; its HParams have the settings beside the final scores. wandb and trackio
take their project from WANDB_PROJECT and TRACKIO_PROJECT, else the recipe's name is theirs.
"""

import os
import uuid
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from accelerate import Accelerator
from accelerate.tracking import TensorBoardTracker, WandBTracker
from PIL import Image

from hf_transinv.evaluation.result import Result
from hf_transinv.formats.typed_json import read_as
from hf_transinv.hub.used_settings import used_settings
from hf_transinv.objectives.objective import Objective
from hf_transinv.record import flat_config

_PROJECTS = {"wandb": "WANDB_PROJECT", "trackio": "TRACKIO_PROJECT"}

_WANDB = {"name": "WANDB_NAME", "group": "WANDB_RUN_GROUP", "id": "WANDB_RUN_ID"}
"""Arguments of wandb.init and the variables that it would follow without them."""


class Tracking:
    """The runs that a tracker has of one run, one for each row. Its methods are for all processes alike.

    Args:
        accelerator: the run's; its `log` reaches the row that is open.
        report_to: the tracker; "none": nothing is told to anyone.
        recipe: its name.
        folder: of the run.

    Attributes:
        overrides: fields in which the rows that are opened next differ from the run's.
        kin: corruptions that some row of the run imitates.
    """

    def __init__(self, accelerator: Accelerator, report_to: str, recipe: str, folder: Path) -> None:
        self.accelerator, self.report_to, self.recipe, self.folder = accelerator, report_to, recipe, folder
        self.overrides: Mapping[str, Any] = {}
        self.kin: Collection[str] = ()
        self._settings: dict[str, dict[str, Any]] = {}
        self._ids: dict[str, str] = {}
        self._row: str | None = None

    def open(self, row: str, folder: Path, objective: Objective, config: Mapping[str, Any]) -> bool:
        """Begin the run of a row, or go on with it; the row before it is closed.

        Args:
            row: its name.
            folder: of the row.
            objective: that it trains.
            config: all fields, flat; those that it did not use are not told.

        Returns:
            Whether the tracker has heard of this row for the first time.
        """
        if self.report_to == "none" or row == self._row:
            return False
        self.close()
        is_new, self._row = row not in self._settings, row
        settings = self._settings.setdefault(row, flat_config(_used(objective, {**config, **self.overrides})))
        self.accelerator.project_configuration.logging_dir = str(folder)
        project = os.environ.get(_PROJECTS.get(self.report_to, "")) or self.recipe
        told = {self.report_to: self._of_run(row, is_main=folder == self.folder)}
        shown = None if self.report_to == "tensorboard" else settings  # trackio forgets those of a run that goes on
        self.accelerator.init_trackers(project, config=shown, init_kwargs=told)
        for tracker in self.accelerator.trackers:
            if isinstance(tracker, TensorBoardTracker) and is_new:  # its HParams come with the scores
                lines = yaml.safe_dump(settings, sort_keys=False).splitlines()
                tracker.log({"settings": "".join(f"    {line}\n" for line in lines)}, step=0)
        return is_new

    def _of_run(self, row: str, is_main: bool) -> dict[str, Any]:
        """How a row's run is called, and that it can be gone on with."""
        if self.report_to == "tensorboard":
            return {}
        name = self.folder.name if is_main else f"{self.folder.name}, {row}"
        own = self._ids.setdefault(row, uuid.uuid4().hex)
        if self.report_to == "trackio":  # which goes on with a run of the same name
            return {"name": f"{name}, {own[:8]}", "resume": "allow"}
        told = {"name": name, "group": self.folder.name, "id": own, "resume": "allow"}
        for argument, variable in _WANDB.items():
            if os.environ.get(variable) and (is_main or argument == "group"):
                told[argument] = os.environ[variable]
        return told

    def score(self, row: Mapping[str, Any]) -> None:
        """The final scores of the row that is open.

        Args:
            row: as in run.json.
        """
        for tracker in self.accelerator.trackers:
            scores, step = _scores(row, self.kin), row["steps"]
            if isinstance(tracker, TensorBoardTracker) and hasattr(tracker, "writer"):
                tracker.writer.add_hparams(self._settings[str(self._row)], scores, run_name=".", global_step=step)
            else:
                tracker.log(scores, step=step)
        if self.report_to == "tensorboard":
            self.close()  # what follows is in a file of its own: TensorBoard reads the newest

    def draw(self, figures: Sequence[Path], step: int) -> None:
        """Figures of the row that is open."""
        for tracker in self.accelerator.trackers:
            for path in figures:
                name = f"figures/{path.stem}"
                if self.report_to == "trackio":
                    import trackio

                    tracker.log({name: trackio.Image(str(path), caption=path.stem)}, step=step)
                elif isinstance(tracker, TensorBoardTracker | WandBTracker):
                    layout = {"dataformats": "NHWC"} if isinstance(tracker, TensorBoardTracker) else {}
                    with Image.open(path) as picture:
                        pixels = np.asarray(picture.convert("RGB"))[None]
                    tracker.log_images({name: pixels}, step=step, **layout)

    def close(self) -> None:
        """End the row that is open."""
        for tracker in self.accelerator.trackers:
            tracker.finish()
        self.accelerator.trackers, self._row = [], None


def _used(objective: Objective, config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that a row used."""
    policies = {policy.name for policy in objective.policies}
    policies |= {*(config.get("augment") or ()), *(config.get("second_augment") or ())}
    return used_settings(config, {objective.name, objective.task_name}, policies)


def _scores(row: Mapping[str, Any], kin: Collection[str]) -> dict[str, float]:
    """The scores of a row in percent; eval/no_kin is the mean over the corruptions that no row imitates."""
    result = read_as(Result, row["results"], "results")
    imitated = {*kin, *row.get("kin", result.corruptions)}
    others = [one for one in result.corruptions if one not in imitated]
    found = {
        "eval/top1": result.clean.top1,
        "eval/macro_f1": result.classes.macro_f1 if result.classes else None,
        "eval/corrupted": result.mean_over(result.corruptions),
        "eval/no_kin": result.mean_over(others) if len(others) < len(result.corruptions) else None,
    }
    return {title: value for title, value in found.items() if value is not None}
