"""The players of a run as they train: where each lies, by which optimizer it moves, and how it takes its turn."""

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from timm.scheduler.scheduler import Scheduler
from torch import Tensor, nn

from hf_transinv.config import TrainConfig
from hf_transinv.data.mixing import MixDraws, Mixing
from hf_transinv.data.pictures import BatchImages, Crops
from hf_transinv.data.transforms import CropDraws, CropFlip, to_float
from hf_transinv.errors import InputError
from hf_transinv.objectives.objective import Objective
from hf_transinv.objectives.turns import STUDENT, Batch, only_training
from hf_transinv.training.averaging import own_average
from hf_transinv.training.distributed import Placement, optimizer_shards, to_device, without_sync
from hf_transinv.training.freezing import LinearProbe, freeze, part_of, probe_steps
from hf_transinv.training.optim import ExtendedSchedule, build_optimizer, network_schedule


def check_players(objective: Objective, config: TrainConfig, max_steps: int) -> None:
    """Try what `Players` does to the networks of a run before its data are decoded; they stay as they are.

    Args:
        objective: the method.
        config: the loop's.
        max_steps: student steps in all that the run was started with.

    Raises:
        InputError: a part that is to be frozen is not known, or an optimizer is not, or refuses its options.
    """
    student = objective.players.get(STUDENT)
    if student is not None and config.freeze is not None:
        part_of(student, config.freeze, "freeze")
    if student is not None and config.linear_probe_share:
        probe_steps(config.linear_probe_share, max_steps)
        part_of(student, "all", "linear_probe_share")
    for name in objective.players:
        build_optimizer(objective, name, config)


