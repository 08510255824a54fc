"""Owns a task on a worker that shares only the team's cache with the process that plans. Not the task (shard_task.py).

The worker keeps base and rows in a cache folder of its own, and gives the shards to the team's cache. What travels with
a task are digests and places; credentials are those in the worker's own environment.
"""

import hashlib
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from cache.errors import NotAvailable, PipelineError, Unwritable
from cache.hash_index import HashIndex, user_cache
from cache.store import Cache, FeatureStore
from cache.transfer import Copied
from stages.bases.recipe import FeatureSpec
from stages.buckets.object_store import Denied, ObjectStore, Unreachable
from stages.engines import proof
from stages.extract.opened_bases import Job
from stages.extract.shard_task import Receipt, Task, extract_shard, split_task
from stages.extract.worker import Unfit
from stages.remote.base_files import BaseFile, fetch_base
from stages.remote.pull import Offers
from stages.remote.push import Pushed, Pusher


@dataclass(frozen=True)
class Place:
    """What a worker finds in the team's cache at `url`.

    bases: SHA-256 of a recipe's weights -> its files. references: extract key -> shards with rows by which another
    engine is checked.
    """

    url: str
    bases: Mapping[str, Sequence[BaseFile]]
    references: Mapping[str, Sequence[str]]


def extract_far(place: Place, task: Task) -> Receipt:
    """Compute the rows of a task that this worker has not computed before, and push the shards that have its rows.

    Raises Unfit where the team's cache cannot be used from here.
    """
    try:
        own = _open(place.url)
        with own.lock:
            task = task._replace(parts=tuple((own.localise(job, place), taps) for job, taps in task.parts))
            specs = {key: FeatureSpec(job.recipe, tap) for job, taps in task.parts for key, tap in taps.items()}
            stores = {key: own.store(spec) for key, spec in specs.items()}
            for key, store in stores.items():
                Offers(own.remote, store, Copied()).take(set(place.references.get(key, ())) - set(store.names()))
            ids = [image for image, _ in task.rows]
            left = split_task(task, {key: set(store.missing(ids)) for key, store in stores.items()})
        receipt = _sum([extract_shard(part) for part in left])
        with own.lock:
            shards = [(key, name) for key, store in stores.items() for name in store.serving([*ids, proof.golden_id()])]
        pusher = Pusher(own.remote, Pushed())
        for key, name in shards:
            pusher.push(stores[key], name)
    except (Denied, Unreachable, Unwritable, NotAvailable) as error:
        raise Unfit(error.message) from error
    if pusher.done.lost:
        raise Unfit(pusher.done.lost)
    receipt.shards, receipt.doubled, receipt.remote = shards, pusher.done.there, True
    return receipt


def find_lack(place: Place) -> str:
    """Why this process cannot use the team's cache at `place`; "" where it can."""
    try:
        own = _open(place.url)
        next(iter(own.remote.list("v1/blobs")), None)
    except PipelineError as error:
        return error.message
    return ""


class _Own:
    """What this process has of its own: the folder, and a client of the team's cache. Guard it by `lock`."""

    def __init__(self, url: str, folder: Path) -> None:
        """Rows are apart by `url`: what one team's tasks computed here is not pushed to another's cache."""
        self.remote, self.lock = ObjectStore(url, make_folder=True, without=""), threading.Lock()
        self._folder, self._bases = folder, dict[str, Path]()
        self._cache = Cache(folder / "rows" / hashlib.sha256(url.encode()).hexdigest()[:16], HashIndex())
        self._stores: dict[str, FeatureStore] = {}

    def localise(self, job: Job, place: Place) -> Job:
        """The job with the base's file and the cache of this worker."""
        digest = job.recipe.weights_sha256
        if digest not in self._bases:
            self._bases[digest] = fetch_base(self.remote, place.bases[digest], self._folder / "bases" / digest)
        return replace(job, weights=str(self._bases[digest]), cache_root=str(self._cache.root))

    def store(self, spec: FeatureSpec) -> FeatureStore:
        """Kept, so that each shard is read once."""
        if spec.key not in self._stores:
            self._stores[spec.key] = self._cache.features(spec.components())
        return self._stores[spec.key]


def _open(url: str) -> _Own:
    """Raises NotAvailable, also for a worker without a folder; Unusable without obstore."""
    chosen, own = os.environ.get("PIPELINE_CACHE_DIR"), user_cache()
    if chosen is None and own is None:
        raise NotAvailable("it has no folder for rows", "set PIPELINE_CACHE_DIR, or HOME")
    with _opening:
        return _opened(url, Path(chosen or own or "").absolute() / "worker")


_opening = threading.Lock()
_opened = lru_cache(16)(_Own)


def _sum(receipts: Sequence[Receipt]) -> Receipt:
    total = Receipt()
    for receipt in receipts:
        total.rows += receipt.rows
        total.rejected += receipt.rejected
        total.seen += receipt.seen
        total.engine = total.engine or receipt.engine
    return total
