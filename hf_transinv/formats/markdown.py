"""Markdown from plain values: escaped text, code, tables, and numbers in a readable form."""

import re
from collections.abc import Sequence
from urllib.parse import quote

MARK = "\\*"
"""An asterisk after a figure, for a note below the table."""


def plain(text: object) -> str:
    """Any value as text on one line."""
    return " ".join(str(text).split())


def escape(text: object) -> str:
    """Any value as one line of Markdown in which no character is markup; bars are left to `table`."""
    return re.sub(r"([\\`*_{}\[\]<>#~&$!])", r"\\\1", plain(text))


def code(text: object) -> str:
    """Any value as a code span."""
    return f"`{plain(text).replace('`', chr(39))}`"


def fenced(text: str, language: str) -> str:
    """A code block whose fence is longer than any run of backticks in it."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text.strip()}\n{fence}"


def hub_link(repo_id: str, kind: str = "") -> str:
    """A link to a repository on the Hub; `kind` is "" for a model, "datasets/" for a data set."""
    return f"[{escape(repo_id)}](https://huggingface.co/{kind}{quote(plain(repo_id))})"


def image(caption: str, path: str) -> str:
    """An image with its caption below.

    Args:
        caption: as text.
        path: from the page's folder.
    """
    return f"![{escape(caption)}]({quote(path)})\n\n*{escape(caption)}.*"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], numeric_from: int = 1) -> str:
    """A Markdown table.

    Args:
        header: titles of the columns, as Markdown.
        rows: cells, as Markdown; bars in them are escaped here, all else (`escape`, `code`) by the caller.
        numeric_from: index of the first column that is aligned to the right, as are all after it.
    """
    rule = ["---"] * numeric_from + ["---:"] * (len(header) - numeric_from)
    lines = [[_in_cell(cell) for cell in row] for row in (header, rule, *rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _in_cell(text: str) -> str:
    """Escape bars; one after an odd number of backslashes (in a code span) gets another backslash first."""
    return re.sub(r"(\\*)\|", lambda found: found[1] + "\\" * (len(found[1]) % 2) + "\\|", text)


def number(value: float, like: float | None = None) -> str:
    """Two to three significant digits without an exponent: 12, 1.50, 0.043; or as many decimals as `like` gets."""
    size = abs(value if like is None else like)
    if value == 0 and like is None:
        return "0"
    digits = 0 if size >= 10 else 1 if size >= 2 else 2 if size >= 0.1 else 3 if size >= 0.01 else 4
    return f"{value:.{digits}f}".replace("-", "−")


def span(low: float, high: float) -> str:
    """Two numbers as "−4.8 to 1.0", both with the decimals of the larger."""
    like = max(low, high, key=abs)
    return f"{number(low, like)} to {number(high, like)}"


def steps(values: Sequence[int]) -> str:
    """Whole numbers as "1 to 5", or as "1, 3, 5" where some are missing."""
    whole = len(values) > 2 and list(values) == list(range(values[0], values[-1] + 1))
    return f"{values[0]} to {values[-1]}" if whole else ", ".join(map(str, values))


def count(value: int) -> str:
    """A number of parameters: 78 k, 2.26 M."""
    return f"{value / 1e6:.2f} M" if value >= 1e6 else f"{value / 1e3:.0f} k"


def duration(seconds: float) -> str:
    """Seconds, minutes or hours, whichever reads best."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def words(names: Sequence[str]) -> str:
    """A list in words: "a", "a and b", "a, b and c"."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
