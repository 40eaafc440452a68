"""Markdown as a person reads it in a terminal: tables aligned to its width, paragraphs wrapped, nothing escaped."""

import re
import shutil
import sys
import textwrap
from collections.abc import Sequence
from itertools import groupby

_BOLD = re.compile(r"\*\*(.+)\*\*")
_GAP, _TITLE = "  ", 12  # between columns; characters of a line in the title of a column of numbers


def printed(markdown: str) -> str:
    """Markdown of this package for stdout: in its width (80 where it is no terminal), bold on a terminal alone."""
    return for_terminal(markdown, shutil.get_terminal_size().columns, sys.stdout.isatty())


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
