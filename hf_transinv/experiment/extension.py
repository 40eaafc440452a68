"""A run that goes on for more steps than it was started with (`extend_to_steps`).

The schedule is stretched: up to the step at which the run was extended, the learning rate is that of the length that
it had until then, and from there on that of a run of the new length. All rows are extended at the same step, wherever
they stand, so they stay comparable. run.json keeps the lengths:

    "extensions": [{"at_step": 1200, "to_steps": 2400}, ...]
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hf_transinv.augment.replay import ReplayBuffer
from hf_transinv.config import OutputConfig
from hf_transinv.errors import InputError
from hf_transinv.experiment.launch import check_same_run
from hf_transinv.objectives.objective import Objective
from hf_transinv.record import RunRecord
from hf_transinv.training.checkpointing import checkpoints

Extension = dict[str, int]
"""One entry of the record."""


def read_earlier(output: OutputConfig, folder: Path, config: dict[str, Any]) -> tuple[dict[str, Any], list[Extension]]:
    """What an earlier start of a run has finished, its rows by name, and how it was extended.

    Args:
        output: from where it is resumed; nothing is known where it is not.
        folder: of the run.
        config: all fields of the run, flat.

    Raises:
        InputError: it was another run, and see `read_extensions`.
    """
    if not output.resume_from:
        return {}, []
    before = RunRecord.read(folder)
    check_same_run(before["config"], config)
    extensions = read_extensions(before, output, folder)
    rows = before.get("rows", {}) if output.resume_from == "latest" else {}
    return unfinished(rows, extensions), extensions


def read_extensions(before: Mapping[str, Any], output: OutputConfig, folder: Path) -> list[Extension]:
    """The extensions of a run that is resumed, the one that is asked for among them.

    Args:
        before: its run.json.
        output: from where it is resumed, and how many student steps in all are asked for.
        folder: of the run; its newest checkpoint says where the run stands.

    Raises:
        InputError: the run was extended before and is not asked to keep that length, it has ended early, or it would
            be extended at a step that its other rows may have passed.
    """
    extend_to = output.extend_to_steps
    known = before.get("extensions", [])
    if not isinstance(known, list) or not all(isinstance(one, dict) and _is_extension(one) for one in known):
        raise InputError(f"{folder / 'run.json'} is damaged: extensions are at_step and to_steps each")
    if extend_to is None and known:
        raise InputError(
            f"this run was extended to {known[-1]['to_steps']} steps: resume it with --extend_to_steps "
            f"{known[-1]['to_steps']}"
        )
    if extend_to is None or (known and known[-1]["to_steps"] == extend_to):
        return known
    if before.get("rows", {}).get(before.get("main_row"), {}).get("validation", {}).get("stopped_early"):
        raise InputError(
            f"extend_to_steps {extend_to}: early stopping has ended this run, and it would end again at once. Start a "
            "new one with a larger early_stopping_patience"
        )
    if output.resume_from != "latest":
        raise InputError(
            f"extend_to_steps {extend_to}: a run is extended where it stands, --resume_from latest; given "
            f"{output.resume_from}"
        )
    saved = checkpoints(folder / "checkpoints")
    step = int(saved[-1].name.removeprefix("step_")) if saved else 0
    return [*known, {"at_step": step, "to_steps": extend_to}]


def _is_extension(one: Mapping[str, Any]) -> bool:
    return all(isinstance(one.get(name), int) for name in ("at_step", "to_steps"))


def check_extendable(objective: Objective) -> None:
    """Raises InputError for a method whose memory has room for the steps that it was started with alone."""
    if any(isinstance(module, ReplayBuffer) for module in objective.extra_state().values()):
        raise InputError(
            f"extend_to_steps: {objective.title} replays copies of its augmentation, and has room for those of the "
            "run that was started. Start a longer one"
        )


def unfinished(rows: Mapping[str, Any], extensions: Sequence[Extension]) -> dict[str, Any]:
    """The rows without those that an extended run trains further."""
    if not extensions:
        return dict(rows)
    steps = extensions[-1]["to_steps"]
    return {
        name: row
        for name, row in rows.items()
        if row.get("steps", 0) >= steps or row.get("validation", {}).get("stopped_early")
    }


def lengths_of(first: int, extensions: Sequence[Extension]) -> tuple[tuple[int, int], ...]:
    """(First step, student steps in all) of each part; empty for a run that was not extended.

    Args:
        first: student steps in all that the run was started with.
        extensions: of the run.

    Raises:
        InputError: an extension does not make it longer.
    """
    lengths = [(0, first)]
    for one in extensions:
        if one["to_steps"] <= lengths[-1][1]:
            raise InputError(
                f"extend_to_steps {one['to_steps']}: the run has {lengths[-1][1]} steps already, give more"
            )
        lengths.append((one["at_step"], one["to_steps"]))
    return tuple(lengths) if extensions else ()
