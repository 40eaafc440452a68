"""A walk through a folder, shared by all that reads folders. Links are followed, hidden files are ignored.

Files are sorted. Those that are not read are counted by their suffixes, for a message.
"""

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

from hf_transinv.data.decoding import image_suffixes
from hf_transinv.errors import InputError

TABLE_SUFFIXES = frozenset((".csv", ".tsv", ".json", ".jsonl", ".ndjson"))
PARQUET_SUFFIX = ".parquet"

_UNREADABLE = frozenset(
    (".heic", ".heif", ".svg", ".psd", ".eps", ".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".jxl")
)
_SYSTEM_FOLDERS = frozenset(("__MACOSX", "$RECYCLE.BIN", "System Volume Information", "lost+found", "@eaDir"))


@dataclass(frozen=True)
class File:
    """A file below a folder.

    Attributes:
        path: absolute.
        parts: relative to the folder that was walked: the folders, then the file's own name.
    """

    path: str
    parts: tuple[str, ...]

    @property
    def suffix(self) -> str:
        """In lower case, with its dot."""
        return os.path.splitext(self.parts[-1])[1].lower()

    @property
    def folders(self) -> tuple[str, ...]:
        """The folders between the one that was walked and the file."""
        return self.parts[:-1]

    def __str__(self) -> str:
        return "/".join(self.parts)


@dataclass
class Walk:
    """Everything below a folder.

    Attributes:
        root: the folder, as an absolute path.
        files: all files that are not hidden, sorted.
        folders: all folders that are not hidden, as parts.
        hidden: number of files whose name or folder begins with a dot, or that are in an operating system's folder.
    """

    root: str
    files: list[File] = field(default_factory=list)
    folders: list[tuple[str, ...]] = field(default_factory=list)
    hidden: int = 0

    @cached_property
    def images(self) -> list[File]:
        """Files with a suffix that the decoder knows."""
        return self.with_suffix(image_suffixes())

    def with_suffix(self, suffixes: Iterable[str]) -> list[File]:
        """Files with one of these suffixes."""
        suffixes = set(suffixes)
        return [file for file in self.files if file.suffix in suffixes]

    def unread(self, read: Iterable[File]) -> str:
        """Lists what was not read: "3 .heic, 1 .txt, 2 hidden"; empty when everything was."""
        counts = Counter(file.suffix or "without suffix" for file in set(self.files).difference(read))
        said = [f"{count} {suffix}" for suffix, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
        return ", ".join([*said, *([f"{self.hidden} hidden"] if self.hidden else [])])

    def unreadable_images(self) -> list[File]:
        """Images of formats that the decoder does not support (HEIC, SVG, raw files of cameras)."""
        return self.with_suffix(_UNREADABLE - image_suffixes())


def walk(folder: str | os.PathLike[str]) -> Walk:
    """Walks through a folder.

    Raises:
        InputError: a folder cannot be read, or a name is not in UTF-8.
    """
    found = Walk(os.path.abspath(folder))
    for file in _files(found, found.root, (), (os.path.realpath(found.root),)):
        found.files.append(file)
    return found


def _files(found: Walk, folder: str, parts: tuple[str, ...], above: tuple[str, ...]) -> Iterator[File]:
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise InputError(
            f"The folder {folder} cannot be looked into ({error.strerror}). Correct its permissions."
        ) from error
    for entry in entries:
        inside = (*parts, entry.name)
        is_hidden = entry.name.startswith(".") or entry.name in _SYSTEM_FOLDERS
        if not entry.is_dir():
            if is_hidden:
                found.hidden += 1
                continue
            _check_unicode(folder, entry.name)
            yield File(entry.path, inside)
            continue
        real = os.path.realpath(entry.path)
        if real in above:  # a link to a folder that it is in
            continue
        if is_hidden:
            found.hidden += sum(len(files) for _, _, files in os.walk(entry.path))
            continue
        _check_unicode(folder, entry.name)
        found.folders.append(inside)
        yield from _files(found, entry.path, inside, (*above, real))


def _check_unicode(folder: str, name: str) -> None:
    """Raises InputError for a name that is not in UTF-8, which no table can hold and no terminal can show."""
    if not name.isprintable() and any("\ud800" <= character <= "\udfff" for character in name):
        raise InputError(f"A name in {folder} is not in UTF-8: {os.fsencode(name)!r}. Rename it.")
