"""Which classes are taken for which: the whole matrix of few classes, the most confused pairs of many."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hf_transinv.figures.palette import AREA, ink_on
from hf_transinv.figures.style import bare, class_labels, save_figure

MOST_CLASSES = 30
"""More do not fit on a page with names and numbers."""
NUM_PAIRS = 20

Cell = tuple[int, int, int]
"""Class, answer, images."""


def plot_confusion(confusion: Sequence[Cell], support: Sequence[int], names: Sequence[str], path: str | Path) -> Path:
    """Plot the confusion matrix in percent of the images of each class, or the pairs with the largest shares.

    Args:
        confusion: the cells that are not 0.
        support: images of each class; the row of a class without images is empty.
        names: of the classes.
        path: of the figure; its extension chooses the format (.png, .pdf, .svg).

    Returns:
        The path.
    """
    if len(names) <= MOST_CLASSES:
        return save_figure(_matrix(confusion, support, names), path)
    return save_figure(_pairs(confusion, support, names), path)


def _matrix(confusion: Sequence[Cell], support: Sequence[int], names: Sequence[str]) -> Figure:
    labels, number = class_labels(names), len(names)
    percent = np.zeros((number, number))
    for label, answer, images in confusion:
        percent[label, answer] = 100 * images / support[label]
    percent[np.array(support) == 0] = np.nan
    room = 0.075 * max(map(len, labels))
    side = max(0.27 * number, 1.6) + room + 0.8
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(percent, cmap="Blues", vmin=0, vmax=100)
    for row, column in np.argwhere(percent > 0):
        value = percent[row, column]
        shown = "<1" if value < 0.5 else f"{value:.0f}"
        color = ink_on(tuple(image.to_rgba(value)))
        axes.text(column, row, shown, ha="center", va="center", fontsize=6.5, color=color)
    axes.set_xticks(range(number), labels, rotation=90)
    axes.set_yticks(range(number), labels)
    axes.tick_params(labelsize=8, length=0)
    axes.set_xticks(np.arange(number + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(number + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="#DDDDDD", linewidth=0.5)
    axes.tick_params(which="minor", length=0)
    axes.spines[:].set_color("#DDDDDD")
    axes.set_xlabel("answer", fontsize=9)
    axes.set_ylabel("class", fontsize=9)
    axes.set_title("Answers to each class (%)", fontsize=9, loc="left")
    return figure


def _pairs(confusion: Sequence[Cell], support: Sequence[int], names: Sequence[str]) -> Figure:
    labels = class_labels(names)
    errors = [(100 * images / support[label], label, answer, images) for label, answer, images in confusion]
    errors = sorted((error for error in errors if error[1] != error[2]), reverse=True)[:NUM_PAIRS]
    figure = Figure(figsize=(6.5, 0.2 * max(len(errors), 3) + 0.8), layout="constrained")
    axes = figure.subplots()
    _draw_bars(axes, [error[0] for error in errors])
    for place, (share, label, _, images) in enumerate(errors):
        axes.text(share, place, f" {share:.0f} % ({images} of {support[label]})", va="center", fontsize=7)
    axes.set_yticks(range(len(errors)), [f"{labels[label]} → {labels[answer]}" for _, label, answer, _ in errors])
    axes.set_title(f"The most confused of {len(names)} classes: class → answer", fontsize=9, loc="left")
    axes.set_xlabel("images of the class (%)", fontsize=8)
    return figure


def _draw_bars(axes: Axes, shares: Sequence[float]) -> None:
    """Horizontal bars from the top down, with room for a text behind each."""
    axes.barh(range(len(shares)), shares, color=AREA, height=0.75)
    axes.set_ylim(max(len(shares), 1) - 0.5, -0.5)
    axes.set_xlim(0, 1.3 * max(shares, default=100 / 1.3))
    bare(axes)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
