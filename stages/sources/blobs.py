"""Owns bytes of files and objects, whole or in part, with the version that they are of. Not what the bytes are.

An address is the absolute path of a file, or the URL of an object: s3://BUCKET/NAME, with the name as it is, without
escapes. Clients are kept for as long as the process and the credentials in its environment are the same.
"""

import functools
import io
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO, NamedTuple

from cache.hash_index import MIN_AGE_S, stat_file
from stages.buckets import address
from stages.buckets.object_store import Absent, Listed, ObjectStore

IN_FLIGHT_BYTES = 256_000_000
"""Of objects, and parts of them, that this process is receiving, or has received and not decoded yet."""

WINDOW_BYTES = 8_000_000
"""Of an archive in a bucket, what one request reads while it is read from end to end."""

GLANCE_BYTES = 100_000
"""The same where only its table of contents is wanted."""

_OF_CREDENTIALS = ("AWS_", "GOOGLE_", "AZURE_")
GONE = "it was listed, but is not there any more"
CHANGED = "it was changed while it was read"


class TooLarge(OSError):
    """More bytes than an image may have."""


class Blob(NamedTuple):
    """A file or an object, as it was listed: bytes, and a version that is another for other bytes.

    settled: whether it is certain that a change moves the version. Within a tick of its file system's clock, it may
    not.
    """

    address: str
    size: int
    version: str
    settled: bool = True


class _Bytes:
    """A number of bytes that may be held at a time; one piece alone may be larger."""

    def __init__(self, most: int) -> None:
        self._most, self._held, self._changed = most, 0, threading.Condition()

    def take(self, size: int) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._held == 0 or self._held + size <= self._most)
            self._held += size

    def give_back(self, size: int) -> None:
        with self._changed:
            self._held -= size
            self._changed.notify_all()


_in_flight = _Bytes(IN_FLIGHT_BYTES)


def is_url(text: str) -> bool:
    return "://" in text


def open_store(url: str) -> ObjectStore:
    """The objects below a URL. Raises Unusable and NotAvailable as `ObjectStore` does."""
    found = {name: value for name, value in os.environ.items() if name.startswith(_OF_CREDENTIALS)}
    return _open_store(url, os.getpid(), tuple(sorted(found.items())))


@functools.lru_cache(16)
def _open_store(url: str, process: int, environment: tuple[tuple[str, str], ...]) -> ObjectStore:
    return ObjectStore(url, without="")


def find_blob(where: str) -> Blob:
    """The file or object at an address. Raises OSError where there is none, Denied and Unreachable."""
    if is_url(where):
        store, name = _locate(where)
        try:
            return blob_of(where, store.head(name))
        except Absent as error:
            raise FileNotFoundError(2, "it is not there") from error
    return _blob_of_stat(where, os.stat(where))


def blob_of(where: str, listed: Listed) -> Blob:
    """An object at a URL. A folder that stands in for a bucket has versions by a clock with ticks."""
    settled = not where.startswith("file:") or time.time() - listed.written >= MIN_AGE_S
    return Blob(where, listed.size, listed.version, settled)


@contextmanager
def object_bytes(where: str, most: int) -> Iterator[tuple[bytes, str]]:
    """An object and its version; its bytes count as in flight until the block ends.

    Raises OSError where it is gone, TooLarge for more than `most` bytes, Denied and Unreachable.
    """
    with _held(where, 0, None, most) as got:
        yield got


@contextmanager
def part_bytes(where: str, start: int, size: int, most: int) -> Iterator[bytes]:
    """`size` bytes of a file or object from `start` on; raises as `object_bytes` does, and where it ends before."""
    check_size(size, most)
    if is_url(where):
        with _held(where, start, size, most) as (data, _):
            yield _all(data, size)
    else:
        with open(where, "rb", buffering=0) as file:
            file.seek(start)
            data = file.read(size)
        yield _all(data, size)


def check_size(size: int, most: int) -> None:
    """Raises TooLarge."""
    if size > most:
        raise TooLarge(f"{size} bytes, more than {most}")


@contextmanager
def open_blob(blob: Blob, window: int = WINDOW_BYTES) -> Iterator[BinaryIO]:
    """A file or object to read from any place on; of an object, a request reads `window` bytes or more.

    Raises OSError where it is not of that version (any more).
    """
    if is_url(blob.address):
        with io.BufferedReader(_Remote(blob), window) as file:
            yield file
        return
    with open(blob.address, "rb") as file:
        yield file
        if _blob_of_stat(blob.address, os.fstat(file.fileno())).version != blob.version:
            raise OSError(CHANGED)


class _Remote(io.RawIOBase):
    """An object as a file: each read is a request, which must find the version that was listed."""

    def __init__(self, blob: Blob) -> None:
        self._blob, self._at = blob, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._blob.size}[whence]
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        size = min(len(buffer), self._blob.size - self._at)
        if size <= 0:
            return 0
        with _held(self._blob.address, self._at, size, size) as (data, version):
            if version != self._blob.version:
                raise OSError(CHANGED)
            buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


@contextmanager
def _held(where: str, start: int, size: int | None, most: int) -> Iterator[tuple[bytes, str]]:
    taken: list[int] = []

    def take(expected: int) -> None:
        check_size(expected, most)
        _in_flight.take(expected)
        taken.append(expected)

    try:
        yield _received(where, start, size, take)
    finally:
        for held in taken:
            _in_flight.give_back(held)


def _received(where: str, start: int, size: int | None, on_size: Callable[[int], object]) -> tuple[bytes, str]:
    store, name = _locate(where)
    try:
        got = store.read(name, start, size, on_size)
    except Absent as error:
        raise FileNotFoundError(2, GONE) from error
    return got.data, got.version


def _locate(where: str) -> tuple[ObjectStore, str]:
    root, name = address.split_url(where)
    return open_store(root), name


def _all(data: bytes, size: int) -> bytes:
    if len(data) != size:
        raise OSError(f"its archive ends {size - len(data)} bytes before it does")
    return data


def _blob_of_stat(path: str, found: os.stat_result) -> Blob:
    if not stat.S_ISREG(found.st_mode):
        raise OSError("it is not a regular file")
    settled = time.time() - found.st_ctime >= MIN_AGE_S
    return Blob(path, found.st_size, " ".join(map(str, stat_file(found))), settled)
