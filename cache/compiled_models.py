"""Owns models compiled for an engine: each is stored under the key of what it was made of, whole or not at all.

They lie in the user's own cache on this host, never in the cache of a project, which others may write to: a compiled
model runs in the process that reads it. Not what is in them (stages/engines/).
"""

import contextlib
import hashlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cache import atomic_files, keys, records
from cache.errors import PipelineError
from cache.hash_index import user_cache
from cache.store import USED_S

log = logging.getLogger(__name__)

KEPT_S = 30 * 86_400
"""A model that was not used for so long is removed when another is stored."""


def default_folder() -> Path | None:
    """Where they lie, beside the hash index; None for a user without a home directory, who stores none."""
    folder = user_cache()
    return folder and folder / "compiled"


def load_or_make(
    components: Mapping[str, Any],
    make: Callable[[], Mapping[str, bytes]],
    find_unexpected: Callable[[Mapping[str, bytes]], Sequence[str]],
) -> Mapping[str, bytes]:
    """The files, by name, that are stored for these components; if there are none, what `make` returns is stored.

    `find_unexpected` lists what should not be in a model: such a model is not stored. Raises PipelineError if one is.
    """
    found = load(components)
    if found is None:
        made = make()
        if not find_unexpected(made):
            store(components, made)
        return made
    unexpected = find_unexpected(found)
    if unexpected:
        raise PipelineError(
            f"a compiled model in {default_folder()} has {', '.join(unexpected)}; expected only arithmetic that bases "
            "are made of",
            "delete that folder, and find out who wrote it; models are compiled again",
        )
    return found


def load(components: Mapping[str, Any]) -> dict[str, bytes] | None:
    """The files, by name, that are stored for these components; None if they are absent or damaged.

    The returned bytes are those whose digests were checked.
    """
    key, place = keys.digest("converted", components), default_folder()
    contents: dict[str, bytes] = {}
    if place is None:
        return None

    def read(path: Path) -> str:
        contents[path.name] = path.read_bytes()
        return hashlib.sha256(contents[path.name]).hexdigest()

    with contextlib.suppress(OSError):
        record = records.load_folder(place / key, read, {"key": str})
        if record is not None and record["key"] == key:
            atomic_files.note_use(place / key / records.RECORD, USED_S)
            return contents
    return None


def store(components: Mapping[str, Any], contents: Mapping[str, bytes]) -> None:
    """Store the files under the key of their components, and remove old ones; a failure is logged only."""
    key, place = keys.digest("converted", components), default_folder()
    if place is None:
        return
    try:
        records.publish_folder(place / key, contents, {"key": key, "components": components})
        for folder in place.iterdir():
            record = folder / records.RECORD
            used = (record if record.exists() else folder).stat().st_mtime
            if folder.name != key and time.time() - used > KEPT_S:
                remove(folder)
    except OSError as error:
        log.info("the compiled model is not kept in %s: %s", place, error)


def remove(folder: Path) -> None:
    """Remove a compiled model, record first."""
    atomic_files.remove(folder / records.RECORD, *folder.glob("*"))
    with contextlib.suppress(OSError):
        atomic_files.remove_folder(folder)
