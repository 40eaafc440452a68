"""Row groups: parts of a split, of known length, each of which can be read without those before it.

A row group is that of a parquet file, on this machine or on the Hub, or a few rows of a table that is memory-mapped
from the disk. Of parquet files only the two columns that are used are fetched.
"""

from collections.abc import Callable, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, Protocol

import numpy as np

from hf_transinv.data.classes import MISSING

if TYPE_CHECKING:
    from datasets import Dataset
    from pyarrow import Array, ChunkedArray, Table
    from pyarrow.parquet import FileMetaData

_ROWS_PER_GROUP_OF_A_TABLE = 4  # small, as tables are often sorted by class; single rows are read at half the speed
_READERS = 16
_BLOCK = 2**16  # bytes that a read from the Hub may fetch beyond what was asked; holds the footer of most files


class RowGroups(Protocol):
    """The row groups of a split, in the order of its rows.

    Attributes:
        lengths: rows of each, int64 [G].
    """

    lengths: np.ndarray

    def read(self, index: int) -> "Table":
        """Reads a row group; may be called from several threads.

        Returns:
            The columns ``image`` ({'bytes', 'path'}, undecoded) and ``label``.
        """
        ...


class TableRowGroups:
    """Row groups of a table on this machine.

    Args:
        rows: with the columns ``image`` and ``label``.
    """

    def __init__(self, rows: "Dataset") -> None:
        self._rows = rows.with_format("arrow")
        self._firsts = np.arange(0, len(rows), _ROWS_PER_GROUP_OF_A_TABLE)
        self.lengths = np.diff(self._firsts, append=len(rows))

    def read(self, index: int) -> "Table":
        first = int(self._firsts[index])
        return self._rows[first : first + int(self.lengths[index])]


@dataclass(frozen=True)
class _Place:
    """The place of a row group: the file, its footer, and which of the file's row groups it is."""

    file: str
    footer: "FileMetaData"
    index: int


class ParquetRowGroups:
    """Row groups of parquet files, each read by one request when its turn comes.

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
        self._places = [
            _Place(file, footer, index) for file, footer in footers.items() for index in range(footer.num_row_groups)
        ]
        self.lengths = np.array([place.footer.row_group(place.index).num_rows for place in self._places], np.int64)

    def read(self, index: int) -> "Table":
        from datasets import Features, Image
        from datasets.table import table_cast

        place = self._places[index]
        table = self._read(place, self._columns)
        schema = Features({"image": Image(decode=False)}).arrow_schema
        images = table_cast(table.select(self._columns[:1]).rename_columns(["image"]), schema)
        return images.append_column("label", as_labels(self._numbers_of(place.file, table[self._columns[1]])))

    def read_labels(self) -> "dict[str, ChunkedArray]":
        """The labels of every file, as they are stored."""
        import pyarrow as pa

        columns: dict[str, list[ChunkedArray]] = {}
        with ThreadPoolExecutor(_READERS) as pool:
            label = self._columns[1:]
            tables = pool.map(lambda place: self._read(place, label)[label[0]], self._places)
            for place, column in zip(self._places, tables, strict=True):
                columns.setdefault(place.file, []).append(column)
        return {
            file: pa.chunked_array([chunk for column in parts for chunk in column.chunks], parts[0].type)
            for file, parts in columns.items()
        }

    def _read(self, place: _Place, columns: list[str]) -> "Table":
        from pyarrow.parquet import ParquetFile

        with _open(place.file) as file:
            # `pre_buffer` makes one request for neighbouring columns.
            parquet = ParquetFile(file, metadata=place.footer, pre_buffer=True)
            return parquet.read_row_group(place.index, columns=columns, use_threads=False)


class SequentialRows:
    """All rows of the row groups in their order, ``{"image", "label"}`` each; may be iterated over repeatedly.

    Args:
        row_groups: to read from.
    """

    column_names = ("image", "label")

    def __init__(self, row_groups: RowGroups) -> None:
        self._row_groups = row_groups

    def __iter__(self) -> "Generator[dict[str, Any], None, None]":
        for index in range(len(self._row_groups.lengths)):
            table = self._row_groups.read(index)
            for row in range(len(table)):
                yield {name: table.column(name)[row].as_py() for name in self.column_names}


def as_labels(numbers: np.ndarray) -> "Array":
    """Class numbers as an Arrow array, null where a label is missing."""
    import pyarrow as pa

    return pa.array(numbers, pa.int64(), mask=numbers == MISSING)


def footer_of(path: str) -> "FileMetaData":
    """The footer of a parquet file: its schema and its row groups.

    Args:
        path: local, or an address ``hf://...``.

    Raises:
        OSError, ValueError, HTTPError: it cannot be read.
    """
    from pyarrow.parquet import read_metadata

    with _open(path) as file:
        return read_metadata(file)


def _open(path: str) -> IO[bytes]:
    """Opens a file as ``datasets`` does: failed reads are tried again, as often as its settings say."""
    if "://" not in path:
        return open(path, "rb")
    from datasets import DownloadConfig
    from datasets.utils.file_utils import xopen

    return xopen(path, "rb", download_config=DownloadConfig(storage_options={"hf": {"block_size": _BLOCK}}))
