"""r, q and p over training."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from hf_transinv.errors import InputError
from hf_transinv.figures.palette import change_styles, model_style, text_color
from hf_transinv.figures.style import bare, save_figure, short

LEGEND_COLUMNS = 4


def _plot_lines(
    axes: Axes,
    steps: Sequence[int],
    values: np.ndarray,
    names: Sequence[str],
    styles: Sequence[tuple[str, str]],
    title: str,
    color: str | tuple[float, ...] = "black",
) -> None:
    """Plot one line per column of values [steps, n], all probabilities; `color` is that of the title."""
    marker = "o" if len(steps) == 1 else None
    for line, name, (own, style) in zip(values.T, names, styles, strict=True):
        axes.plot(steps, line, style, color=own, label=short(name), marker=marker, linewidth=1.5)
    axes.set_title(title, fontsize=9, loc="left", color=color)
    axes.set_ylim(-0.03, 1.03)
    axes.set_yticks((0, 0.5, 1))
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True, min_n_ticks=1))
    bare(axes)
    axes.set_xlabel("step", fontsize=8)


def _legend(
    figure: Figure, axes: Axes, title: str, place: Literal["outside upper center", "outside lower center"]
) -> None:
    handles, names = axes.get_legend_handles_labels()
    columns = min(LEGEND_COLUMNS, len(names))
    sizes = {"fontsize": 8, "title_fontsize": 8, "handlelength": 2.5}
    figure.legend(handles, names, title=title, loc=place, ncols=columns, frameon=False, **sizes)


def plot_history(
    records: Sequence[dict[str, Any]],
    path: str | Path,
    *,
    teacher_names: Sequence[str],
    primitive_names: Sequence[str],
) -> Path:
    """Plot r and q (one line per teacher) and p (one panel per teacher, one line per primitive) over training steps.

    The title of a panel of p has the teacher's colour.

    Args:
        records: {"step": int, "r": [L], "q": [L], "p": [[K] x L]} each, in the order of their steps; r may be missing.
        path: of the figure; its extension chooses the format (.png, .pdf, .svg).
        teacher_names: L names.
        primitive_names: K names.

    Returns:
        The path.

    Raises:
        InputError: no records.
    """
    if not records:
        raise InputError("No records to plot: expected at least one step of training, with its r, q and p.")
    steps = [record["step"] for record in records]
    primitives = [name.replace("_", " ") for name in primitive_names]
    titles = {"r": "r: choice of the teacher", "q": "q: augmented at all"}
    per_teacher = {name: title for name, title in titles.items() if name in records[0]}
    of_teachers = [model_style(k) for k in range(len(teacher_names))]
    p = np.array([record["p"] for record in records], dtype=float)
    num_panels = len(per_teacher) + len(teacher_names)
    num_columns = min(num_panels, 3 if num_panels in (3, 5, 6, 9) else 4)
    num_rows = math.ceil(num_panels / num_columns)
    legend_rows = math.ceil(len(teacher_names) / LEGEND_COLUMNS) + math.ceil(len(primitive_names) / LEGEND_COLUMNS)
    figsize = (2.4 * num_columns + 0.4, 1.9 * num_rows + 0.2 * legend_rows + 0.7)
    figure = Figure(figsize=figsize, layout="constrained")
    panels = figure.subplots(num_rows, num_columns, sharey=True, squeeze=False).flatten()
    for panel, (name, title) in zip(panels, per_teacher.items(), strict=False):
        values = np.array([record[name] for record in records], dtype=float)
        _plot_lines(panel, steps, values, teacher_names, of_teachers, title)
    of_p = panels[len(per_teacher) : num_panels]
    of_primitives = change_styles(primitive_names)
    for k, (panel, name) in enumerate(zip(of_p, teacher_names, strict=True)):
        _plot_lines(
            panel, steps, p[:, k], primitives, of_primitives, f"p: {short(name)}", text_color(of_teachers[k][0])
        )
    for unused in panels[num_panels:]:
        unused.remove()
    _legend(figure, panels[0], f"teachers ({', '.join(per_teacher)})", "outside upper center")
    _legend(figure, of_p[0], "primitives (p)", "outside lower center")
    return save_figure(figure, path)
