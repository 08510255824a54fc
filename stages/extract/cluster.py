"""Owns connecting to a Dask cluster, started here or already running. Not what runs on it (schedule.py)."""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from cache import atomic_files
from cache.errors import Unusable
from stages.extract.source_digest import source_digest

if TYPE_CHECKING:
    from distributed import Client

log = logging.getLogger(__name__)

_CONNECT_TIMEOUT_S = 10
_ANSWER_TIMEOUT_S = 30
_starting = threading.Lock()


@dataclass(frozen=True)
class ClusterSpec:
    """workers: 1 means this process, without a cluster; more are processes. scheduler: the one to use instead.

    timeout: seconds without a new row after which a run gives up a cluster whose workers or scheduler are lost.
    """

    workers: int = 1
    scheduler: str | None = None
    timeout: float = 300


@contextmanager
def connect(spec: ClusterSpec, cache: Path, needed: Sequence[str]) -> Iterator[Client]:
    """A Dask client. `distributed` is imported here, so only if a row is missing.

    It is not set as Dask's default client, since the calling program may use Dask too. Raises Unusable if a worker of a
    running cluster has other source of this package, or does not see the folder `cache` and the files `needed` under
    the same paths.
    """
    for name in ("distributed", "tornado"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with _running(spec.scheduler) if spec.scheduler else _local(spec.workers) as client:
        if spec.scheduler:
            _check_workers(client, spec.scheduler, cache, needed)
        yield client


@contextmanager
def _running(address: str) -> Iterator[Client]:
    import asyncio  # here: a run without a cluster is done before it is loaded

    import distributed

    async def connects() -> None:
        arguments = distributed.Security().get_connection_args("client")
        await (await distributed.core.connect(address, timeout=_CONNECT_TIMEOUT_S, **arguments)).close()

    try:
        with ThreadPoolExecutor(1) as thread:  # the caller's may have an event loop
            # A client waits for ever for a scheduler that takes connections, but is stuck.
            thread.submit(asyncio.run, asyncio.wait_for(connects(), _CONNECT_TIMEOUT_S)).result()
        client = distributed.Client(address, timeout=_CONNECT_TIMEOUT_S, set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        raise Unusable(
            f"no Dask scheduler answers at {address} ({str(error) or 'it takes connections, but does not answer'})",
            "start one with: dask scheduler --host 127.0.0.1, and workers with: dask worker ADDRESS",
        ) from error
    with closing_client(client):
        yield client


@contextmanager
def _local(workers: int) -> Iterator[Client]:
    with ExitStack() as stack:
        with _starting:  # two started at once, in threads of one process, fail on each other's partial imports
            from stages.extract import local_cluster

            client = stack.enter_context(local_cluster.start_processes(workers))
        yield client


def _check_workers(client: Client, address: str, cache: Path, needed: Sequence[str]) -> None:
    """Raises Unusable if there is no worker, or one runs other source or does not see a file."""
    token = cache / f".seen-{uuid.uuid4().hex[:12]}.tmp"
    atomic_files.publish(token, b"")
    try:
        asked = partial(client._run, _describe_worker, [str(token), *needed], on_error="return")
        answers = client.sync(asked, callback_timeout=_ANSWER_TIMEOUT_S)  # client.run waits for stuck workers
    except TimeoutError as error:
        stuck = f"not all workers of the scheduler {address} answer within {_ANSWER_TIMEOUT_S} s"
        raise Unusable(stuck, "restart the workers that are stuck") from error
    finally:
        atomic_files.remove(token)
    if not answers:
        raise Unusable(f"the scheduler {address} has no workers", f"start one with: dask worker {address}")
    expected = source_digest()
    for worker, answer in answers.items():
        if isinstance(answer, Exception):
            raise Unusable(f"worker {worker} cannot run this package ({answer})", "install frozenbase there")
        found, unseen = answer
        if found != expected:
            raise Unusable(
                f"worker {worker} runs other source of frozenbase ({found[:12]}); expected {expected[:12]}, as here",
                "install the same version there, and restart the workers",
            )
        if unseen:
            path = cache if unseen[0] == str(token) else unseen[0]
            raise Unusable(
                f"worker {worker} does not see {path}",
                "put the cache, the images and the weights where all workers see them under the same path",
            )


def _describe_worker(paths: list[str]) -> tuple[str, list[str]]:
    """On a worker: the digest of its source, and which of the paths it does not see."""
    return source_digest(), [path for path in paths if not Path(path).exists()]


@contextmanager
def closing_client(client: Client) -> Iterator[None]:
    """Close the client in the end; that a scheduler does not answer must not hide an error."""
    try:
        yield
    finally:
        with suppress(OSError, TimeoutError):
            client.close(timeout=_CONNECT_TIMEOUT_S)
