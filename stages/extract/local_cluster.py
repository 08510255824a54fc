"""Owns the Dask cluster of processes on this machine, which only this process can use. Imports `distributed`.

Whoever may send a message to a Dask server runs code as its user, and any user of the machine can connect to a port.
"""

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

import dask
import distributed
from distributed.http.routing import RoutingApplication
from tornado.httpserver import HTTPServer

from cache.errors import PipelineError
from stages.runtime.hardware import cpu_count

_CONFIG = {
    "distributed.worker.profile.enabled": False,  # its samples can hang CPython up to 3.11.8 (gh-106883)
    "distributed.scheduler.worker-ttl": "2 minutes",  # then a worker that does not answer is restarted
}


class _WithoutHttp:
    """A Dask server whose HTTP server, which checks no credentials, listens nowhere."""

    def start_http_server(self, routes: Any, *_: Any, **__: Any) -> None:
        self.http_application = RoutingApplication(routes)
        self.http_server = HTTPServer(self.http_application)


class _Scheduler(_WithoutHttp, distributed.Scheduler):
    pass


class _Worker(_WithoutHttp, distributed.Worker):
    pass


@contextlib.contextmanager
def start_processes(workers: int) -> Iterator[distributed.Client]:
    """A client of a new cluster of `workers` processes, which share the cores of this machine.

    All its ports are on 127.0.0.1 and speak only TLS with the credentials of this cluster, which are in memory.
    """
    security, threads = distributed.Security.temporary(), max(1, cpu_count() // workers)
    common = {"host": "127.0.0.1", "protocol": "tls://", "security": security}
    options = {
        **common,
        "worker_class": _Worker,
        "nthreads": threads,
        "memory_limit": 0,  # a task holds one shard; there is nothing to spill
        "silence_logs": logging.CRITICAL,
        "env": {"TF_NUM_INTRAOP_THREADS": str(threads)},
        "dashboard": False,
    }
    try:
        with dask.config.set(_CONFIG):
            cluster = distributed.SpecCluster(
                scheduler={"cls": _Scheduler, "options": {**common, "dashboard": False}},
                workers={number: {"cls": distributed.Nanny, "options": options} for number in range(workers)},
                security=security,
                silence_logs=logging.CRITICAL,
            )
    except RuntimeError as error:
        raise PipelineError(f"{workers} worker processes cannot be started ({error})", "use fewer --workers") from error
    with cluster, distributed.Client(cluster, set_as_default=False) as client:
        yield client
