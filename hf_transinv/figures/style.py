"""What all figures share: colours, sizes, names cut to length, and how a file is written."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hf_transinv.files import atomic_write

# Okabe and Ito's palette (Color Universal Design, 2008), distinguishable with any colour vision, without its yellow,
# which is too pale for a line. The line style changes when the colours are used up.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
LINE_STYLES = ("-", "--", ":", "-.")
DOTS_PER_INCH = 200
LONGEST_NAME = 28
LONGEST_CLASS = 24


def ink_on(color: Sequence[float] | np.ndarray) -> str:
    """Black or white, whichever has the larger contrast to a colour (WCAG 2; at least 4.5 to any).

    Args:
        color: red, green and blue of sRGB, in [0, 1]; more entries are ignored.
    """
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in color[:3]]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "white" if 1.05 / (luminance + 0.05) > (luminance + 0.05) / 0.05 else "black"


def short(name: str) -> str:
    """A long name (a path, a Hub id) cut to its end, where names differ."""
    return name if len(name) <= LONGEST_NAME else f"…{name[1 - LONGEST_NAME :]}"


def class_labels(names: Sequence[str], longest: int = LONGEST_CLASS) -> list[str]:
    """Names of classes on one line, cut to their beginning; equal ones with the number of their class.

    Args:
        names: of all classes.
        longest: characters of a label.

    Returns:
        One label per class, in which matplotlib reads no mathematics.
    """
    lines = [" ".join(name.split()) for name in names]
    labels = [_cut(line, longest) for line in lines]
    count = Counter(labels)
    for number, line in enumerate(lines):
        if count[labels[number]] > 1:
            end = f" ({number})"
            labels[number] = _cut(line, longest - len(end)) + end
    return [label.replace("$", r"\$") for label in labels]


def _cut(line: str, longest: int) -> str:
    return line if len(line) <= longest else f"{line[: longest - 1].rstrip()}…"


def bare(axes: Axes) -> None:
    """Small ticks, a pale grid behind, and no frame at the top and on the right."""
    axes.tick_params(labelsize=8)
    axes.grid(color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def save_figure(figure: Figure, path: str | Path) -> Path:
    """Write a figure, whole or not at all; the extension chooses the format, missing parent folders are made."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as partial:
        figure.savefig(partial, dpi=DOTS_PER_INCH, format=path.suffix.removeprefix("."))
    return path
