"""Owns which rows are missing, and sending them through Dask, one task per shard. Not the task (extract_task.py).

Tasks take paths and specs and return receipts, never arrays or models. Shards count as they are written, so whatever
stops a run loses at most those in flight, and the next run needs no flag.
"""

from __future__ import annotations

import logging
import math
import os
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from cache.store import Cache
from stages import bases, extract_task
from stages.cluster import ClusterSpec, connect, worker_died
from stages.extract_key import Recipe
from stages.extract_task import SHARD_BYTES, Job, Receipt, Taps, Task, extract_shard

log = logging.getLogger(__name__)

_SHARD_SECONDS = 20
_GMACS_PER_SECOND = 50  # a guess for one process, to size shards by; only their number depends on it


def missing(cache: Cache, recipe: Recipe, taps: Taps, ids: Sequence[str]) -> dict[str, list[str]]:
    """For each id that lacks a row: the keys it lacks."""
    lacking: dict[str, list[str]] = defaultdict(list)
    for key, tap in sorted(taps.items()):
        for image in cache.features(recipe.components(tap)).missing(ids):
            lacking[image].append(key)
    return dict(lacking)


def run(
    cache: Cache,
    job: Job,
    taps: Taps,
    lacking: Mapping[str, Sequence[str]],
    paths: Mapping[str, str],
    cluster: ClusterSpec,
    shard_rows: int | None,
    on_progress: Callable[[int], object] = lambda n: None,
) -> Receipt:
    """Compute what is lacking, and return the sum of the receipts.

    `lacking` is what `missing` returned; `paths` gives an absolute path for each of its ids. Shards are kept as they
    are written, so whatever stops the run loses at most those in flight.
    Raises PipelineError where a row cannot be stored or workers die again and again.
    """
    total = Receipt()
    needed = [job.weights, *list(paths.values())[:1]]
    with connect(cluster, job.version, Path(job.cache_root), needed) as client:
        import distributed

        topic = f"frozenbase-{os.urandom(6).hex()}"
        client.subscribe_topic(topic, lambda event: on_progress(int(event[1])))
        size = shard_rows or _auto_rows(job.recipe, taps, len(lacking), sum(client.nthreads().values()))
        tasks = _tasks(job, taps, lacking, paths, size, topic)
        log.info("%d images are missing: %d shards of %d rows", len(lacking), len(tasks), size)
        extract_task.stop.clear()
        futures = [client.submit(extract_shard, task, pure=False) for task in tasks]
        try:
            for future in distributed.as_completed(futures):
                _add(total, future.result())
        except distributed.KilledWorker as error:
            raise worker_died(error) from error
        except BaseException:
            extract_task.stop.set()
            client.cancel(futures)
            raise
    cache.index.remember(total.seen)
    return total


def _tasks(
    job: Job,
    taps: Taps,
    lacking: Mapping[str, Sequence[str]],
    paths: Mapping[str, str],
    size: int,
    topic: str,
) -> list[Task]:
    """Images that lack the same keys share tasks, in the order of the manifest."""
    groups: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for image, keys in lacking.items():
        groups[tuple(keys)].append(image)
    tasks = []
    for keys, ids in groups.items():
        wanted = {key: taps[key] for key in keys}
        for start in range(0, len(ids), size):
            rows = tuple((image, paths[image]) for image in ids[start : start + size])
            tasks.append(Task(job, wanted, rows, topic))
    return tasks


def _auto_rows(recipe: Recipe, taps: Taps, n: int, threads: int) -> int:
    """The smallest of 32 MB, about 20 s of forward passes, and a quarter of a thread's share."""
    base, pixels = bases.get(recipe.base), recipe.pixels
    area = pixels.height * pixels.width
    places = max(area // 1024 if tap.pooling == "none" else 1 for tap in taps.values())
    seconds = base.gmacs * area / base.size**2 / _GMACS_PER_SECOND
    limits = (
        SHARD_BYTES // (4 * base.feature_dim * places),
        int(_SHARD_SECONDS / seconds),
        math.ceil(n / (4 * threads)),
    )
    return max(8, min(limits))


def _add(total: Receipt, part: Receipt) -> None:
    total.rows += part.rows
    total.rejected += part.rejected
    total.seen += part.seen
    total.engine = total.engine or part.engine
