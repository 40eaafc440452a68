"""Recall and F1 of each class as bars, the worst at the top."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from hf_transinv.figures.palette import AREA, STRONG
from hf_transinv.figures.style import bare, class_labels, save_figure

MOST_CLASSES = 50
"""Of more, only the worst and the best are shown."""
NUM_EXTREMES = 15


def plot_classes(
    recall: Sequence[float | None],
    f1: Sequence[float | None],
    support: Sequence[int],
    names: Sequence[str],
    path: str | Path,
) -> Path:
    """Plot the recall of each class as a bar and its F1 as a point, sorted by recall.

    Args:
        recall: in percent; None for a class without images, which is left out.
        f1: in percent; None for the same.
        support: images of each class.
        names: of the classes.
        path: of the figure; its extension chooses the format (.png, .pdf, .svg).

    Returns:
        The path.
    """
    labels = class_labels(names)
    found = [
        (own, harmonic, f"{label} · {images}")
        for own, harmonic, label, images in zip(recall, f1, labels, support, strict=True)
        if own is not None and harmonic is not None
    ]
    found.sort(key=lambda one: one[:2])
    # (place on the page, recall, F1, label)
    places = [(float(place), *one) for place, one in enumerate(found)]
    if left_out := max(0, len(found) - 2 * NUM_EXTREMES) if len(found) > MOST_CLASSES else 0:
        worst, best = found[:NUM_EXTREMES], found[-NUM_EXTREMES:]
        places = [(float(place), *one) for place, one in enumerate(worst)]
        places += [(float(place), *one) for place, one in enumerate(best, NUM_EXTREMES + 1)]
    rows = len(places) + bool(left_out)
    figure = Figure(figsize=(6, 0.19 * max(rows, 3) + 1.0), layout="constrained")
    axes = figure.subplots()
    where = [place[0] for place in places]
    bars = axes.barh(where, [place[1] for place in places], color=AREA, height=0.75)
    (points,) = axes.plot([place[2] for place in places], where, "o", color=STRONG, markersize=3.5)
    for place, own, _, _ in places:
        axes.text(0.8, place, f"{own:.0f}", va="center", fontsize=7)
    mean = sum(one[0] for one in found) / len(found)
    line = axes.axvline(mean, color="#666666", linewidth=0.8, linestyle="--")
    if left_out:
        axes.text(1, NUM_EXTREMES, f"… {left_out} more classes …", va="center", fontsize=7, color="#444444")
    axes.set_yticks(where, [place[3] for place in places])
    axes.set_ylim(rows - 0.4, -0.6)
    axes.set_xlim(0, 101)
    axes.set_xticks(range(0, 101, 20))
    bare(axes)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    absent = len(names) - len(found)
    title = "Recall and F1 of each class · number of its images"
    axes.set_title(f"{title} ({absent} without)" if absent else title, fontsize=9, loc="left")
    axes.set_xlabel("%", fontsize=8)
    told = ["recall", "F1", f"balanced accuracy: {mean:.1f}"]
    figure.legend(
        [bars.patches[0], points, line], told, loc="outside lower center", ncols=3, fontsize=8, frameon=False
    )
    return save_figure(figure, path)
