"""What the recipes share: one run from its configuration to a trained and evaluated student in its output folder."""

import logging
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed

from hf_transinv.config import DataConfig, OutputConfig, StudentConfig, TrainConfig
from hf_transinv.data.batches import Feed
from hf_transinv.data.crops import OrdinaryAugmentation, to_float
from hf_transinv.data.resident import ResidentFeed, ResidentSplit
from hf_transinv.data.sources import Source, default_eval_split, open_source, split_names
from hf_transinv.data.streaming import StreamingFeed
from hf_transinv.errors import InputError
from hf_transinv.evaluation import evaluate
from hf_transinv.evaluation.conditions import check_augmentations
from hf_transinv.hub import BackgroundPush, check_token
from hf_transinv.launch import (
    Stopped,
    agree,
    check_same_run,
    chosen_corruptions,
    output_folder,
    start_accelerator,
)
from hf_transinv.models.classifier import Classifier, open_classifier
from hf_transinv.models.teacher import check_answers
from hf_transinv.objectives.base import Objective
from hf_transinv.record import RunRecord
from hf_transinv.run_state import checkpoints
from hf_transinv.trainer import Trainer

logger = logging.getLogger(__name__)

_ASKED = 32  # images that each teacher has to answer before training starts


@dataclass
class Data:
    """What a run trains and is evaluated on.

    Attributes:
        train: the training split, resident, or opened as a stream; with the labels it came with.
        evaluation: the evaluation split, resident.
        config: where they come from, and the noise of the training labels.
        eval_split: the evaluation split, by name.
    """

    train: ResidentSplit | Source
    evaluation: ResidentSplit
    config: DataConfig
    eval_split: str

    @property
    def label_names(self) -> list[str]:
        """The classes."""
        return self.train.label_names

    @property
    def num_rows(self) -> int | None:
        """Training images, when known."""
        return self.train.num_rows if isinstance(self.train, Source) else len(self.train)

    def feed(self, batch_size: int, seed: int, accelerator: Accelerator) -> Feed:
        """Endless shuffled batches of the training split, its label noise applied, this process's part."""
        place = {"rank": accelerator.process_index, "world": accelerator.num_processes}
        if not isinstance(self.train, Source):
            return ResidentFeed(self.train.with_label_noise(self.config.label_noise), batch_size, seed, **place)
        return StreamingFeed(
            self.train,
            batch_size,
            seed,
            buffer_size=self.config.shuffle_buffer,
            image_size=self.config.image_size,
            on_bad_image=self.config.on_bad_image,
            **place,
        )


def open_data(config: DataConfig, accelerator: Accelerator) -> Data:
    """Open, decode and check both splits; resident ones lie on the accelerator's device."""
    if config.dataset is None:
        raise InputError("no dataset given: --dataset with a Hub id, a folder, a parquet file, or digits/target")
    common = {
        "config": config.dataset_config,
        "revision": config.dataset_revision,
        "image_column": config.image_column,
        "label_column": config.label_column,
    }
    eval_split = config.eval_split or default_eval_split(
        split_names(config.dataset, config.dataset_config, config.dataset_revision)
    )
    source = open_source(config.dataset, split=config.train_split, streaming=config.streaming, **common)
    held = open_source(config.dataset, split=eval_split, label_names=source.label_names, **common)
    options = {
        "image_size": config.image_size,
        "on_bad_image": config.on_bad_image,
        "device": accelerator.device,
        "show_progress": accelerator.is_main_process,
    }
    evaluation = ResidentSplit.load(held, **options)
    train = source if config.streaming else ResidentSplit.load(source, **options)
    for split, name in ((evaluation, eval_split), (train, config.train_split)):
        if isinstance(split, ResidentSplit) and split.num_skipped and accelerator.is_main_process:
            logger.warning("split %r: %d images could not be decoded and are left out", name, split.num_skipped)
    return Data(train, evaluation, config, eval_split)


def new_student(config: StudentConfig, label_names: list[str], seed: int) -> Classifier:
    """The student as it is before training: the same for every method with the same seed."""
    set_seed(seed)
    start, _, index = config.student_init.partition(":")
    if start == "scratch":
        return open_classifier(config.student, num_classes=len(label_names), label_names=label_names, pretrained=False)
    name = config.teachers[int(index) - 1] if start == "teacher" else config.student
    student = open_classifier(name, num_classes=len(label_names))
    if start == "teacher" or student.label_names != label_names:
        student.relabel(label_names)
    return student


