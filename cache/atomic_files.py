"""Owns writing files whole under their final names, and every change to a cache on disk. Not what is in the files.

Each change is a call of `os` in this module, so that a test can replace `os`, and fail, kill or record any of them.
What cannot be written or removed raises `Unwritable`: the path, the reason, and what to do.
"""

import contextlib
import errno
import hashlib
import os
import shutil
import socket
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from cache import regular_files
from cache.errors import Unwritable

_FULL = (errno.ENOSPC, errno.EDQUOT)
_FREE_SPACE = "make room there, or write to another disk; then run this again"
_PERMISSION = "choose another folder, or get write permission for that one; then run this again"
_WRONG_KIND = "a file is where a folder should be, or the other way round: move it away, or choose another path"
_ADVICE = {
    **dict.fromkeys(_FULL, _FREE_SPACE),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), _PERMISSION),
    **dict.fromkeys((errno.EISDIR, errno.ENOTDIR), _WRONG_KIND),
    errno.EFBIG: "write to a file system that allows larger files, or raise the limit (ulimit -f); then run this again",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EMFILE: "raise the limit on open files (ulimit -n); then run this again",
}
_OTHER_ADVICE = "check that disk; then run this again"
_TEMP_PREFIX = "frozenbase-"
_TEMP_ADVICE = "make room there, or name another folder with TMPDIR; then run this again"
_STALE_S = 60
"""After so long, a process that holds a path counts as killed: it does so for the time of one write."""


def publish(path: Path, data: bytes) -> None:
    """Make `path` hold exactly `data`, or leave what was there, never a part of it.

    Temp file in the same folder, write, fsync, close, `os.replace`, fsync of the folder. Of two writers of the same
    path, one whole file stays. Raises Unwritable where the disk is full, or the folder cannot be written; the temp file
    is then removed.
    """
    publish_all(path.parent, {path.name: data})


