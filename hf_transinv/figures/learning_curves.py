"""Learning curves from the lines of metrics.jsonl."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from hf_transinv.figures.palette import SOFT, STRONG, text_color
from hf_transinv.figures.style import bare, save_figure

# Panel -> key in metrics.jsonl -> name of its curve.
PANELS = {
    "loss": {"student/total": "training", "eval/loss": "validation"},
    "validation top-1 (%)": {"eval/top1": ""},
}


def plot_curves(lines: Sequence[Mapping[str, Any]], path: str | Path) -> Path | None:
    """Plot the training loss, and where lines have them the loss and the top-1 on validation images, over the steps.

    Args:
        lines: of metrics.jsonl, each with its step. Those that lack a value, or have one that is not finite, are left
            out of its curve.
        path: of the figure; its extension chooses the format (.png, .pdf, .svg).

    Returns:
        The path; None where no line has any of the values, and nothing is drawn.
    """
    panels = {
        title: {name: points for key, name in curves.items() if (points := _points(lines, key))}
        for title, curves in PANELS.items()
    }
    panels = {title: curves for title, curves in panels.items() if curves}
    if not panels:
        return None
    figure = Figure(figsize=(3.6 * len(panels) + 0.4, 2.4), layout="constrained")
    for axes, (title, curves) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        top = max(points[-1][1] for points in curves.values())
        for (name, points), color in zip(
            curves.items(), (SOFT, STRONG) if len(curves) > 1 else (STRONG,), strict=True
        ):
            place = "center" if len(curves) == 1 else "bottom" if points[-1][1] == top else "top"
            _draw_curve(axes, points, name if len(curves) > 1 else "", color, place)
        axes.set_title(f"training {title}" if list(curves) == ["training"] else title, fontsize=9, loc="left")
        axes.set_xlabel("step", fontsize=8)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
        bare(axes)
    return save_figure(figure, path)


def _points(lines: Sequence[Mapping[str, Any]], key: str) -> list[tuple[int, float]]:
    found = [(line["step"], line.get(key)) for line in lines]
    return [(step, value) for step, value in found if isinstance(value, int | float) and math.isfinite(value)]


def _draw_curve(axes: Axes, points: Sequence[tuple[int, float]], name: str, color: str, place: str) -> None:
    """One curve, with its name, or its last value, behind its last point."""
    steps, values = zip(*points, strict=True)
    axes.plot(steps, values, color=color, linewidth=1.5, marker="o" if len(points) < 10 else None, markersize=3)
    axes.annotate(
        f" {name or f'{values[-1]:.3g}'}",
        (steps[-1], values[-1]),
        xytext=(3, 0),
        textcoords="offset points",
        fontsize=8,
        color=text_color(color),
        va=place,
        annotation_clip=False,
    )
