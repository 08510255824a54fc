"""Owns finding missing rows and scheduling their extraction, one task per shard. Not the task (shard_task.py).

Tasks take paths and specs and return receipts, never arrays or models. Each shard counts as soon as it is written, so
a run that is stopped loses at most those in flight, and the next run needs no flag; nor do two runs at once.
"""

from __future__ import annotations

import logging
import math
import os
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import count, pairwise
from pathlib import Path
from typing import Protocol

from cache.store import Cache
from stages.bases import catalogue
from stages.bases.recipe import FeatureSpec, Recipe, Specs, Tap
from stages.data.images import ImageRejected
from stages.engines.embed import CPU_BATCH, GPU_BATCH, Taps
from stages.extract.arrivals import Arrivals
from stages.extract.cluster import ClusterSpec, Distant, Files, connect
from stages.extract.cluster_tasks import compute_all
from stages.extract.opened_bases import Job
from stages.extract.prefetch import read_image
from stages.extract.shard_task import SHARD_BYTES, Receipt, Task, extract_shard, parts_of, stop_run, write_error
from stages.extract.watch import Watch
from stages.runtime import hardware
from stages.sources.places import files_of

log = logging.getLogger(__name__)

Paths = Mapping[str, Sequence[str]]
"""id -> places that should hold those bytes (stages/sources/places.py)."""


class Exchange(Protocol):
    """What goes to and from a cache elsewhere during a run."""

    def bring(self, missing: Mapping[str, Sequence[str]]) -> None:
        """Copy rows that are there by now: extract key -> ids without a row here."""

    def receive(self, receipt: Receipt) -> None:
        """Called as each task ends: its shards are here, or, of `receipt.remote`, there."""

    def equip(self, jobs: Sequence[Job]) -> Distant:
        """Ready all that workers need for these jobs that share no file system with this process."""


SMALL_RUN = 8
"""Up to so many images are extracted in this process: they are one task, and processes take time to start."""

TASKS_PER_THREAD = 4
"""Tasks that the cluster has at a time, for each of its threads."""

_ROUNDS = 4
"""Least number of tasks per thread, if there are enough batches: all threads then end at about the same time."""

_SHARD_SECONDS = 20
_GMACS_PER_SECOND = 50  # assumed for one process; only the number of shards depends on it


