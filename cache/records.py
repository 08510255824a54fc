"""Owns small JSON records, and the rule that a result without its record does not exist. Not their fields."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cache import atomic_files

log = logging.getLogger(__name__)

RECORD = "record.json"


def dump(value: Mapping[str, Any]) -> bytes:
    """Readable JSON: sorted, indented, one final newline."""
    return (json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()


def load(path: Path) -> dict[str, Any] | None:
    """The record at `path`; None where there is none, or where it is damaged, with a warning."""
    try:
        return read(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        log.warning("record %s is damaged (%s); taken as absent", path, error)
        return None


def read(path: Path) -> dict[str, Any]:
    """The record at `path`. Raises OSError where it cannot be read, ValueError where it is not a JSON object."""
    value = json.loads(path.read_bytes())
    if not isinstance(value, dict):
        raise ValueError(f"a {type(value).__name__}, not an object")
    return value


def publish_folder(folder: Path, contents: Mapping[str, bytes], record: Mapping[str, Any]) -> None:
    """Publish the files of a result, then its record with their digests; all or none. Raises Unwritable."""
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}
    atomic_files.publish_all(folder, {**contents, RECORD: dump({**record, "files": digests})})


def load_folder(folder: Path) -> dict[str, Any] | None:
    """The record of a published result, if all its files have the digests it lists; else None."""
    record = load(folder / RECORD)
    if record is None:
        return None
    for name, expected in record.get("files", {}).items():
        path = folder / name
        if not path.is_file() or atomic_files.sha256_of(path) != expected:
            log.warning("%s is missing or was changed after it was written; the result counts as absent", path)
            return None
    return record
