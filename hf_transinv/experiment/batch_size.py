"""Batches that can be split into processes and micro-batches, and are no larger than the data; steps of them."""

import math
from dataclasses import replace

from hf_transinv.config import TrainConfig
from hf_transinv.errors import InputError


def check_batch_size(train: TrainConfig, processes: int, unit: int = 1) -> None:
    """Refuse a batch that cannot be split.

    Args:
        train: the loop.
        processes: how many there are.
        unit: each micro-batch has a multiple of so many images, 2 or more where neighbours are mixed.

    Raises:
        InputError: with what it would be split into.
    """
    micro_batches = train.gradient_accumulation_steps
    if train.batch_size % (processes * micro_batches * unit):
        pairs = f" of {unit} images or a multiple: mixup and cutmix mix neighbours" if unit > 1 else ""
        raise InputError(
            f"batch_size {train.batch_size} cannot be split into {processes} processes x {micro_batches} "
            f"micro-batches{pairs}"
        )


def student_steps(train: TrainConfig, rows: int | None) -> tuple[int, float]:
    """Student steps in all, and in an epoch (math.inf where it is not known).

    Args:
        train: the loop.
        rows: training images; None: not known.

    Raises:
        InputError: epochs are asked for, and it is not known how long they are.
    """
    per_epoch = math.inf if rows is None else rows // train.batch_size
    if train.max_steps is not None:
        return train.max_steps, per_epoch
    assert train.num_train_epochs is not None  # TrainConfig asks for one of the two
    if rows is None:
        raise InputError("the stream does not say how long it is: give --max_steps instead of --num_train_epochs")
    return max(1, round(train.num_train_epochs * per_epoch)), per_epoch


def fitted(train: TrainConfig, rows: int | None, processes: int, unit: int = 1) -> TrainConfig:
    """The loop with a batch no larger than the data: default sizes are made for more.

    Args:
        train: the loop, as it was checked.
        rows: training images; None: not known.
        processes: how many there are.
        unit: as above.

    Raises:
        InputError: there are too few images for every process and micro-batch.
    """
    if rows is None or train.batch_size <= rows:
        return train
    parts = processes * train.gradient_accumulation_steps
    least = parts * unit
    if rows < least:
        raise InputError(
            f"the training split has {rows} images for {parts} processes x micro-batches, which need "
            f"{'one' if unit == 1 else unit} each: launch fewer processes, or lower gradient_accumulation_steps"
        )
    step = math.lcm(least, 2) if rows >= math.lcm(least, 2) else least  # some methods show each image twice
    return replace(train, batch_size=rows // step * step)
