"""p of probes as bars."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from matplotlib.figure import Figure

from hf_transinv.errors import InputError
from hf_transinv.figures.palette import STRONG, change_color
from hf_transinv.figures.style import save_figure, short

T = TypeVar("T")

_PALE = 0.5  # opacity of the bars that are not the teacher's own corruption


def by_corruption(of_primitives: Mapping[str, T]) -> dict[str, T]:
    """{CORRUPTION:SEVERITY: value} as {CORRUPTION: value}, in the same order; other primitives keep their names.

    Raises:
        InputError: a corruption is there at two severities, so that its name alone stands for neither.
    """
    found: dict[str, T] = {}
    for name, value in of_primitives.items():
        corruption = name.partition(":")[0]
        if corruption in found:
            given = ", ".join(other for other in of_primitives if other.partition(":")[0] == corruption)
            raise InputError(
                f"primitives {given}: corruptions are compared by name here, so each is expected once, at one "
                "severity; compare the severities of one in runs of their own"
            )
        found[corruption] = value
    return found


def plot_probe(probes: Sequence[dict[str, Any]], path: str | Path) -> Path:
    """Plot p of probes as bars, one panel per teacher, its own corruption highlighted (figure 3 of the paper).

    Bars have the colour of their family, and all but the teacher's own are pale. A line is at chance: 1/15 of 15
    primitives.

    Args:
        probes: {"teacher": str, "p": {primitive: probability}, "own": its corruption (may be absent)} each, with the
            same primitives. Probes of one teacher share a panel: a bar is their mean, and each probe is a dot.
        path: of the figure; its extension chooses the format (.png, .pdf, .svg).

    Returns:
        The path.

    Raises:
        InputError: no probes, or a corruption at two severities.
    """
    if not probes:
        raise InputError("No probes to plot: expected at least one, with its teacher and p.")
    teachers = list(dict.fromkeys(probe["teacher"] for probe in probes))
    names = list(by_corruption(probes[0]["p"]))
    num_columns = min(3, len(teachers))
    num_rows = math.ceil(len(teachers) / num_columns)
    has_gap = 1 if len(teachers) % num_columns else 0  # panels above it have names below them too
    figsize = (0.22 * len(names) * num_columns + 1.0, 1.5 * num_rows + 1.3 * (1 + has_gap))
    figure = Figure(figsize=figsize, layout="constrained")
    panels = figure.subplots(num_rows, num_columns, sharex=True, sharey=True, squeeze=False).flatten()
    for axes, teacher in zip(panels, teachers, strict=False):
        own = next((probe.get("own") for probe in probes if probe["teacher"] == teacher), None)
        p = np.array([list(probe["p"].values()) for probe in probes if probe["teacher"] == teacher])
        bars = axes.bar(names, p.mean(axis=0), color=[change_color(name) for name in names])
        for name, bar in zip(names, bars, strict=True):
            bar.set_alpha(1 if name == own or own is None else _PALE)
        axes.axhline(1 / len(names), color=STRONG, linewidth=0.8, linestyle=(0, (4, 3)))
        for values in p if len(p) > 1 else ():
            axes.plot(names, values, ".", color="black", markersize=3)
        axes.set_title(own.replace("_", " ") + " teacher" if own else short(teacher), fontsize=9, loc="left")
        axes.set_ylim(0, 1)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    for unused in panels[len(teachers) :]:
        unused.remove()
    for index in sorted(
        {*range(num_columns - 1, len(teachers), num_columns), len(teachers) - 1}
    ):  # last of their rows
        panels[index].annotate(
            f"chance\n1/{len(names)}",
            (1, 1 / len(names)),
            xycoords=("axes fraction", "data"),
            xytext=(3, 0),
            textcoords="offset points",
            va="center",
            fontsize=7,
            color=STRONG,
        )
    for axes in panels[max(0, len(teachers) - num_columns) : len(teachers)]:
        axes.tick_params(axis="x", labelbottom=True)
        axes.set_xticks(range(len(names)), [name.replace("_", " ") for name in names], rotation=90)
    figure.supylabel("p", fontsize=9)
    return save_figure(figure, path)
