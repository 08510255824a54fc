"""Owns connecting to a Dask cluster, started here or already running. Not what runs on it (schedule.py)."""

from __future__ import annotations

import logging
import os
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cache import atomic_files, records, regular_files
from cache.errors import Unusable
from stages.extract.shard_task import extract_shard
from stages.extract.source_digest import source_digest
from stages.extract.worker import Compute, extract_seen

if TYPE_CHECKING:
    from distributed import Client

log = logging.getLogger(__name__)

_CONNECT_TIMEOUT_S = 10
_ANSWER_TIMEOUT_S = 30
_MOST_SCHEDULER_FILE = 10_000_000
_SCHEDULER_FILE = "expected is what `dask scheduler --scheduler-file` writes"
_starting = threading.Lock()


@dataclass(frozen=True)
class ClusterSpec:
    """workers: 1 means this process, without a cluster; more are processes. scheduler: the one to use instead.

    timeout: seconds without a new row after which a run gives up a cluster whose workers or scheduler are lost.
    """

    workers: int = 1
    scheduler: str | None = None
    timeout: float = 300


def read_scheduler_file(path: Path) -> str:
    """The address in a file that `dask scheduler --scheduler-file` wrote. Raises Unusable where there is none."""
    try:
        found = records.parse(regular_files.read_bytes(path, _MOST_SCHEDULER_FILE)).get("address")
    except FileNotFoundError as error:
        again = f"start one with: dask scheduler --scheduler-file {path}; or wait until it has started"
        raise Unusable(f"there is no scheduler file {path}", again) from error
    except (OSError, ValueError) as error:
        raise Unusable(f"the scheduler file {path} cannot be read: {error}", _SCHEDULER_FILE) from error
    if not isinstance(found, str) or "://" not in found:
        raise Unusable(f"the scheduler file {path} has no address", _SCHEDULER_FILE)
    return found


class Files(NamedTuple):
    """Paths that workers must see: the folder of the cache, weights, and one of the images."""

    cache: Path
    weights: Sequence[str] = ()
    images: Sequence[str] = ()


class Connected(NamedTuple):
    """A client, and what its workers are to do with a task; remote: by way of the team's cache."""

    client: Client
    compute: Compute
    remote: bool = False


class Distant(NamedTuple):
    """How workers compute that see neither the cache nor the weights.

    check: called on each worker, gives what it lacks for that, or "".
    """

    compute: Compute
    check: Callable[[], str]


@contextmanager
def connect(spec: ClusterSpec, files: Files, equip: Callable[[], Distant] | None = None) -> Iterator[Connected]:
    """A Dask client. `distributed` is imported here, so only if a row is missing.

    It is not set as Dask's default client, since the calling program may use Dask too. Where a worker of a running
    cluster does not see cache or weights, all compute as `equip` says. Raises Unusable if there is no `equip` then, if
    a worker lacks what that needs, has other source of this package, or does not see the images.
    """
    for name in ("distributed", "tornado"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    if spec.scheduler is None:
        with _local(spec.workers) as client:
            yield Connected(client, extract_shard)
        return
    with _running(spec.scheduler) as client, _token(files.cache) as token:
        unseen = _find_unseen(client, spec.scheduler, [token, *files.weights], files.images)
        if not unseen:
            yield Connected(client, partial(extract_seen, token))
            return
        if equip is None:
            raise Unusable(
                unseen.replace(token, str(files.cache)),
                "put the cache, the images and the weights where all workers see them under the same path; or, without "
                "a shared file system, share a team's cache: cache.remote with mode: read-write",
            )
        distant = equip()
        for worker, lack in _ask(client, spec.scheduler, distant.check).items():
            if lack:
                raise Unusable(
                    f"worker {worker} does not see the cache, and cannot use the team's: {lack}",
                    "give it obstore, and credentials of its own in its environment",
                )
        yield Connected(client, distant.compute, remote=True)


@contextmanager
def _token(cache: Path) -> Iterator[str]:
    """An empty file in the cache while this lasts, by which workers tell that they see that folder."""
    token = cache / f".seen-{uuid.uuid4().hex[:12]}.tmp"
    atomic_files.publish(token, b"")
    try:
        yield str(token)
    finally:
        atomic_files.remove(token)


@contextmanager
def _running(address: str) -> Iterator[Client]:
    import asyncio  # here: a run without a cluster is done before it is loaded

    import distributed

    async def connects() -> None:
        arguments = distributed.Security().get_connection_args("client")
        await (await distributed.core.connect(address, timeout=_CONNECT_TIMEOUT_S, **arguments)).close()

    if address.startswith("tls://") and not distributed.Security().get_tls_config_for_role("client").get("ca_file"):
        raise Unusable(
            f"the scheduler at {address} speaks TLS, and Dask has no certificates here",
            "set DASK_DISTRIBUTED__COMM__TLS__CA_FILE, ..._TLS__CLIENT__CERT and ..._TLS__CLIENT__KEY, or Dask's own "
            "configuration",
        )
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


def _ask(client: Client, address: str, question: Callable[[], Any]) -> dict[str, Any]:
    """The answer of each worker. Raises Unusable if there is none, or one cannot answer."""
    try:
        asked = partial(client._run, question, on_error="return")
        answers: dict[str, Any] = client.sync(asked, callback_timeout=_ANSWER_TIMEOUT_S)  # client.run waits for ever
    except TimeoutError as error:
        stuck = f"not all workers of the scheduler {address} answer within {_ANSWER_TIMEOUT_S} s"
        raise Unusable(stuck, "restart the workers that are stuck") from error
    if not answers:
        raise Unusable(f"the scheduler {address} has no workers", f"start one with: dask worker {address}")
    for worker, answer in answers.items():
        if isinstance(answer, Exception):
            raise Unusable(f"worker {worker} cannot run this package ({answer})", "install frozenbase there")
    return answers


def _find_unseen(client: Client, address: str, shared: Sequence[str], images: Sequence[str]) -> str:
    """Which of the files `shared` a worker does not see, in words; "" if all see all.

    Raises Unusable if one runs other source, or does not see the images.
    """
    expected, unseen = source_digest(), ""
    for worker, (found, lacking) in _ask(client, address, partial(_describe_worker, [*shared, *images])).items():
        if found != expected:
            raise Unusable(
                f"worker {worker} runs other source of frozenbase ({found[:12]}); expected {expected[:12]}, as here",
                "install the same version there, and restart the workers",
            )
        if lost := [path for path in images if path in lacking]:
            raise Unusable(
                f"worker {worker} does not see {lost[0]}", "put the images where all workers see them under one path"
            )
        if lacking and not unseen:
            unseen = f"worker {worker} does not see {lacking[0]}"
    return unseen


def _describe_worker(paths: list[str]) -> tuple[str, list[str]]:
    """On a worker: the digest of its source, and which of the paths it does not see."""
    return source_digest(), [path for path in paths if not os.path.exists(path)]


@contextmanager
def closing_client(client: Client) -> Iterator[None]:
    """Close the client in the end; that a scheduler does not answer must not hide an error."""
    try:
        yield
    finally:
        with suppress(OSError, TimeoutError):
            client.close(timeout=_CONNECT_TIMEOUT_S)
