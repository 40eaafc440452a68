"""What the recipes share: one run from its configuration to a trained and evaluated student in its output folder."""

import logging
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object

from hf_transinv.config import DataConfig, MixingConfig, OutputConfig, TrainConfig, as_dict, check_validation
from hf_transinv.data.mixing import build_mixing
from hf_transinv.data.run_data import Data, open_data, ordinary
from hf_transinv.data.run_splits import open_run_splits
from hf_transinv.data.transforms import to_float
from hf_transinv.errors import InputError
from hf_transinv.evaluation import evaluate
from hf_transinv.evaluation.conditions import check_augmentations, chosen_corruptions
from hf_transinv.experiment.batch_size import check_batch_size, fitted, student_steps
from hf_transinv.experiment.extension import check_extendable, lengths_of, read_earlier
from hf_transinv.experiment.first_screen import first_screen, say_run
from hf_transinv.experiment.launch import Stopped, agree, doing, output_folder, start_accelerator
from hf_transinv.experiment.tracking import Tracking
from hf_transinv.files import atomic_write_text
from hf_transinv.hub.push import BackgroundPush, check_token
from hf_transinv.models.teacher import check_answers
from hf_transinv.objectives.objective import Objective
from hf_transinv.record import RunRecord
from hf_transinv.training.averaging import exported, measured
from hf_transinv.training.checkpointing import checkpoints
from hf_transinv.training.interpolation import interpolate
from hf_transinv.training.optim import check_optimizer
from hf_transinv.training.players import check_players
from hf_transinv.training.trainer import Trainer
from hf_transinv.training.trainer_setup import TrainerSetup
from hf_transinv.training.validation import open_validation

logger = logging.getLogger(__name__)

_ASKED = 32  # images that each teacher has to answer before training starts


