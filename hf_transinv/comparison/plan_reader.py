"""Read a comparison from its YAML: merge it, row by row, and check it before anything is opened.

The YAML has the fields that all rows share, flat as in every configuration, and

    seeds    [0, 1, 2]
    rows     title -> the fields of this row: its method, augmentation, teachers, crop and flip
    groups   title -> the fields of all rows in this group
    scale    name -> fields, rows or groups that replace those above; --scale NAME chooses one, default: the first

    defaults < YAML < scale < command line < group < row (each overrides those before it)

Fields that would make a comparison unfair are refused: rows may differ in how the student is trained, not in what it
is, how long and on how many images it trains, or how it is measured. Network, optimizer and label noise may differ
between groups.
"""

import re
import reprlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from hf_transinv.comparison.budget import check_budget
from hf_transinv.comparison.plan import CompareConfig, Comparison, Row
from hf_transinv.config import DataConfig, OutputConfig, StudentConfig, TrainConfig
from hf_transinv.errors import InputError
from hf_transinv.experiment.arguments import as_flags, build, given_fields, read_fields, read_yaml, split_configs
from hf_transinv.experiment.field_help import help_asked
from hf_transinv.experiment.methods import GROUPS, checked_mixing
from hf_transinv.experiment.presets import check_start, fill, keeps_start

CONFIGS: tuple[type, ...] = (DataConfig, StudentConfig, TrainConfig, *GROUPS, OutputConfig, CompareConfig)
_REASONS = {
    DataConfig: "every row sees the same pictures and labels",
    StudentConfig: "every row trains the same network",
    TrainConfig: "every row has the same schedule and sees as many images",
    OutputConfig: "every row is measured alike, in one folder",
    CompareConfig: "it belongs to the comparison as a whole",
}
_SECTIONS = ("rows", "groups", "scale")
_LONGEST_TITLE = 180  # a folder's name may have 255 bytes, and the seed is in it, too
_FREE_IN_ROWS = {
    *(field.name for group in GROUPS for field in fields(group)),
    *("crop", "crop_scale", "crop_ratio", "stored_size", "flip"),
    *("teachers", "teacher_size", "student_init", "ema_decay"),
    *("augment_learning_rate", "augment_weight_decay", "selection_learning_rate", "linear_probe_share", "interpolate"),
}
_FREE_IN_GROUPS = _FREE_IN_ROWS | {
    *("label_noise", "student", "optimizer", "learning_rate", "momentum", "weight_decay", "lr_scheduler"),
    *("warmup_ratio", "max_grad_norm", "label_smoothing", "student_size", "model_args"),
    *("preset", "layer_decay", "head_learning_rate"),
}


def read_comparison(
    argv: Sequence[str] | None = None, default_config: Path | None = None, description: str = ""
) -> Comparison:
    """Read and check a comparison from its YAML and the command line, without opening data or networks.

    Args:
        argv: the command line without the program; default: the process's.
        default_config: the YAML where --config names none.
        description: shown by --help.

    Raises:
        InputError: an unknown key (the nearest known one is named), a contradiction, or rows that would not be equal.
    """
    paths, flags = split_configs(sys.argv[1:] if argv is None else argv)
    paths = paths or [str(default_config)]
    shared = _shared(paths) if help_asked(flags) is not None else {}
    wanted = read_fields(CONFIGS, flags, description=description, defaults=shared)["scale"]
    where = ", ".join(paths)
    content: dict[str, Any] = {}
    for path in paths:
        content |= read_yaml(path)
    scales = _titled(content.pop("scale", None), f"{where}, scale")
    scale = wanted or next(iter(scales), None)
    _check_titles("scale", [scale] if scale else [], scales)
    content |= scales[scale] if scale is not None else {}
    groups, rows = (_titled(content.pop(section, None), f"{where}, {section}") for section in ("groups", "rows"))
    if not rows:
        raise InputError(f"config {where} has no rows: expected rows: title -> what each does otherwise")

    own_flags, flags = flags, [*as_flags(content, CONFIGS, where), *flags]
    base = _read(flags)
    chosen, output = build([CompareConfig, OutputConfig], base)
    _check_titles("rows", chosen.rows, rows)
    _check_titles("plain", [chosen.plain] if chosen.plain else [], rows)
    _check_titles("groups", chosen.groups, groups)
    _check_shared(base, output)
    configured = _configure_all(flags, groups, rows)
    comparison = Comparison(configured, chosen, output, {})
    _check_folds(chosen, base, output, given_fields(own_flags))
    check_budget(chosen.budget, comparison.plain, comparison.chosen_rows, output.extend_to_steps is not None)
    own = {field.name for field in fields(CompareConfig)}
    shared = {name: list(value) if isinstance(value, tuple) else value for name, value in base.items()}
    config = {name: value for name, value in shared.items() if name not in own}
    return replace(comparison, config=config | {"scale": scale, "budget": chosen.budget})


def _shared(paths: Sequence[str]) -> dict[str, Any]:
    """The fields that YAMLs give all rows, for --help."""
    contents = (read_yaml(path) for path in paths)
    return {name: value for content in contents for name, value in content.items() if name not in _SECTIONS}


