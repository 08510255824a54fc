"""Owns one extraction task, as a Dask worker runs it: read, check, decode, embed, store. Not which rows, nor when."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import PIL

from cache.errors import PipelineError
from cache.statindex import Seen, StatIndex, stat_of
from cache.store import Cache
from stages import images
from stages.extract_key import Recipe, Tap

SHARD_BYTES = 32_000_000
_PROGRESS_S = 0.25

Taps = Mapping[str, Tap]
"""extract key -> tap: two names for the same tap are one."""


class Embed(Protocol):
    """A frozen function: uint8 (n, h, w, 3), 1 <= n <= batch -> {extract key: float32 (n, ...)}, row by row."""

    batch: int
    provenance: dict[str, Any]

    def __call__(self, pixels: np.ndarray) -> dict[str, np.ndarray]: ...


@dataclass(frozen=True)
class Job:
    """What all tasks of a run share. `batch` None lets the engine choose."""

    recipe: Recipe
    weights: str
    cache_root: str
    batch: int | None
    version: str


class Task(NamedTuple):
    """One shard to be: its taps, and (id, absolute path) of each image."""

    job: Job
    taps: Taps
    rows: tuple[tuple[str, str], ...]
    topic: str


@dataclass
class Receipt:
    """What a task did: rows written, images rejected as (id, reason), and what it saw of the files it read."""

    rows: int = 0
    rejected: list[tuple[str, str]] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    engine: str | None = None


def open_embed(job: Job, taps: Taps) -> Embed:
    """Build the base. TensorFlow is imported here, and nowhere earlier."""
    with _without_banners():
        from stages.engines import TensorFlowEmbed

    return TensorFlowEmbed(job.recipe, taps, Path(job.weights), job.batch)


def extract_shard(task: Task) -> Receipt:
    """Runs on a worker: read, check, decode, embed, store."""
    receipt, started = Receipt(), time.perf_counter()
    shard = _Shard(task, started)
    for image, path in task.rows:
        if stop.is_set():
            raise PipelineError("stopped before the shard was done")
        try:
            pixels = _read(image, path, task.job.recipe.pixels, receipt)
        except images.ImageRejected as error:
            receipt.rejected.append((image, str(error)))
            shard.tick()
            continue
        shard.add(image, pixels)
    shard.close()
    receipt.rows, receipt.engine = shard.written, shard.engine
    return receipt


class _Shard:
    """Collects pixels to batches and rows to shards; a shard is written at the task's end, or when it grows too big."""

    def __init__(self, task: Task, started: float) -> None:
        self.task = task
        self.written = 0
        self.engine: str | None = None
        self._embed: Embed | None = None
        self._started = self._told = started
        self._untold = 0
        self._waiting: list[tuple[str, np.ndarray]] = []
        self._ids: list[str] = []
        self._rows: dict[str, list[np.ndarray]] = defaultdict(list)
        self._bytes = 0

    def add(self, image: str, pixels: np.ndarray) -> None:
        self._embed = self._embed or _shared_embed(self.task)
        self._waiting.append((image, pixels))
        if len(self._waiting) == self._embed.batch:
            self._forward()
        self.tick()

    def close(self) -> None:
        if self._waiting:
            self._forward()
        if self._ids:
            self._write()
        self.tick(last=True)

    def tick(self, last: bool = False) -> None:
        """Count one image done, and tell the coordinator now and then."""
        self._untold += not last
        now = time.perf_counter()
        if self._untold and (last or now - self._told > _PROGRESS_S):
            _tell(self.task.topic, self._untold)
            self._told, self._untold = now, 0

    def _forward(self) -> None:
        assert self._embed is not None
        outputs = self._embed(np.stack([pixels for _, pixels in self._waiting]))
        self._ids += [image for image, _ in self._waiting]
        self._waiting = []
        for key, rows in outputs.items():
            stored = rows.astype(self.task.job.recipe.dtype)
            self._rows[key].append(stored)
            self._bytes += stored.nbytes
        if self._bytes >= SHARD_BYTES * len(outputs):
            self._write()

    def _write(self) -> None:
        assert self._embed is not None
        job, now = self.task.job, time.perf_counter()
        provenance = {
            **self._embed.provenance,
            "versions": {
                **self._embed.provenance["versions"],
                "frozenbase": job.version, "numpy": np.__version__, "pillow": PIL.__version__,
            },
            "seconds": round(now - self._started, 3),
            "written": int(time.time()),
        }  # fmt: skip
        cache = Cache(Path(job.cache_root), StatIndex())
        for key, tap in self.task.taps.items():
            rows = np.concatenate(self._rows[key])
            try:
                cache.features(job.recipe.components(tap)).put(self._ids, rows, provenance)
            except ValueError as error:
                raise PipelineError(
                    f"the rows of {job.recipe.base} cannot be kept: {error}",
                    "the weights may be damaged" if "finite" in str(error) else "",
                ) from error
            except OSError as error:
                raise PipelineError(
                    f"cannot write to the cache {job.cache_root}: {error.strerror} ({rows.nbytes} bytes of features)",
                    "finished shards are kept: make room, or correct the permissions, and run again",
                ) from error
        self.written += len(self._ids)
        self.engine = self._embed.provenance["engine"]
        self._ids, self._rows, self._bytes, self._started = [], defaultdict(list), 0, now


_embeds: dict[tuple[Job, tuple[tuple[str, Tap], ...]], Embed] = {}
_embeds_lock = threading.Lock()
stop = threading.Event()
"""Set by the coordinator of tasks in its own process, to end them at the next image."""


def _shared_embed(task: Task) -> Embed:
    """The base of this process, built once however many threads ask; only the last one asked for is kept."""
    wanted = (task.job, tuple(sorted(task.taps.items())))
    with _embeds_lock:
        if wanted not in _embeds:
            _embeds.clear()
            _embeds[wanted] = open_embed(task.job, task.taps)
        return _embeds[wanted]


@contextlib.contextmanager
def _without_banners() -> Iterator[None]:
    """TensorFlow's libraries greet on file descriptor 2 while they load, whatever the log level (tensorflow#100442)."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _read(image: str, path: str, spec: images.PixelSpec, receipt: Receipt) -> np.ndarray:
    """The pixels of one file. The buffer that is hashed is the one that is decoded."""
    try:
        with open(path, "rb", buffering=0) as file:
            stat, when = stat_of(os.fstat(file.fileno())), time.time()
            data = file.read()
            unchanged = stat_of(os.fstat(file.fileno())) == stat
    except OSError as error:
        raise images.ImageRejected(f"cannot be read: {error.strerror}") from error
    found = hashlib.sha256(data).hexdigest()
    if found != image:
        raise images.ImageRejected("changed during the run: its bytes are not those of its id")
    if unchanged:
        receipt.seen.append((path, stat, when, found))
    return images.decode(data, spec)


def _tell(topic: str, rows: int) -> None:
    from distributed import get_worker

    get_worker().log_event(topic, rows)
