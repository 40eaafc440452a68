"""The loop, on accelerate: it knows players and turns, not methods.

    for every batch:  players = objective.next_turn(turn);  each plays: loss -> backward -> its optimizer's step

What is random in a turn is drawn once for the whole batch, on every process alike, and then cut into each process's
and each micro-batch's part. So 2 micro-batches of 4 are one batch of 8, and two processes are one with the same
`batch_size`.
"""

import contextlib
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator
from accelerate.logging import get_logger
from torch import Tensor, nn
from tqdm.auto import tqdm

from hf_transinv.config import TrainConfig
from hf_transinv.data.batches import Feed
from hf_transinv.data.transforms import CropDraws, CropFlip, to_float
from hf_transinv.errors import InputError
from hf_transinv.objectives.base import AUGMENTATION, Batch, Objective, only_training
from hf_transinv.record import Metrics, flat_numbers
from hf_transinv.training.checkpointing import checkpoints, discard, load_state, save_state, tidy
from hf_transinv.training.distributed import Placement, optimizer_shards, whole, without_sync
from hf_transinv.training.nan_guard import LossMonitor, TrainingDiverged
from hf_transinv.training.optim import build_optimizer, network_schedule
from hf_transinv.training.signals import StopRequest

if TYPE_CHECKING:
    from hf_transinv.hub.push import BackgroundPush

logger = get_logger(__name__)


