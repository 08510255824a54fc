"""Owns models that were converted for an engine: each under the key of what it was made of, whole or absent.

They are made again at some cost, so gc takes them by age or size, like rows that nobody needs. Not what is in them.
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
    """The files, by name, that one of the caches at `places` has for these components; else those that `make` gives.

    What was made is kept in the first of them.
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
    """The files, by name, that were kept in the cache at `root` for these components; None where they are not whole.

    The bytes that are returned are those whose digests were checked.
    """
    key = keys.digest("converted", components)
    folder = root / "converted" / key
    record = records.load(folder / records.RECORD)
    if record is None:
        return None
    try:
        contents = _contents(folder, record, key)
    except (OSError, ValueError) as error:
        log.warning("the converted model in %s is damaged (%s); it is made again", folder, error)
        return None
    atomic_files.note_use(folder / records.RECORD, USED_S)
    return contents


def store(cache: Cache, components: Mapping[str, Any], contents: Mapping[str, bytes]) -> None:
    """Keep the files under the key of their components. Where the cache cannot be written, that is said."""
    key = keys.digest("converted", components)
    try:
        cache.prepare()
        records.publish_folder(cache.root / "converted" / key, contents, {"key": key, "components": components})
    except OSError as error:
        log.info("the converted model is not kept in %s: %s", cache.root, error)


def verify(cache: Cache) -> list[tuple[str, str]]:
    """Read all of them; (path, reason) of what is damaged, which is set aside."""
    damaged = []
    for path in sorted(cache.root.glob(f"converted/*/{records.RECORD}")):
        try:
            _contents(path.parent, records.read(path), path.parent.name)
        except (OSError, ValueError) as error:
            damaged.append((str(path.parent), str(error)))
            atomic_files.quarantine(path, cache.quarantine)
    return damaged


def _contents(folder: Path, record: Mapping[str, Any], key: str) -> dict[str, bytes]:
    """Raises ValueError where something is not what its record says, OSError where it cannot be read."""
    if record.get("key") != key:
        raise ValueError("its record tells of another")
    contents = {name: (folder / name).read_bytes() for name in record.get("files", {})}
    for name, data in contents.items():
        if hashlib.sha256(data).hexdigest() != record["files"][name]:
            raise ValueError(f"{name} is not as it was written")
    return contents