class Players:
    """The players of one objective.

    Args:
        accelerator: decides device, precision and processes.
        objective: the method.
        base_augmentation: crop and flip, for all players alike.
        config: the loop's.
        lengths: for the schedules: (first step, student steps in all), one pair unless the run was extended.
        mixing: what is done to the images, labels and losses of networks, beside crop and flip.

    Raises:
        InputError: the method does not take a sharded student, or an option does not fit the student.

    Attributes:
        nets: each player as it is called in its own turn.
        optimizers: of each player.
        schedules: of each network.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        objective: Objective,
        base_augmentation: CropFlip,
        config: TrainConfig,
        lengths: Sequence[tuple[int, int]],
        mixing: Mixing | None = None,
    ) -> None:
        if objective.keeps_start and accelerator.is_fsdp2:
            raise InputError(
                f"FSDP2 shards the student, and {objective.title} compares all its weights with those at the start: "
                "launch it with one GPU or with MULTI_GPU (DDP)"
            )
        if config.linear_probe_share and accelerator.is_fsdp2:
            raise InputError(
                "FSDP2 shards the student, and linear_probe_share trains its head alone at first: launch it with "
                "one GPU or with MULTI_GPU (DDP)"
            )
        self.accelerator, self.objective, self.config = accelerator, objective, config
        self.base_augmentation, self.mixing = base_augmentation, mixing
        self.nets: dict[str, nn.Module] = {}
        self.optimizers: dict[str, AcceleratedOptimizer] = {}
        self.schedules: dict[str, Scheduler | ExtendedSchedule] = {}
        self._frozen_norms: list[nn.Module] = []
        self._probe: LinearProbe | None = None
        self._steps = 0  # of the student, so far
        layout = torch.channels_last if config.channels_last else torch.preserve_format
        self.placement = Placement(accelerator, layout, config.sync_batchnorm)
        for name, player in objective.players.items():
            is_network = name in objective.networks
            self.placement.move(name, player, is_network)
            if name == STUDENT and config.freeze is not None:
                self._frozen_norms = freeze(player, config.freeze)
            if name == STUDENT and config.linear_probe_share:
                self._probe = LinearProbe(player, config.linear_probe_share, lengths[0][1])
            optimizer = build_optimizer(objective, name, config)
            self.nets[name], self.optimizers[name] = self.placement.prepare(player, optimizer, is_network)
            if is_network:
                self.schedules[name] = (
                    network_schedule(optimizer, config, lengths[0][1])
                    if len(lengths) == 1
                    else ExtendedSchedule(optimizer, config, lengths)
                )
        self._averages = own_average(objective).values()
        for module in (*objective.extra_state().values(), *self._averages):
            to_device(module, accelerator.device, layout)
        for teacher in objective.teachers:  # on the device it was given
            teacher.to(memory_format=layout)
        if config.compile:
            # In place, so that names in checkpoints stay. Wrappers for several devices call what is compiled within.
            for network in {*objective.networks.values(), *objective.teachers}:
                network.compile()

    def draw_mixing(
        self, players: tuple[str, ...], shape: tuple[int, ...], generator: torch.Generator
    ) -> MixDraws | None:
        """Draw how the whole batch of that shape is mixed in a turn of these players; None: not at all."""
        if self.mixing is None or self.objective.networks.keys().isdisjoint(players):
            return None
        return self.mixing.draw(shape, self.objective.variants, generator, self.accelerator.device)

    def load_state(
        self, optimizers: Mapping[str, Any], schedules: Mapping[str, Any], step: int, is_extended: bool
    ) -> None:
        """Take over the states of optimizers and schedules, by player.

        Args:
            optimizers: their states, whole.
            schedules: theirs.
            step: student steps until then.
            is_extended: whether the run has another length since: the rate is then set by the step alone.

        Raises:
            InputError: a state is not that of this run's parameters.
        """
        self._steps = step
        shards = {name: optimizer_shards(optimizers[name], own) for name, own in self.optimizers.items()}
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(shards[name])
        for name, schedule in self.schedules.items():
            schedule.load_state_dict(schedules[name])
            if is_extended:
                schedule.step_update(step)

    def play(
        self,
        player: str,
        images: BatchImages,
        labels: Tensor,
        crops: list[CropDraws],
        draws: Any,
        mixed: MixDraws | None = None,
    ) -> dict[str, Tensor]:
        """Forward and backward passes of one player, micro-batch by micro-batch.

        Args:
            player: who plays.
            images: this process's, uint8 [b, 3, H, W] each.
            labels: class indices, [b].
            crops: for each variant of the images, what was drawn for the whole batch; of no use if they are cropped.
            draws: what the objective drew for the whole batch.
            mixed: how images are mixed where a network plays, for the whole batch.

        Returns:
            The losses by name, summed over the micro-batches, without graph.
        """
        accelerator, micro_batches = self.accelerator, self.config.gradient_accumulation_steps
        global_batch_size, first = accelerator.num_processes * len(images), accelerator.process_index * len(images)
        size = len(images) // micro_batches
        sums: dict[str, Tensor] = {}
        probe, net = self._probe_of(player), self.nets[player]
        if probe:
            net = self.objective.players[player]  # DDP expects a gradient of all that it was given
        with only_training(player, self.objective.players), probe.held() if probe else contextlib.nullcontext():
            for layer in self._frozen_norms:
                layer.eval()
            nets = {**self.objective.players, player: net}
            for index in range(micro_batches):
                local = slice(index * size, (index + 1) * size)
                rows = slice(first + local.start, first + local.stop)  # of the whole batch
                variants = self._variants(images[local], [drawn[rows] for drawn in crops])
                targets, weights = labels[local], None
                if self.mixing and mixed is not None and player in self.objective.networks:
                    variants, targets = self.mixing(variants, targets, mixed[rows])
                    weights = self.mixing.class_weights
                others, processes = tuple(variants[1:]), accelerator.num_processes
                batch = Batch(variants[0], targets, global_batch_size, processes, others, class_weights=weights)
                is_last = index == micro_batches - 1
                with contextlib.nullcontext() if is_last else without_sync(net):
                    with accelerator.autocast():
                        losses = self.objective.loss(player, nets, batch, None if draws is None else draws[rows])
                    accelerator.backward(losses["total"])
                for name, value in losses.items():
                    sums[name] = sums.get(name, 0) + value.detach()
        return sums

    def _variants(self, images: BatchImages, crops: list[CropDraws]) -> list[Tensor]:
        if isinstance(images, Crops):
            return [to_float(variant) for variant in images.variants]
        return [to_float(self.base_augmentation(images, drawn)) for drawn in crops]

    def step(self, player: str, steps: int) -> None:
        """The optimizer's step of one player, and what follows it.

        Args:
            player: who has played.
            steps: student steps so far, this one included where it is the student's.
        """
        optimizer, schedule = self.optimizers[player], self.schedules.get(player)
        if self._probe_of(player):
            self._average_gradients(self.objective.players[player])
        if schedule and self.config.max_grad_norm > 0:
            self.accelerator.unscale_gradients(optimizer)
            nn.utils.clip_grad_norm_(self.nets[player].parameters(), self.config.max_grad_norm)
        optimizer.step()
        if schedule:
            schedule.step_update(steps)
            self._share_buffers(self.objective.players[player])
        self.objective.after_step(player, self.objective.players)
        if player == STUDENT:
            self._steps = steps
            for average in self._averages:
                average.update(self.objective.students[player])
        optimizer.zero_grad()

    def _probe_of(self, player: str) -> LinearProbe | None:
        """What holds all but the head of this player in its turn now."""
        probe = self._probe
        return probe if probe and player == STUDENT and self._steps < probe.steps else None

    def _average_gradients(self, network: nn.Module) -> None:
        """Average the gradients of a network that was called unwrapped over the processes."""
        processes = self.accelerator.num_processes
        if processes == 1:
            return
        gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients]) / processes
        torch.distributed.all_reduce(flat)
        for gradient, values in zip(gradients, flat.split([x.numel() for x in gradients]), strict=True):
            gradient.copy_(values.view_as(gradient))

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
