"""The table of a comparison: what each row came to, over its seeds, as numbers and as Markdown.

    clean        top-1 on the evaluation images, percent
    top1_NAME    the same on those that the augmentation NAME has changed (see `evaluation`)
    corrupted    mean top-1 over the corruptions (see `evaluation`), percent
    unseen       the same over those that no row of the group was trained on, where one was
    mCE, ...     the errors under corruption that the evaluation defines, percent
    ece, ece_corrupted    expected calibration error, clean and mean over the corruptions, in [0, 1]
    train_seconds    of training alone
    cost         train_seconds relative to the plain row of the same group and seed
    images       that each network has been shown in training: the same in all rows
    kl_NAME, feature_distance_NAME    how far that augmentation moves predictions (nats) and features

Each is mean +- standard deviation (n - 1) over seeds. A peer, which trained beside a row's student, has a row of its
own without seconds: its training is that of the student.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from hf_transinv.comparison.figure import plot_comparison
from hf_transinv.comparison.plan import Comparison, Row
from hf_transinv.evaluation.conditions import AUGMENTATIONS
from hf_transinv.files import atomic_write_text, write_json
from hf_transinv.markdown import duration, escape, steps, table

Measures = dict[str, float]
MEAN_GROUP = "mean of groups"
_MARK = "\\*"
_COLUMNS = {
    "clean": "clean",
    **{f"top1_{name}": name.replace("_", " ") for name in AUGMENTATIONS},
    "corrupted": "corrupted",
    "unseen": "corrupted, unseen",
    "mCE": "mCE",
    "mCE_alexnet": "mCE (AlexNet = 100)",
    "mean_error": "mean error",
    "ece": "ECE",
    "ece_corrupted": "ECE, corrupted",
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
_ON_CORRUPTED = ("corrupted", "mCE", "mCE_alexnet", "mean_error")


def summarise(rows: Sequence[Row], found: Mapping[str, Any], plain: str | None = None) -> list[dict[str, Any]]:
    """What each row came to.

    Args:
        rows: of the comparison, in the order of the table; those without a result are left out.
        found: the rows of run.json, "LABEL, seed N" and "LABEL, seed N, PEER".
        plain: title of the row to which cost is relative.

    Returns:
        {"group", "row", "seeds", "trained_on", "measures": {name: {"mean", "deviation", "values"}}} each, the
        deviation None with one seed. Where there are several groups, each row's mean over them follows, of the seeds
        that all of them have.
    """
    values: dict[tuple[str, str], dict[int, Measures]] = {}
    for row in rows:
        of_group = [other for other in rows if other.group == row.group]
        seen = {name for other in of_group for name in other.trained_on}
        seconds = _plain_seconds(of_group, found, plain)
        for seed, player, result in _results(row, found):
            title = f"{row.title}, {player}" if player else row.title
            measures = _measures(result, seen)
            if player:
                del measures["train_seconds"]
            elif seconds.get(seed):
                measures["cost"] = measures["train_seconds"] / seconds[seed]
            values.setdefault((row.group, title), {})[seed] = measures
    trained_on = {(row.group, row.title): list(row.trained_on) for row in rows}
    entries = [_entry(*key, by_seed, trained_on.get(key, [])) for key, by_seed in values.items()]
    groups = list(dict.fromkeys(row.group for row in rows))
    for title in dict.fromkeys(title for _, title in values) if len(groups) > 1 else ():
        by_seed = _over_groups([values.get((group, title), {}) for group in groups])
        if by_seed:
            seen = {name for (_, other), names in trained_on.items() if other == title for name in names}
            entries.append(_entry(MEAN_GROUP, title, by_seed, sorted(seen)))
    return entries


def _results(row: Row, found: Mapping[str, Any]) -> list[tuple[int, str, Mapping[str, Any]]]:
    """Seed, player ("" for the student) and result of each run of a row, by seed."""
    pattern = re.compile(rf"{re.escape(row.label)}, seed (\d+)(?:, (\w+))?")
    matches = [(match, result) for name, result in found.items() if (match := pattern.fullmatch(name))]
    return sorted(
        ((int(match[1]), match[2] or "", result) for match, result in matches), key=lambda each: (each[1], each[0])
    )


def _plain_seconds(of_group: Iterable[Row], found: Mapping[str, Any], plain: str | None) -> dict[int, float]:
    """Training seconds of the group's plain row, by seed."""
    return {
        seed: result["train_seconds"]
        for row in of_group
        if row.title == plain
        for seed, player, result in _results(row, found)
        if not player
    }


def _measures(result: Mapping[str, Any], seen: set[str]) -> Measures:
    """The measures of one run, in the order of the columns."""
    scores = result["results"]
    augmented = scores.get("augmented", {})
    measures = {"clean": scores["clean"]["top1"]} | {f"top1_{name}": row["top1"] for name, row in augmented.items()}
    if scores["corruptions"]:
        measures["corrupted"] = scores["corruption_mean"]
        unseen = [row["mean"] for name, row in scores["corruptions"].items() if name not in seen]
        if unseen and len(unseen) < len(scores["corruptions"]):
            measures["unseen"] = fmean(unseen)
        measures |= {name: error["percent"] for name, error in scores["corruption_errors"].items()}
    measures["ece"] = scores["clean"]["ece"]
    if scores["corruptions"]:
        measures["ece_corrupted"] = scores["corruption_ece"]
    for name, row in augmented.items():
        moved = {f"{measure}_{name}": row[measure] for measure in ("kl", "feature_distance")}
        measures |= {measure: value for measure, value in moved.items() if value is not None}
    return measures | {
        "train_seconds": result["train_seconds"],
        "images": result["images_seen"],
    }


