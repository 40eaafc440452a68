"""What all figures share: colours, sizes, and how a file is written."""

from pathlib import Path

from matplotlib.figure import Figure

from hf_transinv.files import atomic_write

# Okabe and Ito's palette (Color Universal Design, 2008), distinguishable with any colour vision, without its yellow,
# which is too pale for a line. The line style changes when the colours are used up.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
LINE_STYLES = ("-", "--", ":", "-.")
DOTS_PER_INCH = 200
LONGEST_NAME = 28


def short(name: str) -> str:
    """A long name (a path, a Hub id) cut to its end, where names differ."""
    return name if len(name) <= LONGEST_NAME else f"…{name[1 - LONGEST_NAME :]}"


def save_figure(figure: Figure, path: str | Path) -> Path:
    """Write a figure, whole or not at all; the extension chooses the format, missing parent folders are made."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as partial:
        figure.savefig(partial, dpi=DOTS_PER_INCH, format=path.suffix.removeprefix("."))
    return path
