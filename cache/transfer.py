"""Owns copying shards and named files from one cache to another. Not which ones (pipeline/maintenance).

The source may be from anybody: a right digest says nothing about what a file does to its reader. So files are regular,
no links and of limited size, and every row is read before its shard is copied.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cache import atomic_files, keys, records, regular_files, shards
from cache.shards import ShardLayout
from cache.store import Cache, FeatureStore

MOST_BYTES = 1_000_000_000
"""Of one file. A shard has about 32 MB, a manifest of a million images 200 MB."""


@dataclass
class Copied:
    """What was copied: shards, their rows and bytes; shards already present; (path, reason) of refused files."""

    shards: int = 0
    rows: int = 0
    bytes: int = 0
    there: int = 0
    refused: list[tuple[str, str]] = field(default_factory=list)


def read_foreign(path: Path, root: Path) -> bytes:
    """The bytes of a file in somebody else's folder `root`. Raises as `check_foreign` does."""
    check_foreign(path, root)
    return regular_files.read_bytes(path, MOST_BYTES)


def check_foreign(path: Path, root: Path) -> None:
    """Raises ValueError for a link, or more than MOST_BYTES; OSError for what is no regular file."""
    regular_files.check_unlinked(path, root)
    regular_files.check_regular(path, MOST_BYTES)


def copy_shards(
    source: FeatureStore, target: Cache, names: Iterable[str], taken: Copied, on_done: Callable[[int], object],
    find_fault: Callable[[ShardLayout], str] = lambda layout: "",
    find_notes: Callable[[Mapping[str, Any]], Mapping[str, Any]] = lambda record: {},
) -> None:  # fmt: skip
    """Copy shards with their records; damaged and hostile ones are refused.

    `find_fault` gives what is wrong with a shard for these components, or nothing; `find_notes` what is added to its
    record.
    Raises Unwritable where `target` cannot be written.
    """
    store = target.features(source.components)
    store.prepare()
    row_kind = store.row_kind()
    for name in names:
        on_done(1)
        if _is_whole(store, name):
            taken.there += 1
            continue
        try:
            if not source.record_path(name).exists():
                continue  # gc removed it meanwhile
            layout, data, record = _read_shard(source, name)
            kind = (layout.shape[1:], layout.dtype.name)
            row_kind = row_kind or kind
            fault = find_fault(layout) or ("" if kind == row_kind else f"other rows of this key are {row_kind}")
            if fault:
                raise shards.BadShard(f"its rows are {kind[1]} {kind[0]}; {fault}")
        except (shards.BadShard, OSError, ValueError) as error:
            taken.refused.append((str(source.path(name)), str(error)))
            continue
        atomic_files.store_content(store.path(name), data, name, target.quarantine)
        atomic_files.publish(store.record_path(name), records.dump({**record, **find_notes(record)}))
        taken.shards, taken.bytes = taken.shards + 1, taken.bytes + len(data)
        taken.rows += int(record["rows"])


def _read_shard(source: FeatureStore, name: str) -> tuple[ShardLayout, bytes, Mapping[str, Any]]:
    """A shard whose bytes, layout, record and rows are valid. Raises BadShard, OSError or ValueError."""
    for path in (source.record_path(name), source.path(name)):
        check_foreign(path, source.cache.root)
    layout = source.check(name)
    if layout is None:
        raise shards.BadShard("its record is missing")
    data, record = source.path(name).read_bytes(), records.read(source.record_path(name))
    if hashlib.sha256(data).hexdigest() != name:
        raise shards.BadShard("it changed while it was read")
    shards.check_rows(layout)
    return layout, data, record


def _is_whole(store: FeatureStore, name: str) -> bool:
    try:
        return store.check(name) is not None
    except (shards.BadShard, OSError):
        return False


def copy_named(source: Cache, target: Cache, folder: str, suffix: str, taken: Copied) -> list[str]:
    """Copy the files that are named by their SHA-256, and return these names."""
    names = []
    for path in sorted((source.root / folder).glob(f"*{suffix}")):
        if not keys.is_digest(path.stem):
            continue
        try:
            data = read_foreign(path, source.root)
            if hashlib.sha256(data).hexdigest() != path.stem:
                raise ValueError(shards.WRONG_DIGEST)
        except (OSError, ValueError) as error:
            taken.refused.append((str(path), str(error)))
            continue
        names.append(target.put_named(folder, data, suffix))
    return names
