"""Owns reading files that others may have made: regular ones only, up to a size. Not writing (atomic_files.py)."""

import errno
import os
import stat
from pathlib import Path


class NotRegular(OSError, ValueError):
    """A pipe, a device or a folder where a file is expected."""


def check_regular(path: Path, limit: int | None = None) -> None:
    """Raises NotRegular unless `path` is a regular file, or a link to one: a pipe could be read without end.

    Raises ValueError where it has more than `limit` bytes.
    """
    status = os.stat(path)
    if stat.S_ISDIR(status.st_mode):
        raise NotRegular(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(status.st_mode):
        raise NotRegular(errno.EINVAL, "it is not a regular file", str(path))
    if limit is not None and status.st_size > limit:
        raise ValueError(f"it has {status.st_size:,} bytes; at most {limit:,} are expected")


def read_bytes(path: Path, limit: int) -> bytes:
    """The bytes of a regular file, up to `limit`. Raises as `check_regular` does."""
    check_regular(path, limit)
    with open(path, "rb", buffering=0) as file:
        return file.read(min(limit, os.fstat(file.fileno()).st_size))


def check_unlinked(path: Path, root: Path) -> None:
    """Raises ValueError where `path`, or a folder between it and `root`, is a link."""
    if os.path.realpath(path) != os.path.join(os.path.realpath(root), os.path.relpath(path, root)):
        raise ValueError("it is a link, which could lead anywhere; copy the folder with its files: cp -rL")