def _over_groups(of_groups: Sequence[Mapping[int, Measures]]) -> dict[int, Measures]:
    """The mean over the groups, for the seeds and measures that all of them have."""
    means = {}
    for seed in of_groups[0]:
        if all(seed in by_seed for by_seed in of_groups):
            each = [by_seed[seed] for by_seed in of_groups]
            shared = [name for name in each[0] if all(name in measures for measures in each)]
            means[seed] = {name: fmean(measures[name] for measures in each) for name in shared}
    return means


def _entry(group: str, title: str, by_seed: Mapping[int, Measures], trained_on: list[str]) -> dict[str, Any]:
    measures = {}
    for name in dict.fromkeys(name for found in by_seed.values() for name in found):
        values = [found[name] for found in by_seed.values() if name in found]
        deviation = stdev(values) if len(values) > 1 else None
        measures[name] = {"mean": fmean(values), "deviation": deviation, "values": values}
    return {"group": group, "row": title, "seeds": list(by_seed), "trained_on": trained_on, "measures": measures}


def comparison_markdown(
    entries: Sequence[Mapping[str, Any]], plain: str | None = None, definitions: Mapping[str, str] | None = None
) -> str:
    """The table of `summarise`, and what its columns are; a second one of how far augmentations move the answers.

    Args:
        entries: of `summarise`.
        plain: title of the row to which cost is relative.
        definitions: of the errors under corruption, by name.
    """
    shown, moved = (
        [name for name in columns if any(name in entry["measures"] for entry in entries)]
        for columns in (_COLUMNS, _VARIATION)
    )
    all_seeds = sorted({seed for entry in entries for seed in entry["seeds"]})
    text = _table(entries, shown, all_seeds)
    text += f"\n\n{' '.join(_notes(entries, shown, all_seeds, plain, definitions or {}))}\n"
    if moved:
        text += f"\n{_table(entries, moved, all_seeds)}\n\n{_VARIATION_NOTE}\n"
    return text


def _table(entries: Sequence[Mapping[str, Any]], shown: Sequence[str], all_seeds: Sequence[int]) -> str:
    """A line an entry, a column each of the measures shown."""
    has_groups = any(entry["group"] for entry in entries)
    has_gaps = any(entry["seeds"] != all_seeds for entry in entries)
    titles = [*(["group"] if has_groups else []), "row", *(["seeds"] if has_gaps else [])]
    lines = []
    for entry in entries:
        of_row = [*([escape(entry["group"])] if has_groups else []), escape(entry["row"])]
        of_row += [", ".join(map(str, entry["seeds"]))] if has_gaps else []
        lines.append([*of_row, *(_cell(name, entry) for name in shown)])
    columns = _COLUMNS | _VARIATION
    return table([*titles, *(columns[name] for name in shown)], lines, numeric_from=len(titles))


def _cell(name: str, entry: Mapping[str, Any]) -> str:
    if name not in entry["measures"]:
        return "–"
    mean, deviation = (entry["measures"][name][key] for key in ("mean", "deviation"))
    mark = _MARK if entry["trained_on"] and name in _ON_CORRUPTED else ""
    if name == "train_seconds":
        return duration(mean)
    decimals = _DECIMALS.get(name, 1)
    spread = f" ± {deviation:.{decimals}f}" if deviation is not None else ""
    return f"{mean:,.{decimals}f}{spread}{mark}"


def _notes(
    entries: Sequence[Mapping[str, Any]],
    shown: Sequence[str],
    seeds: Sequence[int],
    plain: str | None,
    definitions: Mapping[str, str],
) -> list[str]:
    several = f"Mean ± standard deviation (n − 1) of seeds {steps(seeds)}." if len(seeds) > 1 else f"Seed {seeds[0]}."
    images = f"Every network was shown {entries[0]['measures']['images']['mean']:,.0f} training images."
    notes = [several, images, "Percent, but for ECE (0 to 1) and time, which is that of training alone."]
    notes += [f"{_COLUMNS[name]}: {definitions[name]}." for name in shown if name in definitions]
    if "cost" in shown:
        notes.append(f"Cost: training time relative to {escape(plain)}.")
    if any(entry["trained_on"] for entry in entries):
        notes.append(f"{_MARK} trained on some of the corruptions; unseen are those that no row of the group was.")
    return notes


def write_comparison(comparison: Comparison, found: Mapping[str, Any], folder: Path) -> str:
    """Write comparison.json, comparison.md and figures/comparison.png of what has been found so far.

    Args:
        comparison: rows and titles.
        found: the rows of run.json.
        folder: the output folder.

    Returns:
        The table.
    """
    entries = summarise(comparison.rows, found, comparison.plain)
    errors = next(iter(found.values()))["results"]["corruption_errors"]
    definitions = {name: error["definition"] for name, error in errors.items()}
    content = {"scale": comparison.config["scale"], "plain": comparison.plain, "definitions": definitions}
    write_json(folder / "comparison.json", content | {"rows": entries})
    text = comparison_markdown(entries, comparison.plain, definitions)
    atomic_write_text(folder / "comparison.md", text)
    plot_comparison(entries, folder / "figures" / "comparison.png")
    return text
