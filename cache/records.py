"""Owns small JSON records and what their presence means: what has no record does not exist. Not what they say."""

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
    """JSON for a person to read: sorted, indented, one final newline."""
    return (json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()


def load(path: Path) -> dict[str, Any] | None:
    """The record at `path`; None where there is none, or where it is not a whole JSON object."""
    try:
        return read(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        log.warning("record %s is damaged (%s); taken as absent", path, error)
        return None


def read(path: Path) -> dict[str, Any]:
    """The record at `path`. Raises OSError where it cannot be read, ValueError where it is not a whole JSON object."""
    value = json.loads(path.read_bytes())
    if not isinstance(value, dict):
        raise ValueError(f"a {type(value).__name__}, not an object")
    return value


def publish_folder(folder: Path, contents: Mapping[str, bytes], record: Mapping[str, Any]) -> None:
    """Publish each file of a result, then its record, which holds their digests. Raises Unwritable, leaving no file."""
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}
    atomic_files.publish_all(folder, {**contents, RECORD: dump({**record, "files": digests})})


def load_folder(folder: Path) -> dict[str, Any] | None:
    """The record of a published result whose files are all there, byte for byte; else None."""
    record = load(folder / RECORD)
    if record is None:
        return None
    for name, expected in record.get("files", {}).items():
        path = folder / name
        if not path.is_file() or atomic_files.sha256_of(path) != expected:
            log.warning("%s is missing or was changed after it was written; the result counts as absent", path)
            return None
    return record
