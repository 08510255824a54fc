"""Owns finding images: class folders or a table to rows with ids. Not decoding, and not the split of the rest."""

from __future__ import annotations

import csv
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from cache import keys
from cache.errors import Unusable
from cache.hash_index import HashIndex
from stages.data.manifest import Row
from stages.data.spreadsheet_text import unescape_formula
from stages.runtime.silent_imports import import_parquet

EXTENSIONS = frozenset(
    [".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".avif", ".heic", ".heif"]
)  # fmt: skip
_SPLIT_NAMES = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip


class Reject(NamedTuple):
    """An image that cannot be used, with the reason."""

    path: str
    reason: str


@dataclass
class Found:
    """Rows (id empty, split None where unknown), counts of ignored files by kind, and rejects.

    `unhashed` are rows left without an id, because no file may be read.
    """

    rows: list[Row] = field(default_factory=list)
    unhashed: list[Row] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)
    rejected: list[Reject] = field(default_factory=list)


def scan_folders(root: Path) -> Found:
    """Class folders under `root`, or train/val/test folders of class folders, or images without any class.

    Hidden files and those without an image's extension are counted as ignored, by kind. A link that leaves `root` is a
    reject; a linked folder within it is skipped, since its files are found where they are.
    Raises Unusable where the folder is missing, unreadable, has no image, or mixes split folders with others.
    """
    paths, found = list_images(root, "data.root")
    if not paths and not found.rejected:
        raise Unusable(
            f"{root}: no images ({found.ignored.total()} other files); looked for {', '.join(sorted(EXTENSIONS))}",
            "name the folder that holds them with data.root",
        )
    has_splits = _has_split_folders(root, paths)
    for path in paths:
        parts = path.split("/")[:-1]
        split = _SPLIT_NAMES[parts.pop(0).lower()] if has_splits else None
        found.rows.append(Row("", path, parts[0] if parts else None, split))
    return found


def list_images(root: Path, called: str) -> tuple[list[str], Found]:
    """Sorted paths, relative to the folder `root`, of the images in it; ignored files and rejects are in the `Found`.

    called: name of the folder in messages. Raises Unusable where it is missing or unreadable.
    """
    found = Found()
    return sorted(_walk(root, "", found, called)), found


def read_table(path: Path, columns: Mapping[str, str], root: Path) -> Found:
    """A .csv, .jsonl or .parquet table, or a saved manifest; its paths are relative to `root` and stay under it.

    An `id` column of 64 hex digits in every row is trusted: a file is needed only where its feature row is missing,
    and is hashed then. An id column of other values is ignored.
    """
    records = _read_table(path)
    if not records:
        raise Unusable(f"{path}: no rows", "name a table with one row per image in data.table")
    names = list(dict.fromkeys(name for record in records for name in record))
    for part, name in columns.items():
        if name not in names and (part == "path" or name != part):
            raise Unusable(
                f"{path}: no column {name!r}; it has {', '.join(map(repr, names))}",
                f"name the column with data.columns.{part}",
            )
    rows = [_row(path, number, record, columns) for number, record in enumerate(records, start=1)]
    with_id = [keys.is_digest(row.id) for row in rows]
    if any(with_id) and not all(with_id):
        raise Unusable(
            f"{path}: {with_id.count(False)} of {len(rows)} rows have no id of 64 hex digits, the first is row "
            f"{with_id.index(False) + 1}",
            "leave the id column out, so that the files are hashed",
        )
    found = Found()
    found.rows = _inside(rows if all(with_id) else [row._replace(id="") for row in rows], root, found)
    return found


def hash_files(
    found: Found,
    root: Path,
    index: HashIndex,
    on_hashed: Callable[[int], object] = lambda n: None,
    read_files: bool = True,
) -> Found:
    """Fill in empty ids: the SHA-256 of each file. A file that cannot be read becomes a reject.

    Without `read_files`, those that are not in the index become `unhashed`.
    """
    full = {row.path: f"{root}/{row.path}" for row in found.rows if not row.id}
    paths = list(full.values())
    digests = index.digests(paths, on_hashed) if read_files else index.known(paths, fresh=True)
    out = Found(ignored=found.ignored, rejected=list(found.rejected))
    for row in found.rows:
        digest = row.id or digests.get(full[row.path])
        if digest is None:
            out.unhashed.append(row)
        elif isinstance(digest, OSError):
            out.rejected.append(Reject(row.path, f"cannot be read: {digest.strerror or digest}"))
        else:
            out.rows.append(Row(digest, *row[1:]))  # twice as fast as _replace, for 100,000 rows
    return out


