"""What a person reads in a terminal: Markdown as aligned tables, the lines of a run's start, stages and their bars.

Everything that a run says of itself has the form "label       text", the text from column 13 on. Where stderr is no
terminal there are no bars and no carriage returns: a stage that lasts has a line every half minute instead.
"""

import re
import shutil
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import TextIO, TypeVar

from tqdm import tqdm

_BOLD = re.compile(r"\*\*(.+)\*\*")
_GAP, _TITLE = "  ", 12  # between columns; characters of a line in the title of a column of numbers
_LABEL = 12  # characters of a label, with the space behind it
_LINES = "{desc}{n_fmt}/{total_fmt}, {rate_fmt}, {remaining} left"
_Item = TypeVar("_Item")
_SECONDS = 30.0  # between two lines of a stage where there is no bar


def printed(markdown: str) -> str:
    """Markdown of this package for stdout: in its width (80 where it is no terminal), bold on a terminal alone."""
    return for_terminal(markdown, shutil.get_terminal_size().columns, sys.stdout.isatty())


def hides_bars() -> bool:
    """Whether nobody watches stderr grow: it is neither a terminal nor that of a cell of a notebook."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return not sys.stderr.isatty() and not hasattr(shell, "kernel")


def for_terminal(markdown: str, width: int, has_bold: bool = False) -> str:
    """Markdown as plain text.

    Args:
        markdown: paragraphs and tables, as `formats.markdown` makes them.
        width: characters of a line. A table that is wider continues below, with its first columns again.
        has_bold: whether cells in ** are printed bold (by ECMA-48's escape sequence); else they are plain.
    """
    parts = []
    for is_table, lines in groupby(markdown.splitlines(), lambda line: line.startswith("| ")):
        if is_table:
            header, rule, *rows = (_cells(line) for line in lines)
            parts.append(_aligned(header, rows, [not cell.endswith(":") for cell in rule], width, has_bold))
        else:
            parts += [textwrap.fill(_plain(line), width) if line else "" for line in lines]
    return "\n".join(parts)


def block(lines: Iterable[str]) -> str:
    """Lines of the form "label       text"; on a terminal folded to its width, below the text."""
    if not sys.stdout.isatty():
        return "\n".join(lines)
    fold = textwrap.TextWrapper(
        shutil.get_terminal_size().columns,
        subsequent_indent=" " * _LABEL,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "\n".join(fold.fill(line) for line in lines)


def say(label: str, text: str) -> None:
    """Name on stderr the stage that begins, above a bar where there is one."""
    tqdm.write(f"{label:<{_LABEL}}{text}", file=sys.stderr)
    sys.stderr.flush()


class _Lines:
    """A stream that is no terminal, for a bar: each of its states is a line."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> None:
        """Writes what is more than the return to the line's beginning."""
        if text.strip():
            self.stream.write(f"{text.strip()}\n")

    def flush(self) -> None:
        """Of the stream."""
        self.stream.flush()


def stage_bar(total: int | None, label: str, unit: str, is_shown: bool = True, leave: bool = False) -> tqdm:
    """The bar of a stage on stderr, and where that is no terminal a line every half minute.

    Args:
        total: in units; None: not known.
        label: of the bar.
        unit: such as " img".
        is_shown: whether this process is the one that prints.
        leave: whether it stays on a terminal when the stage is over.
    """
    if not hides_bars():
        return tqdm(total=total, desc=label, unit=unit, disable=not is_shown, leave=leave, dynamic_ncols=True)
    return tqdm(
        total=total,
        desc=f"{label}: ",
        unit=unit,
        disable=not is_shown,
        leave=False,
        file=_Lines(sys.stderr),
        bar_format=_LINES,
        mininterval=_SECONDS,
        maxinterval=2 * _SECONDS,
        delay=_SECONDS,
    )


def stages(items: Iterable[_Item], label: str, unit: str) -> Iterator[_Item]:
    """The items one after another, each a step of the bar of `stage_bar`, which is named before by `say`."""
    held = list(items)
    say("measuring", f"{label}, {len(held)} {unit}s")
    with stage_bar(len(held), label, f" {unit}s") as bar:
        for item in held:
            yield item
            bar.update()


def _cells(line: str) -> list[str]:
    """The cells of a line of a table, as Markdown; a bar after a backslash belongs to a cell."""
    return [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def _plain(text: str) -> str:
    """Markdown without its escapes and code spans."""
    return re.sub(r"\\([^\w\s]|_)|`([^`]*)`", lambda found: found[1] or found[2] or "", text)


def _aligned(
    header: Sequence[str], rows: Sequence[Sequence[str]], is_left: Sequence[bool], width: int, has_bold: bool
) -> str:
    """A table; columns that do not fit are put below, each time with the columns of text that it begins with."""
    names = [i for i, left in enumerate(is_left) if left]
    titles = [
        [_plain(title)]
        if left
        else textwrap.wrap(_plain(title), _TITLE, break_on_hyphens=False, break_long_words=False) or [""]
        for title, left in zip(header, is_left, strict=True)
    ]
    widths = [
        max(len(text) for text in (*titles[i], *(_plain(_unbold(row[i])) for row in rows))) for i in range(len(header))
    ]
    own = sum(widths[i] + len(_GAP) for i in names)
    blocks: list[list[int]] = [[]]
    for i in range(len(header)):
        if is_left[i]:
            continue
        used = own + sum(widths[j] + len(_GAP) for j in blocks[-1])
        if blocks[-1] and used + widths[i] > width:
            blocks.append([])
        blocks[-1].append(i)
    shown = []
    for block in blocks:
        columns = [*names, *block]
        height = max(len(titles[i]) for i in columns)
        lines = [
            [("", *[""] * height, *titles[i])[len(titles[i]) + 1 :][line] for i in columns] for line in range(height)
        ]
        text = [_line(line, columns, widths, is_left, False) for line in lines]
        text.append("─" * min(width, sum(widths[i] for i in columns) + len(_GAP) * (len(columns) - 1)))
        text += [_line([row[i] for i in columns], columns, widths, is_left, has_bold) for row in rows]
        shown.append("\n".join(text))
    return "\n\n".join(shown)


def _line(
    cells: Sequence[str], columns: Sequence[int], widths: Sequence[int], is_left: Sequence[bool], has_bold: bool
) -> str:
    """One line: text to the left, numbers to the right."""
    padded = []
    for cell, i in zip(cells, columns, strict=True):
        text = _plain(_unbold(cell))
        space = " " * (widths[i] - len(text))
        text = f"\033[1m{text}\033[0m" if has_bold and _BOLD.fullmatch(cell) else text
        padded.append(text + space if is_left[i] else space + text)
    return _GAP.join(padded).rstrip()


def _unbold(cell: str) -> str:
    found = _BOLD.fullmatch(cell)
    return found[1] if found else cell
