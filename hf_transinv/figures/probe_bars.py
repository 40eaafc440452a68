"""p of probes as bars."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from hf_transinv.errors import InputError
from hf_transinv.figures.style import COLORS, save_figure, short


def plot_probe(probes: Sequence[dict[str, Any]], path: str | Path) -> Path:
    """Plot p of probes as bars, one panel per teacher, its own corruption highlighted (figure 3 of the paper).

    Args:
        probes: {"teacher": str, "p": {primitive: probability}, "own": its corruption (may be absent)} each, with the
            same primitives. Probes of one teacher share a panel: a bar is their mean, and each probe is a dot.
        path: of the figure; its extension chooses the format (.png, .pdf, .svg).

    Returns:
        The path.

    Raises:
        InputError: no probes.
    """
    if not probes:
        raise InputError("No probes to plot: expected at least one, with its teacher and p.")
    teachers = list(dict.fromkeys(probe["teacher"] for probe in probes))
    names = [name.partition(":")[0] for name in probes[0]["p"]]
    num_columns = min(3, len(teachers))
    num_rows = math.ceil(len(teachers) / num_columns)
    figure = Figure(figsize=(0.22 * len(names) * num_columns + 0.6, 1.5 * num_rows + 1.3), layout="constrained")
    panels = figure.subplots(num_rows, num_columns, sharex=True, sharey=True, squeeze=False).flatten()
    for axes, teacher in zip(panels, teachers, strict=False):
        own = next((probe.get("own") for probe in probes if probe["teacher"] == teacher), None)
        p = np.array([list(probe["p"].values()) for probe in probes if probe["teacher"] == teacher])
        axes.bar(names, p.mean(axis=0), color=[COLORS[1] if name == own else COLORS[4] for name in names])
        for values in p if len(p) > 1 else ():
            axes.plot(names, values, ".", color=COLORS[-1], markersize=3)
        axes.set_title(own.replace("_", " ") + " teacher" if own else short(teacher), fontsize=9, loc="left")
        axes.set_ylim(0, 1)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    for unused in panels[len(teachers) :]:
        unused.remove()
    for axes in panels[max(0, len(teachers) - num_columns) : len(teachers)]:
        axes.tick_params(axis="x", labelbottom=True)
        axes.set_xticks(range(len(names)), [name.replace("_", " ") for name in names], rotation=90)
    figure.supylabel("p", fontsize=9)
    return save_figure(figure, path)
