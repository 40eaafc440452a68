"""The figures of a check, written one by one as they are measured: each is a line of JSON under its name.

python -m hf_transinv.commands.gpu_figures turns FILE [--tiny]
    measures what FILE does not have yet; what fails is noted there, its traceback goes to stderr, the next one begins
"""

import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from hf_transinv.augment.policies import POLICIES
from hf_transinv.augment.primitive_sets import PRIMITIVES
from hf_transinv.benchmark import augmentation_speed, corruption_speed
from hf_transinv.benchmark.cuda_waits import waits_of
from hf_transinv.benchmark.matrix_share import SIZES, measure_shares, measured_peak
from hf_transinv.benchmark.options import BenchmarkConfig
from hf_transinv.benchmark.runners import Entry, build_objective, build_trainer, entries
from hf_transinv.config import DataConfig, OutputConfig
from hf_transinv.data.resident import ResidentSplit
from hf_transinv.data.run_data import open_data
from hf_transinv.errors import InputError
from hf_transinv.experiment.launch import start_accelerator
from hf_transinv.formats.json_lines import JSONLines

Figures = Iterator[tuple[str, Callable[[], dict[str, Any]]]]
"""Names, in the order of their worth, and what measures each."""

STUDENTS = ("wrn16_2_cifar", "wrn40_2_cifar", "wrn28_10_cifar")
SMALLEST = "wrn10_1_cifar"
STEPS = 20
"""Student steps of the runs whose losses are looked at."""
_TINY: dict[str, Any] = {
    "student": SMALLEST,
    "methods": ("transinv",),
    "teacher_counts": (1,),
    "batch_size": 8,
    "inner_steps": 1,
}
_QUICK: dict[str, Any] = {"rounds": 3, "seconds": 0.2}
_TINY_QUICK: dict[str, Any] = {"rounds": 1, "seconds": 0.001}


def waits(accelerator: Accelerator, tiny: bool) -> Figures:
    """What the turns of each method wait for."""
    config = BenchmarkConfig(student=SMALLEST, num_classes=10, inner_steps=2, teacher_counts=(1, 3))
    config = replace(config, **_TINY) if tiny else config
    for entry in entries(config):
        yield entry.title, partial(waits_of, entry, config, accelerator)


def turns(accelerator: Accelerator, tiny: bool) -> Figures:
    """Turns of each method beside plain training, as they are and compiled, for each student."""
    config = BenchmarkConfig(**_QUICK, teacher_counts=(1, 3))
    config = replace(config, **_TINY, **_TINY_QUICK) if tiny else config
    for compiled in (False,) if tiny else (False, True):
        for student in (SMALLEST,) if tiny else STUDENTS:
            plain, *others = entries(config)
            for entry in others:
                chosen = replace(config, student=student, compile=compiled)
                name = f"{student}{', compiled' * compiled}: {entry.title}"
                yield name, partial(_turns_of, chosen, (plain, entry), accelerator, (64, 128) if tiny else SIZES)


def _turns_of(
    config: BenchmarkConfig, runs: Sequence[Entry], accelerator: Accelerator, sizes: tuple[int, ...]
) -> dict[str, Any]:
    torch.compiler.reset()  # torch compiles a function for a few networks only, and would run the next one as it is
    peak = measured_peak(accelerator.device, sizes, config.seconds / 10)
    rows = measure_shares(config, accelerator, peak, runs)
    return {"student": config.student, "compiled": config.compile, "peak": peak, "rows": rows}


def policies(accelerator: Accelerator, tiny: bool) -> Figures:
    """Images per second of fixed policies, corruptions and learned primitives."""
    config = BenchmarkConfig(**_QUICK, threads=(1,))
    config = replace(config, batch_size=8, **_TINY_QUICK) if tiny else config
    for name in POLICIES:
        yield f"policy {name}", partial(_policy, name, config, accelerator)
    for name in config.corruptions:
        yield f"corruption {name}", partial(_corruption, replace(config, corruptions=(name,)), accelerator)
    for name in PRIMITIVES:
        yield f"primitive {name}", partial(_primitive, name, config, accelerator)


def _policy(name: str, config: BenchmarkConfig, accelerator: Accelerator) -> dict[str, Any]:
    return asdict(augmentation_speed.measure_policies(config, accelerator, (name,))[0])


def _primitive(name: str, config: BenchmarkConfig, accelerator: Accelerator) -> dict[str, Any]:
    return asdict(augmentation_speed.measure_primitives(config, accelerator.device, (name,))[0])


def _corruption(config: BenchmarkConfig, accelerator: Accelerator) -> dict[str, Any]:
    ((name, (speed,)),) = corruption_speed.measure(config, accelerator.device).items()
    return {"corruption": name, "images_per_second": speed}


def losses(accelerator: Accelerator, tiny: bool) -> Figures:
    """A short run of each method on the embedded digits, from the same weights and draws on every device."""
    split = open_data(DataConfig(dataset="digits/target", image_size=32), accelerator).train
    assert isinstance(split, ResidentSplit)
    classes = len(split.label_names)
    config = BenchmarkConfig(
        student=SMALLEST, num_classes=classes, batch_size=32, inner_steps=2, teacher_counts=(1, 3)
    )
    config = replace(config, **_TINY) if tiny else config
    steps = 3 if tiny else STEPS
    for entry in entries(config):
        name = f"{entry.title} on {accelerator.device.type}"
        yield name, partial(_losses_of, entry, config, accelerator, split, steps)


def _losses_of(
    entry: Entry, config: BenchmarkConfig, accelerator: Accelerator, split: ResidentSplit, steps: int
) -> dict[str, Any]:
    objective = build_objective(entry, config, accelerator.device)
    trainer = build_trainer(objective, config, accelerator, split, steps)
    while trainer.step < steps:
        trainer.take_turn()
    means = trainer.losses.take_means(steps)
    accelerator.free_memory()
    return {"run": entry.title, "device": accelerator.device.type, "steps": steps, "means": means}


SECTIONS: dict[str, Callable[[Accelerator, bool], Figures]] = {
    "waits": waits,
    "turns": turns,
    "policies": policies,
    "losses": losses,
}


def write_figures(section: str, path: Path, accelerator: Accelerator, tiny: bool = False) -> None:
    """Measure what a file does not have yet, and append it figure by figure.

    Args:
        section: one of `SECTIONS`.
        path: of the file.
        accelerator: says where.
        tiny: the smallest networks, and a few figures.
    """
    file = JSONLines(path)
    done = {line["figure"] for line in file.lines if "failed" not in line}
    for name, measure in SECTIONS[section](accelerator, tiny):
        if name in done:
            continue
        print(name, file=sys.stderr, flush=True)
        try:
            figure = measure()
        except Exception as error:  # one method at fault is no reason to leave out the others
            traceback.print_exc()
            file.append(figure=name, failed=f"{type(error).__name__}: {' '.join(str(error).split())}"[:300])
        else:
            file.append(figure=name, **figure)


def main() -> None:
    """The whole program."""
    section, path, *tiny = sys.argv[1:]
    if section not in SECTIONS or tiny not in ([], ["--tiny"]):
        raise InputError(f"given {sys.argv[1:]}; expected one of {', '.join(SECTIONS)}, a file, and --tiny or nothing")
    write_figures(section, Path(path), start_accelerator(OutputConfig()), bool(tiny))


if __name__ == "__main__":
    main()