@dataclass(frozen=True)
class Work:
    """Rows to compute: `missing` is what `find_missing` returned, `paths` has places of each of its ids.

    parts: a job for each recipe, with its taps. shard_rows: images per task; None derives it from their size and the
    number of threads.
    """

    parts: Sequence[tuple[Job, Taps]]
    missing: Mapping[str, Sequence[str]]
    paths: Paths
    shard_rows: int | None = None

    @property
    def specs(self) -> Specs:
        return {key: FeatureSpec(job.recipe, tap) for job, taps in self.parts for key, tap in taps.items()}

    def tasks(self, threads: int, run: str) -> list[Task]:
        """Images that miss rows of the same keys share tasks, in the order of the manifest."""
        groups: dict[tuple[str, ...], list[str]] = defaultdict(list)
        for image, keys in self.missing.items():
            groups[tuple(keys)].append(image)
        tasks = []
        for keys, ids in groups.items():
            parts = parts_of(self.parts, keys)
            for start, end in pairwise(self._cuts(len(ids), threads)):
                rows = tuple((image, tuple(self.paths[image])) for image in ids[start:end])
                tasks.append(Task(parts, rows, run))
        log.info("%d images are missing: %d shards", len(self.missing), len(tasks))
        return tasks

    def _cuts(self, n: int, threads: int) -> list[int]:
        """Where n images are cut into tasks: 0, ..., n.

        Tasks are whole batches, since a partial one is padded and costs as much; each thread gets as many tasks.
        """
        if self.shard_rows is not None:
            return [*range(0, n, self.shard_rows), n]
        batch = self.parts[0][0].batch or (GPU_BATCH if hardware.has_gpu() else CPU_BATCH)
        batches = math.ceil(n / batch)
        most = max(1, self._max_images() // batch)
        rounds = max(_ROUNDS, math.ceil(batches / (threads * most)))
        tasks = min(batches, threads * rounds)
        return [*(batch * (batches * task // tasks) for task in range(tasks)), n]

    def _max_images(self) -> int:
        """Images per task: 32 MB of rows of a tap, or about 20 s of forward passes."""
        seconds, most = 0.0, SHARD_BYTES
        for job, taps in self.parts:
            base, pixels = catalogue.base_of(job.recipe.base), job.recipe.pixels
            area = pixels.height * pixels.width
            places = max(max(1, area // 1024) if tap.pooling == "none" else 1 for tap in taps.values())
            seconds += base.gmacs * area / base.size**2 / _GMACS_PER_SECOND
            most = min(most, SHARD_BYTES // (4 * base.feature_dim * places))
        return min(most, int(_SHARD_SECONDS / seconds))


def by_recipe(specs: Specs) -> dict[Recipe, Taps]:
    """The taps of each recipe, by extract key: what one network computes."""
    found: dict[Recipe, dict[str, Tap]] = defaultdict(dict)
    for key, spec in specs.items():
        found[spec.recipe][key] = spec.tap
    return dict(found)


def find_missing(cache: Cache, specs: Specs, ids: Sequence[str]) -> dict[str, list[str]]:
    """Id -> keys of which the cache has no row for that image; ids without a missing row are left out."""
    missing: dict[str, list[str]] = defaultdict(list)
    for key, spec in sorted(specs.items()):
        for image in cache.features(spec.components()).missing(ids):
            missing[image].append(key)
    return dict(missing)


def all_rejects(specs: Specs, paths: Paths) -> list[tuple[str, str]] | None:
    """(id, reason) of every image if none can be decoded; None as soon as one can.

    Rejects are not remembered, so a run that misses only rows of rejects asks this before it starts base and cluster.
    """
    rejected, recipes = [], list(by_recipe(specs))
    for image, candidates in paths.items():
        reason = _reject(recipes, image, candidates)
        if reason is None:
            return None
        rejected.append((image, reason))
    return rejected


def find_rejects(specs: Specs, paths: Paths, on_decoded: Callable[[int], object]) -> dict[str, str]:
    """Decode all images; id -> reason of those that a run would reject."""
    found, recipes = {}, list(by_recipe(specs))
    with ThreadPoolExecutor(hardware.cpu_count()) as threads:
        reasons = threads.map(lambda item: _reject(recipes, *item), paths.items())
        for image, reason in zip(paths, reasons, strict=True):
            on_decoded(1)
            if reason is not None:
                found[image] = reason
    return found


def _reject(recipes: Sequence[Recipe], image: str, candidates: Sequence[str]) -> str | None:
    try:
        read_image(image, candidates, recipes, [])
    except ImageRejected as error:
        return str(error)
    return None


def compute_missing(
    cache: Cache, work: Work, cluster: ClusterSpec, on_progress: Callable[[int], object] = lambda n: None,
    exchange: Exchange | None = None,
) -> Receipt:  # fmt: skip
    """Compute the missing rows, and return the sum of the receipts.

    Rows that others store meanwhile, here or where `exchange` finds them, are not computed. Where workers of a running
    cluster do not see the cache, they compute as that says. One worker means this process, with a thread per core; so
    do up to SMALL_RUN images. Raises PipelineError if a row cannot be stored, or workers die again and again.
    """
    try:
        for spec in work.specs.values():
            cache.features(spec.components()).prepare()
    except OSError as error:
        raise write_error(work.parts[0][0], error, f"{len(work.missing):,} rows are missing") from error
    run = _Run(cache, work, exchange, on_progress)
    if cluster.scheduler is None and (cluster.workers == 1 or len(work.missing) <= SMALL_RUN):
        _in_process(run)
    else:
        _on_cluster(cache, work, cluster, run, exchange)
    return run.total


class _Run:
    """The tasks of a run, and what they did."""

    def __init__(
        self, cache: Cache, work: Work, exchange: Exchange | None, on_progress: Callable[[int], object]
    ) -> None:
        self.name, self.total = f"frozenbase-{os.urandom(6).hex()}", Receipt()
        self._cache, self._work, self._exchange, self._on_progress = cache, work, exchange, on_progress
        bring = None if exchange is None else exchange.bring
        self._arrivals = Arrivals(cache, work.specs, work.missing, self.name, bring)
        self._lock = threading.Lock()

    def begin(self, threads: int) -> int:
        """Make the tasks for so many threads; how many there are."""
        tasks = self._work.tasks(threads, self.name)
        self._arrivals.begin(tasks)
        return len(tasks)

    def tasks(self, most: int | None = None) -> Iterator[Task]:
        """What is to be computed, of all tasks that have not begun or of `most`; looked up when it is asked for."""
        for _ in count() if most is None else range(most):
            found = self._arrivals.next()
            if found is None:
                return
            tasks, done = found
            if done:
                self.advance(done)
            yield from tasks

    def advance(self, rows: int) -> None:
        with self._lock:
            self._on_progress(rows)

    def add(self, receipt: Receipt) -> None:
        """Take in what a task did; digests of its files go to the index at once, so that a stopped run keeps them."""
        self._arrivals.note(receipt)
        with self._lock:
            self.total.rows += receipt.rows
            self.total.rejected += receipt.rejected
            self._cache.index.remember(receipt.seen)
            self.total.engine = self.total.engine or receipt.engine
            if self._exchange is not None:
                self._exchange.receive(receipt)


def _in_process(run: _Run) -> None:
    from dask.threaded import get  # dask.compute would import `distributed`

    threads = hardware.cpu_count()

    def extract_next(number: int) -> None:
        for task in run.tasks(1):
            run.add(extract_shard(task, run.advance))

    graph = {f"shard {number}": (extract_next, number) for number in range(run.begin(threads))}
    with ThreadPoolExecutor(threads) as pool:
        try:
            get(graph, list(graph), pool=pool)
        except BaseException:
            stop_run(run.name)  # tasks under way need not finish
            raise


def _on_cluster(cache: Cache, work: Work, cluster: ClusterSpec, run: _Run, exchange: Exchange | None) -> None:
    jobs = [job for job, _ in work.parts]
    images = files_of(next(iter(work.paths.values()))[:1])
    files = Files(Path(jobs[0].cache_root), [job.weights for job in jobs], images)

    def count_kept() -> int:
        here = len(work.missing) - len(find_missing(cache, work.specs, list(work.missing)))
        return max(here, run.total.rows)  # more, where some are in the team's cache only

    equip = None if exchange is None else partial(exchange.equip, jobs)
    with connect(cluster, files, equip) as (client, compute, _):
        threads = sum(client.nthreads().values())
        run.begin(threads)
        watch = Watch(client, cluster.timeout, count_kept)
        compute_all(client, compute, run.name, run.tasks(), TASKS_PER_THREAD * threads, watch, run.advance, run.add)
