"""Reads a table from a file: CSV, TSV, JSON lines, JSON or parquet."""

import csv
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_transinv.data.walk import PARQUET_SUFFIX
from hf_transinv.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

_DELIMITERS = ",;\t|"


def read_table(path: str) -> "pa.Table":
    """Reads a table. A CSV's cells are text, and whole numbers where a whole column consists of them.

    Raises:
        InputError: it cannot be read.
    """
    from pyarrow.parquet import read_table as read_parquet

    suffix = Path(path).suffix.lower()
    if suffix == PARQUET_SUFFIX:
        with _reading(path):
            return read_parquet(path)
    return _read_csv(path, suffix) if suffix in (".csv", ".tsv") else _read_json(path)


def column_values(table: "pa.Table", column: str, path: str) -> list[Any]:
    """The values of a column.

    Args:
        table: of `read_table`.
        column: its name.
        path: of the table, for errors.

    Raises:
        InputError: a value cannot be one of Python, such as text that is not in UTF-8.
    """
    with _reading(path):
        return table[column].to_pylist()


@contextmanager
def _reading(path: str) -> Iterator[None]:
    """Goes around a single call of a library that reads the table.

    Raises:
        InputError: the call in the block failed.
    """
    import pyarrow as pa

    try:
        yield
    except (OSError, ValueError, RecursionError, csv.Error, pa.ArrowException) as error:
        raise _cannot_be_read(path, error) from error


def _cannot_be_read(path: str, why: object) -> InputError:
    return InputError(
        f"The table {path} cannot be read: {' '.join(str(why).split())}. Correct it, or save it again in UTF-8."
    )


def _read_csv(path: str, suffix: str) -> "pa.Table":
    from pyarrow import csv as pyarrow_csv
    from pyarrow import string, table

    with _reading(path), open(path, encoding="utf-8-sig", newline="") as file:
        header = file.readline()
    delimiter = "\t" if suffix == ".tsv" else max(_DELIMITERS, key=header.count)
    with _reading(path):
        names = next(csv.reader([header], delimiter=delimiter), [])
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise _cannot_be_read(path, f"there are two columns {twice[0]!r}")
    # Everything as text first: a class may be called NA, and 01 is not 1.
    convert = pyarrow_csv.ConvertOptions(column_types=dict.fromkeys(names, string()), strings_can_be_null=False)
    parse = pyarrow_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
    with _reading(path):
        found = pyarrow_csv.read_csv(path, parse_options=parse, convert_options=convert)
    return table({name or f"column {place}": _numbers_or_text(found[place]) for place, name in enumerate(names)})


def _read_json(path: str) -> "pa.Table":
    from pyarrow import Table

    with _reading(path), open(path, encoding="utf-8-sig") as file:
        text = file.read()
    with _reading(path):
        if text.lstrip().startswith("["):
            rows = json.loads(text)
        else:
            rows = [json.loads(line) for line in text.splitlines() if line.strip()]
    if not all(isinstance(row, dict) for row in rows):
        raise _cannot_be_read(path, "expected one JSON object per line, or a list of them")
    with _reading(path):
        return Table.from_pylist(rows)


def _numbers_or_text(column: "pa.ChunkedArray") -> "pa.ChunkedArray":
    """Text -> whole numbers, where every cell is one as it is usually written.

    Cells such as 1.0 count as whole numbers: pandas writes them so in a column where some number is missing. An empty
    cell is then a missing number.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    whole = pc.match_substring_regex(column, r"^([-+]?(0|[1-9][0-9]{0,14})(\.0+)?)?$")
    is_empty = pc.equal(column, "")
    if not column.length() or not pc.all(whole).as_py() or pc.all(is_empty).as_py():
        return column
    filled = pc.if_else(is_empty, pa.scalar(None, pa.string()), column)
    return pc.cast(pc.cast(filled, pa.float64()), pa.int64())
