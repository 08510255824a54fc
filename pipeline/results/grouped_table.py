"""Owns a table of the user's written anew, with groups in a column. Not which groups, nor how tables are read."""

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path

from cache import atomic_files
from cache.errors import Unusable
from stages.data.spreadsheet_text import escape_formula
from stages.data.tables import decode_text, separator_of
from stages.runtime.silent_imports import import_parquet


def check_path(table: Path, path: Path) -> None:
    """Raises Unusable where `path` is the table itself, or a file of another kind."""
    if path.suffix.lower() != table.suffix.lower():
        raise Unusable(
            f"--write-groups {path}: expected a name that ends in {table.suffix}, as that of data.table",
            f"for example: {path.with_suffix(table.suffix)}",
        )
    if path.absolute().resolve() == table.resolve():
        raise Unusable(f"--write-groups {path} is data.table itself", "name another file, and data.table after it")


def write_grouped(table: Path, path: Path, column: str, groups: Mapping[int, str]) -> None:
    """Write the table to `path`, whole or not at all, with the groups of its records, by their numbers from 0.

    The column is filled, or added as the last one; a record without a group keeps its cell. All else is kept: of CSV
    the cells and their separator, in UTF-8, of Parquet the columns and their types.
    """
    write = {".csv": _csv, ".jsonl": _jsonl, ".parquet": _parquet}[table.suffix.lower()]
    atomic_files.publish(path.absolute(), write(table, column, groups))


def _csv(table: Path, column: str, groups: Mapping[int, str]) -> bytes:
    text = decode_text(table, [])
    separator = separator_of(text)
    names, *records = (row for row in csv.reader(io.StringIO(text, newline=""), delimiter=separator) if row)
    place = names.index(column) if column in names else len(names)
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=separator, lineterminator="\n")
    writer.writerow([*names[:place], column, *names[place + 1 :]])
    for number, cells in enumerate(records):
        cell = escape_formula(groups[number]) if number in groups else "".join(cells[place : place + 1])
        writer.writerow([*cells[:place], cell, *cells[place + 1 :]])
    return out.getvalue().encode("utf-8", "backslashreplace")


def _jsonl(table: Path, column: str, groups: Mapping[int, str]) -> bytes:
    records = (json.loads(line) for line in decode_text(table, []).split("\n") if line.strip())
    filled = (one | {column: groups[number]} if number in groups else one for number, one in enumerate(records))
    return "".join(f"{json.dumps(one)}\n" for one in filled).encode()


def _parquet(table: Path, column: str, groups: Mapping[int, str]) -> bytes:
    pyarrow, parquet = import_parquet()
    found = parquet.read_table(table)
    there = column in found.column_names
    before = found[column].to_pylist() if there else [None] * len(found)
    cells = [groups.get(number, None if cell is None else str(cell)) for number, cell in enumerate(before)]
    filled = pyarrow.array(cells, "string")
    if there:
        found = found.set_column(found.column_names.index(column), column, filled)
    else:
        found = found.append_column(column, filled)
    out = pyarrow.BufferOutputStream()
    parquet.write_table(found, out)
    return bytes(out.getvalue())
