"""The picture of a comparison: accuracy on corrupted images over that on clean ones, one point per row."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hf_transinv.comparison.measures import Entry, Spread
from hf_transinv.errors import InputError
from hf_transinv.figures import COLORS, save_figure

MARKERS = ("o", "s", "^", "D")
PANEL_COLUMNS = 3
LEGEND_COLUMNS = 3


def plot_comparison(entries: Sequence[Entry], path: str | Path) -> Path:
    """Draw each row as a point, with its deviation over the seeds as error bars: one panel per group, on one scale.

    Without corruptions, the rows are listed along the second axis.

    Args:
        entries: of `measures.summarise`.
        path: of the picture; its suffix chooses the format (.png, .pdf, .svg).

    Returns:
        The path.

    Raises:
        InputError: no entries.
    """
    if not entries:
        raise InputError("No rows to plot: expected a comparison of which at least one run is finished.")
    has_corruptions = all("corrupted" in entry.measures for entry in entries)
    groups = list(dict.fromkeys(entry.group for entry in entries))
    titles = list(dict.fromkeys(entry.row for entry in entries))
    num_columns = 2 if len(groups) == 4 else min(PANEL_COLUMNS, len(groups))
    num_rows = math.ceil(len(groups) / num_columns)
    height = 2.6 if has_corruptions else 0.25 * len(titles) + 0.7
    legend = 0.2 * math.ceil(len(titles) / LEGEND_COLUMNS) if has_corruptions else 0
    size = (max(4.5, 2.6 * num_columns + (0.4 if has_corruptions else 1.6)), height * num_rows + legend + 0.3)
    figure = Figure(figsize=size, layout="constrained")
    panels = list(figure.subplots(num_rows, num_columns, sharex=True, sharey=True, squeeze=False).flatten())
    for axes, group in zip(panels, groups, strict=False):
        for entry in (entry for entry in entries if entry.group == group):
            _plot_row(axes, entry, titles, has_corruptions)
        axes.set_title(group, fontsize=9, loc="left")
        axes.grid(color="#DDDDDD", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    for unused in panels[len(groups) :]:
        unused.remove()
    for axes in panels[max(0, len(groups) - num_columns) : len(groups)]:
        axes.tick_params(axis="x", labelbottom=True)
    figure.supxlabel("clean top-1 (%)", fontsize=9)
    if has_corruptions:
        figure.supylabel("top-1 under corruption (%)", fontsize=9)
        _legend(figure, panels[: len(groups)], titles)
    else:
        panels[0].set_yticks(range(len(titles)), titles)
        panels[0].set_ylim(len(titles) - 0.5, -0.5)
    return save_figure(figure, path)


def _legend(figure: Figure, panels: Sequence[Axes], titles: Sequence[str]) -> None:
    """One legend for all panels: a group may lack some rows."""
    found: dict[str, Any] = {}
    for axes in panels:
        lines, names = axes.get_legend_handles_labels()
        found |= dict(zip(names, lines, strict=True))
    handles, columns = [found[title] for title in titles], min(LEGEND_COLUMNS, len(titles))
    figure.legend(handles, titles, ncols=columns, loc="outside upper center", fontsize=8, frameon=False)


def _plot_row(axes: Axes, entry: Entry, titles: Sequence[str], has_corruptions: bool) -> None:
    """One point, of the same colour and marker in every panel."""
    place, clean = titles.index(entry.row), entry.measures["clean"]
    corrupted = entry.measures["corrupted"] if has_corruptions else Spread(place, None, [place])
    axes.errorbar(
        clean.mean,
        corrupted.mean,
        xerr=clean.deviation,
        yerr=corrupted.deviation,
        color=COLORS[place % len(COLORS)],
        marker=MARKERS[place // len(COLORS) % len(MARKERS)] if has_corruptions else "o",
        markersize=5,
        linestyle="none",
        elinewidth=1,
        capsize=2,
        label=entry.row,
    )
