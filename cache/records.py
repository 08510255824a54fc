"""Owns small JSON records, and the rule that a result without its record does not exist. Not their fields."""

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cache import atomic_files, regular_files

log = logging.getLogger(__name__)

RECORD = "record.json"
_MOST_BYTES = 64_000_000
_MOST_DEPTH = 32
_MOST_NUMBER = 2.0**63

Fields = Mapping[str, Any]
"""Name -> the type that its value must have, such as `str`, or `float | None` where it may be absent; or the fields of
an object; the name ANY stands for all names in it."""

ANY = "*"


def dump(value: Mapping[str, Any]) -> bytes:
    """Readable JSON: sorted, indented, one final newline."""
    return (json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()


def load(path: Path, fields: Fields | None = None) -> dict[str, Any] | None:
    """The record at `path`; None where there is none, or where it is damaged, with a warning."""
    try:
        return read(path, fields)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        log.warning("record %s is damaged (%s); taken as absent", path, error)
        return None


def read(path: Path, fields: Fields | None = None) -> dict[str, Any]:
    """The record at `path`. Others may have written it, so its size and depth are limited.

    Raises OSError where it cannot be read, ValueError where it is not a JSON object with those fields.
    """
    return parse(regular_files.read_bytes(path, _MOST_BYTES), fields)


def parse(data: bytes, fields: Fields | None = None) -> dict[str, Any]:
    """The record in those bytes. Raises ValueError as `read` does."""
    try:
        value = json.loads(data, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(value, dict):
        raise ValueError(f"a {type(value).__name__}, not an object")
    _check_depth(value)
    _check_fields(value, fields or {})
    return value


def _check_fields(record: Mapping[str, Any], fields: Fields) -> None:
    for name, kind in fields.items():
        for each in record if name == ANY else (name,):
            check_field(record, each, kind)


def check_field(record: Mapping[str, Any], name: str, kind: Any) -> None:
    """Raises ValueError where the field is not of that type, lacks a field of its own, or is a number beyond 2**63."""
    found, wanted = record.get(name), dict if isinstance(kind, Mapping) else kind
    if not isinstance(found, wanted) or (isinstance(found, int | float) and not abs(found) < _MOST_NUMBER):
        raise ValueError(f"its field {name} is {repr(found)[:40]}; expected {getattr(wanted, '__name__', wanted)}")
    if isinstance(kind, Mapping):
        _check_fields(found, kind)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(_MOST_DEPTH):
        parts = [part.values() if isinstance(part, dict) else part for part in level if isinstance(part, dict | list)]
        level = [child for part in parts for child in part]
    if level:
        raise ValueError("it is nested too deeply")


def publish_folder(folder: Path, contents: Mapping[str, bytes], record: Mapping[str, Any]) -> None:
    """Publish the files of a result, then its record with their digests; all or none. Raises Unwritable."""
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}
    atomic_files.publish_all(folder, {**contents, RECORD: dump({**record, "files": digests})})


def load_folder(
    folder: Path, digest: Callable[[Path], str] = atomic_files.sha256_of, fields: Fields | None = None
) -> dict[str, Any] | None:
    """The record of a published result, if all its files have the digests in it, else None; `digest` reads a file."""
    record = load(folder / RECORD, {"files": {ANY: str}, **(fields or {})})
    if record is None:
        return None
    for name, expected in record["files"].items():
        path = folder / name
        if not path.is_file() or digest(path) != expected:
            log.warning("%s is missing or was changed after it was written; the result counts as absent", path)
            return None
    return record
