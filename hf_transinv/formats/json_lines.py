"""A file of one JSON object per line: what was written stays, even if its writer is ended in mid-line."""

import json
from pathlib import Path
from typing import Any

from hf_transinv.files import atomic_write_text


class JSONLines:
    """Appends to such a file, behind the lines that it has already; one that was cut off is removed.

    Args:
        path: of the file, which need not exist.

    Attributes:
        lines: all there are.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.lines = path, read_json_lines(path)
        if path.exists():
            atomic_write_text(path, "".join(json.dumps(line) + "\n" for line in self.lines))

    def append(self, **content: Any) -> None:
        """Append one line."""
        self.lines.append(content)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(content) + "\n")


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a file up to the first that is damaged; none where there is no file."""
    lines: list[dict[str, Any]] = []
    if not path.exists():
        return lines
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            content = json.loads(line)
        except (ValueError, RecursionError):
            break
        if not isinstance(content, dict):
            break
        lines.append(content)
    return lines
