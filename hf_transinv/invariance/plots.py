"""The figures and images of the report, as data URIs. None contains a name that a user gave."""

import base64
import io
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator, PercentFormatter
from PIL import Image
from torch import Tensor

from hf_transinv.figures import model_style
from hf_transinv.invariance.sweeps import LEVEL, Curve, Sweep
from hf_transinv.invariance.tolerated_range import RangeFound

_LARGEST_EXAMPLE = 96  # pixels per side on the page
_RULE = {"color": "#777777", "linewidth": 0.8, "linestyle": (0, (2, 2))}


def _data_uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _svg(figure: Figure) -> str:
    buffer = io.BytesIO()
    # Text stays text, in the reader's font. With a fixed salt and no date, equal figures give equal bytes.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "hf_transinv"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return _data_uri(buffer.getvalue(), "svg+xml")


def style_of(index: int) -> dict[str, Any]:
    """The colour and line style of a model by its number; they repeat after 28 models."""
    color, style = model_style(index)
    return {"color": color, "linestyle": style}


def _plain(axes: Axes) -> None:
    axes.tick_params(labelsize=8, color="#999999", labelcolor="#333333", length=3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#999999")
    axes.grid(color="#E6E6E6", linewidth=0.6)
    axes.set_axisbelow(True)


def plot_curves(sweep: Sweep, curves: Sequence[Curve], tolerance: float) -> str:
    """Plot agreement (above) and KL (below) over strength, with one line per model.

    Args:
        sweep: that was measured.
        curves: one per model.
        tolerance: KL in nats, drawn as a horizontal line.

    Returns:
        An SVG as a data URI.
    """
    with rc_context({"font.family": "sans-serif"}):
        figure = Figure(figsize=(3.3, 2.9))
        # Fixed margins, as automatic layout takes longer than drawing.
        margins = {"left": 0.17, "right": 0.98, "top": 0.97, "bottom": 0.14, "hspace": 0.12}
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2), gridspec_kw=margins)
        strengths = (sweep.rest, *sweep.strengths)
        for index, curve in enumerate(curves):
            style = {**style_of(index), "linewidth": 1.8, "marker": "o", "markersize": 2.6}
            upper.plot(strengths, (1.0, *curve.agreement), **style)
            lower.plot(strengths, (0.0, *curve.kl), **style)
        upper.axhline(LEVEL, **_RULE)
        lower.axhline(tolerance, **_RULE)
        upper.set_ylim(-0.02, 1.04)
        upper.yaxis.set_major_formatter(PercentFormatter(1))
        upper.set_ylabel("agreement", fontsize=8)
        # Linear to 0.1 nats, logarithmic above: the same scale on every panel.
        lower.set_yscale("symlog", linthresh=0.1, linscale=0.5)
        lower.set_ylim(0, 30)
        lower.set_yticks((0, 0.1, 1, 10), ("0", "0.1", "1", "10"))
        lower.yaxis.set_minor_locator(NullLocator())
        lower.set_ylabel("KL (nats)", fontsize=8)
        unit = f" ({sweep.unit})" if sweep.unit else ""
        lower.set_xlabel("severity" if sweep.is_corruption else sweep.description + unit, fontsize=8)
        lower.xaxis.set_major_locator(MaxNLocator(6 if sweep.is_corruption else 5, min_n_ticks=5))
        if sweep.strengths[-1] < sweep.rest:
            lower.invert_xaxis()
        for axes in (upper, lower):
            _plain(axes)
            axes.yaxis.set_label_coords(-0.15, 0.5)
        return _svg(figure)


def plot_ranges(found: Sequence[RangeFound]) -> str:
    """Plot the tolerated range of one primitive, with one panel per parameter.

    A panel has one bar per model, from the 5 % to the 95 % quantile, with a dot at the median.

    Args:
        found: the range of the same primitive for each model.

    Returns:
        An SVG as a data URI.
    """
    rows = len(found[0].parameters)
    height = 0.14 * len(found) + 0.42
    with rc_context({"font.family": "sans-serif"}):
        figure = Figure(figsize=(3.3, rows * height + 0.1), layout="constrained")
        for row, axes in enumerate(figure.subplots(rows, 1, squeeze=False).flatten()):
            first = found[0].parameters[row]
            for index, one in enumerate(found):
                low, middle, high = one.parameters[row].quantiles
                color = style_of(index)["color"]
                axes.barh(index, first.high - first.low, 0.72, first.low, color="#ECECEC")
                axes.barh(index, high - low, 0.72, low, color=color, alpha=0.85)
                axes.plot(middle, index, "o", markersize=3.4, color="white", markeredgecolor="#222222", mew=0.7)
            axes.axvline(first.rest, color="#222222", linewidth=1)
            margin = 0.02 * (first.high - first.low)
            axes.set_xlim(first.low - margin, first.high + margin)
            axes.set_ylim(len(found) - 0.5, -0.5)
            axes.set_yticks([])
            axes.set_xticks((first.low, (first.low + first.high) / 2, first.high))
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:.3g}".replace("-", "−"))
            axes.tick_params(labelsize=7, length=2, labelcolor="#333333")
            axes.spines[:].set_visible(False)
            unit = f" ({first.unit})" if first.unit else ""
            axes.set_title(first.name + unit, fontsize=8, loc="left", pad=2)
        return _svg(figure)


def image_strip(images: Tensor) -> str:
    """Images [n, 3, H, W] in [0, 1] side by side, with the page between them; a PNG as a data URI."""
    side = min(_LARGEST_EXAMPLE, images.shape[-1])
    if side < images.shape[-1]:
        images = F.interpolate(images, size=(side, side), mode="area")
    gap = max(1, side // 16)
    opaque = torch.cat([images, torch.ones_like(images[:, :1])], dim=1)
    padded = F.pad(opaque, (0, gap)).permute(2, 0, 3, 1).reshape(side, -1, 4)[:, :-gap]
    buffer = io.BytesIO()
    Image.fromarray((padded * 255).round().to(torch.uint8).numpy()).save(buffer, format="PNG")
    return _data_uri(buffer.getvalue(), "png")
