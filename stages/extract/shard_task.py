"""Owns one extraction task: read images, run the bases, store shards. Not scheduling tasks (schedule.py)."""

from __future__ import annotations

import errno
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cache.errors import PipelineError
from cache.hash_index import HashIndex, Seen
from cache.store import Cache
from stages.data.images import ImageRejected
from stages.engines import parity
from stages.engines.embed import Embed, Taps
from stages.extract import opened_bases, prefetch
from stages.extract.opened_bases import Job

SHARD_BYTES = 32_000_000
_PROGRESS_S = 0.25


class Task(NamedTuple):
    """Images to compute rows of, a shard for each tap: (id, places) of each.

    parts: of each recipe its job, and its taps. run: names the run it belongs to.
    """

    parts: tuple[tuple[Job, Taps], ...]
    rows: tuple[tuple[str, tuple[str, ...]], ...]
    run: str

    @property
    def keys(self) -> tuple[str, ...]:
        """The extract keys that it computes rows of."""
        return tuple(key for _, taps in self.parts for key in taps)


def split_task(task: Task, missing: Mapping[str, Collection[str]]) -> list[Task]:
    """What of a task computes rows of the `missing` ids of each key: nothing, or a task for images that lack the same.

    Rows keep their order, so that a shard does not depend on that of tasks.
    """
    groups: dict[tuple[str, ...], list[tuple[str, tuple[str, ...]]]] = defaultdict(list)
    for row in task.rows:
        groups[tuple(key for key in task.keys if row[0] in missing[key])].append(row)
    return [task._replace(parts=parts_of(task.parts, keys), rows=tuple(rows)) for keys, rows in groups.items() if keys]


def parts_of(parts: Sequence[tuple[Job, Taps]], keys: Collection[str]) -> tuple[tuple[Job, Taps], ...]:
    """Those `parts` of a task, and of them those taps, that compute rows of `keys`."""
    found = ((job, {key: tap for key, tap in taps.items() if key in keys}) for job, taps in parts)
    return tuple(part for part in found if part[1])


@dataclass
class Receipt:
    """What a task did: rows written, images rejected as (id, reason), stat and digest of the files it read.

    shards: (extract key, name) of those that it stored; doubled: of these, how many somebody else had stored meanwhile.
    remote: they are in the team's cache, and not in that of the run.
    """

    rows: int = 0
    rejected: list[tuple[str, str]] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    engine: str | None = None
    shards: list[tuple[str, str]] = field(default_factory=list)
    doubled: int = 0
    remote: bool = False


def extract_shard(task: Task, on_progress: Callable[[int], object] | None = None) -> Receipt:
    """Read, check, decode, embed, store. `on_progress` None means on a Dask worker, which reports to the scheduler.

    Each file is read once for all parts of the task, and decoded once where they take the same scale.
    """
    receipt = Receipt()
    progress = _Progress(on_progress or partial(_log_progress, task.run))
    shards = [_Shard(task, job, taps, receipt) for job, taps in task.parts]
    recipes = [job.recipe for job, _ in task.parts]
    with closing(prefetch.read_ahead(task.rows, recipes, receipt.seen)) as ahead:
        for image, future in ahead:
            if task.run in _stopped:
                for shard in shards:
                    shard.close()  # keeps the rows computed so far
                raise PipelineError("stopped before the shard was done")
            try:
                _add(shards, image, future.result())
            except ImageRejected as error:
                receipt.rejected.append((image, str(error)))
            progress.tick()
    for shard in shards:
        shard.close()
    progress.report()
    receipt.rows, receipt.engine = max(shard.written for shard in shards), shards[0].engine
    return receipt


def _add(shards: Sequence[_Shard], image: str, pixels: Sequence[np.ndarray]) -> None:
    """Add an image to each shard, in its own size; the seconds of a shard are not those of the other networks."""
    for shard, own in zip(shards, pixels, strict=True):
        before = time.perf_counter()
        shard.add(image, own)
        for other in shards:
            if other is not shard:
                other.started += time.perf_counter() - before


class _Progress:
    """Counts the images of a task, and reports them now and then."""

    def __init__(self, on_progress: Callable[[int], object]) -> None:
        self._on_progress = on_progress
        self._reported, self._unreported = time.perf_counter(), 0

    def tick(self) -> None:
        self._unreported += 1
        if time.perf_counter() - self._reported > _PROGRESS_S:
            self.report()

    def report(self) -> None:
        if self._unreported:
            self._on_progress(self._unreported)
        self._reported, self._unreported = time.perf_counter(), 0


