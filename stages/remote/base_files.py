"""Owns the files of a base in a team's cache, for workers that see no other place. Not which workers (far_worker.py).

They are named by their content, and the name comes from whoever has the file: a worker opens no other bytes.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from cache import atomic_files, regular_files
from cache.errors import NotAvailable
from stages.bases.catalogue import Base
from stages.bases.foreign_file import open_reader
from stages.buckets.object_store import Absent, ObjectStore
from stages.remote import bucket

_MOST_BYTES = 8_000_000_000


class BaseFile(NamedTuple):
    """A file of a base: its name beside the others, the SHA-256 and number of its bytes."""

    name: str
    sha256: str
    size: int


def push_base(remote: ObjectStore, base: Base, path: Path) -> tuple[BaseFile, ...]:
    """Put the file of a base, and those beside it that hold its data, where they are not; the base's own is first.

    Raises Denied or Unreachable.
    """
    data = [] if base.format.reader is None else open_reader(base.format).data_files(path)
    there, found = bucket.list_blobs(remote), []
    for file in (path, *data):
        content = regular_files.read_bytes(file, _MOST_BYTES)
        digest = hashlib.sha256(content).hexdigest()
        if digest not in there or there[digest].size != len(content):
            remote.put(bucket.blob_name(digest), content)
        found.append(BaseFile(file.relative_to(path.parent).as_posix(), digest, len(content)))
    return tuple(found)


def fetch_base(remote: ObjectStore, files: Sequence[BaseFile], folder: Path) -> Path:
    """The base's own file in `folder`, with the others beside it; what is not there is fetched.

    Raises NotAvailable where a file is absent or has other bytes, Denied or Unreachable, Unwritable.
    """
    for file in files:
        target = folder / file.name
        if target.is_file() and atomic_files.sha256_of(target) == file.sha256:
            continue
        name = bucket.blob_name(file.sha256)
        try:
            content = remote.get(name, file.size)
        except (Absent, ValueError) as error:
            raise NotAvailable(f"{name} of {remote.url}: {error}", "run again, which puts it there") from error
        if hashlib.sha256(content).hexdigest() != file.sha256:
            raise NotAvailable(f"{name} of {remote.url} is not as it was put there", "remove it there, and run again")
        atomic_files.publish(target, content)
    return folder / files[0].name
