"""Owns giving rows to a team's cache: content first, the record last, each asked for after it was written.

Not which rows (pipeline/runs). Objects are named by their content, so that two who push the same do no harm.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from cache import keys, records, transfer
from cache.shards import RECORD_FIELDS, WRONG_DIGEST, BadShard
from cache.store import FeatureStore
from stages.buckets.object_store import Denied, ObjectStore, Unreachable
from stages.remote import bucket
from stages.remote.bucket import Contents

_MOST_FAILURES = 3
"""In a row, each after some tries: then the store is given up."""


@dataclass
class Pushed:
    """What was pushed: shards, their rows and bytes; shards already present; shards that were not, and the first error.

    damaged: (path, reason) of local shards that are not as they should be.
    """

    shards: int = 0
    rows: int = 0
    bytes: int = 0
    there: int = 0
    failed: int = 0
    error: Denied | Unreachable | None = None
    damaged: list[tuple[str, str]] = field(default_factory=list)

    @property
    def stopped(self) -> bool:
        return isinstance(self.error, Denied)

    @property
    def lost(self) -> str:
        """How many shards were not pushed, and the first reason, in one sentence; "" where all were."""
        many = self.failed + len(self.damaged)
        if not many:
            return ""
        why = self.error.message if self.error is not None else ": ".join(self.damaged[0])
        stopped = "; after that, nothing more was tried" if self.stopped else ""
        return f"{many} of {many + self.shards + self.there} shards were not pushed: {why}{stopped}"


class Pusher:
    """Pushes shards of a local cache one by one, and counts what failed. After a denial, nothing more is tried."""

    def __init__(self, remote: ObjectStore, done: Pushed) -> None:
        self.remote, self.done = remote, done
        self._listed: dict[str, Contents] = {}
        self._specs: set[str] = set()
        self._in_a_row = 0

    def push(self, store: FeatureStore, name: str) -> None:
        """Push a shard, unless it is there. No error of the remote is raised; they are counted."""
        if self.done.stopped or self._in_a_row >= _MOST_FAILURES:
            self.done.failed += 1
            return
        try:
            self._push(store, name)
            self._in_a_row = 0
        except (BadShard, OSError, ValueError) as error:
            self.done.damaged.append((str(store.path(name)), str(error)))
        except (Denied, Unreachable) as error:
            self._count_failure(error)

    def push_in_background(self, store: FeatureStore, name: str) -> None:
        """The same, of which no error at all is raised: it would end a thread in silence."""
        try:
            self.push(store, name)
        except BaseException as error:  # noqa: BLE001 (a panic of obstore is no Exception)
            self._count_failure(Unreachable(f"{self.remote.url}: unexpected {type(error).__name__}", "push again"))

    def _count_failure(self, error: Denied | Unreachable) -> None:
        self._in_a_row += 1
        self.done.failed += 1
        self.done.error = error if isinstance(error, Denied) else self.done.error or error

    def _push(self, store: FeatureStore, name: str) -> None:
        if store.key not in self._listed:
            self._listed[store.key] = bucket.list_key(self.remote, store.key)
        listed, parts = self._listed[store.key], bucket.parts_of(store.key, name)
        record = records.read(store.record_path(name), RECORD_FIELDS)
        if name in listed.whole and listed.whole[name].is_like(record["bytes"], record["rows"]):
            self.done.there += 1
            return
        data, ids = _read_shard(store, name)
        if listed.spec is None and store.key not in self._specs:
            self.remote.put(bucket.spec_name(store.key), records.dump(store.components))
            self._specs.add(store.key)
        self.remote.put(parts.rows, data)
        self.remote.put(parts.ids, bucket.hint_of(ids))
        self.remote.put(parts.record, records.dump(record))
        self.done.shards, self.done.rows = self.done.shards + 1, self.done.rows + len(ids)
        self.done.bytes += len(data)

    def push_manifest(self, data: bytes) -> str:
        """Push a manifest, and return its digest. Raises Denied or Unreachable."""
        digest = hashlib.sha256(data).hexdigest()
        if digest not in bucket.list_manifests(self.remote):
            self.remote.put(bucket.manifest_name(digest), data)
        return digest


def _read_shard(store: FeatureStore, name: str) -> tuple[bytes, tuple[str, ...]]:
    """The bytes of a local shard that is whole, and its ids. Raises BadShard, OSError or ValueError."""
    layout = store.check(name)
    if layout is None:
        raise BadShard("its record is missing")
    data = transfer.read_foreign(store.path(name), store.cache.root)
    if hashlib.sha256(data).hexdigest() != name or not keys.is_digest(name):
        raise BadShard(WRONG_DIGEST)
    return data, layout.ids