class _Shard:
    """Collects pixels into batches and rows into a shard for each tap of a recipe.

    They are written at the end of the task, or at SHARD_BYTES.
    """

    def __init__(self, task: Task, job: Job, taps: Taps, receipt: Receipt) -> None:
        self.task, self.job, self.receipt = task, job, receipt
        self.taps = taps
        self._plain = opened_bases.without_view(job, taps)[1]
        self.written = 0
        self.engine: str | None = None
        self._embed: Embed | None = None
        self._unchecked: set[str] = set()
        self.started = time.perf_counter()
        self._waiting: list[tuple[str, np.ndarray]] = []
        self._ids: list[str] = []
        self._rows: dict[str, list[np.ndarray]] = defaultdict(list)
        self._bytes = 0

    def add(self, image: str, pixels: np.ndarray) -> None:
        if self._embed is None:
            self._embed, self._unchecked = opened_bases.shared_embed(self.job, self.taps, self.task.parts)
        self._waiting.append((image, pixels))
        if len(self._waiting) == self._embed.batch:
            self._forward()

    def close(self) -> None:
        if self._waiting:
            self._forward()
        if self._ids:
            self._write()

    def _forward(self) -> None:
        assert self._embed is not None
        outputs = self._embed(np.stack([pixels for _, pixels in self._waiting]))
        self._ids += [image for image, _ in self._waiting]
        self._waiting = []
        with np.errstate(over="ignore"):  # values too large for float16 are an error when the shard is built
            stored = {key: outputs[key].astype(self.job.recipe.stored(tap)) for key, tap in self._plain.items()}
        for key, rows in stored.items():
            self._rows[key].append(rows)
        self._bytes += max(rows.nbytes for rows in stored.values())
        if self._bytes >= SHARD_BYTES:
            self._write()

    def _write(self) -> None:
        assert self._embed is not None
        job, now = self.job, time.perf_counter()
        said = {**opened_bases.provenance(job, self._embed), "seconds": round(now - self.started, 3)}
        cache = Cache(Path(job.cache_root), HashIndex())
        for key, tap in self._plain.items():
            rows, store = np.concatenate(self._rows.pop(key)), cache.features(job.recipe.components(tap))
            try:
                unchecked = {parity.UNCHECKED: True} if store.key in self._unchecked else {}
                there = store.names()
                self.receipt.shards.append((store.key, store.put(self._ids, rows, said | unchecked)))
                self.receipt.doubled += self.receipt.shards[-1][1] in there
            except ValueError as error:
                hint = "use extract.dtype: float32" if tap.dtype is None else f"store layer {tap.layer} as float32"
                hint = "check the weights" if rows.dtype == "float32" else hint
                raise PipelineError(f"rows of {job.recipe.base} cannot be stored: {error}", hint) from error
            except OSError as error:
                what = f"a shard of {len(rows):,} rows, {rows.nbytes / 1e6:.1f} MB, is not stored"
                raise write_error(job, error, what) from error
        self.written += len(self._ids)
        self.engine = self._embed.provenance["engine"]
        self._ids, self._rows, self._bytes, self.started = [], defaultdict(list), 0, now


_stopped: set[str] = set()


def stop_run(run: str) -> None:
    """Make the tasks of that run in this process end at their next image."""
    _stopped.add(run)


def write_error(job: Job, error: OSError, what: str) -> PipelineError:
    """The error for a cache that cannot be written to; `what` is what it lacks. A read-only cache still serves rows."""
    read_only = error.errno in (errno.EACCES, errno.EPERM, errno.EROFS)
    return PipelineError(
        f"cannot write to the cache {job.cache_root} ({error.strerror}): {what}",
        "cached rows can still be used; for the missing ones name a writable cache: --set cache.dir=DIR, or "
        "PIPELINE_CACHE_DIR"
        if read_only
        else "finished shards are kept: free some space, or name another cache with --set cache.dir=DIR "
        "(for a temporary cache, with TMPDIR); then run again",
    )


def _log_progress(run: str, rows: int) -> None:
    """On a worker: report progress to the process that started the run."""
    from distributed import get_worker

    worker = get_worker()
    worker.log_event(run, (worker.address, rows))
