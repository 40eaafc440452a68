"""The optimizers of the players, and the schedule of networks (timm's factories)."""

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import torch
from timm.optim import create_optimizer_v2, list_optimizers, param_groups_layer_decay, param_groups_weight_decay
from timm.scheduler import create_scheduler_v2
from timm.scheduler.scheduler import Scheduler
from torch import nn

from hf_transinv.config import TrainConfig
from hf_transinv.config.checks import did_you_mean
from hf_transinv.errors import InputError
from hf_transinv.models.classifier import Classifier
from hf_transinv.models.layer_groups import group_matcher, head_parameters
from hf_transinv.models.weight_decay import undecayed
from hf_transinv.objectives.objective import Objective
from hf_transinv.objectives.turns import STUDENT


def build_optimizer(objective: Objective, player: str, config: TrainConfig) -> torch.optim.Optimizer:
    """The optimizer of one player: timm's for a network, AdamW for an augmentation.

    Layers and head of the student may have rates of their own; networks beside it start untrained, and have not.

    Raises:
        InputError: timm has no such optimizer, or it refuses the options; or the layers of the student are not known.
    """
    if player == STUDENT:
        return network_optimizer(objective.players[player], config)
    if player in objective.networks:
        return network_optimizer(objective.players[player], replace(config, layer_decay=None, head_learning_rate=None))
    return torch.optim.AdamW(objective.parameter_groups(player, config))


def network_optimizer(network: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """The configured optimizer of timm, which leaves out what is frozen.

    Biases, normalisation, and what the network names by `no_weight_decay` (position embeddings, class tokens) do not
    decay.

    Raises:
        InputError: timm has no such optimizer, or it refuses the options; or the layers of the network are not known.
    """
    has_own_rates = config.layer_decay is not None or config.head_learning_rate is not None
    groups = _groups_with_rates(network, config) if has_own_rates else None
    try:
        return create_optimizer_v2(
            network,
            opt=config.optimizer,
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            momentum=config.momentum,
            param_group_fn=(lambda _: groups) if groups else None,
        )
    except (ValueError, AssertionError, KeyError) as error:
        near = did_you_mean(config.optimizer, list_optimizers(), most=5)
        raise InputError(
            f"optimizer {config.optimizer!r}: {error}{near} timm.optim.list_optimizers() lists them"
        ) from error


def check_optimizer(config: TrainConfig, max_steps: int) -> None:
    """Try optimizer and schedule of a run before there is anything to train.

    Raises:
        InputError: timm has no such optimizer, or it refuses the options; or the schedule needs more steps.
    """
    network_optimizer(nn.Linear(1, 1), replace(config, layer_decay=None, head_learning_rate=None))
    rate_at(config, max_steps, 0)


def unscaled_rate(optimizer: torch.optim.Optimizer) -> float:
    """The learning rate now, before it is scaled for layers or head."""
    group = optimizer.param_groups[0]
    rate: float = group["lr"] / group.get("lr_scale", 1.0)
    return rate


def _groups_with_rates(network: nn.Module, config: TrainConfig) -> list[dict[str, Any]]:
    """Groups of parameters whose `lr_scale` timm's schedules multiply into the rate.

    Layers are scaled as timm does (after BEiT, Bao et al., ICLR 2022): by layer_decay for each layer that follows.
    """
    if not isinstance(network, Classifier):
        raise InputError(
            "layer_decay and head_learning_rate are for a single classifier, and this method trains a "
            f"{type(network).__name__}: leave them out (--layer_decay null, where a preset gives it)"
        )
    bare: Any = network.network
    if config.layer_decay is None:
        names = network.no_weight_decay()
        groups = param_groups_weight_decay(network, config.weight_decay, no_weight_decay_list=names)
    else:
        matcher = group_matcher(bare)
        # What timm asks a network for: those of transformers have no matcher of their own.
        layered: Any = SimpleNamespace(named_parameters=bare.named_parameters, group_matcher=lambda coarse: matcher)
        names = undecayed(bare)
        groups = param_groups_layer_decay(layered, config.weight_decay, names, layer_decay=config.layer_decay)
    if config.head_learning_rate is None:
        return groups
    of_head = head_parameters(bare)
    head = {id(parameter) for name, parameter in bare.named_parameters() if name in of_head}
    scale, split = config.head_learning_rate / config.learning_rate, []
    for group in groups:
        parts = [[x for x in group["params"] if (id(x) in head) is in_head] for in_head in (False, True)]
        scales = (group.get("lr_scale", 1.0), scale)
        split += [{**group, "params": part, "lr_scale": own} for part, own in zip(parts, scales, strict=True) if part]
    return split


def network_schedule(optimizer: torch.optim.Optimizer, config: TrainConfig, max_steps: int) -> Scheduler:
    """Warm-up from a hundredth of the rate, then timm's schedule, by steps.

    `TrainConfig` admits those whose shape follows from `max_steps` alone: cosine, tanh, wsd and rsqrt fall to 0 with
    the last step. timm's others count epochs of their own, which would be taken for steps.

    Raises:
        InputError: there are too few steps, or too few of warm-up, for this schedule.
    """
    warmup = int(config.warmup_ratio * max_steps)
    try:
        schedule, _ = create_scheduler_v2(
            optimizer,
            sched=config.lr_scheduler,
            num_epochs=max_steps - warmup,  # with a prefix timm counts from the end of the warm-up
            warmup_epochs=warmup,
            warmup_lr=config.learning_rate / 100,
            warmup_prefix=warmup > 0,
            min_lr=0.0,
            cooldown_epochs=0,
            step_on_epochs=False,
            updates_per_epoch=1,
        )
    except ValueError as error:
        raise InputError(
            f"lr_scheduler {config.lr_scheduler!r} with {max_steps} steps, {warmup} of them warm-up: {error} Give "
            "more of them (max_steps, warmup_ratio), or take cosine or constant"
        ) from error
    return schedule


def rate_at(config: TrainConfig, max_steps: int, step: int) -> float:
    """The scheduled learning rate of a run of `max_steps` after so many steps, from 0 to `max_steps`."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(()))], lr=config.learning_rate)
    network_schedule(optimizer, config, max_steps).step_update(step)
    return float(optimizer.param_groups[0]["lr"])


class ExtendedSchedule:
    """The schedule of a run that was extended: from the step at which it was, that of a run of the new length.

    The rate follows from the step alone, whichever checkpoint a run goes on from: there is no state to save.

    Args:
        optimizer: whose rate it sets.
        config: the loop's.
        lengths: (first step, student steps in all) of each part; the first begins at step 0.

    Raises:
        InputError: see `network_schedule`.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, config: TrainConfig, lengths: Sequence[tuple[int, int]]
    ) -> None:
        self._parts = [(first, network_schedule(optimizer, config, steps)) for first, steps in lengths]
        self.step_update(0)

    def step_update(self, num_updates: int) -> None:
        """Set the rate of the step that follows so many."""
        schedule = [schedule for first, schedule in self._parts if first <= num_updates][-1]
        schedule.step_update(num_updates)

    def state_dict(self) -> dict[str, Any]:
        """Empty."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Does nothing."""
