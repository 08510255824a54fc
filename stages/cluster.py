"""Owns the Dask cluster that extraction runs on: started here, or already running. Not what runs on it."""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cache.errors import PipelineError, Unusable

if TYPE_CHECKING:
    from distributed import Client

log = logging.getLogger(__name__)

_CONNECT_TIMEOUT_S = 10


@dataclass(frozen=True)
class ClusterSpec:
    """workers: 1 runs in this process, with a thread per core; more are processes. scheduler: use that one instead."""

    workers: int = 1
    scheduler: str | None = None


@contextmanager
def connect(spec: ClusterSpec, shared: Path, version: str) -> Iterator[Client]:
    """A Dask client. `distributed` is imported here, so only where a row is missing.

    What is started here listens on 127.0.0.1, if at all, and has no dashboard. Workers of a running cluster must
    have the same version of this package, and see the folder `shared` (the cache) under the same path.
    """
    import dask
    import distributed

    for name in ("distributed", "tornado"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with dask.config.set({"distributed.comm.timeouts.connect": _CONNECT_TIMEOUT_S}):
        if spec.scheduler:
            try:
                client = distributed.Client(spec.scheduler, timeout=_CONNECT_TIMEOUT_S)
            except (OSError, ValueError, TimeoutError) as error:
                raise Unusable(
                    f"no Dask scheduler answers at {spec.scheduler} ({error})",
                    "start one with: dask scheduler --host 127.0.0.1, and workers with: dask worker ADDRESS",
                ) from error
            with client:
                _check_workers(client, spec.scheduler, shared, version)
                yield client
            return
        cores = os.cpu_count() or 1
        threads = max(1, cores // spec.workers)
        where = {"host": "127.0.0.1", "env": {"TF_NUM_INTRAOP_THREADS": str(threads)}} if spec.workers > 1 else {}
        with (
            distributed.LocalCluster(
                n_workers=spec.workers,
                threads_per_worker=threads,
                processes=spec.workers > 1,
                dashboard_address=None,
                memory_limit=0,  # tasks hold one shard each; nothing to spill
                silence_logs=logging.CRITICAL,
                **where,
            ) as local,
            distributed.Client(local) as client,
        ):
            yield client


def _check_workers(client: Client, address: str, shared: Path, version: str) -> None:
    """Raises Unusable where there is no worker, or one that has other code or doesn't see the cache."""
    token = shared / f".seen-{uuid.uuid4().hex[:12]}.tmp"
    token.parent.mkdir(parents=True, exist_ok=True)
    token.touch()
    try:
        found = client.run(_report, str(token), on_error="return")
    finally:
        token.unlink(missing_ok=True)
    if not found:
        raise Unusable(f"the scheduler {address} has no workers", f"start one with: dask worker {address}")
    for worker, answer in found.items():
        if isinstance(answer, Exception):
            raise Unusable(f"worker {worker} cannot run this package ({answer})", f"install frozenbase {version} there")
        if answer != (version, True):
            raise Unusable(
                f"worker {worker} has frozenbase {answer[0]} and {'sees' if answer[1] else 'does not see'} the cache "
                f"{shared}; expected {version} and a shared folder",
                "install the same version there, and put the cache and the images where all workers see them",
            )


def _report(token: str) -> tuple[str, bool]:
    from importlib.metadata import version

    return version("frozenbase"), Path(token).exists()


def worker_died(error: Exception) -> PipelineError:
    """What to tell when a task's workers died again and again."""
    return PipelineError(
        f"worker processes died several times on the same shard ({error})",
        "run again: finished shards are kept; with fewer --workers if memory ran out",
    )
