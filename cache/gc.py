"""Owns listing what a cache holds, and removing what is not needed. Not who needs what (registrations.py)."""

import contextlib
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from cache import atomic_files, compiled_models, records
from cache.store import Cache, FeatureStore

LEFTOVER_S = 86_400
"""A temp file, or a shard without its record, may belong to a running process until it is this old."""


@dataclass(frozen=True)
class Entry:
    """What gc can remove: the rows of a key, a manifest, a file in quarantine, a leftover, or a compiled model.

    Compiled models (`converted`) are those of earlier versions, which are not read any more (compiled_models.py).

    `used` is its last use, in s since the epoch by the clock of the cache's file system; `key` the extract key
    that it belongs to, if any; `components` those of the key, {} where they cannot be read.
    """

    kind: Literal["features", "manifest", "converted", "quarantine", "leftover"]
    name: str
    path: Path
    rows: int
    bytes: int
    used: float
    key: str | None = None
    components: Mapping[str, Any] = field(default_factory=dict)


def list_entries(cache: Cache) -> list[Entry]:
    """All that the cache holds, except a few bytes of bookkeeping."""
    found = [entry for store in cache.stores() for entry in _of_store(store)]
    for path in sorted(cache.root.glob("manifests/*.jsonl")):
        size, used = _size_and_age([path, path.with_suffix(".json")], path)
        found.append(Entry("manifest", path.stem, path, 0, size, used))
    for folder in sorted(cache.root.glob("converted/*")):
        size, used = _size_and_age(folder.glob("[!.]*"), folder / records.RECORD)
        found.append(Entry("converted", folder.name, folder, 0, size, used))
    found += [file_entry("quarantine", path) for path in sorted(cache.root.glob("quarantine/*"))]
    temps = sorted({*cache.root.rglob(".*.tmp")} - {*cache.root.glob("features/**/.*.tmp")})
    return found + [file_entry("leftover", path) for path in temps]


def choose_surplus(
    found: Sequence[Entry], needed: Collection[str], older_than: float | None, max_bytes: int | None, now: float
) -> list[Entry]:
    """Those of `found` to remove.

    Old leftovers always. Of what is not `needed`, least recently used first: all that was not used for `older_than` s,
    and as many more as bring the rest down to `max_bytes`.
    """
    leftovers = [entry for entry in found if entry.kind == "leftover"]
    whole = [entry for entry in found if entry.kind != "leftover"]
    left = sum(entry.bytes for entry in whole)
    going = []
    for entry in sorted(whole, key=lambda entry: entry.used):
        too_old = older_than is not None and now - entry.used > older_than
        too_much = max_bytes is not None and left > max_bytes
        if entry.name not in needed and (too_old or too_much):
            going.append(entry)
            left -= entry.bytes
    return [entry for entry in leftovers if now - entry.used > LEFTOVER_S] + going


def remove_entries(going: Iterable[Entry], busy: Callable[[], Collection[str]]) -> Iterator[Entry]:
    """Remove entries, and yield each. Names in `busy()`, called again before each, stay, with their leftovers."""
    for entry in going:
        if not {entry.name, entry.key} & set(busy()):
            _remove(entry)
            yield entry


def cache_clock(cache: Cache) -> float:
    """Now, in s since the epoch, by the clock that dates the cache's files; this host's if the cache is read-only."""
    try:
        return atomic_files.disk_clock(cache.root)
    except OSError:
        return time.time()


def _of_store(store: FeatureStore) -> Iterator[Entry]:
    """The rows of a key, and leftovers in its folder."""
    recorded = set(store.names())
    files = [path for path in store.folder.rglob("*") if path.is_file()]
    rest = [p for p in files if p.name.startswith(".") or (p.suffix == ".h5" and p.stem not in recorded)]
    whole = set(files) - set(rest)
    rows = sum(record.get("rows", 0) for record in store.shard_records())
    size, used = _size_and_age(whole, store.folder / "spec.json")
    yield Entry("features", store.key, store.folder, rows, size, used, store.key, store.components)
    yield from (file_entry("leftover", path, store.key) for path in sorted(rest))


def _remove(entry: Entry) -> None:
    """Records are removed before their shards: a shard without a record does not count, so no row ever lacks its bytes.

    Rows that are added meanwhile stay.
    """
    if entry.kind == "manifest":
        atomic_files.remove(entry.path.with_suffix(".json"), entry.path)
    elif entry.kind == "features":
        gone = list(entry.path.glob("shards/*.json"))
        atomic_files.remove(*gone)
        atomic_files.remove(*(record.with_suffix(".h5") for record in gone))
        if not any(entry.path.glob("shards/*.json")):
            atomic_files.remove(entry.path / "spec.json")
            with contextlib.suppress(OSError):
                atomic_files.remove_folder(entry.path / "shards")
                atomic_files.remove_folder(entry.path)
    elif entry.kind == "converted":
        compiled_models.remove(entry.path)
    elif not entry.path.with_suffix(".json").exists():  # a shard may have got its record since
        atomic_files.remove(entry.path)


def file_entry(kind: Literal["quarantine", "leftover"], path: Path, key: str | None = None) -> Entry:
    return Entry(kind, path.name, path, 0, *_size_and_age([path], path), key)


def _size_and_age(paths: Iterable[Path], dated: Path) -> tuple[int, float]:
    """Bytes of all, and the mtime of `dated` (else the latest of all); files that vanish meanwhile are skipped."""
    size, used = 0, 0.0
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            status = path.stat()
            size += status.st_size
            used = max(used, status.st_mtime)
    with contextlib.suppress(FileNotFoundError):
        used = dated.stat().st_mtime
    return size, used
