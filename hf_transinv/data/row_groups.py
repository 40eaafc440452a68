"""What a split is read by: pieces of known length, each of which can be read without those before it.

A piece is a row group of a parquet file, on this machine or on the Hub, or a few rows of a table that is mapped from
the disk. Of parquet, only the two columns that are used are fetched.
"""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from hf_transinv.data.classes import MISSING

if TYPE_CHECKING:
    import io

    from datasets import Dataset
    from pyarrow import Array, ChunkedArray, Table
    from pyarrow.parquet import FileMetaData

_ROWS_OF_A_TABLE = 4  # small, for the rows of a table are often sorted by class; single rows read at half the speed
_READERS = 16
_BLOCK = 2**16  # bytes that a read from the Hub may fetch beyond what was asked; holds the footer of most files


class Pieces(Protocol):
    """The pieces of a split, in the order of its rows.

    Attributes:
        lengths: rows of each, int64 [P].
    """

    lengths: np.ndarray

    def read(self, piece: int) -> "Table":
        """Reads a piece: the columns ``image`` ({'bytes', 'path'}, undecoded) and ``label``. Takes any thread."""
        ...


class TablePieces:
    """Pieces of a table on this machine.

    Args:
        rows: with the columns ``image`` and ``label``.
    """

    def __init__(self, rows: "Dataset") -> None:
        self._rows = rows.with_format("arrow")
        self._firsts = np.arange(0, len(rows), _ROWS_OF_A_TABLE)
        self.lengths = np.diff(self._firsts, append=len(rows))

    def read(self, piece: int) -> "Table":
        first = int(self._firsts[piece])
        return self._rows[first : first + int(self.lengths[piece])]


@dataclass(frozen=True)
class _RowGroup:
    file: str
    footer: "FileMetaData"
    index: int


class ParquetPieces:
    """Pieces of parquet files: a row group is read by one request when its turn comes.

    Args:
        footers: of the files, by their local paths or addresses ``hf://...``.
        columns: what the columns ``image`` and ``label`` are called in the files.
        numbers_of: a file's own labels -> class numbers, int64; the column ``label`` is made by it.
    """

    def __init__(
        self,
        footers: "Mapping[str, FileMetaData]",
        columns: tuple[str, str],
        numbers_of: "Callable[[str, ChunkedArray], np.ndarray]",
    ) -> None:
        self._columns, self._numbers_of = list(columns), numbers_of
        self._groups = [
            _RowGroup(file, footer, index)
            for file, footer in footers.items()
            for index in range(footer.num_row_groups)
        ]
        self.lengths = np.array([group.footer.row_group(group.index).num_rows for group in self._groups], np.int64)

    def read(self, piece: int) -> "Table":
        from datasets import Features, Image
        from datasets.table import table_cast

        group = self._groups[piece]
        table = self._read(group, self._columns)
        schema = Features({"image": Image(decode=False)}).arrow_schema
        images = table_cast(table.select(self._columns[:1]).rename_columns(["image"]), schema)
        return images.append_column("label", as_labels(self._numbers_of(group.file, table[self._columns[1]])))

    def read_labels(self) -> "dict[str, ChunkedArray]":
        """The labels of every file, as they are stored."""
        import pyarrow as pa

        columns: dict[str, list[ChunkedArray]] = {}
        with ThreadPoolExecutor(_READERS) as pool:
            label = self._columns[1:]
            tables = pool.map(lambda group: self._read(group, label)[label[0]], self._groups)
            for group, column in zip(self._groups, tables, strict=True):
                columns.setdefault(group.file, []).append(column)
        return {
            file: pa.chunked_array([chunk for column in parts for chunk in column.chunks], parts[0].type)
            for file, parts in columns.items()
        }

    def _read(self, group: _RowGroup, columns: list[str]) -> "Table":
        from pyarrow.parquet import ParquetFile

        with _open(group.file) as file:
            # `pre_buffer` makes one request of neighbouring columns.
            parquet = ParquetFile(file, metadata=group.footer, pre_buffer=True)
            return parquet.read_row_group(group.index, columns=columns, use_threads=False)


class PieceRows:
    """All rows of pieces in their order, ``{"image", "label"}`` each; may be iterated again and again."""

    column_names = ("image", "label")

    def __init__(self, pieces: Pieces) -> None:
        self._pieces = pieces

    def __iter__(self) -> "Iterator[dict[str, Any]]":
        for piece in range(len(self._pieces.lengths)):
            table = self._pieces.read(piece)
            for row in range(len(table)):
                yield {name: table.column(name)[row].as_py() for name in self.column_names}


def as_labels(numbers: np.ndarray) -> "Array":
    """Class numbers as an Arrow array, null where there is none."""
    import pyarrow as pa

    return pa.array(numbers, pa.int64(), mask=numbers == MISSING)


def footer_of(path: str) -> "FileMetaData":
    """What stands at the end of a parquet file: its schema, its row groups.

    Args:
        path: local, or an address ``hf://...``.

    Raises:
        OSError, ValueError, HTTPError: it cannot be read.
    """
    from pyarrow.parquet import read_metadata

    with _open(path) as file:
        return read_metadata(file)


def _open(path: str) -> "io.RawIOBase":
    """Opens a file as ``datasets`` does: what fails on the way is tried again, as often as its settings say."""
    if "://" not in path:
        return open(path, "rb")
    from datasets import DownloadConfig
    from datasets.utils.file_utils import xopen

    return xopen(path, "rb", download_config=DownloadConfig(storage_options={"hf": {"block_size": _BLOCK}}))
