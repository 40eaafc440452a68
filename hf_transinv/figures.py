"""Figures: r, q and p over training, images under each learned primitive, probes, corruption heatmaps.

`plot_augmentations` is figure 4 of the TransInv paper (Kurioka et al., ICONIP 2024): one block per teacher, with the
original images first, then one column per primitive with its selection probability below.
"""

import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from hf_transinv.errors import InputError
from hf_transinv.files import atomic_write

# Okabe and Ito's palette (Color Universal Design, 2008), distinguishable with any colour vision, without its yellow,
# which is too pale for a line. The line style changes when the colours are used up.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
LINE_STYLES = ("-", "--", ":", "-.")
DOTS_PER_INCH = 200
LONGEST_NAME = 28
LONGEST_COLUMN_TITLE = 14
LEGEND_COLUMNS = 4
HEATMAP_COLUMNS = 4
LARGEST_MAGNIFIED_IMAGE = 64  # pixels; larger images are shrunk on the page, where nearest neighbours would alias


def _short(name: str) -> str:
    """A long name (a path, a Hub id) cut to its end, where names differ."""
    return name if len(name) <= LONGEST_NAME else f"…{name[1 - LONGEST_NAME :]}"


def save_figure(figure: Figure, path: str | Path) -> Path:
    """Write a figure, whole or not at all; the extension chooses the format, missing parent folders are made."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as partial:
        figure.savefig(partial, dpi=DOTS_PER_INCH, format=path.suffix.removeprefix("."))
    return path


def _plot_lines(axes: Axes, steps: Sequence[int], values: np.ndarray, names: Sequence[str], title: str) -> None:
    """Plot one line per column of values [steps, n], all probabilities."""
    marker = "o" if len(steps) == 1 else None
    for i, (line, name) in enumerate(zip(values.T, names, strict=True)):
        style = LINE_STYLES[i // len(COLORS) % len(LINE_STYLES)]
        axes.plot(steps, line, style, color=COLORS[i % len(COLORS)], label=_short(name), marker=marker, linewidth=1.5)
    axes.set_title(title, fontsize=9, loc="left")
    axes.set_ylim(-0.03, 1.03)
    axes.set_yticks((0, 0.5, 1))
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True, min_n_ticks=1))
    axes.tick_params(labelsize=8)
    axes.grid(color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
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
        _plot_lines(panel, steps, values, teacher_names, title)
    of_p = panels[len(per_teacher) : num_panels]
    for k, (panel, name) in enumerate(zip(of_p, teacher_names, strict=True)):
        _plot_lines(panel, steps, p[:, k], primitives, f"p: {_short(name)}")
    for unused in panels[num_panels:]:
        unused.remove()
    _legend(figure, panels[0], f"teachers ({', '.join(per_teacher)})", "outside upper center")
    _legend(figure, of_p[0], "primitives (p)", "outside lower center")
    return save_figure(figure, path)


def _column(images: Tensor) -> np.ndarray:
    """Images [N, 3, H, W] in [0, 1] one below the other, with white between: [N (H + gap) - gap, W, 3]."""
    pixels = images.detach().float().clamp(0, 1).cpu().permute(0, 2, 3, 1).numpy()
    gap = max(1, pixels.shape[1] // 16)
    padded = np.pad(pixels, ((0, 0), (0, gap), (0, 0), (0, 0)), constant_values=1)
    return padded.reshape(-1, *pixels.shape[2:])[:-gap]


def _show(axes: Axes, images: Tensor, caption: str, weight: str = "normal") -> None:
    is_small = images.shape[-2] <= LARGEST_MAGNIFIED_IMAGE
    axes.imshow(_column(images), interpolation="nearest" if is_small else "antialiased")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.set_xlabel(caption, fontsize=9, fontweight=weight, labelpad=3)


def plot_augmentations(
    original: Tensor,
    augmented: Tensor,
    path: str | Path,
    *,
    teacher_names: Sequence[str],
    primitive_names: Sequence[str],
    p: Sequence[Sequence[float]],
    q: Sequence[float],
) -> Path:
    """Show each primitive of each teacher on a few images, with its selection probability (the largest in bold).

    Args:
        original: a few images, such as 4, [N, 3, H, W] in [0, 1].
        augmented: the images under each primitive, [L, K, N, 3, H, W].
        path: of the figure; its extension chooses the format (.png, .pdf, .svg).
        teacher_names: L names.
        primitive_names: K names.
        p: probability of each primitive, [L][K].
        q: probability of augmenting at all, [L]; 1 - q is shown below the originals.

    Returns:
        The path.

    Raises:
        InputError: the shape of `augmented` does not fit the names and `original`.
    """
    expected = (len(teacher_names), len(primitive_names), *original.shape)
    if tuple(augmented.shape) != expected:
        raise InputError(
            f"Augmented images of shape {list(augmented.shape)}: expected [L, K, N, 3, H, W] = {list(expected)}."
        )
    num_teachers, num_primitives, num_images, _, height, width = expected
    figure = Figure(
        figsize=(1.15 * (num_primitives + 1) + 0.5, num_teachers * (1.1 * num_images * height / width + 0.5) + 0.5),
        layout=ConstrainedLayoutEngine(h_pad=0.07),
    )
    grid = figure.subplots(num_teachers, num_primitives + 1, squeeze=False)
    for k, row in enumerate(grid):
        _show(row[0], original, f"$1 - q$ = {1 - q[k]:.2f}")
        row[0].set_ylabel(_short(teacher_names[k]), fontsize=9)
        for i, axes in enumerate(row[1:]):
            weight = "bold" if p[k][i] == max(p[k]) else "normal"
            _show(axes, augmented[k, i], f"$p_{{{i + 1}}}$ = {p[k][i]:.2f}", weight)
    for axes, title in zip(grid[0], ("original", *primitive_names), strict=True):
        axes.set_title(textwrap.fill(title.replace("_", " "), LONGEST_COLUMN_TITLE), fontsize=9)
    return save_figure(figure, path)


def plot_examples(original: Tensor, augmented: Tensor, path: str | Path) -> Path:
    """Show images and several draws of a learned augmentation of them, one column per draw.

    Args:
        original: [N, 3, H, W] in [0, 1].
        augmented: [draws, N, 3, H, W] in [0, 1].
        path: of the figure; its extension chooses the format (.png, .pdf, .svg).

    Returns:
        The path.
    """
    columns = [("image", original), *((str(index), images) for index, images in enumerate(augmented, 1))]
    size = (1.1 * len(columns), 1.1 * len(original) + 0.4)
    figure = Figure(figsize=size, layout="constrained")
    for axes, (caption, images) in zip(figure.subplots(1, len(columns)), columns, strict=True):
        _show(axes, images, caption)
    return save_figure(figure, path)


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
        axes.set_title(own.replace("_", " ") + " teacher" if own else _short(teacher), fontsize=9, loc="left")
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
    figsize = (num_columns * (0.38 * len(severities) + 0.3) + 1.8, num_rows * (0.21 * len(names) + 0.7) + 0.3)
    figure = Figure(figsize=figsize, layout="constrained")
    panels = figure.subplots(num_rows, num_columns, sharex=True, sharey=True, squeeze=False).flatten()
    for axes, (model, result) in zip(panels, results.items(), strict=False):
        cells = [[result["corruptions"].get(name, {}).get(str(severity)) for severity in severities] for name in names]
        image = _show_cells(axes, np.array(cells, dtype=float))
        # A mean over other corruptions than in the other panels would be misleading.
        mean = f", mean {result['corruption_mean']:.1f}" if len(result["corruptions"]) == len(names) else ""
        axes.set_title(f"{_short(model)}\nclean {result['clean']['top1']:.1f}{mean}", fontsize=8, loc="left")
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


def _show_cells(axes: Axes, percent: np.ndarray) -> AxesImage:
    """Show percentages [rows, columns] as colours with their numbers; NaN is white."""
    image = axes.imshow(percent, cmap="cividis", vmin=0, vmax=100, aspect="auto")
    for row, column in np.argwhere(~np.isnan(percent)):
        value = percent[row, column]
        # cividis is mid-grey at half its range: white is legible on the lower half, black on the upper.
        color = "white" if value < 50 else "black"
        axes.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=7, color=color)
    axes.tick_params(labelsize=8, length=0)
    axes.spines[:].set_visible(False)
    return image
