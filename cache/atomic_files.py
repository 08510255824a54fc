"""Owns how a file comes to stand whole under its final name, and every write the cache makes. Not what is in it.

Each change to a cache is a call of `os` in this module, so that a test can put a shim in its place, and fail, kill or
record at any of them. What cannot be written or removed is `Unwritable`: the path, why, and what to do.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import socket
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from cache.errors import Unwritable

_ROOM = "make room there, or write to another disk; then run this again"
_ALLOWED = "choose another folder, or get the permission for that one; then run this again"
_IN_THE_WAY = "a file stands where a folder should be, or the other way round: move it away, or choose another path"
_ADVICE = {
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EFBIG: "write to a file system that takes such files, or raise the limit (ulimit -f); then run this again",
    errno.EACCES: _ALLOWED,
    errno.EPERM: _ALLOWED,
    errno.EROFS: _ALLOWED,
    errno.EISDIR: _IN_THE_WAY,
    errno.ENOTDIR: _IN_THE_WAY,
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EMFILE: "raise the limit on open files (ulimit -n); then run this again",
}
_OTHERWISE = "check that disk; then run this again"
_FULL = (errno.ENOSPC, errno.EDQUOT)
_TEMPORARY = "frozenbase-"
_ELSEWHERE = "make room there, or name another folder with TMPDIR; then run this again"


def publish(path: Path, data: bytes) -> None:
    """Make `path` hold exactly `data`, or leave what was there: never a part of it.

    Temp file in the same folder, write, fsync, close, `os.replace`, fsync of the folder. Two writers of the same
    path leave one of the two whole files.

    Raises
    ------
    Unwritable
        The disk is full, or the folder cannot be written. The temp file is removed; nothing is published.
    """
    with _published(path) as descriptor:
        _write_synced(descriptor, data)


def publish_all(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Publish several files, by name, in that order; where one of them cannot be written, none is published.

    All are on the disk as temp files before the first bears its name; only what stops the renames then, as a kill,
    leaves new files beside old. Raises Unwritable as `publish` does.
    """
    with contextlib.ExitStack() as whole:
        for name, data in reversed(list(contents.items())):  # contexts end in the opposite order
            _write_synced(whole.enter_context(_published(folder / name)), data)


@contextlib.contextmanager
def publish_stream(path: Path) -> Iterator[BinaryIO]:
    """The same for what is too large to be built in memory: a file to write to, published when the context ends.

    Whatever is raised within leaves what was there. It is for what people take out, never for a cache: its writes are
    none that a test can stand in for.
    """
    with _published(path) as descriptor:
        with open(descriptor, "w+b", closefd=False) as file:
            yield file
        os.fsync(descriptor)


