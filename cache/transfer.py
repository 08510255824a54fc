"""Owns copying shards and named files from one cache to another. Not which ones (pipeline/maintenance)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from cache import atomic_files, keys, records, shards
from cache.store import Cache, FeatureStore


@dataclass
class Copied:
    """What was copied: shards, their rows and bytes; shards already present; (path, reason) of refused files."""

    shards: int = 0
    rows: int = 0
    bytes: int = 0
    there: int = 0
    refused: list[tuple[str, str]] = field(default_factory=list)


def copy_shards(
    source: FeatureStore, target: Cache, names: Iterable[str], taken: Copied, on_done: Callable[[int], object]
) -> None:
    """Copy shards with their records; damaged ones are refused. Raises Unwritable where `target` cannot be written."""
    store = target.features(source.components)
    store.prepare()
    for name in names:
        on_done(1)
        if _is_whole(store, name):
            taken.there += 1
            continue
        try:
            if not source.check(name):
                continue  # gc removed it meanwhile
            data = source.path(name).read_bytes()
            record = records.read(source.record_path(name))
            if hashlib.sha256(data).hexdigest() != name:
                raise shards.BadShard("it changed while it was read")
        except (shards.BadShard, OSError, ValueError) as error:
            taken.refused.append((str(source.path(name)), str(error)))
            continue
        atomic_files.store_content(store.path(name), data, name, target.quarantine)
        atomic_files.publish(store.record_path(name), records.dump(record))
        taken.shards, taken.bytes = taken.shards + 1, taken.bytes + len(data)
        taken.rows += int(record["rows"])


def _is_whole(store: FeatureStore, name: str) -> bool:
    try:
        return store.check(name)
    except (shards.BadShard, OSError):
        return False


def copy_named(source: Cache, target: Cache, folder: str, suffix: str, taken: Copied) -> list[str]:
    """Copy the files that are named by their SHA-256, and return these names."""
    names = []
    for path in sorted((source.root / folder).glob(f"*{suffix}")):
        if not keys.is_digest(path.stem):
            continue
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() == path.stem:
            names.append(target.put_named(folder, data, suffix))
        else:
            taken.refused.append((str(path), shards.WRONG_DIGEST))
    return names