def _titled(section: Any, where: str) -> dict[str, dict[str, Any]]:
    """Title -> fields; a title without fields has none."""
    section = {} if section is None else section
    if not isinstance(section, dict) or not all(isinstance(own or {}, dict) for own in section.values()):
        raise InputError(f"config {where}: expected titles, each with fields below it; given {reprlib.repr(section)}")
    return {str(title): own or {} for title, own in section.items()}


def _check_titles(flag: str, given: Sequence[str], known: Mapping[str, Any]) -> None:
    unknown = [title for title in given if title not in known]
    if unknown:
        expected = f"one of: {', '.join(known)}" if known else f"none, since the config has no {flag}"
        raise InputError(f"{flag} {unknown[0]!r}: expected {expected}")


def _refuse_unfair(overrides: Mapping[str, Any], free: set[str], where: str) -> None:
    """Refuse what must be equal, with the reason; keys that are not known at all are left to `as_flags`."""
    for group, reason in _REASONS.items():
        for name in sorted({field.name for field in fields(group)} & set(overrides) - free):
            place = "in a group or above the rows" if name in _FREE_IN_GROUPS else "above the rows"
            raise InputError(f"{where}: {name} cannot differ, since {reason}; set it {place}")


def _configure_all(
    flags: Sequence[str], groups: Mapping[str, Mapping[str, Any]], rows: Mapping[str, Mapping[str, Any]]
) -> tuple[Row, ...]:
    """Every row in every group, checked against each other."""
    configured: list[Row] = []
    for group, of_group in (groups or {"": {}}).items():
        _refuse_unfair(of_group, _FREE_IN_GROUPS, f"group {group!r}")
        configured += [_configure(flags, group, of_group, title, own) for title, own in rows.items()]
        _check_same_network(configured[-len(rows) :])
    _check_folders(configured)
    return tuple(configured)


def _configure(
    flags: Sequence[str], group: str, of_group: Mapping[str, Any], title: str, own: Mapping[str, Any]
) -> Row:
    _refuse_unfair(own, _FREE_IN_ROWS, f"row {title!r}")
    added = as_flags(of_group, CONFIGS, f"group {group!r}") + as_flags(own, CONFIGS, f"row {title!r}")
    try:
        values = _read([*flags, *added])
        data, names, train, *options, _, _ = build(CONFIGS, values)
        checked_mixing(data, options)
        check_start(names.student_init, values)
    except InputError as error:
        raise InputError(f"row {title!r}{f' of group {group!r}' if group else ''}: {error}") from error
    decay = {"weight_decay": 0.0} if keeps_start(values) else {}
    return Row(title, group, {**of_group, **own, **decay}, data, names, train, tuple(options))


def _read(flags: Sequence[str]) -> dict[str, Any]:
    """All fields, with the preset's: from scratch unless one is named, as rows may differ in what they start from."""
    values = read_fields(CONFIGS, flags)
    return fill(values, given_fields(flags), "scratch" if values["preset"] == "auto" else values["preset"])


def _check_same_network(rows: Sequence[Row]) -> None:
    for row in rows[1:]:
        if row.network != rows[0].network:
            raise InputError(
                f"rows {rows[0].label!r} and {row.label!r} train other networks, {rows[0].network} and {row.network}: "
                "every row trains the same one"
            )


def _check_folders(rows: Sequence[Row]) -> None:
    """Each run has a folder of its own, whose name has letters, digits and underscores only."""
    folders: dict[str, str] = {}
    for row in rows:
        if len(row.label.encode(errors="replace")) > _LONGEST_TITLE or not row.label.isprintable():
            raise InputError(
                f"title {reprlib.repr(row.label)}: expected at most {_LONGEST_TITLE} bytes of text that can be printed"
            )
        other = folders.setdefault(re.sub(r"\W+", "_", row.label).casefold(), row.label)
        if other != row.label:
            raise InputError(f"title {row.label!r} reads like {other!r} as the name of a folder: choose another")


def _check_folds(chosen: CompareConfig, base: Mapping[str, Any], output: OutputConfig, flags: set[str]) -> None:
    """Refuse what a cross-validation decides itself, what it cannot be, and one without a folder for its folds."""
    if chosen.folds:
        taken = [name for name in ("validation_share", "validation_fold", "validation_split") if base[name]]
        taken += ["seeds"] if "seeds" in flags else []
        if taken:
            raise InputError(
                f"folds {chosen.folds}: each fold is held out in its turn and has its number as its seed; leave out "
                f"{', '.join(taken)}"
            )
        if base["streaming"]:
            raise InputError("folds need to know every label beforehand, which a stream does not: leave out streaming")
        if output.extend_to_steps is not None:
            raise InputError("folds: a cross-validation cannot be extended; start a new one for more steps")
        if output.output_dir is None:
            raise InputError("folds: give --output_dir; each fold has a folder in it, beside the table of all")


def _check_shared(base: Mapping[str, Any], output: OutputConfig) -> None:
    if base["seed"] != TrainConfig.seed:
        raise InputError(f"seed {base['seed']}: a comparison has seeds, such as --seeds 0 1 2")
    if output.baselines or output.push_to_hub:
        raise InputError(
            "a comparison has its baselines as rows and publishes no student: no baselines, no push_to_hub"
        )
    if base["ema"] == "instead":
        raise InputError("ema instead: a comparison exports no student; beside gives the average rows of its own")
    if output.resume_from not in (None, "latest"):
        raise InputError(f"resume_from {output.resume_from!r}: a comparison goes on from where it stopped: latest")
