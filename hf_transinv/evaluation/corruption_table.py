"""Results as Markdown: several models in one table, or one model's corruptions and severities."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hf_transinv.evaluation.class_table import class_markdown
from hf_transinv.evaluation.result import ERROR_TITLES, AugmentedScores, Result
from hf_transinv.formats.markdown import MARK, escape, table
from hf_transinv.formats.typed_json import read_as


def corruption_markdown(
    results: Mapping[str, Mapping[str, Any]], trained_on: Mapping[str, Sequence[str]] | None = None
) -> str:
    """A Markdown table of top-1 in percent, one row per model.

    The columns are clean images, each augmentation, each corruption (mean over the severities), and the mean of the
    corruptions. What a model was not evaluated on shows as a dash.

    Args:
        results: model name -> what `evaluate` returned.
        trained_on: model name -> corruptions it was trained on. Their columns come first, their cells are marked, and
            a last column is the mean of the corruptions that no model was trained on.
    """
    trained_on = trained_on or {}
    found = {model: read_as(Result, result, model) for model, result in results.items()}
    names = _union(result.corruptions for result in found.values())
    augmentations = _union(result.augmented for result in found.values())
    seen = [name for name in names if any(name in trained_on.get(model, ()) for model in found)]
    others = [name for name in names if name not in seen]
    means = {"mean of corruptions": names} if names else {}
    means |= {"mean of the others": others} if seen and others else {}
    errors = [
        name
        for name in ("mCE", "mCE_alexnet")
        if found and all(name in result.corruption_errors for result in found.values())
    ]
    titles = [*map(_title, augmentations + seen + others), *means, *(ERROR_TITLES[name] for name in errors)]
    rows = []
    for model, result in found.items():
        own = set(trained_on.get(model, ()))
        cells = [_cell(result.clean.top1)]
        cells += [_cell(result.augmented[name].top1 if name in result.augmented else None) for name in augmentations]
        cells += [_cell(result.mean_over([name]), name in own) for name in seen + others]
        cells += [_cell(result.mean_over(chosen), bool(own & set(chosen))) for chosen in means.values()]
        cells += [_cell(result.corruption_errors[name].percent, bool(own & set(names))) for name in errors]
        rows.append([escape(model), *cells])
    definitions = next(iter(found.values())).corruption_errors if found else {}
    notes = [f"{ERROR_TITLES[name]}: {escape(definitions[name].definition)}." for name in errors]
    return f"{table(['model', 'clean', *titles], rows)}\n{_notes(notes, bool(seen))}"


def evaluation_markdown(
    title: str, result: Mapping[str, Any], trained_on: Sequence[str] = (), kin: Sequence[str] = ()
) -> str:
    """One model's result: its scores on clean images, then tables by class, augmentation, corruption and severity.

    Args:
        title: what was evaluated on what, as Markdown.
        result: what `evaluate` returned.
        trained_on: corruptions that the model was trained on; their rows are marked.
        kin: corruptions that its training imitated (see `augment.kin`), those of `trained_on` among them or not.
    """
    found = read_as(Result, result, "result")
    clean, names = found.clean, list(found.corruptions)
    top5 = f"top-5 {clean.top5:.2f} %, " if clean.top5 is not None else ""
    scores = f"top-1 {clean.top1:.2f} %, {top5}NLL {clean.nll:.4f}, ECE {clean.ece:.4f}, "
    text = f"{title}\n\n{found.num_images} clean images: {scores}Brier score {clean.brier:.4f}.\n"
    if found.classes is not None:
        text += f"\n{class_markdown(found.classes)}\n"
    if found.augmented:
        text += f"\n{_augmented_table(found.augmented)}"
    if not names:
        return text
    columns = [*map(str, found.severities), "mean"]
    rows = [
        [_title(name), *(_cell(found.corruptions[name][c], name in trained_on) for c in columns)] for name in names
    ]
    is_mixed = any(name in trained_on for name in names)
    rows.append(["mean", *(_cell(found.mean_over(names, column), is_mixed) for column in columns)])
    notes = [
        f"{ERROR_TITLES[name]} {error.percent:.1f} %: {escape(error.definition)}."
        for name, error in found.corruption_errors.items()
    ]
    notes.append(f"Mean ECE under corruption {found.corruption_ece:.4f}.")
    others = [name for name in names if name not in trained_on]
    if is_mixed and others:
        mean = found.mean_over(others)
        notes.append(f"Mean top-1 under the {len(others)} corruptions that it was not trained on: {mean:.1f} %.")
    unrelated = [name for name in others if name not in kin]
    if 0 < len(unrelated) < len(others):
        mean = found.mean_over(unrelated)
        notes.append(
            f"No kin: mean top-1 under the {len(unrelated)} that its training does not imitate: {mean:.1f} %."
        )
    return f"{text}\n{table(['corruption', *columns], rows)}\n{_notes(notes, is_mixed)}"


def _augmented_table(augmented: Mapping[str, AugmentedScores]) -> str:
    """Top-1, and how far the answers move: one row per augmentation."""
    knows_features = any(scores.feature_distance is not None for scores in augmented.values())
    header = ["augmented by", "top-1", "KL", *(["feature distance"] if knows_features else [])]
    rows = [[_title(name), _cell(scores.top1), f"{scores.kl:.4f}"] for name, scores in augmented.items()]
    notes = ["KL of the predictions from those on the original images, in nats; mean over the images."]
    if knows_features:
        for row, scores in zip(rows, augmented.values(), strict=True):
            row.append("–" if scores.feature_distance is None else f"{scores.feature_distance:.3f}")
        notes.append("Feature distance: Euclidean, between the penultimate features; mean over the images.")
    return f"{table(header, rows)}\n{_notes(notes, False)}"


def _union(of_models: Iterable[Iterable[str]]) -> list[str]:
    return list(dict.fromkeys(name for names in of_models for name in names))


def _title(name: str) -> str:
    return escape(name.replace("_", " "))


def _cell(value: float | None, is_marked: bool = False) -> str:
    return "–" if value is None else f"{value:.1f}{MARK if is_marked else ''}"


def _notes(notes: Sequence[str], has_marks: bool) -> str:
    marks = [f"{MARK} The model was trained on this corruption, or on one of those in the mean."]
    lines = [*(marks if has_marks else []), *notes]
    return "".join(f"\n{line}\n" for line in lines)
