"""Owns places: the text that says where the bytes of one image are, and reading them. Not what there is (source.py).

A place is one of

- the absolute path of a file, or the URL of an object (see blobs.py);
- KIND:START+SIZE:VERSION:LENGTH:ARCHIVE/NAME, a member of an archive. ARCHIVE has LENGTH characters and is a path or
  URL. In a tar, SIZE bytes from START on; in Parquet, row SIZE of row group START. VERSION tells the archive from one
  that was there before.

It is all that a task has of an image, so that each worker reads by itself, with credentials of its own.

Names of images come from listings and tables, which may be others' and do harm, so no name is taken for a place by how
it reads: what isn't a path is a `Place`, which only this package makes.
"""

import hashlib
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from cache.hash_index import Stat, stat_file
from stages.sources import blobs, parquet

MAX_FILE_BYTES = 1_000_000_000
_KINDS = ("tar:", "parquet:")


class Place(str):
    """A place that is no path of a file."""


class Read(NamedTuple):
    """Bytes of an image. seen: of a file that did not change meanwhile, its stat, and when it was read in s."""

    data: bytes
    seen: tuple[Stat, float] | None = None


class Within(NamedTuple):
    """What a member's place says."""

    kind: str
    start: int
    size: int
    version: str
    archive: str
    text: str


def is_place(text: str) -> bool:
    """Whether it says all, and is no name below a root."""
    return isinstance(text, Place) or text.startswith("/")


def member_place(kind: str, start: int, size: int, version: str, archive: str, name: str) -> Place:
    tag = hashlib.sha256(version.encode()).hexdigest()[:12]
    return Place(f"{kind}:{start}+{size}:{tag}:{len(archive)}:{archive}/{name}")


def within(place: str) -> Within | None:
    """The parts of a member's place; None for a file or an object."""
    if not place.startswith(_KINDS):
        return None
    kind, numbers, version, length, text = place.split(":", 4)
    start, size = map(int, numbers.split("+"))
    return Within(kind, start, size, version, text[: int(length)], text)


def text_of(place: str) -> str:
    """The place for people: of a member, ARCHIVE/NAME."""
    member = within(place)
    return place if member is None else member.text


def file_of(place: str) -> str | None:
    """The file on a disk that the image is, or is in; None of one in a bucket."""
    member = within(place)
    where = place if member is None else member.archive
    return None if blobs.is_url(where) else where


def files_of(places: Iterable[str]) -> list[str]:
    """The files that workers must see under the same path; what is in a bucket, each reads by itself."""
    return [file for file in map(file_of, places) if file is not None]


@contextmanager
def reading(place: str, most: int = MAX_FILE_BYTES) -> Iterator[Read]:
    """The bytes at a place. What comes from a bucket counts as in flight until the block ends.

    Raises OSError where they cannot be had (TooLarge for more than `most`), Denied where a store refuses, Unreachable
    where it does not answer.
    """
    member = within(place)
    if member is not None and member.kind == "tar":
        with blobs.part_bytes(member.archive, member.start, member.size, most) as data:
            yield Read(data)
    elif member is not None:
        yield Read(parquet.read_row(member.archive, member.version, member.start, member.size, most))
    elif blobs.is_url(place):
        with blobs.object_bytes(place, most) as (data, _):
            yield Read(data)
    else:
        yield _read_file(place, most)


def _read_file(path: str, most: int) -> Read:
    with open(path, "rb", buffering=0) as file:
        stat, when = stat_file(os.fstat(file.fileno())), time.time()
        blobs.check_size(stat[2], most)
        data = file.read()
        unchanged = stat_file(os.fstat(file.fileno())) == stat
    return Read(data, (stat, when) if unchanged else None)
