"""The picture of a comparison: accuracy on corrupted images over that on clean ones, one point per row.

Few points are labelled where they are; of more there is a legend.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from hf_transinv.comparison.measures import Entry, Spread
from hf_transinv.errors import InputError
from hf_transinv.figures import method_styles, save_figure

MOST_LABELLED = 6
PANEL_COLUMNS = 3
LEGEND_COLUMNS = 3
# Places of a label beside its point, the best first: the offset in typographic points, and its alignment.
_PLACES: tuple[tuple[tuple[int, int], str, str], ...] = (
    *(((5, 4), "left", "bottom"), ((5, -4), "left", "top"), ((-5, 4), "right", "bottom"), ((-5, -4), "right", "top")),
    *(
        ((7, 0), "left", "center"),
        ((-7, 0), "right", "center"),
        ((0, 7), "center", "bottom"),
        ((0, -7), "center", "top"),
    ),
    *(
        ((5, 14), "left", "bottom"),
        ((5, -14), "left", "top"),
        ((-5, 14), "right", "bottom"),
        ((-5, -14), "right", "top"),
    ),
)


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
    has_legend = has_corruptions and len(titles) > MOST_LABELLED
    width = max(4.5, 2.6 * num_columns + (0.4 if has_corruptions else 1.6))
    columns = _legend_columns(titles, width)
    legend = 0.2 * math.ceil(len(titles) / columns) if has_legend else 0
    size = (width, height * num_rows + legend + 0.3)
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
        if has_legend:
            _legend(figure, panels[: len(groups)], titles, columns)
        else:
            _label(
                figure, [(axes, [e for e in entries if e.group == g]) for axes, g in zip(panels, groups, strict=False)]
            )
    else:
        panels[0].set_yticks(range(len(titles)), titles)
        panels[0].set_ylim(len(titles) - 0.5, -0.5)
    return save_figure(figure, path)


def _legend_columns(titles: Sequence[str], width: float) -> int:
    """How many columns of titles fit on a page, whose width is in inches."""
    return max(1, min(LEGEND_COLUMNS, len(titles), int(width / (0.07 * max(map(len, titles)) + 0.5))))


def _legend(figure: Figure, panels: Sequence[Axes], titles: Sequence[str], columns: int) -> None:
    """One legend for all panels: a group may lack some rows."""
    found: dict[str, Any] = {}
    for axes in panels:
        lines, names = axes.get_legend_handles_labels()
        found |= dict(zip(names, lines, strict=True))
    handles = [found[title] for title in titles]
    figure.legend(handles, titles, ncols=columns, loc="outside upper center", fontsize=8, frameon=False)


def _label(figure: Figure, panels: Sequence[tuple[Axes, Sequence[Entry]]]) -> None:
    """Write the title of each point beside it, where it covers no other point and no other label."""
    for axes, _ in panels:
        axes.margins(0.25)
    figure.draw_without_rendering()  # the places of the points are those of the finished layout
    side = figure.dpi * 4 / 72
    for axes, entries in panels:
        where = [(entry.measures["clean"].mean, entry.measures["corrupted"].mean) for entry in entries]
        centres = axes.transData.transform(where)
        taken = [Bbox.from_extents(x - side, y - side, x + side, y + side) for x, y in centres]
        taken += [box for entry, place in zip(entries, where, strict=True) for box in _bars(axes, entry, place)]
        for entry, place in zip(entries, where, strict=True):
            tried = []
            for offset, horizontal, vertical in _PLACES:
                text = axes.annotate(
                    entry.row, place, offset, textcoords="offset points", ha=horizontal, va=vertical, fontsize=8
                )
                box = text.get_window_extent()
                outside = max(0.0, box.x1 - axes.bbox.x1, axes.bbox.x0 - box.x0)
                tried.append((box.count_overlaps(taken), outside, text, box))
                if tried[-1][:2] == (0, 0):
                    break
            best = min(tried, key=lambda one: one[:2])
            for one in tried:
                if one is not best:
                    one[2].remove()
            taken.append(best[3])


def _bars(axes: Axes, entry: Entry, place: tuple[float, float]) -> list[Bbox]:
    """The room on the page that the error bars of a point take."""
    x, y = (entry.measures[name].deviation or 0.0 for name in ("clean", "corrupted"))
    ends = [((place[0] - x, place[1]), (place[0] + x, place[1])), ((place[0], place[1] - y), (place[0], place[1] + y))]
    return [Bbox(axes.transData.transform(pair)).padded(1) for pair in ends]


def _plot_row(axes: Axes, entry: Entry, titles: Sequence[str], has_corruptions: bool) -> None:
    """One point, of the same colour and marker in every panel."""
    place, clean = titles.index(entry.row), entry.measures["clean"]
    color, marker = method_styles(titles)[place]
    corrupted = entry.measures["corrupted"] if has_corruptions else Spread(place, None, [place])
    axes.errorbar(
        clean.mean,
        corrupted.mean,
        xerr=clean.deviation,
        yerr=corrupted.deviation,
        color=color,
        marker=marker if has_corruptions else "o",
        markersize=5,
        linestyle="none",
        elinewidth=1,
        capsize=2,
        label=entry.row,
    )
