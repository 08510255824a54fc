"""Owns tables of images: .csv, .jsonl or .parquet to rows. Not folders (scan.py), nor what labels mean (labels.py)."""

import csv
import io
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from cache import keys
from cache.errors import Unusable
from stages.data import labels
from stages.data.cells import Cells
from stages.data.manifest import Row
from stages.data.scan import Found
from stages.data.spreadsheet_text import unescape_formula
from stages.runtime.silent_imports import import_parquet
from stages.sources import lookup
from stages.sources.listing import SPLIT_NAMES, FollowLinks, Reject
from stages.sources.source import Source, as_source

_LABELS = frozenset(["label", "labels", "class", "classes", "category", "target", "species", "y"])


def read_table(
    path: Path,
    columns: Mapping[str, str],
    root: Path | Source,
    follow_links: FollowLinks = "inside",
    cells: Cells | None = None,
) -> Found:
    """A .csv, .jsonl or .parquet table, or a saved manifest; its paths are relative to `root` and stay under it.

    Of images in archives, they are ARCHIVE/MEMBER.

    An `id` column of 64 hex digits in every row is trusted: a file is needed only where its feature row is missing, and
    is hashed then. An id column of other values is ignored. A path that names no file is taken as the only similar one,
    with a warning. cells: where the labels are no classes, how they are written; a saved manifest has them in its
    column of labels.
    """
    found, source = Found(), as_source(root, follow_links)
    records = read_records(path, found.notes)
    if not records:
        raise Unusable(f"{path}: no rows", "name a table with one row per image in data.table")
    if cells is not None:
        cells = _present(path, records, columns, cells)
        columns = {part: name for part, name in columns.items() if part != "label"}
    _check_columns(path, records, columns)
    rows = [_row(path, number, record, columns, cells) for number, record in enumerate(records, start=1)]
    with_id = [keys.is_digest(row.id) for row in rows]
    if any(with_id) and not all(with_id):
        raise Unusable(
            f"{path}: {with_id.count(False)} of {len(rows)} rows have no id of 64 hex digits, the first is "
            f"{_place(path, with_id.index(False) + 1)}",
            "leave the id column out, so that the files are hashed",
        )
    found.with_ids = all(with_id)
    if not found.with_ids:
        rows = _nearest([row._replace(id="") for row in rows], source, path.name, found)
    found.rows = _inside(rows, source, found)
    found.notes += labels.find_odd_labels(found.rows) if cells is None else []
    return found


def find_paths(path: Path, column: str, source: Source, with_ids: bool) -> dict[int, str]:
    """The number of each record, from 0, and the path of its image in `Found.rows`; without records that were left out.

    with_ids: as `Found` has it.
    """
    rows = [Row(f"{number}", _text(one.get(column)) or "") for number, one in enumerate(read_records(path, []))]
    rows = rows if with_ids else _nearest(rows, source, path.name, Found())
    return {int(row.id): row.path for row in _inside(rows, source, Found())}


def _present(path: Path, records: Sequence[Mapping[str, Any]], columns: Mapping[str, str], cells: Cells) -> Cells:
    """The cells, or those of a saved manifest. Raises Unusable where the table lacks a column."""
    names = {name for record in records for name in record}
    if not names & {*cells.columns} and columns["label"] in names and all("id" in record for record in records):
        return replace(cells, columns=[columns["label"]])
    if lacking := [name for name in cells.columns if name not in names]:
        raise Unusable(
            f"{path}: no column {lacking[0]!r}; it has {', '.join(map(repr, sorted(names)))}",
            "name the columns of what is predicted with data.target.columns",
        )
    return cells


