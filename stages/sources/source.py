"""Owns the images below one root, whatever kind it is: which there are, where each is, and their ids. Not labels.

A root is a folder, or a URL of a bucket. One without images that holds .tar or .parquet files is read as these; it may
also be one such file.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from cache.errors import NotAvailable
from cache.hash_index import HashIndex
from stages.runtime.parallel import run_in_threads
from stages.sources import archives, blobs, bucket, folder, places
from stages.sources.blobs import Blob
from stages.sources.listing import ARCHIVES, EXTENSIONS, FollowLinks, Listing, OnHashed, Reject, extension_of, ignore
from stages.sources.places import Place

READERS = 16
"""Objects that are read at the same time to be hashed: a bucket is slow to answer, not slow."""

_BLOCK = 256
_IN_ARCHIVE = re.compile(r"\.(tar|parquet)/", re.IGNORECASE)
COLUMNS = {"label": "label", "split": "split", "group": "group"}


class Source:
    """The images below a root, each with a name relative to it.

    root: what names begin with in places: the absolute path of a folder, or a URL.
    """

    def __init__(
        self, root: str | Path, follow_links: FollowLinks = "inside", columns: Mapping[str, str] = COLUMNS,
        index: HashIndex | None = None, read_files: bool = True, offline: bool = False, called: str = "data.root",
    ) -> None:  # fmt: skip
        """root: a folder, a URL, or one .tar or .parquet file of either. columns: of Parquet, those that have a
        `label`, `split` and `group`. index: remembers contents of archives. read_files: whether archives that it
        doesn't know may be read from end to end, for the ids in them. offline: a bucket is not listed.

        Raises Unusable for a URL that is none, or has a secret in it.
        """
        self.follow_links, self.called = follow_links, called
        self._columns = {part: columns[part] for part in COLUMNS}
        self._read_files, self._offline = read_files, offline
        self._index = HashIndex() if index is None else index
        self._listing: Listing | None = None
        self.text = str(root)
        self.is_remote = blobs.is_url(self.text)
        if self.is_remote:
            bucket.check_url(self.text, called)
        whole = self.text.rstrip("/") if self.is_remote else str(Path(self.text).absolute())
        self._only = os.path.basename(whole) if self._is_one_file(whole) else None
        self.is_one_file = self._only is not None
        self.root = os.path.dirname(whole) if self.is_one_file else whole

    def _is_one_file(self, whole: str) -> bool:
        if self.is_remote:
            return extension_of(whole) in ARCHIVES | EXTENSIONS and whole.count("/") > 2
        return extension_of(whole) in ARCHIVES and os.path.isfile(whole)

    @property
    def exists(self) -> bool:
        """Whether the root is there; a bucket's is asked when it is listed."""
        return self.is_remote or os.path.exists(self.text)

    def list(self, on_hashed: OnHashed = ignore) -> Listing:
        """What there is, looked at once. on_hashed: called with numbers of images as archives are read.

        Raises Unusable where the root cannot be used; for a bucket Denied and Unreachable, and NotAvailable `offline`.
        """
        if self._listing is None:
            if self.is_remote and self._offline:
                raise NotAvailable(
                    f"{self.called} is {self.text}, and --offline leaves it alone",
                    "leave --offline out, or work from saved rows: name a saved manifest with data.table",
                )
            found, there = self._look()
            if found.names:
                found.ignored.update(extension_of(name) for name in there)
            else:
                archives.add_members(found, there, self._columns, self._index, on_hashed, self._read_files)
            self._listing = found
        return self._listing

    def _look(self) -> tuple[Listing, Mapping[str, Blob]]:
        if self.is_remote:
            if self._only is not None:
                return bucket.list_object(self.root, self._only)
            return bucket.list_bucket(self.root)
        if self._only is not None:
            found, names = Listing(), [self._only]
        else:
            found, names = folder.list_folder(Path(self.text), self.called, self.follow_links)
        there = {}
        for name in names:
            try:
                there[name] = blobs.find_blob(f"{self.root}/{name}")
            except OSError as error:
                found.rejected += [] if found.names else [Reject(name, f"cannot be read: {error.strerror or error}")]
        return found, there

    def place(self, name: str) -> str:
        """Where the image of that name is, whether there is one or not; a place is its own."""
        if places.is_place(name):
            return name
        if _IN_ARCHIVE.search(name) and name in (members := self.list().members):
            return members[name].place
        return Place(f"{self.root}/{name}") if self.is_remote else f"{self.root}/{name}"

    def has(self, name: str) -> bool:
        """Whether there is such an image, as far as can be told without reading it. Raises what `list` does."""
        file = places.file_of(self.place(name))
        if file is not None:
            return os.path.exists(file)
        return name in (listing := self.list()).versions or name in listing.members or places.is_place(name)

    def digests(
        self, names: Sequence[str], index: HashIndex, on_hashed: OnHashed = ignore, read_files: bool = True
    ) -> dict[str, str | OSError]:
        """SHA-256 of the image of each name, or the error met: from the index where it is unchanged, else by reading.

        Without `read_files`, those that are not known are left out.
        """
        where = {name: self.place(name) for name in names}
        local = [place for place in where.values() if place.startswith("/")]
        known = index.digests(local, on_hashed) if read_files else index.known(local, fresh=True)
        if len(local) < len(where):
            others = [name for name, place in where.items() if not place.startswith("/")]
            known |= self._digests_elsewhere({name: where[name] for name in others}, index, on_hashed, read_files)
        return {name: known[place] for name, place in where.items() if place in known}

    def _digests_elsewhere(
        self, where: Mapping[str, str], index: HashIndex, on_hashed: OnHashed, read_files: bool
    ) -> dict[str, str | OSError]:
        """By places: of objects, and members of archives."""
        listing, found = self.list(), dict[str, str | OSError]()
        members = {member.place: member.sha256 for member in listing.members.values()}
        listed = {f"{self.root}/{name}": version for name, version in listing.versions.items()}
        versions = {place: listed[place] for place in where.values() if listed.get(place)}
        found.update(index.find_objects(versions))
        for name, place in where.items():
            if (sha256 := members.get(place)) is not None:
                found[place] = sha256
            elif place not in members and place not in listed and not places.is_place(name):
                found[place] = FileNotFoundError(2, "it is not there")
        left = [place for place in where.values() if place not in found] if read_files else []
        for start in range(0, len(left), _BLOCK):
            part = left[start : start + _BLOCK]
            read = dict(zip(part, run_in_threads(_hash, part, READERS), strict=True))
            found |= {place: one if isinstance(one, OSError) else one[0] for place, one in read.items()}
            index.remember_objects(
                (place, one[1], one[0])
                for place, one in read.items()
                if not isinstance(one, OSError) and place in versions
            )
            on_hashed(len(part))
        return found


def _hash(place: str) -> tuple[str, str] | OSError:
    """SHA-256, and of an object the version that was read."""
    try:
        if places.within(place) is None:
            with blobs.object_bytes(place, places.MAX_FILE_BYTES) as (data, version):
                return hashlib.sha256(data).hexdigest(), version
        with places.reading(place) as read:
            return hashlib.sha256(read.data).hexdigest(), ""
    except OSError as error:
        return error


def as_source(root: str | Path | Source, follow_links: FollowLinks = "inside") -> Source:
    return root if isinstance(root, Source) else Source(root, follow_links)
