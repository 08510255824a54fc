"""Owns the contents of archives: read once for each version, then remembered on this host. Not each kind (tar.py).

What is remembered of an archive is found again by its place and version, so that a run that finds it unchanged reads no
byte of it.
"""

import json
import os
import threading
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress

from cache import keys
from cache.hash_index import HashIndex
from stages.runtime.parallel import run_in_threads
from stages.sources import blobs, parquet, tar
from stages.sources.blobs import Blob
from stages.sources.listing import Contents, Inside, Listing, Member, OnHashed, Reject, splits_of
from stages.sources.places import MAX_FILE_BYTES, member_place

_FORM = 1
"""Of what is remembered; another is not read."""


def add_members(
    listing: Listing, archives: Mapping[str, Blob], columns: Mapping[str, str], index: HashIndex,
    on_hashed: OnHashed, read_files: bool,
) -> None:  # fmt: skip
    """Add the images in `archives`, by their names below the root, to a listing, and what else there is to tell.

    columns: of Parquet, the names of the columns `label`, `split` and `group`. Without `read_files`, archives that are
    not remembered give members without a SHA-256, and are not remembered.
    """

    lock = threading.Lock()

    def count(images: int) -> None:
        with lock:
            on_hashed(images)

    def look(name: str) -> Contents:
        try:
            return _find_contents(archives[name], columns, index, count if read_files else None)
        except OSError as error:
            return Contents(rejected=[Reject("", f"cannot be read: {error.strerror or error}")])

    names = sorted(archives)
    splits, notes = splits_of(names), Counter[str]()
    for name, found in zip(names, run_in_threads(look, names), strict=True):
        blob, kind = archives[name], os.path.splitext(name)[1][1:].lower()
        for one in found.members:
            place = member_place(kind, one.start, one.size, blob.version, blob.address, one.name)
            split = one.split if one.split is not None else splits.get(name)
            listing.members[f"{name}/{one.name}"] = Member(place, one.label, split, one.group, one.sha256)
        listing.rejected += [Reject(f"{name}/{path}".rstrip("/"), reason) for path, reason in found.rejected]
        listing.ignored += found.ignored
        notes.update(found.notes)
    listing.notes += notes
    listing.rejected.sort()


def _find_contents(blob: Blob, columns: Mapping[str, str], index: HashIndex, on_hashed: OnHashed | None) -> Contents:
    version = f"{blob.version} {keys.digest('archive', {'form': _FORM, 'columns': dict(columns)})[:16]}"
    known = index.find_contents(blob.address, version)
    if known is not None:
        with suppress(ValueError, TypeError, zlib.error):
            return _load(known)
    window = blobs.GLANCE_BYTES if on_hashed is None else blobs.WINDOW_BYTES
    with blobs.open_blob(blob, window) as file:
        if blob.address.lower().endswith(".tar"):
            found = tar.read_tar(file, blob.size, MAX_FILE_BYTES, on_hashed)
        else:
            found = parquet.read_parquet(file, blob.address, columns, MAX_FILE_BYTES, on_hashed)
    if on_hashed is not None and blob.settled:
        index.remember_contents(blob.address, version, _dump(found))
    return found


def _dump(found: Contents) -> bytes:
    parts: Sequence[object] = (found.members, found.rejected, found.ignored, found.notes)
    return zlib.compress(json.dumps(parts).encode("ascii"), 1)


def _load(data: bytes) -> Contents:
    members, rejected, ignored, notes = json.loads(zlib.decompress(data))
    return Contents([Inside(*one) for one in members], [Reject(*one) for one in rejected], Counter(ignored), notes)
