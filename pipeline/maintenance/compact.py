"""Owns merging the small shards that increments leave in a cache. Not how that is safe (cache/gc.py)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cache import gc
from pipeline.project.project import Project
from pipeline.runs import retention
from stages.extract.shard_task import SHARD_BYTES


@dataclass(frozen=True)
class Compacted:
    """Of a key: rows and bytes of the shards that were merged, how many there were, and are. components: of the key."""

    key: str
    components: Mapping[str, Any]
    rows: int
    bytes: int
    before: int
    after: int


@dataclass(frozen=True)
class Compaction:
    """What was merged, or with `dry` would be; `in_use`: keys that were left alone, since a running job needs them."""

    keys: list[Compacted]
    in_use: list[str]
    dry: bool

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "keys": [vars(key) for key in self.keys]}


def compact_cache(project: Project, dry: bool) -> Compaction:
    """Merge small shards of each key, of any project that uses the cache, into shards as large as a run writes them."""
    stores = project.cache.stores()
    done, in_use = [], []
    with project.progress("merging shards", len(stores)) as advance:
        for store in stores:
            merge = gc.plan_merge(store, SHARD_BYTES) if store.components else None  # damaged: the next run mends it
            if merge is not None and store.key in retention.names_in_use(project.cache):
                in_use.append(store.key)
            elif merge is not None:
                after = len(merge.pieces) if dry else len(gc.merge_shards(merge))
                sizes = (merge.rows, merge.bytes, len(merge.sources), after)
                done.append(Compacted(store.key, store.components, *sizes))
            advance(1)
    return Compaction(done, in_use, dry)
