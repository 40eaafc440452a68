"""A comparison as files: its table as Markdown, its numbers as JSON, its picture."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hf_transinv.comparison.budget import Budget
from hf_transinv.comparison.figure import plot_comparison
from hf_transinv.comparison.measures import Entry, differences, read_trained, summarise
from hf_transinv.comparison.plan import Comparison
from hf_transinv.evaluation.conditions import AUGMENTATIONS
from hf_transinv.evaluation.result import ERROR_TITLES
from hf_transinv.files import atomic_write_text, write_json
from hf_transinv.formats.markdown import MARK, duration, escape, steps, table

_COLUMNS = {
    "clean": "clean",
    **{f"top1_{name}": name.replace("_", " ") for name in AUGMENTATIONS},
    "corrupted": "corrupted",
    "no_kin": "no kin",
    **ERROR_TITLES,
    "ece": "ECE",
    "ece_corrupted": "ECE, corrupted",
    "steps": "steps",
    "shown": "shown",
    "distinct": "distinct",
    "train_seconds": "time",
    "cost": "cost",
}
_VARIATION = {
    f"{measure}_{name}": f"{title}, {name.replace('_', ' ')}"
    for measure, title in (("kl", "KL"), ("feature_distance", "distance"))
    for name in AUGMENTATIONS
}
_DECIMALS = {"ece": 3, "ece_corrupted": 3, "cost": 2, **dict.fromkeys(_VARIATION, 3)}  # of the others: 1
_VARIATION_NOTE = (
    "KL: of the predictions on augmented images from those on the originals, in nats. Distance: Euclidean, between "
    "the features of the two. Means over the images."
)
_DIFFERENCES_NOTE = (
    "The same, less {plain} with the same seed: mean ± standard deviation of the differences, in which what all rows "
    "of a seed have in common cancels out."
)
_COUNTS = ("steps", "shown", "distinct")
_BUDGETS = {
    "passes": "makes as many passes through networks as {plain}, in whole steps",
    "seconds": "has the steps that fit into the time of {plain}, by what steps took before training",
}
_ON_CORRUPTED = ("corrupted", *ERROR_TITLES)


def comparison_markdown(
    entries: Sequence[Entry],
    plain: str | None = None,
    definitions: Mapping[str, str] | None = None,
    budget: str = "images",
    folds: int = 0,
) -> str:
    """The table of `summarise` with a note on its columns, the differences, and how far augmentations move answers.

    Args:
        entries: at least one.
        plain: title of the row to which cost is relative, and which the others are compared with.
        definitions: of the errors under corruption, by name.
        budget: what all rows have alike.
        folds: of the cross-validation; 0: it is none.
    """
    shown, moved = (
        [name for name in columns if any(name in entry.measures for entry in entries)]
        for columns in (_COLUMNS, _VARIATION)
    )
    all_seeds = sorted({seed for entry in entries for seed in entry.seeds})
    if budget == "images":  # and steps
        shown = [name for name in shown if name != "steps"]
    text = _table(entries, shown, all_seeds)
    notes = _notes(entries, shown, all_seeds, plain, definitions or {})
    if folds:
        notes.insert(1, f"Cross-validation: with seed K fold K of {folds} is held out and measured.")
    if budget != "images":
        notes.insert(1, f"Every row {_BUDGETS[budget].format(plain=escape(str(plain)))}.")
    text += f"\n\n{' '.join(notes)}\n"
    gained = differences(entries, plain)
    if gained:
        columns = [name for name in _COLUMNS if any(name in entry.measures for entry in gained)]
        note = _DIFFERENCES_NOTE.format(plain=escape(str(plain)))
        text += f"\n{_table(gained, columns, all_seeds, '+')}\n\n{note}\n"
    if moved:
        text += f"\n{_table(entries, moved, all_seeds)}\n\n{_VARIATION_NOTE}\n"
    return text


def _table(entries: Sequence[Entry], shown: Sequence[str], all_seeds: Sequence[int], sign: str = "") -> str:
    """One line per entry, one column for each of the measures shown; with the sign "+", also of what is positive."""
    has_groups = any(entry.group for entry in entries)
    has_gaps = any(entry.seeds != all_seeds for entry in entries)
    titles = [*(["group"] if has_groups else []), "row", *(["seeds"] if has_gaps else [])]
    lines = []
    for entry in entries:
        of_row = [*([escape(entry.group)] if has_groups else []), escape(entry.row)]
        of_row += [", ".join(map(str, entry.seeds))] if has_gaps else []
        lines.append([*of_row, *(_cell(name, entry, sign) for name in shown)])
    columns = _COLUMNS | _VARIATION
    return table([*titles, *(columns[name] for name in shown)], lines, numeric_from=len(titles))


def _cell(name: str, entry: Entry, sign: str = "") -> str:
    if name not in entry.measures:
        return "–"
    spread = entry.measures[name]
    if name == "train_seconds":
        return duration(spread.mean)
    mark = MARK if entry.trained_on and name in _ON_CORRUPTED else ""
    if name in _COUNTS:
        return f"{spread.mean:,.0f}"
    decimals = _DECIMALS.get(name, 1)
    deviation = f" ± {spread.deviation:.{decimals}f}" if spread.deviation is not None else ""
    return f"{spread.mean:{sign},.{decimals}f}{deviation}{mark}"


def _notes(
    entries: Sequence[Entry],
    shown: Sequence[str],
    seeds: Sequence[int],
    plain: str | None,
    definitions: Mapping[str, str],
) -> list[str]:
    several = f"Mean ± standard deviation (n − 1) of seeds {steps(seeds)}." if len(seeds) > 1 else f"Seed {seeds[0]}."
    images = f"Every network was shown {entries[0].measures['images'].mean:,.0f} training images."
    if "shown" in shown:
        images = (
            "Shown: versions of training images that a network answered to in its own turns. Distinct: the images of "
            "its batches, of which they are versions. Both count an image in every epoch anew."
        )
    notes = [several, images, "Percent, but for ECE (0 to 1) and time, which is that of training alone."]
    notes += [f"{_COLUMNS[name]}: {escape(definitions[name])}." for name in shown if name in definitions]
    if "cost" in shown:
        notes.append(f"Cost: training time relative to {escape(plain)}.")
    if "no_kin" in shown:
        notes.append("No kin: mean over the corruptions that no row of the group imitates in training.")
    if any(entry.trained_on for entry in entries):
        notes.append(f"{MARK} trained on some of the corruptions.")
    return notes


def write_comparison(comparison: Comparison, found: Mapping[str, Any], folder: Path, budget: Budget) -> None:
    """Write comparison.json, comparison.md and figures/comparison.png of the results so far.

    Args:
        comparison: rows and titles.
        found: the rows of run.json.
        folder: the output folder.
        budget: what was decided; in a cross-validation by fold.

    Raises:
        InputError: a row of run.json is not as a run writes it.
    """
    entries = summarise(comparison.rows, found, comparison.plain)
    errors = read_trained(comparison.rows, found)[0].record.results.corruption_errors
    definitions = {name: error.definition for name, error in errors.items()}
    content = {"scale": comparison.config["scale"], "plain": comparison.plain, "definitions": definitions}
    content |= {"budget": budget}
    content |= {"rows": [asdict(entry) for entry in entries]}
    content |= {"differences": [asdict(entry) for entry in differences(entries, comparison.plain)]}
    write_json(folder / "comparison.json", content)
    chosen = comparison.chosen
    text = comparison_markdown(entries, comparison.plain, definitions, chosen.budget, chosen.folds)
    atomic_write_text(folder / "comparison.md", text)
    plot_comparison(entries, folder / "figures" / "comparison.png")
