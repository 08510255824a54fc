"""Owns the Dask cluster that more workers than one are: started here, or already running. Not what runs on it."""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cache import atomic_files
from cache.errors import PipelineError, Unusable
from stages.runtime.hardware import cpu_count

if TYPE_CHECKING:
    from distributed import Client

log = logging.getLogger(__name__)

_CONNECT_TIMEOUT_S = 10
_starting = threading.Lock()


@dataclass(frozen=True)
class ClusterSpec:
    """workers: 1 is this process, which needs no cluster; more are processes. scheduler: use that one instead."""

    workers: int = 1
    scheduler: str | None = None


@contextmanager
def connect(spec: ClusterSpec, version: str, cache: Path, needed: Sequence[str]) -> Iterator[Client]:
    """A Dask client. `distributed` is imported here, so only where a row is missing.

    It is nobody's default: code around us, and threads beside us, may have a Dask of their own. What is started here
    listens on 127.0.0.1 only. The workers of a running cluster must have `version` of this
    package, and see the folder `cache` and the files `needed` under the same paths; else Unusable is raised.
    """
    for name in ("distributed", "tornado"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with _running(spec.scheduler) if spec.scheduler else _local(spec.workers) as client:
        if spec.scheduler:
            _check_workers(client, spec.scheduler, version, cache, needed)
        yield client


@contextmanager
def _running(address: str) -> Iterator[Client]:
    import distributed

    try:
        client = distributed.Client(address, timeout=_CONNECT_TIMEOUT_S, set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        raise Unusable(
            f"no Dask scheduler answers at {address} ({error})",
            "start one with: dask scheduler --host 127.0.0.1, and workers with: dask worker ADDRESS",
        ) from error
    with client:
        yield client


@contextmanager
def _local(workers: int) -> Iterator[Client]:
    """Processes, which share the cores between them."""
    import dask
    import distributed

    threads = max(1, cpu_count() // workers)
    quiet = {"distributed.worker.profile.enabled": False}  # its samples can hang CPython up to 3.11.8 (gh-106883)
    # Two that start at once, in threads of one process, trip over each other's imports.
    with _starting, dask.config.set(quiet):
        cluster = distributed.LocalCluster(
            n_workers=workers,
            threads_per_worker=threads,
            dashboard_address="127.0.0.1:0",  # the default, and None too, listen to the world
            worker_dashboard_address="127.0.0.1:0",
            memory_limit=0,  # a task holds one shard; there is nothing to spill
            silence_logs=logging.CRITICAL,
            host="127.0.0.1",
            env={"TF_NUM_INTRAOP_THREADS": str(threads)},
        )
    with cluster, distributed.Client(cluster, set_as_default=False) as client:
        yield client


def _check_workers(client: Client, address: str, version: str, cache: Path, needed: Sequence[str]) -> None:
    """Raises Unusable where there is no worker, or one that has other code or doesn't see a file."""
    token = cache / f".seen-{uuid.uuid4().hex[:12]}.tmp"
    atomic_files.publish(token, b"")
    try:
        found = client.run(_report, [str(token), *needed], on_error="return")
    finally:
        atomic_files.remove(token)
    if not found:
        raise Unusable(f"the scheduler {address} has no workers", f"start one with: dask worker {address}")
    for worker, answer in found.items():
        if isinstance(answer, Exception):
            raise Unusable(f"worker {worker} cannot run this package ({answer})", f"install frozenbase {version} there")
        theirs, unseen = answer
        if theirs != version:
            raise Unusable(f"worker {worker} has frozenbase {theirs}; expected {version}", "install the same version")
        if unseen:
            path = cache if unseen[0] == str(token) else unseen[0]
            raise Unusable(
                f"worker {worker} does not see {path}",
                "put the cache, the images and the weights where all workers see them under the same path",
            )


def _report(paths: list[str]) -> tuple[str, list[str]]:
    """On a worker: its version of this package, and which of the paths it does not see."""
    from importlib.metadata import version

    return version("frozenbase"), [path for path in paths if not Path(path).exists()]


def worker_died_error(error: Exception) -> PipelineError:
    """What to tell when a task's workers died again and again."""
    return PipelineError(
        f"worker processes died several times on the same shard ({error})",
        "run again: finished shards are kept; with fewer --workers if memory ran out",
    )
