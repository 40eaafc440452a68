"""What a split is read by: pieces of known length, each of which can be read without those before it.

A piece is a row group of a parquet file, on this machine or on the Hub, or a few rows of a table that is mapped from
the disk. Of parquet, only the two columns that are used are fetched.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    import io

    from datasets import Dataset, Features
    from pyarrow import Table
    from pyarrow.parquet import FileMetaData

_ROWS_OF_A_TABLE = 4  # small, for the rows of a table are often sorted by class; single rows read at half the speed
_FOOTERS_AT_ONCE = 16
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
    """Pieces of parquet files; their footers are read at once, a row group by one request when its turn comes.

    Args:
        files: local paths, or addresses ``hf://...``.
        columns: what the columns ``image`` and ``label`` are called in the files.
        features: of the columns ``image`` and ``label``.

    Raises:
        OSError, ValueError, HTTPError: a file cannot be read.
    """

    def __init__(self, files: Sequence[str], columns: tuple[str, str], features: "Features") -> None:
        self._columns, self._schema = list(columns), features.arrow_schema
        # The first one in this thread: what it learns of the files around it is handed on to the other threads.
        footers = [_footer(path) for path in files[:1]]
        with ThreadPoolExecutor(_FOOTERS_AT_ONCE) as pool:
            footers += pool.map(_footer, files[1:])
        self._groups = [
            _RowGroup(file, footer, index)
            for file, footer in zip(files, footers, strict=True)
            for index in range(footer.num_row_groups)
        ]
        self.lengths = np.array([group.footer.row_group(group.index).num_rows for group in self._groups], np.int64)

    def read(self, piece: int) -> "Table":
        from datasets.table import table_cast
        from pyarrow.parquet import ParquetFile

        group = self._groups[piece]
        with _open(group.file) as file:
            # `pre_buffer` makes one request of neighbouring columns.
            parquet = ParquetFile(file, metadata=group.footer, pre_buffer=True)
            table = parquet.read_row_group(group.index, columns=self._columns, use_threads=False)
        return table_cast(table.select(self._columns).rename_columns(["image", "label"]), self._schema)


def _footer(path: str) -> "FileMetaData":
    from pyarrow.parquet import read_metadata

    with _open(path) as file:
        return read_metadata(file)


def _open(path: str) -> "io.RawIOBase":
    """Opens a file as ``datasets`` does: what fails on the way is tried again, as often as its settings say."""
    from datasets import DownloadConfig
    from datasets.utils.file_utils import xopen

    return xopen(path, "rb", download_config=DownloadConfig(storage_options={"hf": {"block_size": _BLOCK}}))
