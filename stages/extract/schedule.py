"""Owns finding missing rows and scheduling their extraction, one task per shard. Not the task (shard_task.py).

Tasks take paths and specs and return receipts, never arrays or models. Each shard counts as soon as it is written, so
a run that is stopped loses at most those in flight, and the next run needs no flag.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from cache.errors import PipelineError
from cache.store import Cache
from stages.bases import catalogue
from stages.bases.recipe import FeatureSpec, Recipe, Specs, Tap
from stages.data.images import ImageRejected
from stages.engines.embed import CPU_BATCH, GPU_BATCH, Taps
from stages.extract.cluster import ClusterSpec, connect
from stages.extract.opened_bases import Job
from stages.extract.prefetch import read_image
from stages.extract.shard_task import SHARD_BYTES, Receipt, Task, extract_shard, stop_run, write_error
from stages.extract.watch import CHECK_S, Watch
from stages.runtime import hardware
from stages.sources.places import files_of

if TYPE_CHECKING:
    from distributed import Client, as_completed

log = logging.getLogger(__name__)

Paths = Mapping[str, Sequence[str]]
"""id -> places that should hold those bytes (stages/sources/places.py)."""

SMALL_RUN = 8
"""Up to so many images are extracted in this process: they are one task, and processes take time to start."""

TASKS_PER_THREAD = 4
"""Tasks that the cluster has at a time, for each of its threads."""

_Add = Callable[[Receipt, Receipt], None]
"""add(total, receipt): takes in what a task did."""

_ROUNDS = 4
"""Least number of tasks per thread, if there are enough batches: all threads then end at about the same time."""

_POLL_S = 0.05
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
            found = [(job, {key: tap for key, tap in taps.items() if key in keys}) for job, taps in self.parts]
            parts = tuple(part for part in found if part[1])
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
    on_receipt: Callable[[Receipt], object] = lambda receipt: None,
) -> Receipt:  # fmt: skip
    """Compute the missing rows, and return the sum of the receipts; `on_receipt` has that of each task as it ends.

    One worker means this process, with a thread per core; so do up to SMALL_RUN images. Raises PipelineError if a row
    cannot be stored, or workers die again and again.
    """

    def add(total: Receipt, receipt: Receipt) -> None:
        _add(cache, total, receipt)
        on_receipt(receipt)

    try:
        for spec in work.specs.values():
            cache.features(spec.components()).prepare()
    except OSError as error:
        raise write_error(work.parts[0][0], error, f"{len(work.missing):,} rows are missing") from error
    if cluster.scheduler is None and (cluster.workers == 1 or len(work.missing) <= SMALL_RUN):
        return _in_process(work, on_progress, add)
    return _on_cluster(cache, work, cluster, on_progress, add)


def _in_process(work: Work, on_progress: Callable[[int], object], add: _Add) -> Receipt:
    from dask.threaded import get  # dask.compute would import `distributed`

    total, name, lock, threads = Receipt(), _run_name(), threading.Lock(), hardware.cpu_count()

    def advance(rows: int) -> None:
        with lock:
            on_progress(rows)

    def extract(task: Task) -> None:
        receipt = extract_shard(task, advance)
        with lock:
            add(total, receipt)

    graph = {f"shard {number}": (partial(extract, task),) for number, task in enumerate(work.tasks(threads, name))}
    with ThreadPoolExecutor(threads) as pool:
        try:
            get(graph, list(graph), pool=pool)
        except BaseException:
            stop_run(name)  # tasks under way need not finish
            raise
    return total


def _on_cluster(
    cache: Cache, work: Work, cluster: ClusterSpec, on_progress: Callable[[int], object], add: _Add
) -> Receipt:
    total, name = Receipt(), _run_name()
    jobs = [job for job, _ in work.parts]
    needed = [*(job.weights for job in jobs), *files_of(next(iter(work.paths.values()))[:1])]
    with connect(cluster, Path(jobs[0].cache_root), needed) as client:
        import distributed

        def count_kept() -> int:
            return len(work.missing) - len(find_missing(cache, work.specs, list(work.missing)))

        watch = Watch(client, cluster.timeout, count_kept)

        def advance(event: tuple[float, int]) -> None:
            watch.note_row()
            on_progress(int(event[1]))

        client.subscribe_topic(name, advance)
        threads = sum(client.nthreads().values())
        waiting = iter(work.tasks(threads, name))
        flying = distributed.as_completed(loop=client.loop, with_results=True)  # a result may be lost with its worker
        try:
            for task in islice(waiting, TASKS_PER_THREAD * threads):
                flying.add(client.submit(extract_shard, task, pure=False))
            while flying.count():
                watch.check()
                if not flying.has_ready():
                    time.sleep(_POLL_S)
                    continue
                _, receipt = next(flying)
                if isinstance(receipt, distributed.CancelledError):
                    raise receipt
                add(total, receipt)
                watch.note_row()
                for task in islice(waiting, 1):
                    flying.add(client.submit(extract_shard, task, pure=False))
        except distributed.CancelledError as error:
            raise watch.lost_scheduler_error() from error
        except distributed.KilledWorker as error:
            raise PipelineError(
                f"worker processes died several times on the same shard ({error})",
                "run again: finished shards are kept; with fewer --workers if memory ran out",
            ) from error
        finally:
            if flying.count():
                _stop_tasks(client, name, flying)
    return total


def _stop_tasks(client: Client, run: str, flying: as_completed) -> None:
    """End a run's tasks, as far as workers and scheduler answer; that they do not must not hide the error."""
    with contextlib.suppress(Exception):
        with flying.lock:
            client.cancel(list(flying.futures))
        client.sync(client._run, stop_run, run, callback_timeout=CHECK_S)  # client.run waits for stuck workers


def _run_name() -> str:
    return f"frozenbase-{os.urandom(6).hex()}"


def _add(cache: Cache, total: Receipt, part: Receipt) -> None:
    """Add a receipt to the total; digests of its files go to the index at once, so that a stopped run keeps them."""
    total.rows += part.rows
    total.rejected += part.rejected
    cache.index.remember(part.seen)
    total.engine = total.engine or part.engine