class Session:
    """One run: everything that the main row and the rows beside it share.

    Args:
        recipe: its name, for folders and records.
        data: which pictures.
        train: the loop.
        output: where to, and what is measured.
        config: all fields of the run, flat.
        unit: each micro-batch has a multiple of so many images; 2 or more where images are mixed in pairs.

    Attributes:
        folder: the output folder.
        output_dir: the folder to resume; that of the whole cross-validation where this run is a fold of one.
        record: run.json, on the main process (None elsewhere).
        mixing: the regularisers of the next row.
        rows: what is known of each row: of an earlier start of the run, when it resumes.
        splits: of the data, opened.
        config: of the data, of the present row.
        tracking: what a tracker is told of each row.
        told: lines that are said at the start besides.
    """

    def __init__(
        self,
        recipe: str,
        data: DataConfig,
        train: TrainConfig,
        output: OutputConfig,
        config: dict[str, Any],
        unit: int = 1,
    ) -> None:
        self.recipe, self.train, self.output, self.mixing = recipe, train, output, MixingConfig()
        check_validation(data, output, train.ema)
        chosen_corruptions(output.validation_corruptions, "validation_corruptions")
        self.corruptions = chosen_corruptions(output.eval_corruptions)
        check_augmentations(output.eval_augment)
        if output.push_to_hub:
            check_token()
        self.accelerator = start_accelerator(output, train.ddp_timeout)
        check_batch_size(train, self.accelerator.num_processes, unit)
        self.folder = self.output_dir = agree(self.accelerator, lambda: output_folder(output, recipe))
        self._skipped: set[str] = set()
        self.rows: dict[str, Any]
        self.rows, self._extensions = agree(self.accelerator, lambda: read_earlier(output, self.folder, config))
        self.main_row: str | None = None
        self.told: list[str] = []
        self.tracking = Tracking(self.accelerator, output.report_to, recipe, self.folder)
        self.record = RunRecord(self.folder, recipe, config) if self.accelerator.is_main_process else None
        if self.record:
            self.record.content["hardware"] |= {
                "device": self.accelerator.device.type,
                "processes": self.accelerator.num_processes,
                "mixed_precision": self.accelerator.mixed_precision,
            }
        doing("opening the data")
        say_run(self.accelerator, output, self.folder, data.dataset)
        self._opened, self.config = data, data
        self._decoded: Data | None = None
        self.splits = open_run_splits(data)
        self.train = fitted(train, self.num_rows, self.accelerator.num_processes, unit)
        if self.train is not train and self.record:
            said = f"batch_size {train.batch_size} is more than the {self.num_rows} training images"
            logger.warning("%s: %d is used", said, self.train.batch_size)
        check_optimizer(self.train, self.steps()[0])

    @property
    def data(self) -> Data:
        """The data as the present row has them; decoded when they are first asked for."""
        if self._decoded is None:
            doing("decoding the data")
            self._decoded = open_data(self._opened, self.accelerator, self.splits)
        return self._decoded if self.config is self._opened else replace(self._decoded, config=self.config)

    @property
    def label_names(self) -> list[str]:
        """The classes, known before anything is decoded."""
        return self.splits.train.label_names

    @property
    def num_rows(self) -> int | None:
        """Training images, when known: before they are decoded, unless broken ones are left out."""
        train = self.splits.train
        is_known = train.streaming or (train.num_rows is not None and self._opened.on_bad_image == "raise")
        return train.num_rows if is_known else self.data.num_rows

    def _take_folder(self) -> None:
        """Write run.json: only now, so that input that is refused leaves the folder as it was."""
        if self.record:
            extended = {"extensions": self._extensions} if self._extensions else {}
            self.record.update(rows=self.rows, main_row=self.main_row, **extended)
            self.note_skipped(self.data.skipped)

    def steps(self) -> tuple[int, float]:
        """Student steps in all, and in an epoch."""
        first, per_epoch = student_steps(self.train, self.num_rows)
        lengths = lengths_of(first, self._extensions)
        return lengths[-1][1] if lengths else first, per_epoch

    def fit(self, name: str, objective: Objective, crop: str, flip: bool, seed: int | None = None) -> dict[str, Any]:
        """Train and evaluate one row, from its last checkpoint when the run resumes.

        Args:
            name: of the row; the first row has the output folder for itself, the others go below baselines/.
            objective: the method.
            crop: ordinary augmentation, as in DataConfig.
            flip: the same.
            seed: of everything random in this row; default: the run's.

        Returns:
            Results, seconds and images seen; kept in run.json under rows. Networks that trained beside the student
            have rows of their own: "NAME, PLAYER", and so has the student's average: "NAME, EMA".

        Raises:
            Stopped: a signal ended the training; a checkpoint is written.
        """
        main = self.main_row in (None, name)
        folder = self.folder if main else self.folder / "baselines" / re.sub(r"\W+", "_", name)
        train = self.train if seed is None else replace(self.train, seed=seed)
        doing(f"starting {name!r}", folder, self.output_dir)
        check_players(objective, train, student_steps(train, self.num_rows)[0])
        trainer = self.trainer(name, objective, crop, flip, folder, train)
        self._resume(trainer, folder, main)
        if self.main_row is None:
            self.main_row = name
            self._take_folder()
            if self.record:
                print(
                    first_screen(self.data, objective, trainer.setup, self.output, self.told, trainer.step), flush=True
                )
        if name in self.rows and trainer.is_over:
            self._finish(trainer)
            return self.rows[name]
        config = {**(self.record.content["config"] if self.record else {}), **as_dict(self.config, train, self.mixing)}
        self.tracking.open(name, folder, objective, {**config, "crop": crop, "flip": flip})
        doing(f"training {name!r}")
        try:
            trainer.train()
        finally:
            for feed in trainer.feeds.values():
                feed.close()
        if trainer.stopped:
            raise Stopped(
                f"stopped at step {trainer.step}; a checkpoint is in {folder / 'checkpoints'}. "
                f"Go on with the same command and: --output_dir {self.output_dir} --resume_from latest"
            )
        self._finish(trainer)
        lines = [line for feed in trainer.feeds.values() for line in feed.skipped]
        skipped = gather_object(lines) if self.accelerator.num_processes > 1 else lines
        if self.record:
            self.note_skipped(skipped)
        distinct = trainer.step * trainer.feeds["student"].batch_size
        told = {
            "steps": trainer.step,
            "images_seen": trainer.images_seen,
            "images_shown": int(distinct * objective.views),
            "images_distinct": distinct,
            "train_seconds": round(trainer.seconds, 1),
            "images_skipped": max(feed.num_skipped for feed in trainer.feeds.values()),
            "learned": objective.observe(),
            "kin": objective.kin,
            "warnings": trainer.warnings,
        }
        told |= {"validation": trainer.validation.told()} if trainer.validation else {}
        doing(f"evaluating {name!r}")
        for index, (player, student) in enumerate(measured(objective).items()):
            results = evaluate(
                student,
                self.data.evaluation,
                accelerator=self.accelerator,
                corruptions=self.corruptions,
                severities=self.output.eval_severities,
                augmentations=self.output.eval_augment,
                batch_size=self.output.eval_batch_size,
            )
            self.rows[f"{name}, {player}" if index else name] = {"results": results, **told}
        if self.record:
            self.record.update(rows=self.rows)
        self.tracking.score(self.rows[name])
        return self.rows[name]

    def _finish(self, trainer: Trainer) -> None:
        """Make a trained student what is measured and exported."""
        trainer.finish()
        train, accelerator, rows = trainer.config, self.accelerator, self.data.num_rows
        uncropped = ordinary(self.config, "none")
        feed = partial(self.data.feed, train.batch_size, train.seed, accelerator, uncropped)
        interpolate(trainer.objective, train.interpolate, accelerator, feed, rows)

    def note_skipped(self, found: Sequence[str]) -> None:
        """The list of images that were left out, where any were."""
        self._skipped.update(found)
        if self._skipped:
            lines = "".join(f"{line}\n" for line in sorted(self._skipped))
            atomic_write_text(self.folder / "skipped_images.txt", lines)

    def trainer(
        self, name: str, objective: Objective, crop: str, flip: bool, folder: Path, train: TrainConfig
    ) -> Trainer:
        """The loop of a row, before its first turn; arguments as of `fit`."""
        accelerator = self.accelerator
        # The student's batches are the same whatever the method: other players have an order of their own.
        variants = objective.variants_a_network
        if train.batch_size % variants:
            raise InputError(
                f"{objective.name} shows {variants} variants of each image: batch_size {train.batch_size} must be a "
                f"multiple of {variants}"
            )
        batch_size = train.batch_size // variants
        base, balanced = ordinary(self.config, crop, flip), bool(self.mixing.sampler)
        feeds = {
            player: self.data.feed(
                batch_size,
                train.seed + 1_000_003 * (player != "student"),
                accelerator,
                base,
                objective.variants,
                balanced,
            )
            for player in sorted({"student" if "student" in players else players[0] for players in objective.turns})
        }
        with accelerator.autocast():
            check_answers(objective.teachers, to_float(self.data.evaluation.images[:_ASKED]))
        folder.mkdir(parents=True, exist_ok=True)
        is_pushed = self.output.push_every and self.record and folder == self.folder
        student = exported(objective, self.train.ema)
        push = BackgroundPush(student, self.output, name.lower(), **self.data.evaluated_as) if is_pushed else None
        mixed = build_mixing(self.mixing, len(self.data.label_names), self.data.class_counts, accelerator.device)
        lengths = lengths_of(student_steps(self.train, self.num_rows)[0], self._extensions)
        if lengths:
            check_extendable(objective)
        validation = open_validation(objective.students, self.data, accelerator, self.output, self.steps()[1])
        setup = TrainerSetup(feeds, base, train, *self.steps(), folder, name, push, mixed, validation, lengths)
        return Trainer(accelerator, objective, setup)

    def _resume(self, trainer: Trainer, folder: Path, main: bool) -> None:
        given = self.output.resume_from
        named = [Path(given)] if given and main and given != "latest" else []
        found = named or agree(self.accelerator, lambda: checkpoints(folder / "checkpoints"))
        if not given or not found:
            return
        path = found[-1]
        if not self.accelerator.is_main_process and not path.is_dir():
            raise InputError(
                f"checkpoint {path} is not on this machine: all machines of a run need the same output_dir. Give a "
                "folder that all of them see, or copy it to each"
            )
        trainer.resume(path)

    def leave(self) -> None:
        """Close trackers and process group, all processes together."""
        self.accelerator.wait_for_everyone()
        self.accelerator.end_training()
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
