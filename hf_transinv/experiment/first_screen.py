"""What a run says at its start, on one screen: device, data, student, teachers, and how images reach each."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from accelerate import Accelerator

from hf_transinv.config import OutputConfig, TrainConfig
from hf_transinv.data.run_data import Data
from hf_transinv.formats.terminal import block, say
from hf_transinv.models.description import describe
from hf_transinv.models.teacher import EMATeacher
from hf_transinv.objectives.objective import Objective
from hf_transinv.objectives.transinv_config import TransInvConfig
from hf_transinv.objectives.turns import AUGMENTATION, STUDENT
from hf_transinv.training.freezing import describe_frozen, describe_probe
from hf_transinv.training.optim import rate_at
from hf_transinv.training.trainer_setup import TrainerSetup

_LITTLE = 2.0  # of a logit: from 1/2 to 0.88


def say_run(accelerator: Accelerator, output: OutputConfig, folder: Path, dataset: str | None) -> None:
    """Say on the main process where a run computes and where its output goes, and then that its data are opened.

    Args:
        accelerator: of the run.
        output: says whether it is resumed.
        folder: of the run.
        dataset: its name.
    """
    if not accelerator.is_main_process:
        return
    device, count = accelerator.device, accelerator.num_processes
    kind = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    lines = [
        f"device      {device.type} ({kind}), {count} process{'es' * (count > 1)}, "
        f"mixed_precision {accelerator.mixed_precision}",
        f"output      {folder}{', where the run goes on' if output.resume_from else ''}",
    ]
    print(block(lines), flush=True)
    say("opening", dataset or "the data")


def first_screen(
    data: Data,
    objective: Objective,
    setup: TrainerSetup,
    output: OutputConfig,
    told: Sequence[str] = (),
    step: int = 0,
) -> str:
    """The whole text.

    Args:
        data: of the run.
        objective: of its first row.
        setup: of the same.
        output: what is measured.
        told: lines that are said besides.
        step: student steps that are done.
    """
    side, lines = data.image_size, list(data.described)
    lines += [f"{player:11} {describe(student, side)}" for player, student in objective.students.items()]
    for teacher in dict.fromkeys(objective.teachers):
        own = "the student's average: " if isinstance(teacher, EMATeacher) else ""
        lines.append(f"teacher     {own}{describe(teacher.classifier, side)}")
    if setup.config.compile:
        lines.append("compiled    students and teachers, the augmentation not: the first steps take minutes")
    lines += describe_frozen(next(iter(objective.students.values())), setup.config.freeze)
    first = setup.lengths[0][1] if setup.lengths else setup.max_steps
    lines += describe_probe(setup.config.linear_probe_share, first)
    lines += _measured(data, setup, output)
    lines += [*(line for line in told if line), *_steps(setup, output, step), *_turns(objective, setup)]
    lines += _lengths(setup, setup.config)
    return f"{block(lines)}\n"


def _steps(setup: TrainerSetup, output: OutputConfig, step: int) -> Iterator[str]:
    epochs = (
        "" if setup.steps_per_epoch == math.inf else f", {setup.max_steps / max(1, setup.steps_per_epoch):.3g} epochs"
    )
    yield f"method      {setup.label}"
    yield f"steps       {setup.max_steps:,} of {setup.config.batch_size} images{epochs}"
    if output.resume_from:
        yield f"resumed     at step {step}{'' if step else ': there is no checkpoint yet'}"


def _turns(objective: Objective, setup: TrainerSetup) -> Iterator[str]:
    """How much the turns of a learned augmentation can learn; AdamW moves a parameter by about its rate in a turn."""
    if AUGMENTATION not in objective.players:
        return
    train = setup.config
    turns = setup.max_steps // sum(STUDENT in turn for turn in objective.turns)
    moves = f"phi by {turns * train.augment_learning_rate:.2g}"
    selects = TransInvConfig in objective.configs
    if selects:
        moves += f", the logits of p, q and r by {turns * train.selection_learning_rate:.2g}"
    yield f"turns       {turns:,} of the augmentation, which move {moves} or so at most"
    if selects and turns * train.selection_learning_rate < _LITTLE:
        yield (
            "note        in so few turns little is learned: train longer, lower inner_steps, or raise "
            "selection_learning_rate and augment_learning_rate"
        )


def _measured(data: Data, setup: TrainerSetup, output: OutputConfig) -> Iterator[str]:
    validation = setup.validation
    if validation is None:
        return
    often = f"every {validation.every} steps and " if validation.every else ""
    yield f"measured    {often}after the last step, on split {data.validation_split}: {', '.join(validation.figures)}"
    if not validation.chooses:
        return
    patience = output.early_stopping_patience
    ends = f"; {patience} in a row that are no better end the training" if patience else ""
    kept = "the best student is evaluated and exported" if validation.best is not None else "the last student is kept"
    yield f"best        by {validation.metric}: {kept}{ends}"
    if data.validation is data.evaluation:
        yield (
            "note        the dataset has no split beside these images: they choose the student and measure it, which "
            "flatters it"
        )


def _lengths(setup: TrainerSetup, train: TrainConfig) -> Iterator[str]:
    for (_, before), (step, after) in zip(setup.lengths, setup.lengths[1:], strict=False):
        rates = f"{rate_at(train, before, step):.3g}, now {rate_at(train, after, step):.3g}"
        yield f"extended    at step {step}, from {before} to {after} steps; the learning rate there was {rates}"
