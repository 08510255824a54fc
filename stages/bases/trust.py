"""Owns which model files the user trusts, by the SHA-256 of their bytes. Not opening them (keras_models/user_model.py).

To open a model file is to run what code it brings, so nothing that may come along with it can say that it is trusted:
no pipeline.yaml, cache or record. The user's own configuration can, or the environment, or the command (Base.trusted).
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from cache import atomic_files, keys, records
from cache.errors import Unusable
from stages.runtime.user_folder import find_user_folder

ENVIRONMENT = "PIPELINE_TRUST"
"""Digests of trusted files, with spaces or commas between them, for containers and hosts without a home folder."""


_granted: ContextVar[frozenset[str]] = ContextVar("granted", default=frozenset())


@contextmanager
def granting(sha256: str) -> Iterator[None]:
    """Files with that digest are trusted within the block, in this thread: by a worker, for whoever sent it a task."""
    before = _granted.set(_granted.get() | {sha256})
    try:
        yield
    finally:
        _granted.reset(before)


def is_trusted(sha256: str) -> bool:
    """Whether a file with that digest may be opened. Raises Unusable for what is no digest in PIPELINE_TRUST."""
    if sha256 in _granted.get() or sha256 in _from_environment():
        return True
    return (note := _note(sha256)) is not None and note.is_file()


def trust_file(path: Path, sha256: str | None = None) -> str:
    """Note that any file with the bytes of this one may be opened; returns their SHA-256, unless that is given.

    Raises Unusable for a user without a folder for configuration, Unwritable where it cannot be written.
    """
    sha256 = sha256 or atomic_files.sha256_of(path)
    note = _note(sha256)
    if note is None:
        raise Unusable(
            "the trust cannot be noted: there is no home folder",
            f"set HOME, or XDG_CONFIG_HOME to an absolute path; or give it by {ENVIRONMENT}={sha256}",
        )
    atomic_files.publish(note, records.dump({"path": str(path.absolute())}))  # the path is for people only
    return sha256


def forget(sha256: str) -> bool:
    """Take back what `trust_file` noted; False where there is no such note."""
    note = _note(sha256)
    if note is None or not note.is_file():
        return False
    atomic_files.remove(note)
    return True


def advise(path: Path) -> str:
    """How to say that a file is trusted, for the hint of an error."""
    return f"if you trust its author: {shlex.join(['pipeline', 'bases', 'trust', str(path)])}"


def _note(sha256: str) -> Path | None:
    """The file that says so, in the user's own configuration; None for a user without a home directory."""
    folder = find_user_folder()
    return None if folder is None else folder / "trusted" / f"{sha256}.json"


def _from_environment() -> set[str]:
    given = os.environ.get(ENVIRONMENT, "")
    found = {word.removeprefix("sha256:").lower(): word for word in given.replace(",", " ").split()}
    if wrong := [word for digest, word in found.items() if not keys.is_digest(digest)]:
        raise Unusable(
            f"{ENVIRONMENT}: {wrong[0]!r} is no digest; expected the SHA-256 of each trusted model file",
            "pipeline bases trust PATH prints it, as sha256sum PATH does",
        )
    return set(found)
