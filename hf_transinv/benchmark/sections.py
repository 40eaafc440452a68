"""The sections one after another, and the machine that they were measured on."""

from collections.abc import Iterator
from typing import Any

from accelerate import Accelerator

from hf_transinv.benchmark import augmentation_speed, corruption_speed, feed_speed, launches, turn_speed
from hf_transinv.benchmark.options import BenchmarkConfig
from hf_transinv.errors import InputError

_SECTIONS = {
    "turns": ("Turns", turn_speed.section),
    "launches": ("Launches", launches.section),
    "augmentation": ("Augmentation", augmentation_speed.section),
    "corruptions": ("Corruptions", corruption_speed.section),
    "feeds": ("Feeds", feed_speed.section),
}


def setting(accelerator: Accelerator) -> dict[str, Any]:
    """What `record.environment` does not know.

    Raises:
        InputError: there are several processes.
    """
    if accelerator.num_processes > 1:
        raise InputError(
            f"the benchmark was launched with {accelerator.num_processes} processes, which wait for each other "
            "in every turn; its bounds are those of one. Launch it with one"
        )
    return {"device": accelerator.device.type, "mixed_precision": accelerator.mixed_precision}


def heading(config: BenchmarkConfig, environment: dict[str, Any]) -> str:
    """What was measured, where: one line."""
    hardware, versions = environment["hardware"], environment["versions"]
    threads = hardware["cpu_threads"]
    layout = "channels last" if config.channels_last else "channels first"
    parts = [
        f"batch {config.batch_size}",
        f"{config.image_size} px",
        hardware["device"],
        hardware.get("accelerator"),
        f"{threads} thread{'s' * (threads > 1)} of {hardware['cpu_cores']} cores ({hardware['machine']})",
        f"student {config.student}, {layout}{', compiled' if config.compile else ''}",
        f"mixed precision {hardware['mixed_precision']}",
        f"median of {config.rounds} rounds",
        f"torch {versions['torch']}",
        f"commit {environment['commit']}" if environment["commit"] else None,
    ]
    return ", ".join(part for part in parts if part)


def sections(config: BenchmarkConfig, accelerator: Accelerator) -> Iterator[tuple[str, dict[str, Any]]]:
    """Markdown and numbers of each section that `config` names, as soon as they are measured."""
    for name, (title, section) in _SECTIONS.items():
        if name in config.sections:
            text, numbers = section(config, accelerator)
            yield f"## {title}\n\n{text}\n", numbers