class Trainer:
    """Trains the players of one objective for `max_steps` student steps.

    Args:
        accelerator: decides device, precision and processes.
        objective: the method.
        feeds: batches of the student, and of each player that opens a turn without it.
        ordinary: crop and flip, for all players alike.
        config: the loop's.
        max_steps: student steps.
        steps_per_epoch: student steps in a pass over the data; math.inf when nobody knows.
        folder: where metrics.jsonl and checkpoints/ go.
        label: shown at the progress bar.
        push: takes the student to the Hub after checkpoints; for the main process alone.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        objective: Objective,
        feeds: Mapping[str, Feed],
        ordinary: CropFlip,
        config: TrainConfig,
        max_steps: int,
        steps_per_epoch: float,
        folder: Path,
        label: str,
        push: "BackgroundPush | None" = None,
    ) -> None:
        self.accelerator, self.objective, self.feeds, self.ordinary = accelerator, objective, feeds, ordinary
        self.config, self.max_steps, self.steps_per_epoch = config, max_steps, steps_per_epoch
        self.folder, self.label, self.push = folder, label, push
        self.save_steps = config.save_steps or int(min(steps_per_epoch, max_steps))
        self.modules = {**objective.players, **objective.extra_state()}
        self.nets, self.optimizers, self.schedules = {}, {}, {}
        layout = torch.channels_last if config.channels_last else torch.preserve_format
        self.placement = Placement(accelerator, layout, config.sync_batchnorm)
        for name, player in objective.players.items():
            self.placement.move(name, player)
            optimizer = build_optimizer(name, player, config)
            self.nets[name], self.optimizers[name] = self.placement.prepare(name, player, optimizer)
            if name != AUGMENTATION:
                self.schedules[name] = network_schedule(optimizer, config, max_steps)
        for module in objective.extra_state().values():
            module.to(accelerator.device, memory_format=layout)
        for teacher in objective.teachers:  # on the device it was given
            teacher.to(memory_format=layout)
        if config.compile:
            # In place, so that names in checkpoints stay. Wrappers for several devices call what is compiled within.
            networks = {player for name, player in objective.players.items() if name != AUGMENTATION}
            for network in networks.union(objective.teachers):
                network.compile()
        self.generator = torch.Generator().manual_seed(config.seed)
        self.terms = LossMonitor(accelerator, objective, folder / "checkpoints")
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
        images, labels = (tensor.to(self.accelerator.device, non_blocking=True) for tensor in feed.next_batch())
        shape = (feed.batch_size, *images.shape[1:])
        crops = [self.ordinary.draw(shape[0], shape[2:], self.generator) for _ in range(self.objective.variants)]
        for player in players:
            draws = self.objective.draw(player, shape, self.generator)
            self._play(player, images, labels, crops, draws)
        self.turn += 1

    def _feed_of(self, players: tuple[str, ...]) -> Feed:
        return self.feeds["student" if "student" in players else players[0]]

    def _play(self, player: str, images: Tensor, labels: Tensor, crops: list[CropDraws], draws: Any) -> None:
        accelerator, pieces = self.accelerator, self.config.gradient_accumulation_steps
        whole, first = len(crops[0]), accelerator.process_index * len(images)
        size = len(images) // pieces
        sums: dict[str, Tensor] = {}
        with only_training(player, self.objective.players):
            nets = {**self.objective.players, player: self.nets[player]}
            for piece in range(pieces):
                local = slice(piece * size, (piece + 1) * size)
                place = slice(first + local.start, first + local.stop)
                pixels, *others = (to_float(self.ordinary(images[local], drawn[place])) for drawn in crops)
                batch = Batch(pixels, labels[local], whole, accelerator.num_processes, tuple(others))
                last = piece == pieces - 1
                with contextlib.nullcontext() if last else without_sync(self.nets[player]):
                    with accelerator.autocast():
                        losses = self.objective.loss(player, nets, batch, None if draws is None else draws[place])
                    accelerator.backward(losses["total"])
                for name, value in losses.items():
                    sums[name] = sums.get(name, 0) + value.detach()
        self.terms.add(player, sums, images, self.step)
        self._make_step(player)

    def _make_step(self, player: str) -> None:
        optimizer, schedule = self.optimizers[player], self.schedules.get(player)
        if schedule and self.config.max_grad_norm > 0:
            self.accelerator.unscale_gradients(optimizer)
            nn.utils.clip_grad_norm_(self.nets[player].parameters(), self.config.max_grad_norm)
        optimizer.step()
        if player == "student":
            self.step += 1
            self.images_seen += self.feeds["student"].batch_size * self.objective.variants_a_network
        if schedule:
            schedule.step_update(self.step)
            self._share_buffers(self.objective.players[player])
        self.objective.after_step(player, self.objective.players)
        optimizer.zero_grad()

    def _share_buffers(self, network: nn.Module) -> None:
        """Give every process the first one's BatchNorm statistics, so that averages, evaluations and resumes agree."""
        if self.accelerator.num_processes == 1:
            return
        buffers = [buffer for buffer in network.buffers() if buffer.is_floating_point()]
        if not buffers:
            return
        flat = torch.cat([buffer.flatten() for buffer in buffers])
        torch.distributed.broadcast(flat, src=0)
        for buffer, values in zip(buffers, flat.split([buffer.numel() for buffer in buffers]), strict=True):
            buffer.copy_(values.view_as(buffer))

    # The loop

    def train(self) -> None:
        """Train until `max_steps`, or until a signal asks to stop; then `stopped` is set and a checkpoint written.

        Raises:
            TrainingDiverged: a loss is not finite.
            InputError: a checkpoint cannot be written, or there is no next batch (a Hub that is gone, a broken image);
                then a checkpoint is written before.
        """
        no_batch = None
        self.metrics = Metrics(self.folder / "metrics.jsonl", self.step) if self.accelerator.is_main_process else None
        bar = tqdm(
            total=self.max_steps,
            initial=self.step,
            desc=self.label,
            disable=not self.accelerator.is_main_process,
            mininterval=1.0,
        )
        self._mark = (time.perf_counter(), self.images_seen)
        # The push is left last: a second signal ends the wait for an upload.
        with self.push or contextlib.nullcontext(), StopRequest() as stop, bar:
            while self.step < self.max_steps:
                before = self.step
                self._take_turn_or_say_why()
                if self.step > before:
                    bar.update()
                    self._after_student_turn(bar)
                no_batch = self._why_no_batch()
                if stop.made(self.accelerator, no_batch is not None):
                    self.stopped = self.step < self.max_steps
                    break
            if self.step > self._saved_step:
                self._log(bar)
                self.save()
        if no_batch is not None:
            go_on = "the same command, --output_dir and --resume_from latest"
            stopped = f"Stopped at step {self.step}, a checkpoint is written: go on with {go_on}."
            raise InputError(f"{no_batch} {stopped}") from no_batch

    def _why_no_batch(self) -> InputError | None:
        """Waits for the batch of the next turn; says why there is none, before anything of that turn has happened."""
        if self.step < self.max_steps:
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
            self.terms.check_own(self.step)
            raise

    def _after_student_turn(self, bar: tqdm) -> None:
        logging, saving = self.step % self.config.logging_steps == 0, self.step % self.save_steps == 0
        if logging or saving:
            self._log(bar)
        if saving:
            self.save()

    def _log(self, bar: tqdm) -> None:
        """One line of metrics; also the place where a device is waited for and losses are checked."""
        values = self.terms.take_means(self.step)
        if not values:
            return
        now, (then, seen) = time.perf_counter(), self._mark
        self.seconds += now - then
        self._mark = (now, self.images_seen)
        if not self.accelerator.is_main_process:
            return
        speed = (self.images_seen - seen) / (now - then)
        learned = self.objective.observe()
        line = {
            "step": self.step,
            "epoch": round(self.step / self.steps_per_epoch, 4),
            "images_per_second": round(speed, 1),
            "learning_rate": self.optimizers["student"].param_groups[0]["lr"],
            **values,
        }
        self.metrics.append(**line, **learned)
        self.accelerator.log({**line, **flat_numbers(learned)}, step=self.step)
        shown = {name: _short(learned[name]) for name in ("r", "p", "q") if name in learned}
        bar.set_postfix(loss=f"{values.get('student/total', math.nan):.3f}", images_s=f"{speed:.0f}", **shown)
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
        self.terms.check_weights(self.step)
        own = {"torch": torch.get_rng_state()}
        if self.accelerator.device.type == "cuda":
            own["cuda"] = torch.cuda.get_rng_state()
        states = _gather_objects(own, self.accelerator)
        optimizers = {name: whole(optimizer.state_dict()) for name, optimizer in self.optimizers.items()}
        if self.accelerator.is_main_process:
            training = {
                "step": self.step,
                "turn": self.turn,
                "images_seen": self.images_seen,
                "seconds": self.seconds,
                "generator": self.generator.get_state(),
                "random": states,
                "optimizers": optimizers,
                "schedules": {name: schedule.state_dict() for name, schedule in self.schedules.items()},
                "feeds": {name: feed.state_dict() for name, feed in self.feeds.items()},
                "scaler": self.accelerator.scaler.state_dict() if self.accelerator.scaler else None,
                "warned": sorted(self._warned),
                "warnings": self.warnings,
            }
            folder = self.folder / "checkpoints"
            save_state(folder, self.step, self.modules, training, self.config.save_total_limit)
            if self.push and self.step < self.max_steps:  # the last one is published with all that belongs to it
                self.push.after_checkpoint(self.step)
        elif self.accelerator.is_fsdp2:  # takes part in the gathering of what the first process writes
            for module in self.modules.values():
                module.state_dict()
        self._saved_step = self.step
        self.accelerator.wait_for_everyone()

    def finish(self) -> None:
        """Leave every player whole on every process; there is no training after it."""
        self.placement.gather()

    def resume(self, path: Path) -> None:
        """Continue where a checkpoint was written, to the bit.

        Raises:
            InputError: it is damaged or belongs to another run.
        """
        training = load_state(path, self.modules)
        try:
            self._continue(training, path)
        except InputError:
            raise
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError, ArithmeticError) as error:
            raise InputError(f"checkpoint {path} does not fit this run: {type(error).__name__} {error}") from error

    def _continue(self, training: dict[str, Any], path: Path) -> None:
        """Take over what a checkpoint holds besides the modules; what comes later in its folder goes."""
        if len(training["random"]) != self.accelerator.num_processes:
            raise InputError(
                f"checkpoint {path} was written by {len(training['random'])} processes, this run has "
                f"{self.accelerator.num_processes}: launch as many"
            )
        self.step, self.turn, self.images_seen = (int(training[name]) for name in ("step", "turn", "images_seen"))
        self._saved_step = self.terms.looked_at_step = self.step
        self.seconds = float(training["seconds"])
        self.generator.set_state(training["generator"])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(optimizer_shards(training["optimizers"][name], optimizer))
        for name, schedule in self.schedules.items():
            schedule.load_state_dict(training["schedules"][name])
        for name, feed in self.feeds.items():
            feed.load_state_dict(training["feeds"][name])
        if self.accelerator.scaler:
            self.accelerator.scaler.load_state_dict(training["scaler"])
        self._warned, self.warnings = set(training["warned"]), list(training["warnings"])
        own = training["random"][self.accelerator.process_index]
        torch.set_rng_state(own["torch"])
        if "cuda" in own:
            torch.cuda.set_rng_state(own["cuda"])
        if self.accelerator.is_main_process:
            for later in checkpoints(path.parent):
                if later.name > path.name:  # of a future that is trained again from here
                    discard(later)
            tidy(path.parent, self.config.save_total_limit)


def _gather_objects(value: Any, accelerator: Accelerator) -> list[Any]:
    """One object of each process, in their order."""
    if accelerator.num_processes == 1:
        return [value]
    gathered: list[Any] = [None] * accelerator.num_processes
    torch.distributed.all_gather_object(gathered, value)
    return gathered


def _short(value: Any) -> str:
    return ",".join(_short(item) for item in value) if isinstance(value, list) else f"{value:.2f}"