class Session:
    """One run: everything that the main row and the rows beside it share.

    Args:
        recipe: its name, for folders and records.
        data: which pictures.
        train: the loop.
        output: where to, and what is measured.
        config: all fields of the run, flat.

    Attributes:
        folder: the output folder.
        record: run.json, on the main process (None elsewhere).
        rows: what is known of each row: of an earlier start of the run, when it resumes.
    """

    def __init__(
        self, recipe: str, data: DataConfig, train: TrainConfig, output: OutputConfig, config: dict[str, Any]
    ) -> None:
        self.recipe, self.train, self.output = recipe, train, output
        self.corruptions = chosen_corruptions(output)
        check_augmentations(output.eval_augment)
        if output.push_to_hub:
            check_token()
        self.accelerator = start_accelerator(output)
        share = train.batch_size / (self.accelerator.num_processes * train.gradient_accumulation_steps)
        if share != int(share):
            raise InputError(
                f"batch_size {train.batch_size} cannot be split into {self.accelerator.num_processes} processes x "
                f"{train.gradient_accumulation_steps} micro-batches"
            )
        self.folder = agree(self.accelerator, lambda: output_folder(output, recipe))
        self.rows, self.main_row = agree(self.accelerator, lambda: self._earlier_rows(config)), None
        self.record = RunRecord(self.folder, recipe, config) if self.accelerator.is_main_process else None
        if self.record:
            self.record.content["hardware"] |= {
                "device": self.accelerator.device.type,
                "processes": self.accelerator.num_processes,
                "mixed_precision": self.accelerator.mixed_precision,
            }
        self.data = open_data(data, self.accelerator)

    def _earlier_rows(self, config: dict[str, Any]) -> dict[str, Any]:
        """What an earlier start of this run has finished."""
        if not self.output.resume_from:
            return {}
        before = RunRecord.read(self.folder)
        check_same_run(before["config"], config)
        return before.get("rows", {}) if self.output.resume_from == "latest" else {}

    def _take_folder(self) -> None:
        """Write run.json, open the tracker: only now, so that input that is refused leaves the folder as it was."""
        if self.record:
            self.record.update(rows=self.rows, main_row=self.main_row)
        if self.output.report_to != "none":
            config = _flat_config(self.record.content["config"]) if self.record else None
            self.accelerator.project_configuration.logging_dir = str(self.folder)
            self.accelerator.init_trackers(self.recipe, config=config)

    def steps(self) -> tuple[int, float]:
        """Student steps in all, and in an epoch."""
        rows = self.data.num_rows
        per_epoch = float("inf") if rows is None else rows // self.train.batch_size
        if self.train.max_steps is not None:
            return self.train.max_steps, per_epoch
        if rows is None:
            raise InputError("the stream does not say how long it is: give --max_steps instead of --num_train_epochs")
        return max(1, round(self.train.num_train_epochs * per_epoch)), per_epoch

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
            have rows of their own: "NAME, PLAYER".

        Raises:
            Stopped: a signal ended the training; a checkpoint is written.
        """
        main = self.main_row in (None, name)
        folder = self.folder if main else self.folder / "baselines" / re.sub(r"\W+", "_", name)
        train = self.train if seed is None else replace(self.train, seed=seed)
        trainer, feeds = self._trainer(name, objective, crop, flip, folder, train)
        self._resume(trainer, folder, main)
        if self.main_row is None:
            self.main_row = name
            self._take_folder()
        if name in self.rows and trainer.step >= trainer.max_steps:
            trainer.finish()
            return self.rows[name]
        try:
            trainer.train()
        finally:
            for feed in feeds.values():
                feed.close()
        if trainer.stopped:
            raise Stopped(
                f"stopped at step {trainer.step}; a checkpoint is in {folder / 'checkpoints'}. "
                f"Go on with the same command and: --output_dir {self.folder} --resume_from latest"
            )
        trainer.finish()
        told = {
            "steps": trainer.step,
            "images_seen": trainer.images_seen,
            "train_seconds": round(trainer.seconds, 1),
            "images_skipped": max(feed.num_skipped for feed in feeds.values()),
            "learned": objective.observe(),
            "warnings": trainer.warnings,
        }
        for index, (player, student) in enumerate(objective.students.items()):
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
        return self.rows[name]

    def _trainer(
        self, name: str, objective: Objective, crop: str, flip: bool, folder: Path, train: TrainConfig
    ) -> tuple[Trainer, dict[str, Feed]]:
        accelerator = self.accelerator
        # The student's batches are the same whatever the method: other players have an order of their own.
        variants = objective.variants_a_network
        if train.batch_size % variants:
            raise InputError(
                f"{objective.name} shows {variants} variants of each image: batch_size {train.batch_size} must be a "
                f"multiple of {variants}"
            )
        batch_size = train.batch_size // variants
        feeds = {
            player: self.data.feed(batch_size, train.seed + (0 if player == "student" else 1_000_003), accelerator)
            for player in sorted({"student" if "student" in players else players[0] for players in objective.turns})
        }
        with accelerator.autocast():
            check_answers(objective.teachers, to_float(self.data.evaluation.images[:_ASKED]))
        folder.mkdir(parents=True, exist_ok=True)
        ordinary = OrdinaryAugmentation(crop, flip)
        is_pushed = self.output.push_every and self.record and folder == self.folder
        student = next(iter(objective.students.values()))
        push = BackgroundPush(student, self.output, tag=name.lower()) if is_pushed else None
        return Trainer(accelerator, objective, feeds, ordinary, train, *self.steps(), folder, name, push), feeds

    def _resume(self, trainer: Trainer, folder: Path, main: bool) -> None:
        if not self.output.resume_from:
            return
        if main and self.output.resume_from != "latest":
            trainer.resume(Path(self.output.resume_from))
            return
        saved = checkpoints(folder / "checkpoints")
        if saved:
            trainer.resume(saved[-1])

    def leave(self) -> None:
        """Close trackers and process group, all processes together."""
        self.accelerator.wait_for_everyone()
        self.accelerator.end_training()
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def _flat_config(config: dict[str, Any]) -> dict[str, Any]:
    """What trackers take as hyperparameters."""
    return {
        name: value if isinstance(value, int | float | str | bool) else str(value) for name, value in config.items()
    }
