"""The loop, on accelerate: it knows players and turns, not methods.

    for every batch:  players = objective.next_turn(turn);  each plays: loss -> backward -> its optimizer's step

What is random in a turn is drawn once for the whole batch, on every process alike, and then cut into each process's
and each micro-batch's part. So 2 micro-batches of 4 are one batch of 8, and two processes are one with the same
`batch_size`.
"""

import contextlib
import time
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.logging import get_logger
from torch import Tensor

from hf_transinv.data.batches import Feed
from hf_transinv.data.pictures import Crops
from hf_transinv.errors import InputError
from hf_transinv.objectives.objective import Objective
from hf_transinv.record import Metrics
from hf_transinv.training.averaging import kept
from hf_transinv.training.checkpointing import discard_later, load_state, save_state
from hf_transinv.training.distributed import gather_objects, whole
from hf_transinv.training.nan_guard import LossMonitor, TrainingDiverged
from hf_transinv.training.optim import unscaled_rate
from hf_transinv.training.players import Players
from hf_transinv.training.progress import Progress
from hf_transinv.training.random_state import fit_processes, random_state, restore_random_state
from hf_transinv.training.signals import StopRequest
from hf_transinv.training.state_check import check_state
from hf_transinv.training.tracked import scalars
from hf_transinv.training.trainer_setup import TrainerSetup
from hf_transinv.training.validation import Validation

logger = get_logger(__name__)