@contextlib.contextmanager
def _published(path: Path) -> Iterator[int]:
    """The descriptor of a temp file that bears the name `path` once the context ends without an error.

    Whoever writes to it syncs it: of several files, each before the first is renamed.
    """
    temp = path.parent / f".{path.name[:80]}.{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:12]}.tmp"
    with naming_path(path, "written"):
        make_folder(path.parent)
        if path.is_dir():  # as the rename would say, but by then others may bear their names
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        try:
            descriptor = os.open(temp, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
            try:
                yield descriptor
            finally:
                os.close(descriptor)
            os.replace(temp, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temp)
            raise
        sync_folder(path.parent)


@contextlib.contextmanager
def naming_path(path: Path, what: str) -> Iterator[None]:
    """Raises Unwritable, naming `path`, for an OSError within."""
    try:
        yield
    except Unwritable:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        advice = _ADVICE.get(error.errno or 0, _OTHERWISE)
        raise Unwritable(f"{path} cannot be {what}: {reason}", advice, error.errno, reason) from error


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """An empty folder among the system's temporary files, which goes with all in it when the context ends.

    Raises Unwritable where no folder takes such files, and, whoever writes within, where a disk is full.
    """
    try:
        place = tempfile.gettempdir()
    except FileNotFoundError as error:
        what = f"temporary files cannot be written: {error.strerror}"
        raise Unwritable(what, _ELSEWHERE, error.errno, error.strerror) from error
    try:
        with tempfile.TemporaryDirectory(prefix=_TEMPORARY) as folder:
            yield Path(folder)
    except Unwritable:
        raise
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise _full(error, place) from error


def _full(error: OSError, place: str) -> Unwritable:
    """What to say of a full disk that was met while there was a temporary folder in `place`."""
    named = error.filename2 or error.filename  # of a copy, the second is what could not be written
    reason, there = os.strerror(error.errno or 0), f"{place}, where temporary files go,"  # HDF5 has words of its own
    if named is None:  # as for any write to a file that is open
        where, advice = f"a file that the system does not name, maybe in {there}", _ELSEWHERE
    elif str(named).startswith(os.path.join(place, _TEMPORARY)):
        where, advice = there, _ELSEWHERE
    else:
        where, advice = str(named), _ROOM
    return Unwritable(f"{where} cannot be written: {reason}", advice, error.errno, reason)


def store_content(path: Path, data: bytes, digest: str, aside: Path) -> None:
    """Make `path` hold `data`, whose SHA-256 is `digest`, unless it does; other bytes found there go to `aside`."""
    right = False
    with naming_path(path, "read"), contextlib.suppress(FileNotFoundError):
        right = sha256_of(path) == digest
        if not right:
            quarantine(path, aside)
    with naming_path(path.parent, "synced"), contextlib.suppress(FileNotFoundError):
        if right:
            sync_folder(path.parent)  # whoever wrote it may have died before doing so
            return
    publish(path, data)


def make_folder(folder: Path) -> None:
    """Make `folder` and its parents, each durable in its own parent.

    One that is there is synced too: another process may have made it this moment, or have died before its sync.
    """
    if not folder.is_dir():
        make_folder(folder.parent)
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder)
    sync_folder(folder.parent)


def remove(*paths: Path) -> None:
    """Remove files, durably. Those that are gone already are fine. Raises Unwritable where one cannot be removed."""
    for path in paths:
        with naming_path(path, "removed"), contextlib.suppress(FileNotFoundError):
            os.unlink(path)
    for folder in dict.fromkeys(path.parent for path in paths):
        with naming_path(folder, "synced"), contextlib.suppress(FileNotFoundError):
            sync_folder(folder)


def remove_folder(folder: Path) -> None:
    """Remove a folder that is empty. Raises OSError where it is not."""
    os.rmdir(folder)


def note_use(path: Path, older_than: float = 0) -> None:
    """Note in its mtime that a file was used, if that is `older_than` s; where that cannot be, it goes unnoted."""
    with contextlib.suppress(OSError):
        if time.time() - path.stat().st_mtime >= older_than:
            os.utime(path)


def disk_clock(folder: Path) -> float:
    """Now, in s since the epoch, by the clock that dates files in `folder`. Raises OSError where it takes none."""
    temp = folder / f".clock-{uuid.uuid4().hex[:12]}.tmp"
    descriptor = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
    try:
        return os.fstat(descriptor).st_mtime
    finally:
        os.close(descriptor)
        os.unlink(temp)


def sync_folder(folder: Path) -> None:
    """fsync a folder, so that a rename in it survives a power cut.

    File systems that can't are tolerated, and so is a folder that we may pass through but not read.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EACCES):
            raise


def quarantine(path: Path, folder: Path) -> bool:
    """Move a bad file into `folder`; False where that cannot be written, or where the file is gone already.

    Nothing is synced: after a power cut the file may stand where it was, and is found bad again.
    """
    try:
        make_folder(folder)
        os.replace(path, folder / f"{path.name}.{uuid.uuid4().hex[:8]}")
    except OSError:
        return False
    return True


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with open(path, "rb", buffering=0) as file:
        return sha256_of_open(file)


def sha256_of_open(file: io.RawIOBase | BinaryIO) -> str:
    """SHA-256 of what is left to read of an open binary file, in hex."""
    return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]


def _write_synced(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
    os.fsync(descriptor)
