"""The results on a card: tables of all rows, the notes below them, and the model-index for the Hub.

Where nothing was measured, a function returns an empty text.
"""

from collections.abc import Callable

from huggingface_hub import EvalResult

from hf_transinv.evaluation.class_table import class_markdown
from hf_transinv.evaluation.result import ERROR_TITLES, Result
from hf_transinv.formats.markdown import MARK, escape, plain, steps, table, words
from hf_transinv.hub.recorded_run import Run

Arguments = dict[str, str | int] | None
"""Of a metric in the model-index."""

_ERRORS = ("mCE", "mCE_alexnet")


def scores_table(run: Run) -> str:
    """One row per model: clean images, the mean over the corruptions, augmented images; without empty columns."""
    main = run.main.results
    columns: dict[str, Callable[[Result], str]] = {
        "top-1": lambda result: _percent(result.clean.top1),
        "top-5": lambda result: _percent(result.clean.top5),
        "NLL": lambda result: _fixed(result.clean.nll),
        "ECE": lambda result: _fixed(result.clean.ece),
        "top-1, corrupted": lambda result: _percent(result.corruption_mean),
        **_unrelated_column(run),
        "ECE, corrupted": lambda result: _fixed(result.corruption_ece),
    }
    columns |= {f"top-1, {_title(name)}": _augmented(name) for name in main.augmented}
    columns |= {ERROR_TITLES[name]: _error(name) for name in _ERRORS if name in main.corruption_errors}
    cells = {title: [cell(row.results) for row in run.rows.values()] for title, cell in columns.items()}
    cells = {title: column for title, column in cells.items() if any(cell != "–" for cell in column)}
    rows = [[escape(name), *column] for name, *column in zip(run.rows, *cells.values(), strict=True)]
    return table(["model", *cells], rows)


def _unrelated_column(run: Run) -> dict[str, Callable[[Result], str]]:
    """The mean over the corruptions that no row's augmentation is kin to, where it differs from that over all."""
    if len(run.unrelated) in (0, len(run.main.results.corruptions)):
        return {}
    return {"top-1, no kin": lambda result: _percent(result.mean_over(run.unrelated))}


def _augmented(name: str) -> Callable[[Result], str]:
    return lambda result: _percent(result.augmented[name].top1 if name in result.augmented else None)


def _error(name: str) -> Callable[[Result], str]:
    return lambda result: _percent(
        result.corruption_errors[name].percent if name in result.corruption_errors else None
    )


def scores_note(run: Run) -> str:
    """What the columns of `scores_table` are, and what the rows have in common."""
    main = run.main.results
    top5 = " and top-5" if main.clean.top5 is not None else ""
    ece = "; ECE is the expected calibration error" if main.clean.ece is not None else ""
    notes = [f"Top-1{top5} in percent{ece}."]
    if _unrelated_column(run):
        kin = [_title(name) for name in main.corruptions if name not in run.unrelated]
        imitated = (
            f"{len(run.unrelated)} of {len(main.corruptions)} corruptions that the augmentation of no row imitates"
        )
        notes.append(f"No kin: mean over the {imitated}; it leaves out {words(kin)}.")
    images = {row.images_seen for row in run.rows.values()}
    if len(run.rows) > 1 and len(images) == 1 and None not in images:
        notes.append(
            "All rows start from the same weights and see the same number of training images "
            f"({run.main.images_seen:,})."
        )
    if not run.baselines:
        notes.append(
            "No baseline was trained beside it: nothing here says what plain training on as many images would reach."
        )
    for name in _ERRORS:
        if name in main.corruption_errors:
            notes.append(f"{ERROR_TITLES[name]} is the {escape(main.corruption_errors[name].definition)}.")
    if main.augmented:
        moved = words([f"{scores.kl:.3f} ({_title(name)})" for name, scores in main.augmented.items()])
        notes.append(
            "Augmented images are those of section 4.4 of Augmentation Invariant Training, each made once; the mean "
            f"KL divergence of the predictions on them from those on the originals is {moved} nats."
        )
    return " ".join(notes)


def classes(run: Run) -> str:
    """Macro F1 and the table of classes."""
    found = run.main.results.classes
    return "" if found is None else class_markdown(found)