def _walk(root: Path, below: str, found: Found, called: str) -> Iterable[str]:
    """Relative paths of the images under `root`/`below`; hidden files and other kinds are counted."""
    folder = os.path.join(root, below) if below else str(root)
    try:
        entries = list(os.scandir(folder))
    except FileNotFoundError as error:
        raise Unusable(f"{called}: {folder} is not there", f"name the folder of the images with {called}") from error
    except NotADirectoryError as error:
        raise Unusable(f"{called}: {folder} is a file; expected a folder of images") from error
    except OSError as error:
        raise Unusable(f"cannot read the folder {folder}: {error.strerror}", f"check: ls -ld {folder}") from error
    for entry in entries:
        name = f"{below}/{entry.name}" if below else entry.name
        kind = os.path.splitext(entry.name)[1].lower()
        if entry.name.startswith("."):
            found.ignored["hidden"] += 1
        elif entry.is_dir(follow_symlinks=False):
            yield from _walk(root, name, found, called)
        elif entry.is_symlink() and os.path.isdir(entry.path):
            if not _stays_under(entry.path, root):
                found.rejected.append(Reject(name, f"is a linked folder that leaves {called}"))
        elif kind not in EXTENSIONS:
            found.ignored[kind or "without extension"] += 1
        elif entry.is_symlink() and not _stays_under(entry.path, root):
            found.rejected.append(Reject(name, f"is a link that leaves {called}"))
        else:
            yield name


def _has_split_folders(root: Path, paths: list[str]) -> bool:
    """Whether the top folders have names of splits, at least two of them."""
    top = {path.partition("/")[0] + path.partition("/")[1] for path in paths}  # folders end in a slash here
    named = {name for name in top if name[-1] == "/" and name[:-1].lower() in _SPLIT_NAMES}
    if len({_SPLIT_NAMES[name[:-1].lower()] for name in named}) < 2:
        return False
    others = sorted(top - named)
    if others:
        raise Unusable(
            f"{root}: {', '.join(sorted(named))} look like splits, but {others[0]} is next to them"
            + (f", and {len(others) - 1} more" if len(others) > 1 else ""),
            "move everything else out of the folder, or name splits and labels in a table (data.table)",
        )
    return True


def _stays_under(path: str, root: Path) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root))


def _inside(rows: list[Row], root: Path, found: Found) -> list[Row]:
    """The rows whose paths stay under `root`; the folder of each is resolved once."""
    real_root = os.path.realpath(root)
    folder_ok: dict[str, bool] = {}
    inside = []
    for row in rows:
        path = os.path.normpath(os.path.join(root, row.path))
        folder = os.path.dirname(path)
        if folder not in folder_ok:
            folder_ok[folder] = Path(os.path.realpath(folder)).is_relative_to(real_root)
        if not folder_ok[folder]:
            raise Unusable(
                f"data.table: {row.path!r} leaves data.root ({root})", "set data.root to a folder above all images"
            )
        if os.path.islink(path) and not _stays_under(path, root):
            found.rejected.append(Reject(row.path, "is a link that leaves data.root"))
        else:
            inside.append(row._replace(path=os.path.relpath(path, root) if os.path.isabs(row.path) else row.path))
    return inside


def _row(path: Path, number: int, record: Mapping[str, Any], columns: Mapping[str, str]) -> Row:
    values = {name: _text(record.get(column)) for name, column in columns.items()}
    if values["path"] is None:
        raise Unusable(f"{path}: row {number} has no {columns['path']}", "give every row a path, or remove it")
    try:
        if b"\0" in os.fsencode(values["path"]):
            raise ValueError
    except ValueError as error:
        raise Unusable(f"{path}: row {number} has the path {values['path']!r}, which no file can have") from error
    split = values["split"]
    if split is not None and split.lower() not in _SPLIT_NAMES:
        raise Unusable(f"{path}: row {number} has split {split!r}; expected train, val or test")
    split = _SPLIT_NAMES[split.lower()] if split is not None else None
    return Row(_text(record.get("id")) or "", values["path"], values["label"], split, values["group"])


def _text(value: Any) -> str | None:
    """Labels and ids are strings; empty, null and not-a-number mean none."""
    if value is None or value != value:
        return None
    if isinstance(value, list | dict):
        raise Unusable(f"the table has the value {value!r}; one label per image is expected, not several")
    if isinstance(value, bytes):
        value = value.decode("utf-8", "backslashreplace")
    return str(value).strip() or None


def _read_table(path: Path) -> list[dict[str, Any]]:
    """All rows of a table as dicts; the file's extension says which kind it is."""
    kind = path.suffix.lower()
    try:
        if kind == ".csv":
            with open(path, newline="", encoding="utf-8-sig") as file:
                separator = max(",;\t", key=file.readline().count)
                file.seek(0)
                rows = csv.DictReader(file, delimiter=separator)
                return [{k: unescape_formula(v) if isinstance(v, str) else v for k, v in row.items()} for row in rows]
        if kind == ".jsonl":
            records = [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip()]
            if not all(isinstance(record, dict) for record in records):
                raise ValueError("a line is not a JSON object")
            return records
        if kind == ".parquet":
            return _read_parquet(path)
    except FileNotFoundError as error:
        raise Unusable(
            f"data.table: {path} is not there", "name the table with data.table, or set it to null"
        ) from error
    except (OSError, ValueError, RecursionError, csv.Error) as error:
        raise Unusable(f"data.table: {path} cannot be read: {error}") from error
    raise Unusable(f"data.table: {path} is of an unknown kind; expected .csv, .jsonl or .parquet")


def _read_parquet(path: Path) -> list[dict[str, Any]]:
    _, parquet = import_parquet()
    rows: list[dict[str, Any]] = parquet.read_table(path).to_pylist()
    return rows