def publish_all(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Publish several files, by name, in that order; where one of them cannot be written, none is published.

    All are on the disk as temp files before the first is renamed; only a kill during the renames leaves new files
    beside old ones. Raises Unwritable as `publish` does.
    """
    with contextlib.ExitStack() as stack:
        for name, data in reversed(list(contents.items())):  # contexts end in the opposite order
            descriptor, view = stack.enter_context(_published(folder / name)), memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
            os.fsync(descriptor)


@contextlib.contextmanager
def publish_stream(path: Path) -> Iterator[BinaryIO]:
    """A file to write to, published when the context ends; for output too large to build in memory.

    An error within leaves what was there. Not for a cache: tests cannot intercept these writes.
    """
    with _published(path) as descriptor:
        with open(descriptor, "w+b", closefd=False) as file:
            yield file
        os.fsync(descriptor)


@contextlib.contextmanager
def _published(path: Path) -> Iterator[int]:
    """The descriptor of a temp file, which is renamed to `path` when the context ends without an error.

    The caller syncs it, so that of several files all are synced before the first is renamed.
    """
    short = os.fsencode(path.name)[:80].decode(errors="ignore")  # a name has 255 bytes, and a character up to 4 of them
    temp = path.parent / f".{short}.{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:12]}.tmp"
    with naming_path(path, "written"):
        make_folder(path.parent)
        if path.is_dir():  # the rename would fail too, but after others have been renamed
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        try:
            descriptor = os.open(temp, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666)
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
def exclusive(path: Path) -> Iterator[bool]:
    """Whether this process alone may replace `path` until the context ends; False where another one does so now.

    For a file that several processes read, change and publish. The sign is a file beside it, which a killed process
    leaves, and which is removed once it is stale. Raises Unwritable where there can be no such file.
    """
    lock = path.with_name(f".{path.name}.lock")
    with naming_path(path, "written"):
        try:
            os.close(os.open(lock, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666))
            held = True
        except FileExistsError:
            held = False
            with contextlib.suppress(FileNotFoundError):
                if disk_clock(path.parent) - os.lstat(lock).st_mtime > _STALE_S:
                    os.unlink(lock)
    try:
        yield held
    finally:
        if held:
            with naming_path(lock, "removed"), contextlib.suppress(FileNotFoundError):
                os.unlink(lock)


@contextlib.contextmanager
def naming_path(path: Path, what: str) -> Iterator[None]:
    """Raises Unwritable, naming `path`, for an OSError within."""
    try:
        yield
    except Unwritable:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        advice = _ADVICE.get(error.errno or 0, _OTHER_ADVICE)
        raise Unwritable(f"{path} cannot be {what}: {reason}", advice, error.errno, reason) from error


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """An empty folder among the system's temporary files, removed with its contents when the context ends.

    Raises Unwritable where there is no folder for temporary files, or where any write within met a full disk.
    """
    try:
        place = tempfile.gettempdir()
    except FileNotFoundError as error:
        what = f"temporary files cannot be written: {error.strerror}"
        raise Unwritable(what, _TEMP_ADVICE, error.errno, error.strerror) from error
    try:
        with tempfile.TemporaryDirectory(prefix=_TEMP_PREFIX) as folder:
            yield Path(folder)
    except Unwritable:
        raise
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise _explain_full_disk(error, place) from error


def link_or_copy(source: Path, target: Path) -> None:
    """Make `target` a hard link to `source`, or a copy of it on another disk. Its folder is there."""
    try:
        os.link(source, target)
    except OSError:
        with open(source, "rb") as file, publish_stream(target) as stream:
            shutil.copyfileobj(file, stream)


def _explain_full_disk(error: OSError, place: str) -> Unwritable:
    """The error for a full disk, met while there was a temporary folder in `place`."""
    path = error.filename2 or error.filename  # of a copy, the second is the one that was written
    temporary = path is None or str(path).startswith(os.path.join(place, _TEMP_PREFIX))
    where = f"{place}, where temporary files go," if temporary else str(path)
    if path is None:  # as for any write to an open file
        where = f"a file that the system does not name, maybe in {where}"
    reason = os.strerror(error.errno or 0)  # HDF5 words it differently
    advice = _TEMP_ADVICE if temporary else _FREE_SPACE
    return Unwritable(f"{where} cannot be written: {reason}", advice, error.errno, reason)


def store_content(path: Path, data: bytes, digest: str, quarantine_folder: Path) -> None:
    """Make `path` hold `data`, whose SHA-256 is `digest`, unless it does; other bytes there go to quarantine."""
    present = False
    with naming_path(path, "read"), contextlib.suppress(FileNotFoundError):
        present = sha256_of(path) == digest
        if not present:
            quarantine(path, quarantine_folder)
    with naming_path(path.parent, "synced"), contextlib.suppress(FileNotFoundError):
        if present:
            sync_folder(path.parent)  # its writer may have crashed before doing so
            return
    publish(path, data)


def make_folder(folder: Path) -> None:
    """Make `folder` and its parents, each synced to its own parent.

    So is one that exists: another process may have made it just now, or crashed before its sync.
    """
    if not folder.is_dir():
        make_folder(folder.parent)
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder)
    sync_folder(folder.parent)


def remove(*paths: Path) -> None:
    """Remove files and sync their folders. Absent ones are skipped. Raises Unwritable where one cannot be removed."""
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
    """Set a file's mtime to now, as its last use, if it is `older_than` s old; no error where that is not allowed."""
    with contextlib.suppress(OSError):
        if time.time() - path.stat().st_mtime >= older_than:
            os.utime(path)


def disk_clock(folder: Path) -> float:
    """Now, in s since the epoch, by the clock that dates files in `folder`. Raises OSError where it is read-only."""
    temp = folder / f".clock-{uuid.uuid4().hex[:12]}.tmp"
    descriptor = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666)
    try:
        return os.fstat(descriptor).st_mtime
    finally:
        os.close(descriptor)
        os.unlink(temp)


def sync_folder(folder: Path) -> None:
    """fsync a folder, so that a rename in it survives a power cut.

    No error where the file system cannot do it, or where the folder may be entered but not read.
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
    """Move a damaged file into `folder`; False where `folder` cannot be written, or the file is gone already.

    Nothing is synced: after a power cut the file may be back, and is found damaged again.
    """
    try:
        make_folder(folder)
        os.replace(path, folder / f"{path.name}.{uuid.uuid4().hex[:8]}")
    except OSError:
        return False
    return True


def sha256_of(path: Path) -> str:
    """SHA-256 of a regular file's bytes, in hex."""
    regular_files.check_regular(path)
    with open(path, "rb", buffering=0) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
