"""Owns taking rows from a team's cache into a local one. Not which rows a run needs, nor what proves a shard.

Shards are fetched into a temporary folder, from which cache/transfer.py copies what is valid: their digest is compared
before libhdf5 sees a byte.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np

from cache import atomic_files, transfer
from cache.errors import Unusable
from cache.hash_index import HashIndex
from cache.shards import WRONG_DIGEST
from cache.store import Cache, FeatureStore
from cache.transfer import Copied
from stages.bases.recipe import find_fault
from stages.buckets.object_store import Absent, ObjectStore
from stages.data.manifest import Manifest
from stages.engines import parity
from stages.remote import bucket

_MOST_RECORD = 1_000_000
_MOST_HINT = 100_000_000
_AT_ONCE = 16
"""Requests for small objects at a time."""
_AHEAD = 4
"""Shards that are fetched while one is copied: at most so many, and one more, are in memory and in temporary files."""

OnDone = Callable[[int], object]


def pull_rows(
    remote: ObjectStore, store: FeatureStore, ids: Sequence[str], taken: Copied, on_done: OnDone = lambda n: None
) -> None:
    """Copy shards that have rows of `ids` which the local `store` lacks, as few as are needed.

    What is torn, absent by now, or not as it should be goes to `taken.refused`: these rows are still missing. on_done
    is called for each shard. Raises Denied or Unreachable where the remote does not
    answer, which says nothing of what it has; Unwritable where the local cache cannot be written.
    """
    if missing := store.missing(ids):
        Offers(remote, store, taken).pull(missing, on_done)


class Offers:
    """The shards of a key in the remote, with the images that they are said to have; each is asked for these once."""

    def __init__(self, remote: ObjectStore, store: FeatureStore, taken: Copied) -> None:
        self._remote, self._store, self._taken = remote, store, taken
        self._seen: set[str] = set()
        self._hints: dict[str, np.ndarray] = {}
        self._records: list[Mapping[str, object]] | None = None  # of shards here, by which engines are known

    def pull(self, missing: Sequence[str], on_done: OnDone = lambda n: None) -> None:
        """List the key, and copy what `pull_rows` does of rows that the local store lacks; as often as is needed."""
        self._look()
        while names := _cover(missing, self._hints):
            self.take(names, on_done)
            missing = self._store.missing(missing)

    def take(self, names: Collection[str], on_done: OnDone = lambda n: None) -> None:
        """Copy the shards of those names, as far as they are there and valid."""
        if self._records is None:
            self._records = [*self._store.shard_records()]
        _copy(self._remote, self._store, names, self._taken, self._records, on_done)
        self._records += self._store.shard_records(list(names))
        self._seen.update(names)
        for name in names:
            self._hints.pop(name, None)  # it had no row that its hint promised, or could not be copied

    def _look(self) -> None:
        """Read the hints of shards that are new there and not here.

        One that has a record and no content was evicted; without a record, it is just being pushed.
        """
        offered = bucket.list_key(self._remote, self._store.key)
        for shard, objects in offered.torn.items():
            parts = bucket.parts_of(self._store.key, shard)
            if shard not in self._seen and parts.record in [listed.name for listed in objects]:
                self._taken.refused.append((parts.rows, "its record is there, but not all of its content"))
                self._seen.add(shard)
        names = sorted(offered.whole.keys() - self._seen - set(self._store.names()))
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for name, hint in zip(names, pool.map(self._read_hint, names), strict=True):
                if isinstance(hint, str):
                    self._taken.refused.append((bucket.parts_of(self._store.key, name).ids, hint))
                else:
                    self._hints[name] = hint
        self._seen.update(names)

    def _read_hint(self, name: str) -> np.ndarray | str:
        """Which images a shard has, or why that cannot be known."""
        try:
            return bucket.read_hint(self._remote.get(bucket.parts_of(self._store.key, name).ids, _MOST_HINT))
        except (Absent, ValueError) as error:
            return str(error)


def pull_manifest(remote: ObjectStore, cache: Cache, digest: str) -> Path:
    """Copy a manifest, and return its path.

    Raises ValueError where its bytes are others, Absent for none, and Unusable where it is no table of images.
    """
    data = remote.get(bucket.manifest_name(digest), transfer.MOST_BYTES)
    if hashlib.sha256(data).hexdigest() != digest:
        raise ValueError(WRONG_DIGEST)
    try:
        Manifest.from_bytes(data)
    except ValueError as error:
        message = f"the manifest {digest} of {remote.url} is no table of images, so it was not taken"
        raise Unusable(message, "name another one; pipeline cache push stores one, and says its digest") from error
    cache.put_named("manifests", data, ".jsonl")
    return cache.root / "manifests" / f"{digest}.jsonl"


def _cover(missing: Sequence[str], hints: Mapping[str, np.ndarray]) -> list[str]:
    """Shards that have all those rows between them, as far as hints tell: first those that have most."""
    left = bucket.short_ids(missing)
    counts = {name: int(np.isin(hint, left).sum()) for name, hint in hints.items()}
    chosen = []
    for name in sorted(hints, key=lambda name: (-counts[name], name)):
        if not counts[name] or not len(left):
            break
        uncovered = left[~np.isin(left, hints[name])]
        if len(uncovered) < len(left):
            chosen.append(name)
            left = uncovered
    return chosen


def _copy(
    remote: ObjectStore, store: FeatureStore, names: Collection[str], taken: Copied,
    there: Sequence[Mapping[str, object]], on_done: OnDone,
) -> None:  # fmt: skip
    """Fetch shards one after the other, and copy those that are valid."""
    with atomic_files.temporary_folder() as folder:
        source = Cache(folder, HashIndex()).features(store.components)
        with closing(_fetch_all(remote, source, sorted(names), taken)) as fetched:
            transfer.copy_shards(
                source, store.cache, fetched, taken, on_done,
                partial(find_fault, store.components), partial(parity.note_unchecked, there),
            )  # fmt: skip
        taken.refused = [(path.replace(str(folder), bucket.ROOT), reason) for path, reason in taken.refused]


def _fetch_all(
    remote: ObjectStore, source: FeatureStore, names: Sequence[str], taken: Copied
) -> Generator[str, None, None]:
    """The names of shards that lie in the folder `source` until the next is asked for."""
    waiting = iter(names)
    with ThreadPoolExecutor(_AHEAD) as pool:

        def begin() -> list[tuple[str, Future[tuple[bytes, bytes]]]]:
            return [(name, pool.submit(_fetch, remote, source.key, name)) for name in islice(waiting, 1)]

        flying = [pair for _ in range(_AHEAD) for pair in begin()]
        try:
            while flying:
                name, future = flying.pop(0)
                try:
                    rows, record = future.result()
                except (Absent, ValueError) as error:
                    taken.refused.append((bucket.parts_of(source.key, name).rows, str(error)))
                else:
                    atomic_files.publish(source.path(name), rows)
                    atomic_files.publish(source.record_path(name), record)
                    yield name
                    atomic_files.remove(source.record_path(name), source.path(name))
                flying += begin()
        finally:
            pool.shutdown(cancel_futures=True)


def _fetch(remote: ObjectStore, key: str, name: str) -> tuple[bytes, bytes]:
    """The bytes of a shard and its record. Raises Absent; ValueError for too many."""
    parts = bucket.parts_of(key, name)
    record = remote.get(parts.record, _MOST_RECORD)
    return remote.get(parts.rows, transfer.MOST_BYTES), record