def corruption_table(run: Run) -> str:
    """Top-1 by corruption: one column per model, or, of one model alone, one per severity.

    Corruptions that the card's model was trained on are marked.
    """
    main = run.main.results
    if not main.corruptions:
        return ""
    if len(run.rows) == 1:
        severities = [str(severity) for severity in main.severities]
        header = [f"severity {severity}" for severity in severities] + (["mean"] if len(severities) > 1 else [])
        places = [(main, column) for column in severities + (["mean"] if len(severities) > 1 else [])]
    else:
        header = [escape(name) for name in run.rows]
        places = [(row.results, "mean") for row in run.rows.values()]
    rows = []
    for name in main.corruptions:
        mark = f" {MARK}" if name in run.trained_on else ""
        rows.append([_title(name) + mark, *(_percent(result.mean_over([name], column)) for result, column in places)])
    means = [_percent(result.mean_over(main.corruptions, column)) for result, column in places]
    return table(["corruption", *header], [*rows, ["mean", *means]])


def corruption_heading(run: Run) -> str:
    """What `corruption_table` shows."""
    severities = run.main.results.severities
    mean = f", mean of the severities {steps(severities)}" if len(run.rows) > 1 and severities else ""
    source = "Under the corruptions of CIFAR-C and ImageNet-C (Hendrycks and Dietterich, ICLR 2019)"
    return f"{source}, top-1 in percent{mean}:"


def corruption_note(run: Run) -> str:
    """What the mark in `corruption_table` means, and the mean without the rows that have it."""
    if not run.trained_on:
        return ""
    note = f"{MARK} The model was trained on this corruption."
    main = run.main.results
    others = [name for name in main.corruptions if name not in run.trained_on]
    mean = main.mean_over(others)
    if mean is None or len(others) == len(main.corruptions):
        return note
    return f"{note} Mean of the {len(others)} that it was not trained on: {mean:.1f} %."


def eval_results(run: Run) -> list[EvalResult]:
    """The model-index: top-1, top-5, ECE and macro F1 on clean images, then under corruption; shares as fractions."""
    found, dataset, config = run.main.results, run.dataset, run.config
    severities: Arguments = {"severities": ", ".join(map(str, found.severities))} if found.severities else None
    measured: list[tuple[str, str, float | None, Arguments]] = [
        ("accuracy", "Top-1", _fraction(found.clean.top1), None),
        ("accuracy", "Top-5", _fraction(found.clean.top5), {"top_k": 5}),
        ("ece", "Expected calibration error", found.clean.ece, None),
        ("accuracy", "Top-1 under corruption, mean", _fraction(found.corruption_mean), severities),
        ("ece", "Expected calibration error under corruption, mean", found.corruption_ece, severities),
    ]
    if found.classes is not None:
        measured.append(("f1", "Macro F1", _fraction(found.classes.macro_f1), {"average": "macro"}))
    for name, error in found.corruption_errors.items():
        if name in _ERRORS:
            measured.append(
                ("mce", "Mean corruption error, percent", error.percent, {"definition": plain(error.definition)})
            )
    for name, by_severity in found.corruptions.items():
        title = plain(f"Top-1 under {name.replace('_', ' ')}")
        measured.append(("accuracy", title, _fraction(by_severity["mean"]), {"corruption": plain(name)}))
    return [
        EvalResult(
            task_type="image-classification",
            dataset_type=plain(dataset.name) if dataset.kind == "hub" else plain(dataset.kind or "unknown"),
            dataset_name=plain(dataset.name),
            dataset_config=_plain_or_none(config.dataset_config),
            dataset_split=_plain_or_none(dataset.eval_split),
            dataset_revision=_plain_or_none(config.dataset_revision),
            metric_type=kind,
            metric_name=name,
            metric_value=value,
            metric_args=given,
        )
        for kind, name, value, given in measured
        if value is not None
    ]


def _plain_or_none(text: str | None) -> str | None:
    return None if text is None else plain(text)


def _fraction(percent: float | None) -> float | None:
    return None if percent is None else round(percent / 100, 6)


def _title(name: str) -> str:
    return escape(name.replace("_", " "))


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def _fixed(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
