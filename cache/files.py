"""Owns how a file comes to stand whole under its final name, and every write the cache makes. Not what is in it."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import logging
import os
import socket
import uuid
from pathlib import Path
from typing import BinaryIO

log = logging.getLogger(__name__)


def publish(path: Path, data: bytes) -> None:
    """Make `path` hold exactly `data`, or leave what was there: never a part of it.

    Temp file in the same folder, write, fsync, close, `os.replace`, fsync of the folder. Two writers of the same
    path leave one of the two whole files.

    Raises
    ------
    OSError
        The disk is full, or the folder cannot be written. The temp file is removed; nothing is published.
    """
    make_folder(path.parent)
    temp = path.parent / f".{path.name[:80]}.{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:12]}.tmp"
    try:
        descriptor = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
        try:
            _write_all(descriptor, data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(temp, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temp)
        raise
    sync_folder(path.parent)


def make_folder(folder: Path) -> None:
    """Create `folder` and its parents, each made durable in its own parent."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder)
    sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """fsync a folder, so that a rename in it survives a power cut. File systems that can't are tolerated."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def move_aside(path: Path, folder: Path) -> Path | None:
    """Move a bad file into `folder` under its own name; None where the cache is read-only or it is gone already."""
    target = folder / f"{path.name}.{uuid.uuid4().hex[:8]}"
    try:
        make_folder(folder)
        os.replace(path, target)
    except OSError as error:
        log.warning("could not move %s to %s: %s", path, folder, error)
        return None
    return target


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with open(path, "rb", buffering=0) as file:
        return sha256_of_open(file)


def sha256_of_open(file: io.RawIOBase | BinaryIO) -> str:
    """SHA-256 of what is left to read of an open binary file, in hex."""
    return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
