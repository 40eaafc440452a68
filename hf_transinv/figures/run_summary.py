"""A run on one picture: what each teacher lets through, and what the student gained under corruption."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from hf_transinv.errors import InputError
from hf_transinv.figures.image_grids import draw_column
from hf_transinv.figures.palette import COLORS
from hf_transinv.figures.style import save_figure, short

SIZE = 9.0, 3.5  # inches; a README shows it 900 pixels wide
MOST_COLUMNS = 5
TEXT = "#767676"  # contrast 4.5 on white and 4.2 on GitHub's dark page: the figure has no background of its own
BEFORE, AFTER = TEXT, COLORS[0]


def plot_summary(
    original: Tensor,
    augmented: Tensor,
    path: str | Path,
    *,
    teacher_names: Sequence[str],
    primitive_names: Sequence[str],
    p: Sequence[Sequence[float]],
    before: tuple[str, Mapping[str, float]],
    after: tuple[str, Mapping[str, float]],
) -> Path:
    """Show one image under the most used primitives of each teacher, beside top-1 by corruption of two rows.

    Args:
        original: one image, [3, H, W] in [0, 1].
        augmented: it under each primitive, [L, K, 3, H, W].
        path: of the figure; its extension chooses the format (.png, .pdf, .svg).
        teacher_names: L names.
        primitive_names: K names; the five with the highest probability at any teacher are shown.
        p: probability of each primitive, [L][K].
        before: name of the baseline, and its top-1 in percent by condition, in the order in which they are drawn.
        after: the same of the student.

    Returns:
        The path.

    Raises:
        InputError: the shape of `augmented` does not fit the names and `original`, or the rows have no condition in
            common.
    """
    expected = (len(teacher_names), len(primitive_names), *original.shape)
    if tuple(augmented.shape) != expected:
        raise InputError(
            f"Augmented images of shape {list(augmented.shape)}: expected [L, K, 3, H, W] = {list(expected)}."
        )
    figure = Figure(figsize=SIZE, layout="constrained")
    figure.patch.set_alpha(0)
    pictures, chart = figure.subfigures(1, 2, squeeze=False, width_ratios=(5, 4))[0]
    probabilities = np.array(p)
    columns = sorted(np.argsort(-probabilities.max(0), kind="stable")[:MOST_COLUMNS])
    grid = pictures.subplots(len(teacher_names), len(columns) + 1, squeeze=False)
    for row, teacher, images, shares in zip(grid, teacher_names, augmented, probabilities, strict=True):
        _show(row[0], original, "")
        last = teacher.rpartition("/")[2] or teacher
        row[0].set_ylabel(textwrap.fill(short(last).replace("_", " "), 13), fontsize=7, color=TEXT)
        for axes, column in zip(row[1:], columns, strict=True):
            is_most_used = column == shares.argmax()
            _show(axes, images[column], f"{shares[column]:.0%}", is_most_used)
    titles = ("original", *(primitive_names[column] for column in columns))
    for axes, title in zip(grid[0], titles, strict=True):
        axes.set_title(textwrap.fill(title.replace("_", " "), 11), fontsize=7, color=TEXT)
    _compare(chart.subplots(), before, after)
    return save_figure(figure, path)


def _show(axes: Axes, image: Tensor, caption: str, framed: bool = False) -> None:
    draw_column(axes, image[None])
    for spine in axes.spines.values():
        spine.set(visible=framed, color=AFTER, linewidth=2.5)
    axes.set_xlabel(
        caption, fontsize=7, labelpad=2, color=AFTER if framed else TEXT, fontweight="bold" if framed else "normal"
    )


def _compare(axes: Axes, before: tuple[str, Mapping[str, float]], after: tuple[str, Mapping[str, float]]) -> None:
    """Two dots per condition with the gain between them; the first condition is at the top."""
    conditions = [condition for condition in after[1] if condition in before[1]]
    if not conditions:
        raise InputError(
            f"{before[0]!r} and {after[0]!r} have no condition in common: expected at least one to compare."
        )
    places = np.arange(len(conditions))[::-1]
    old, new = (np.array([row[1][condition] for condition in conditions]) for row in (before, after))
    axes.hlines(places, old, new, color=np.where(new >= old, AFTER, COLORS[1]).tolist(), linewidth=2, alpha=0.6)
    axes.scatter(old, places, s=18, facecolor="none", edgecolor=BEFORE, zorder=3)
    axes.scatter(new, places, s=22, color=AFTER, zorder=3)
    axes.set_yticks(places, [condition.replace("_", " ") for condition in conditions])
    axes.set_xlabel("top-1 (%)", fontsize=7, color=TEXT)
    axes.tick_params(labelsize=7, length=0, colors=TEXT)
    axes.grid(axis="x", color=TEXT, alpha=0.25, linewidth=0.6)
    axes.set_facecolor("none")
    axes.spines[:].set_visible(False)
    axes.set_title(f"○ {before[0]}", fontsize=7, color=BEFORE, loc="left", family="DejaVu Sans")
    axes.set_title(f"● {after[0]}", fontsize=7, color=AFTER, loc="right", fontweight="bold", family="DejaVu Sans")
