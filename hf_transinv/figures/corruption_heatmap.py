"""Top-1 by corruption and severity, as colours with their numbers."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from hf_transinv.errors import InputError
from hf_transinv.figures.palette import ink_on
from hf_transinv.figures.style import save_figure, short

HEATMAP_COLUMNS = 4


def plot_corruption_heatmap(results: Mapping[str, dict[str, Any]], path: str | Path) -> Path:
    """Plot top-1 by corruption (rows) and severity (columns), one panel per model, on a common scale of 0 to 100 %.

    Args:
        results: model name -> result of `evaluation.evaluate`. A cell that was not measured is white.
        path: of the figure; its extension chooses the format (.png, .pdf, .svg).

    Returns:
        The path.

    Raises:
        InputError: no model was evaluated on a corruption.
    """
    names = list(dict.fromkeys(name for result in results.values() for name in result["corruptions"]))
    if not names:
        raise InputError("No corruptions to plot: expected a model that was evaluated on at least one.")
    severities = sorted({severity for result in results.values() for severity in result["severities"]})
    num_columns = min(len(results), HEATMAP_COLUMNS)
    num_rows = math.ceil(len(results) / num_columns)
    titles = {model: _title(model, result, len(names)) for model, result in results.items()}
    longest = max(len(line) for title in titles.values() for line in title.splitlines())
    panel = max(0.38 * len(severities) + 0.3, 0.068 * longest)  # a title is not to reach the next one
    figsize = (num_columns * panel + 1.8, num_rows * (0.21 * len(names) + 0.7) + 0.3)
    figure = Figure(figsize=figsize, layout="constrained")
    panels = figure.subplots(num_rows, num_columns, sharex=True, sharey=True, squeeze=False).flatten()
    for axes, (model, result) in zip(panels, results.items(), strict=False):
        cells = [[result["corruptions"].get(name, {}).get(str(severity)) for severity in severities] for name in names]
        image = _show_cells(axes, np.array(cells, dtype=float))
        axes.set_title(titles[model], fontsize=8, loc="left")
        axes.set_xticks(range(len(severities)), severities)
        axes.set_yticks(range(len(names)), [name.replace("_", " ") for name in names])
    for unused in panels[len(results) :]:
        unused.remove()
    figure.supxlabel("severity", fontsize=8)
    bar = figure.colorbar(image, ax=panels[: len(results)], fraction=0.05, aspect=30)
    bar.set_label("top-1 (%)", fontsize=8)
    bar.ax.tick_params(labelsize=8)
    bar.outline.set_visible(False)
    return save_figure(figure, path)


def _title(model: str, result: Mapping[str, Any], num_corruptions: int) -> str:
    """The model and its means, where the mean is over all corruptions of the figure: any other would mislead."""
    mean = f", mean {result['corruption_mean']:.1f}" if len(result["corruptions"]) == num_corruptions else ""
    return f"{short(model)}\nclean {result['clean']['top1']:.1f}{mean}"


def _show_cells(axes: Axes, percent: np.ndarray) -> AxesImage:
    """Show percentages [rows, columns] as colours with their numbers; NaN is white."""
    image = axes.imshow(percent, cmap="cividis", vmin=0, vmax=100, aspect="auto")
    for row, column in np.argwhere(~np.isnan(percent)):
        value = percent[row, column]
        color = ink_on(tuple(image.to_rgba(value)))
        axes.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=7, color=color)
    axes.tick_params(labelsize=8, length=0)
    axes.spines[:].set_visible(False)
    return image
