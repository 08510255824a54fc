"""Owns what a team's cache holds in all, and removing keys of it by age. Not what is needed (pipeline/maintenance).

Safe beside pushes: records go before content, and a shard that somebody pushes meanwhile counts once its own record is
there. At worst one that a pusher saw here is gone: a miss, which heals.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cache import records
from cache.errors import Unkeyable
from cache.store import key_of
from stages.buckets.object_store import Absent, Listed, ObjectStore
from stages.remote import bucket

LEFTOVER_S = 86_400
"""Parts of a shard that lack the others belong to a push under way until they are so old."""

_MOST_SPEC = 1_000_000
_AT_ONCE = 500
"""Objects that are removed by one request."""


@dataclass(frozen=True)
class Entry:
    """Rows of a key, a manifest, a file of a base, or leftovers: parts of a key's shards that lack others, and are old.

    pushed: when the latest was written, in s since the epoch by the store's clock. components: of a key, {} where they
    cannot be read. objects: names, in the order in which they are removed.
    """

    kind: str
    name: str
    rows: int
    bytes: int
    pushed: float
    objects: tuple[str, ...]
    components: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "objects"}


def list_entries(remote: ObjectStore, now: float) -> list[Entry]:
    """All that the remote holds: keys, their leftovers, manifests, and files of bases."""
    found = []
    for key, has in bucket.list_keys(remote).items():
        shards = has.whole.values()
        parts = [bucket.parts_of(key, name) for name in has.whole]
        if has.whole:
            objects = (*(p.record for p in parts), *(p.rows for p in parts), *(p.ids for p in parts), *_spec(has))
            size = sum(shard.bytes for shard in shards) + (has.spec.size if has.spec else 0)
            latest = max(shard.written for shard in shards)
            rows = sum(shard.rows for shard in shards)
            found.append(Entry("features", key, rows, size, latest, objects, _components(remote, key)))
        torn = [part for parts in has.torn.values() for part in parts if now - part.written > LEFTOVER_S]
        torn += (
            [has.spec] if has.spec and not has.whole and not has.torn and now - has.spec.written > LEFTOVER_S else []
        )
        if torn:
            found.append(_of_objects("leftover", key, sorted(torn, key=lambda part: not part.name.endswith(".json"))))
    found += [_of_objects("manifest", name, [listed]) for name, listed in bucket.list_manifests(remote).items()]
    return found + [_of_objects("base", name, [listed]) for name, listed in bucket.list_blobs(remote).items()]


def choose_old(found: Iterable[Entry], needed: Collection[str], older_than: float, now: float) -> list[Entry]:
    """Leftovers, and what nothing was pushed to for `older_than` s, unless it is `needed`."""
    return [
        entry
        for entry in found
        if entry.kind == "leftover" or (entry.name not in needed and now - entry.pushed > older_than)
    ]


def remove(remote: ObjectStore, entry: Entry) -> None:
    """Remove its objects, records first. Raises Denied or Unreachable; what is gone then is gone."""
    for start in range(0, len(entry.objects), _AT_ONCE):
        remote.delete(entry.objects[start : start + _AT_ONCE])


def _of_objects(kind: str, name: str, objects: Sequence[Listed]) -> Entry:
    size, latest = sum(part.size for part in objects), max(part.written for part in objects)
    return Entry(kind, name, 0, size, latest, tuple(part.name for part in objects))


def _spec(has: bucket.Contents) -> tuple[str, ...]:
    return (has.spec.name,) if has.spec else ()


def _components(remote: ObjectStore, key: str) -> dict[str, Any]:
    """Those of a key; {} where its spec.json is absent, damaged, or of another key."""
    try:
        found = records.parse(remote.get(bucket.spec_name(key), _MOST_SPEC))
        return found if key_of(found) == key else {}
    except (Absent, ValueError, Unkeyable):
        return {}
