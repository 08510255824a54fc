"""Owns a table of named columns as the bytes of a CSV or Parquet file. Not its columns."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from cache import atomic_files
from cache.errors import Unusable
from stages.data.spreadsheet_text import escape_formula
from stages.runtime.silent_imports import import_parquet

Columns = Mapping[str, Sequence[str | None] | np.ndarray]
"""Name -> n values: text or nothing, or an array of numbers (n,)."""

SUFFIXES = (".csv", ".parquet")
_LINES = 1000


def check_path(path: Path) -> None:
    """Raises Unusable where `path` ends in neither .csv nor .parquet, or where Parquet lacks pyarrow."""
    if path.suffix.lower() not in SUFFIXES:
        raise Unusable(f"--output {path}: expected a name that ends in .csv or .parquet", "for example: out.csv")
    if path.suffix.lower() == ".parquet":
        import_parquet()


def write_table(columns: Columns, path: Path) -> None:
    """Write .csv or .parquet, by the name of `path`, whole or not at all. Raises as `check_path` does."""
    check_path(path)
    atomic_files.publish(path.absolute(), as_csv(columns) if path.suffix.lower() == ".csv" else as_parquet(columns))


def as_csv(columns: Columns) -> bytes:
    """UTF-8 with a header; numbers to the last bit, None as an empty field, bytes that are not UTF-8 escaped.

    Texts that a spreadsheet would run as formulas are escaped, see spreadsheet_text.py.
    """
    out = io.BytesIO()
    text = io.TextIOWrapper(out, "utf-8", "backslashreplace", newline="")  # text of the whole would be copied twice
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    n = max(map(len, columns.values()), default=0)
    for start in range(0, n, _LINES):
        parts = (values[start : start + _LINES] for values in columns.values())
        cells = (
            v.tolist() if isinstance(v, np.ndarray) else [cell and escape_formula(cell) for cell in v] for v in parts
        )
        writer.writerows(zip(*cells, strict=True))
    text.flush()
    return out.getvalue()


def as_parquet(columns: Columns) -> bytes:
    """Raises Unusable where pyarrow is not installed."""
    pyarrow, parquet = import_parquet()
    out = pyarrow.BufferOutputStream()
    arrays = {
        name: pyarrow.array(values) if isinstance(values, np.ndarray) else pyarrow.array(map(as_utf8, values), "string")
        for name, values in columns.items()
    }
    parquet.write_table(pyarrow.table(arrays), out)
    return bytes(out.getvalue())


def as_utf8(text: str | None) -> str | None:
    """The text; a file name that is not UTF-8 is escaped."""
    return None if text is None else text.encode("utf-8", "backslashreplace").decode()
