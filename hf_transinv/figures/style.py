"""What all figures share: sizes, names cut to length, and how a file is written; `palette` has their colours."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hf_transinv.files import atomic_write

DOTS_PER_INCH = 200
LONGEST_NAME = 28
LONGEST_CLASS = 24


def short(name: str) -> str:
    """A long name (a path, a Hub id) cut to its last parts, where names differ; parts stay whole where they can."""
    if len(name) <= LONGEST_NAME:
        return name
    end = name[1 - LONGEST_NAME :]
    return f"…{end[end.index('/') :] if '/' in end[:-1] else end}"


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
    """Write a figure on white, whole or not at all; the extension chooses the format, parent folders are made."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as partial:
        figure.savefig(
            partial, dpi=DOTS_PER_INCH, format=path.suffix.removeprefix("."), facecolor="white", transparent=False
        )
    return path
