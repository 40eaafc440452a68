"""What a run says at its end: its figures, how they were measured, what was learned, and what to do next."""

import shlex
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from hf_transinv.augment.corruptions import CORRUPTIONS
from hf_transinv.config import DataConfig, OutputConfig
from hf_transinv.data.run_data import Data
from hf_transinv.evaluation.result import ERROR_TITLES, Result
from hf_transinv.formats.markdown import MARK, escape, steps, table
from hf_transinv.formats.terminal import printed
from hf_transinv.hub.recorded_run import Run
from hf_transinv.training.progress import teacher_titles


def closing_text(run: Run, data: Data, output: OutputConfig, folder: Path) -> str:
    """The whole text, for stdout.

    Args:
        run: as recorded.
        data: that it was evaluated on.
        output: what was measured.
        folder: of the run.
    """
    parts = (results_markdown(run), escape(measured_as(run.main.results, data)), learned_markdown(run))
    lines = [
        "",
        printed("\n\n".join(part for part in parts if part)),
        "",
        f"Student, figures, metrics and run.json are in {folder}",
        f"The student's card is {folder / 'student' / 'README.md'}",
        "Next:",
        *(f"  {line}" for line in next_commands(data, output, folder)),
    ]
    return "\n".join(lines)


def results_markdown(run: Run) -> str:
    """Top-1 in percent: a row for clean images, each augmentation, each corruption and each mean; a column per model.

    The best of each row is bold. With baselines, a last column says how much better the published row is than the
    first of them. What a model was not evaluated on shows as a dash.
    """
    found = {name: row.results for name, row in run.rows.items()}
    names = list(dict.fromkeys(name for result in found.values() for name in result.corruptions))
    augmented = list(dict.fromkeys(name for result in found.values() for name in result.augmented))
    seen = [name for name in names if name in run.trained_on]
    others, no_kin = [name for name in names if name not in seen], run.unrelated
    rows = [_row("clean", found, run, lambda result: result.clean.top1)]
    rows += [_row(name, found, run, partial(_augmented, name=name)) for name in augmented]
    means = {name: [name] for name in seen + others} | ({"mean of corruptions": names} if names else {})
    means |= {"mean of the others": others} if seen and others else {}
    means |= {"mean of no kin": no_kin} if 0 < len(no_kin) < len(names) else {}
    for title, chosen in means.items():
        rows.append(_row(title, found, run, partial(Result.mean_over, corruptions=chosen), chosen))
    notes = [f"{MARK} The model was trained on this corruption, or on one of those in the mean."] if seen else []
    for name, title in ERROR_TITLES.items():
        errors = [result.corruption_errors[name] for result in found.values() if name in result.corruption_errors]
        if len(errors) == len(found) and name != "mean_error":
            rows.append(_row(title, found, run, partial(_error, name=name), names, is_error=True))
            notes.append(f"{ERROR_TITLES[name]}: {escape(errors[0].definition)}.")
    if "mean of no kin" in means:
        notes.append(f"No kin: mean over what no row imitates in training, {len(no_kin)} of {len(names)} corruptions.")
    baseline = next(iter(run.baselines), None)
    header = ["top-1, %", *map(escape, found), *([f"{escape(run.main_row)} − {escape(baseline)}"] if baseline else [])]
    return "\n\n".join((table(header, rows), *notes))


