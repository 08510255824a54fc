"""Owns what a cache holds, entry by entry, and taking away what nobody needs. Not who needs what (roots.py)."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from cache import files
from cache.store import Cache

LEFTOVER_S = 86_400
"""What is part of nothing (a temp file, a shard without its record) may still be in the making until it is so old."""


@dataclass(frozen=True)
class Entry:
    """One thing that can go: the rows of a key, a manifest, a file in quarantine, or a leftover of a killed run.

    `used` is when it was last used, in s since the epoch by the clock of the cache's file system; `components` are
    those of a key, {} where they cannot be read.
    """

    kind: Literal["features", "manifest", "quarantine", "leftover"]
    name: str
    path: Path
    rows: int
    bytes: int
    used: float
    components: Mapping[str, Any] = field(default_factory=dict)


def entries(cache: Cache) -> list[Entry]:
    """All that the cache holds but its few bytes of bookkeeping."""
    found = []
    for store in cache.stores():
        folder, recorded = store.folder, set(store.names())
        inside = [path for path in folder.rglob("*") if path.is_file()]
        loose = [path for path in inside if path.suffix == ".h5" and path.stem not in recorded and path.name[0] != "."]
        whole = [path for path in inside if path not in loose and not _is_temp(path)]
        rows = sum(record.get("rows", 0) for record in store.shard_records())
        found += [_file("leftover", path) for path in loose]
        size, used = _size_and_age(whole, folder / "spec.json")
        found.append(Entry("features", store.key, folder, rows, size, used, store.components))
    for path in sorted(cache.root.glob("manifests/*.jsonl")):
        size, used = _size_and_age([path, path.with_suffix(".json")], path)
        found.append(Entry("manifest", path.stem, path, 0, size, used))
    found += [_file("quarantine", path) for path in sorted(cache.root.glob("quarantine/*"))]
    found += [_file("leftover", path) for path in sorted(cache.root.rglob(".*.tmp"))]
    return found


def surplus(
    found: Iterable[Entry], needed: Collection[str], older_than: float | None, max_bytes: int | None, now: float
) -> list[Entry]:
    """Those of `found` to take away: old leftovers always; else what is not `needed` and unused for `older_than` s,

    and then, least recently used first, as many more as it takes to come down to `max_bytes`.
    """
    leftovers = [entry for entry in found if entry.kind == "leftover"]
    whole = [entry for entry in found if entry.kind != "leftover"]
    free = sorted((entry for entry in whole if entry.name not in needed), key=lambda entry: entry.used)
    going = [entry for entry in free if older_than is not None and now - entry.used > older_than]
    left = sum(entry.bytes for entry in whole) - sum(entry.bytes for entry in going)
    for entry in free:
        if max_bytes is not None and left > max_bytes and entry not in going:
            going.append(entry)
            left -= entry.bytes
    return [entry for entry in leftovers if now - entry.used > LEFTOVER_S] + going


def remove(going: Iterable[Entry], needed: Callable[[], Collection[str]]) -> Iterator[Entry]:
    """Take entries away, and yield each; `needed` is asked again before each, so that what a new job needs stays."""
    for entry in going:
        if entry.name not in needed():
            _remove(entry)
            yield entry


def _remove(entry: Entry) -> None:
    """Records go before their shards: what has no record does not exist, so at no time does a row lack its bytes."""
    if entry.kind == "manifest":
        files.remove(entry.path.with_suffix(".json"), entry.path)
    elif entry.kind == "features":
        files.remove(*entry.path.glob("shards/*.json"))
        files.remove(*entry.path.glob("shards/*.h5"))
        files.remove(entry.path / "spec.json")
        with contextlib.suppress(OSError):  # rows that came meanwhile stay
            files.remove_folder(entry.path / "shards")
            files.remove_folder(entry.path)
    else:
        files.remove(entry.path)


def clock(cache: Cache) -> float:
    """Now, in s since the epoch, by the clock that dates the files of the cache; ours where it cannot be written."""
    try:
        return files.clock(cache.root)
    except OSError:
        return time.time()


def _is_temp(path: Path) -> bool:
    return path.name.startswith(".") and path.name.endswith(".tmp")


def _file(kind: Literal["quarantine", "leftover"], path: Path) -> Entry:
    return Entry(kind, path.name, path, 0, *_size_and_age([path], path))


def _size_and_age(paths: Iterable[Path], dated: Path) -> tuple[int, float]:
    """Bytes of all, and when `dated` (or the latest of all) was touched; files that go meanwhile count for nothing."""
    size, used = 0, 0.0
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            status = path.stat()
            size += status.st_size
            used = max(used, status.st_mtime)
    with contextlib.suppress(FileNotFoundError):
        used = dated.stat().st_mtime
    return size, used
