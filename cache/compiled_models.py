"""Owns models converted for an engine, each stored under the key of its components. Not what is in them.

Converting again takes a while, so gc removes them by age or size, like unneeded rows.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cache import atomic_files, keys, records
from cache.hash_index import HashIndex
from cache.store import USED_S, Cache

log = logging.getLogger(__name__)


def load_or_make(
    places: Sequence[Path], components: Mapping[str, Any], make: Callable[[], Mapping[str, bytes]]
) -> Mapping[str, bytes]:
    """The files, by name, stored for these components in one of the caches at `places`; else what `make` returns.

    What `make` returns is stored in the first of them.
    """
    for place in places:
        found = read(place, components)
        if found is not None:
            return found
    made = make()
    for place in places[:1]:
        store(Cache(place, HashIndex()), components, made)
    return made


def read(root: Path, components: Mapping[str, Any]) -> dict[str, bytes] | None:
    """The files, by name, stored in the cache at `root` for these components; None where any is absent or damaged.

    The digests of the returned bytes have been checked.
    """
    key = keys.digest("converted", components)
    folder = root / "converted" / key
    record = records.load(folder / records.RECORD)
    if record is None:
        return None
    try:
        contents = _contents(folder, record, key)
    except (OSError, ValueError) as error:
        log.warning("the converted model in %s is damaged (%s); it is converted again", folder, error)
        return None
    atomic_files.note_use(folder / records.RECORD, USED_S)
    return contents


def store(cache: Cache, components: Mapping[str, Any], contents: Mapping[str, bytes]) -> None:
    """Store the files under the key of their components. Logs it where the cache cannot be written."""
    key = keys.digest("converted", components)
    try:
        cache.prepare()
        records.publish_folder(cache.root / "converted" / key, contents, {"key": key, "components": components})
    except OSError as error:
        log.info("the converted model is not stored in %s: %s", cache.root, error)


def verify(cache: Cache) -> list[tuple[str, str]]:
    """Read all of them; damaged ones, as (path, reason), are moved to quarantine."""
    damaged = []
    for path in sorted(cache.root.glob(f"converted/*/{records.RECORD}")):
        try:
            _contents(path.parent, records.read(path), path.parent.name)
        except (OSError, ValueError) as error:
            damaged.append((str(path.parent), str(error)))
            atomic_files.quarantine(path, cache.quarantine)
    return damaged


def _contents(folder: Path, record: Mapping[str, Any], key: str) -> dict[str, bytes]:
    """Raises ValueError where a file differs from its record, OSError where it cannot be read."""
    if record.get("key") != key:
        raise ValueError("its record is of another model")
    contents = {name: (folder / name).read_bytes() for name in record.get("files", {})}
    for name, data in contents.items():
        if hashlib.sha256(data).hexdigest() != record["files"][name]:
            raise ValueError(f"{name} was changed after it was written")
    return contents