def _row(
    title: str,
    found: dict[str, Result],
    run: Run,
    value_of: Callable[[Result], float | None],
    corruptions: Sequence[str] = (),
    is_error: bool = False,
) -> list[str]:
    """One row of the table.

    Args:
        title: of the row.
        found: results by model.
        run: that they are of.
        value_of: the figure of a result, in percent.
        corruptions: that it is a mean over; the figure of a model that was trained on one of them is marked.
        is_error: whether the lowest is the best.
    """
    values = {name: value_of(result) for name, result in found.items()}
    known = [round(value, 1) for value in values.values() if value is not None]
    best = (min if is_error else max)(known) if len(known) > 1 else None
    cells = []
    for name, value in values.items():
        mark = MARK if name == run.main_row and set(corruptions) & set(run.trained_on) else ""
        text = "–" if value is None else f"{value:.1f}{mark}"
        cells.append(f"**{text}**" if value is not None and round(value, 1) == best else text)
    baseline = next(iter(run.baselines), None)
    if baseline is not None:
        own, other = values[run.main_row], values[baseline]
        cells.append("–" if own is None or other is None else f"{own - other:+.1f}".replace("-", "−"))
    return [escape(title.replace("_", " ")), *cells]


def _error(result: Result, name: str) -> float:
    return result.corruption_errors[name].percent


def _augmented(result: Result, name: str) -> float | None:
    return result.augmented[name].top1 if name in result.augmented else None


def learned_markdown(run: Run) -> str:
    """r, q and p by teacher; empty where none were learned."""
    learned, rows = run.main.learned, []
    for index, teacher in enumerate(teacher_titles(run.config.teachers) if learned.p else ()):
        r = f"{learned.r[index]:.2f}" if learned.r else "–"
        rows.append([escape(teacher), r, *(f"{share:.2f}" for share in (learned.q[index], *learned.p[index]))])
    header = ["learned for", "r", "q", *(f"p: {escape(name.replace('_', ' '))}" for name in run.config.primitives)]
    return table(header, rows) if rows else ""


def measured_as(result: Result, data: Data) -> str:
    """How the figures were measured: on which images, how those were brought to size, and what drew corruptions."""
    config = data.config
    is_uniform = (config.interpolation, config.eval_crop_pct) == ("bilinear", 1.0)
    protocol = "protocol uniform" if is_uniform else f"{config.interpolation}, eval_crop_pct {config.eval_crop_pct:g}"
    images = f"{result.num_images} images of {config.dataset}, split {data.eval_split}"
    text = f"Measured on {images}, at {data.image_size} px ({protocol})"
    if result.corruptions:
        text += f"; corruptions at severity {steps(result.severities)}"
    return text + (f", seed {result.seed}." if result.corruptions or result.augmented else ".")


def next_commands(data: Data, output: OutputConfig, folder: Path) -> list[str]:
    """Commands that measure the student again, look into it, and publish it."""
    config, student = data.config, str(folder / "student")
    images = _flags(config, ("dataset", "dataset_config", "dataset_revision", "image_column"))
    if data.evaluation is data.validation and config.validation_share:
        split = ["--train_split", config.train_split, "--validation_share", f"{config.validation_share:g}"]
        split += _flags(config, ("validation_fold",))
        whole = ["--eval_split", config.train_split]
    else:
        split = whole = ["--eval_split", data.eval_split]
    measured = _flags(config, ("label_column", "on_bad_image"))
    if output.eval_corruptions not in (("all",), CORRUPTIONS):
        measured += ["--eval_corruptions", *output.eval_corruptions]
    if output.eval_severities != OutputConfig.eval_severities:
        measured += ["--eval_severities", *map(str, output.eval_severities)]
    if output.eval_augment:
        measured += ["--augment", *output.eval_augment]
    commands = [
        ["transinv", "evaluate", "--model", student, *images, *split, *measured],
        ["transinv", "invariance", "--model", student, *images, *whole],
    ]
    if output.push_to_hub is None:
        commands.append(["transinv", "push", str(folder), "USER/NAME"])
    return [shlex.join(command) for command in commands]


def _flags(config: DataConfig, names: Sequence[str]) -> list[str]:
    """Those of the fields that are not at their defaults, as flags."""
    given = {name: getattr(config, name) for name in names if getattr(config, name) != getattr(DataConfig, name)}
    return [token for name, value in given.items() for token in (f"--{name}", str(value))]
