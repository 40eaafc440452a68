"""Results as Markdown: several models in one table, or one model's corruptions and severities."""

from collections.abc import Mapping, Sequence
from typing import Any

_MEASURES = {"mCE": "mCE", "mCE_alexnet": "mCE (AlexNet = 100)", "mean_error": "mean error"}
_MARK = "\\*"


def corruption_markdown(
    results: Mapping[str, dict[str, Any]], trained_on: Mapping[str, Sequence[str]] | None = None
) -> str:
    """A Markdown table of top-1 in percent, with one row per model.

    Columns: clean, each augmentation, the mean of each corruption over its severities, the mean of those, mCE.

    Args:
        results: model name -> result of `evaluate`. A corruption that a model was not evaluated on is a dash.
        trained_on: model name -> corruptions it was trained on. Their columns come first and their cells are marked;
            a further column is the mean of the corruptions that no model was trained on.
    """
    trained_on = trained_on or {}
    names = list(dict.fromkeys(name for result in results.values() for name in result["corruptions"]))
    seen = [name for name in names if any(name in trained_on.get(model, ()) for model in results)]
    others = [name for name in names if name not in seen]
    means = {"mean of corruptions": names} if names else {}
    means |= {"mean of the others": others} if seen and others else {}
    measures = _common_measures(results)
    augmented = list(dict.fromkeys(name for result in results.values() for name in result.get("augmented", {})))
    titles = [name.replace("_", " ") for name in augmented + seen + others]
    columns = ["clean", *titles, *means, *map(_MEASURES.get, measures)]
    rows = []
    for model, result in results.items():
        own, top1 = set(trained_on.get(model, ())), {name: row["mean"] for name, row in result["corruptions"].items()}
        cells = [_cell(result["clean"]["top1"])]
        cells += [_cell(result.get("augmented", {}).get(name, {}).get("top1")) for name in augmented]
        cells += [_cell(top1.get(name), name in own) for name in seen + others]
        cells += [_cell(_mean_of(top1, chosen), bool(own & set(chosen))) for chosen in means.values()]
        cells += [_cell(result["corruption_errors"][name]["percent"], bool(own & set(names))) for name in measures]
        rows.append([model.replace("|", "\\|"), *cells])
    first = next(iter(results.values()), {})
    notes = [f"{_MEASURES[name]}: {first['corruption_errors'][name]['definition']}." for name in measures]
    return _table(["model", *columns], rows) + _notes(notes, bool(seen))


def evaluation_markdown(title: str, result: dict[str, Any], trained_on: Sequence[str] = ()) -> str:
    """One model's result as Markdown: scores on clean images, by augmentation, by corruption and severity.

    Args:
        title: names the model and the data.
        result: of `evaluate`.
        trained_on: corruptions that the model was trained on; their rows are marked.
    """
    clean, table = result["clean"], result["corruptions"]
    top5 = f"top-5 {clean['top5']:.2f} %, " if "top5" in clean else ""
    scores = f"top-1 {clean['top1']:.2f} %, {top5}NLL {clean['nll']:.4f}, ECE {clean['ece']:.4f}, "
    text = f"{title}\n\n{result['num_images']} clean images: {scores}Brier score {clean['brier']:.4f}.\n"
    if result.get("augmented"):
        text += f"\n{_augmented_table(result['augmented'])}"
    if not table:
        return text
    severities = [str(severity) for severity in result["severities"]]
    rows = [
        [name.replace("_", " "), *(_cell(row[column], name in trained_on) for column in [*severities, "mean"])]
        for name, row in table.items()
    ]
    is_mixed = any(name in trained_on for name in table)
    columns = [_mean_of({name: row[column] for name, row in table.items()}, list(table)) for column in severities]
    rows.append(["mean", *(_cell(value, is_mixed) for value in [*columns, result["corruption_mean"]])])
    notes = [
        f"{_MEASURES[name]} {measure['percent']:.1f} %: {measure['definition']}."
        for name, measure in result["corruption_errors"].items()
    ]
    notes.append(f"Mean ECE under corruption {result['corruption_ece']:.4f}.")
    others = [name for name in table if name not in trained_on]
    if is_mixed and others:
        mean = _mean_of({name: row["mean"] for name, row in table.items()}, others)
        notes.append(f"Mean top-1 under the {len(others)} corruptions that it was not trained on: {mean:.1f} %.")
    return f"{text}\n{_table(['corruption', *severities, 'mean'], rows)}{_notes(notes, is_mixed)}"


def _augmented_table(augmented: Mapping[str, Mapping[str, float | None]]) -> str:
    """Top-1 and the change of the predictions, one row per augmentation."""
    knows_features = any(row["feature_distance"] is not None for row in augmented.values())
    rows = [
        [
            name.replace("_", " "),
            _cell(row["top1"]),
            f"{row['kl']:.4f}",
            *([f"{row['feature_distance']:.3f}"] if knows_features else []),
        ]
        for name, row in augmented.items()
    ]
    notes = ["KL of the predictions from those on the original images, in nats; mean over the images."]
    if knows_features:
        notes.append("Feature distance: Euclidean, from the penultimate features of the original; likewise.")
    header = ["augmented by", "top-1", "KL", *(["feature distance"] if knows_features else [])]
    return _table(header, rows) + _notes(notes, False)


def _common_measures(results: Mapping[str, dict[str, Any]]) -> list[str]:
    """The mCEs that every result has; results of earlier versions have none."""
    found = [result.get("corruption_errors", {}) for result in results.values()]
    return [name for name in ("mCE", "mCE_alexnet") if found and all(name in measures for measures in found)]


def _mean_of(top1: Mapping[str, float], names: Sequence[str]) -> float | None:
    """The mean of some corruptions; None if one was not measured, as rows would then have means of different ones."""
    return sum(top1[name] for name in names) / len(names) if all(name in top1 for name in names) else None


def _cell(value: float | None, is_marked: bool = False) -> str:
    return "–" if value is None else f"{value:.1f}{_MARK if is_marked else ''}"


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _notes(notes: Sequence[str], has_marks: bool) -> str:
    marks = [f"{_MARK} The model was trained on this corruption, or the mean has one it was trained on."]
    lines = [*(marks if has_marks else []), *notes]
    return "".join(f"\n{line}\n" for line in lines)