class Trainer:
    """Trains the players of one objective for `max_steps` student steps.

    Args:
        accelerator: decides device, precision and processes.
        objective: the method.
        setup: data, loop and folder.

    Attributes:
        step: student steps so far.
        turn: turns so far.
        images_seen: images that the student was shown.
        seconds: of training, up to the last line of metrics.
        stopped: whether a signal ended the training.
        warnings: what the log warned of, each with its step.
    """

    def __init__(self, accelerator: Accelerator, objective: Objective, setup: TrainerSetup) -> None:
        self.accelerator, self.objective, self.setup = accelerator, objective, setup
        self.feeds, self.config, self.max_steps = setup.feeds, setup.config, setup.max_steps
        self.save_steps = self.config.save_steps or int(min(setup.steps_per_epoch, setup.max_steps))
        self.validation = setup.validation
        self.modules = {**objective.players, **objective.extra_state(), **kept(objective)}
        if self.validation:
            self.modules |= self.validation.modules
        lengths = setup.lengths or ((0, setup.max_steps),)
        self.players = Players(accelerator, objective, setup.base_augmentation, self.config, lengths, setup.mixing)
        self.optimizers, self.schedules = self.players.optimizers, self.players.schedules
        self.generator = torch.Generator().manual_seed(self.config.seed)
        self.losses = LossMonitor(accelerator, objective, setup.folder / "checkpoints")
        self.step = self.turn = self.images_seen = self._saved_step = 0
        self.seconds = 0.0
        self.stopped = False
        self._warned: set[str] = set()
        self.warnings: list[str] = []

    # One turn

    def take_turn(self) -> None:
        """Read one batch and let the players of this turn play on it."""
        players = self.objective.next_turn(self.turn)
        feed = self._feed_of(players)
        images, labels = feed.next_batch()
        images = images.to(self.accelerator.device, non_blocking=True)
        labels = labels.to(self.accelerator.device, non_blocking=True)
        shape = (feed.batch_size, *images.shape[1:])
        base = self.setup.base_augmentation
        crops = []  # a stream has taken them
        if not isinstance(images, Crops):
            crops = [base.draw(shape[0], shape[2:], self.generator) for _ in range(self.objective.variants)]
        mixed = self.players.draw_mixing(players, shape, self.generator)
        for player in players:
            draws = self.objective.draw(player, shape, self.generator)
            losses = self.players.play(player, images, labels, crops, draws, mixed)
            self.losses.add(player, losses, images, self.step)
            if player == "student":
                self.step += 1
                self.images_seen += self.feeds["student"].batch_size * self.objective.variants_a_network
            self.players.step(player, self.step)
        self.turn += 1

    def _feed_of(self, players: tuple[str, ...]) -> Feed:
        return self.feeds["student" if "student" in players else players[0]]

    # The loop

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to train: all steps are done, or the student has long not become better."""
        return self.step >= self.max_steps or (self.validation is not None and self.validation.is_exhausted)

    def train(self) -> None:
        """Train until it `is_over`, or until a signal asks to stop; then `stopped` is set and a checkpoint written.

        Raises:
            TrainingDiverged: a loss is not finite.
            InputError: a checkpoint cannot be written, or there is no next batch (a Hub that is gone, a broken image);
                then a checkpoint is written before.
        """
        no_batch = None
        self.metrics = (
            Metrics(self.setup.folder / "metrics.jsonl", self.step) if self.accelerator.is_main_process else None
        )
        is_main = self.accelerator.is_main_process
        progress = Progress(self.objective, self.setup.label, self.step, self.max_steps, is_main, self.config.compile)
        self._mark = (time.perf_counter(), self.images_seen)
        # The push is left last: a second signal ends the wait for an upload.
        with self.setup.push or contextlib.nullcontext(), StopRequest() as stop, progress:
            while not self.is_over:
                before = self.step
                self._take_turn_or_say_why()
                if self.step > before:
                    progress.advance()
                    self._after_student_turn(progress)
                no_batch = self._why_no_batch()
                if stop.made(self.accelerator, no_batch is not None):
                    self.stopped = not self.is_over
                    break
            if self.step > self._saved_step:
                self._log(progress)
                self.save()
        if no_batch is not None:
            go_on = "the same command, --output_dir and --resume_from latest"
            stopped = f"Stopped at step {self.step}, a checkpoint is written: go on with {go_on}."
            raise InputError(f"{no_batch} {stopped}") from no_batch

    def _why_no_batch(self) -> InputError | None:
        """Waits for the batch of the next turn; says why there is none, before anything of that turn has happened."""
        if not self.is_over:
            try:
                self._feed_of(self.objective.next_turn(self.turn)).wait()
            except InputError as error:
                return error
        return None

    def _take_turn_or_say_why(self) -> None:
        try:
            self.take_turn()
        except TrainingDiverged:
            raise
        except RuntimeError:
            # p that is not a number cannot be drawn from: what came before was at fault.
            self.losses.check_own(self.step)
            raise

    def _after_student_turn(self, progress: Progress) -> None:
        logging, saving = self.step % self.config.logging_steps == 0, self.step % self.save_steps == 0
        if logging or saving:
            self._log(progress)
        if self.validation and self.validation.is_due(self.step, self.max_steps):
            self._validate(self.validation, progress)
        if saving:
            self.save()

    def _validate(self, validation: Validation, progress: Progress) -> None:
        """Measure the student; the time that it takes is not training."""
        if self.accelerator.device.type == "cuda":
            torch.cuda.synchronize()  # what the turns before it left to do is training
        began = time.perf_counter()
        line = {"step": self.step, **validation.measure(self.step)}
        progress.measured(self.step, validation.figures)
        if self.metrics is not None:
            self.metrics.append(**line)
            self.accelerator.log(scalars(line, {}, (), ()), step=self.step)
        self._mark = (self._mark[0] + time.perf_counter() - began, self._mark[1])

    def _log(self, progress: Progress) -> None:
        """One line of metrics; also the place where a device is waited for and losses are checked."""
        values = self.losses.take_means(self.step)
        if not values:
            return
        now, (then, seen) = time.perf_counter(), self._mark
        self.seconds += now - then
        self._mark = (now, self.images_seen)
        if self.metrics is None:  # another process writes them
            return
        speed = (self.images_seen - seen) / (now - then)
        learned = self.objective.observe()
        line = {
            "step": self.step,
            "epoch": round(self.step / self.setup.steps_per_epoch, 4),
            "images_per_second": round(speed, 1),
            "learning_rate": unscaled_rate(self.optimizers["student"]),
            **values,
        }
        self.metrics.append(**line, **learned)
        self.accelerator.log(scalars(line, learned, progress.teachers, progress.primitives), step=self.step)
        measured = self.validation.figures["top1"] if self.validation and self.validation.measured_step else None
        progress.log(self.step, values.get("student/total"), speed, learned, measured)
        for key, sentence in self.objective.warnings(values).items():
            if key not in self._warned:
                self._warned.add(key)
                self.warnings.append(f"step {self.step}: {sentence}")
                logger.warning(self.warnings[-1])

    # Stop and resume

    def save(self) -> None:
        """Write a checkpoint; every process's own random state goes beside the shared one.

        Raises:
            TrainingDiverged: weights are not finite (a gradient overflowed): the loss will show it in the next turn.
            InputError: it cannot be written.
        """
        self.losses.check_weights(self.step)
        state = self._state(gather_objects(random_state(self.accelerator.device), self.accelerator))
        if self.accelerator.is_main_process:
            folder = self.setup.folder / "checkpoints"
            save_state(folder, self.step, self.modules, state, self.config.save_total_limit)
            if self.setup.push and not self.is_over:  # the last one is published with all that belongs to it
                self.setup.push.after_checkpoint(self.step)
        elif self.accelerator.is_fsdp2:  # takes part in the gathering of what the first process writes
            for module in self.modules.values():
                module.state_dict()
        self._saved_step = self.step
        self.accelerator.wait_for_everyone()

    def _state(self, random: list[dict[str, Tensor]]) -> dict[str, Any]:
        """What a checkpoint holds besides the modules; all processes together, as they may gather it."""
        return {
            "step": self.step,
            "turn": self.turn,
            "images_seen": self.images_seen,
            "seconds": self.seconds,
            "generator": self.generator.get_state(),
            "random": random,
            "optimizers": {name: whole(optimizer.state_dict()) for name, optimizer in self.optimizers.items()},
            "schedules": {name: schedule.state_dict() for name, schedule in self.schedules.items()},
            "feeds": {name: feed.state_dict() for name, feed in self.feeds.items()},
            "scaler": self.accelerator.scaler.state_dict() if self.accelerator.scaler else None,
            "warned": sorted(self._warned),
            "warnings": self.warnings,
            **({"validation": self.validation.state_dict()} if self.validation else {}),
        }

    def finish(self) -> None:
        """Leave every player whole on every process, students at their best where that is kept; no turn follows."""
        self.players.placement.gather()
        if self.validation:
            self.validation.load_best()

    def resume(self, path: Path) -> None:
        """Continue where a checkpoint was written, to the bit; what comes later in its folder is removed.

        Raises:
            InputError: it is damaged or belongs to another run.
        """
        training = load_state(path, self.modules)
        try:
            fit_processes(training, self.accelerator, self.objective.networks, self.config.sync_batchnorm)
            own = random_state(self.accelerator.device)
            check_state(training, self._state([own] * self.accelerator.num_processes))
            for name, feed in self.feeds.items():
                feed.load_state_dict(training["feeds"][name])
            optimizers, schedules = training["optimizers"], training["schedules"]
            self.players.load_state(optimizers, schedules, int(training["step"]), bool(self.setup.lengths))
        except InputError as error:
            raise InputError(f"checkpoint {path} does not fit this run: {error}") from error
        self.step, self.turn, self.images_seen = (int(training[name]) for name in ("step", "turn", "images_seen"))
        self._saved_step = self.losses.looked_at_step = self.step
        self.seconds = float(training["seconds"])
        self.generator.set_state(training["generator"])
        if self.validation and "validation" in training:
            self.validation.load_state_dict(training["validation"])
        if self.accelerator.scaler:
            self.accelerator.scaler.load_state_dict(training["scaler"])
        self._warned, self.warnings = set(training["warned"]), list(training["warnings"])
        restore_random_state(training["random"][self.accelerator.process_index])
        if self.accelerator.is_main_process:
            discard_later(path, self.config.save_total_limit)