def _check_columns(path: Path, records: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> None:
    names = list(dict.fromkeys(name for record in records for name in record))
    others = [name for name in names if name not in columns.values() and name != "id"]
    for part, name in columns.items():
        if name in names:
            continue
        near = [other for other in others if other.strip().lower() in ({part} if part != "label" else _LABELS)]
        one_hot = part == "label" and _is_one_hot(records, others)
        if part == "path" or name != part or near or one_hot:
            raise Unusable(
                f"{path}: no column {name!r}; it has {', '.join(map(repr, names))}",
                "make one column of those with 0 and 1, or set data.target: {kind: labels, columns: [...]}"
                if one_hot and not near
                else f"name the column with data.columns.{part}" + (f": {near[0]!r}" if near else ""),
            )


def _is_one_hot(records: Sequence[Mapping[str, Any]], others: Sequence[str]) -> bool:
    """Whether there is a column for each class, with one 1 in each row."""
    if len(others) < 2:
        return False
    rows = ([str(record.get(name)).strip().removesuffix(".0") for name in others] for record in records)
    return all(row.count("1") == 1 and row.count("0") == len(row) - 1 for row in rows)


def _nearest(rows: list[Row], source: Source, table: str, found: Found) -> list[Row]:
    """Rows whose paths name files: a path that names none is replaced by the only similar one."""
    instead = lookup.find_near([row.path for row in rows], source)
    taken = {path: names[0] for path, names in sorted(instead.items()) if len(names) == 1}
    if taken:
        first, other = next(iter(taken.items()))
        found.notes.append(
            f"{table}: {len(taken)} paths name no file as they are written, and stand for the only near one: "
            f"{first!r} for {other!r}"
        )
    several = {path: names for path, names in instead.items() if len(names) > 1}
    for path, names in several.items():
        found.rejected.append(Reject(path, f"no such file; near are {', '.join(map(repr, names[:3]))}"))
    return [row._replace(path=taken.get(row.path, row.path)) for row in rows if row.path not in several]


def _inside(rows: list[Row], source: Source, found: Found) -> list[Row]:
    """The rows whose paths stay under the root."""
    inside, named = [], lookup.names_inside([row.path for row in rows], source)
    for row in rows:
        name = named[row.path]
        if isinstance(name, Reject):
            found.rejected.append(name)
        else:
            inside.append(row if name == row.path else row._replace(path=name))
    return inside


def _row(path: Path, number: int, record: Mapping[str, Any], columns: Mapping[str, str], cells: Cells | None) -> Row:
    values = {name: _text(record.get(column)) for name, column in columns.items()}
    if values["path"] is None:
        raise Unusable(
            f"{path}: {_place(path, number)} has no {columns['path']}", "give every row a path, or remove it"
        )
    try:
        if b"\0" in os.fsencode(values["path"]):
            raise ValueError
    except ValueError as error:
        raise Unusable(
            f"{path}: {_place(path, number)} has the path {values['path']!r}, which no file can have"
        ) from error
    split = values["split"]
    if split is not None and split.lower() not in SPLIT_NAMES:
        raise Unusable(f"{path}: {_place(path, number)} has split {split!r}; expected train, val or test")
    split = SPLIT_NAMES[split.lower()] if split is not None else None
    try:
        label = values["label"] if cells is None else cells.label(record)
    except ValueError as error:
        raise Unusable(f"{path}: {_place(path, number)}: {error}", "correct the table, or data.target") from error
    return Row(_text(record.get("id")) or "", values["path"], label, split, values["group"])


def _place(path: Path, number: int) -> str:
    """Where the record of that number, from 1, is, as an editor counts: `line 12`; of Parquet, `row 12`."""
    kind = path.suffix.lower()
    if kind == ".parquet":
        return f"row {number}"
    text = decode_text(path, [])
    if kind == ".jsonl":
        lines = (line for line, content in enumerate(text.split("\n"), start=1) if content.strip())
    else:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator_of(text))
        next(reader)
        lines = (reader.line_num for fields in reader if fields)
    return f"line {next(islice(lines, number - 1, None))}"


def _text(value: Any) -> str | None:
    """Labels and ids are strings; empty, null and not-a-number mean none."""
    if value is None or value != value:
        return None
    if isinstance(value, list | dict):
        raise Unusable(
            f"the table has the value {value!r}; one class per image is expected, not several",
            "for several labels set data.target: {kind: labels}",
        )
    if isinstance(value, bytes):
        value = value.decode("utf-8", "backslashreplace")
    return str(value).strip() or None


def read_records(path: Path, notes: list[str]) -> list[dict[str, Any]]:
    """All rows of a table as dicts; the file's extension says which kind it is."""
    kind = path.suffix.lower()
    try:
        if kind == ".csv":
            return _read_csv(path, decode_text(path, notes))
        if kind == ".jsonl":
            decode = json.JSONDecoder(object_pairs_hook=_share).decode
            records = [decode(line) for line in decode_text(path, notes).split("\n") if line.strip()]
            if not all(isinstance(record, dict) for record in records):
                raise ValueError("a line is not a JSON object")
            return records
        if kind == ".parquet":
            _, parquet = import_parquet()
            rows: list[dict[str, Any]] = parquet.read_table(path).to_pylist()
            return rows
    except FileNotFoundError as error:
        raise Unusable(
            f"data.table: {path} is not there", "name the table with data.table, or set it to null"
        ) from error
    except (OSError, ValueError, RecursionError, csv.Error) as error:
        raise Unusable(f"data.table: {path} cannot be read: {error}") from error
    raise Unusable(f"data.table: {path} is of an unknown kind; expected .csv, .jsonl or .parquet")


def _share(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose names, and texts in lists, are kept once for all rows.

    Else 100,000 rows of 26 labels took 200 MB that, strewn among what stays, were not given back.
    """
    return {
        sys.intern(name): [sys.intern(part) if isinstance(part, str) else part for part in value]
        if isinstance(value, list)
        else value
        for name, value in pairs
    }


def decode_text(path: Path, notes: list[str]) -> str:
    """UTF-8; UTF-16 with a byte order mark, as spreadsheets write it; else Windows-1252, with a warning."""
    data = path.read_bytes()
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16")
    if b"\0" in data[:1000]:
        raise Unusable(
            f"data.table: {path} is not UTF-8 text, perhaps UTF-16 without a byte order mark", "save it as UTF-8"
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        notes.append(
            f"{path.name} is not UTF-8 (line {line}), and is read as Windows-1252: "
            "save it as UTF-8 if names or labels come out wrong"
        )
        return data.decode("cp1252", "replace")


def separator_of(text: str) -> str:
    """That of a CSV file, by its first line."""
    return max(",;\t", key=text.partition("\n")[0].count)


def _read_csv(path: Path, text: str) -> list[dict[str, Any]]:
    separator = separator_of(text)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    names = next(reader, [])
    if len(set(names)) < len(names):
        raise Unusable(f"data.table: {path} has two columns of one name: {', '.join(map(repr, names))}")
    records = []
    for fields in reader:
        if fields and len(fields) != len(names):
            raise Unusable(
                f"data.table: {path}, line {reader.line_num}: {len(fields)} fields; the header has {len(names)}",
                f"put a value that contains {separator!r} in double quotes; leave a missing one empty",
            )
        if fields:
            records.append(dict(zip(names, map(unescape_formula, fields), strict=True)))
    return records
