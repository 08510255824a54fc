"""Owns what a Dask worker does with a task: refuse it where it cannot do it, or have it computed. Not how (shard_task).

A worker that refuses says why, and the task is sent once more, maybe to another one. So one that joins with other
source, or that sees no cache, spoils no run and no row.
"""

from __future__ import annotations

import os
import pickle
import time
from collections.abc import Callable
from typing import NamedTuple

from cache.errors import NotAvailable
from stages.buckets.object_store import Denied, Unreachable
from stages.extract.shard_task import Receipt, Task, extract_shard
from stages.extract.source_digest import source_digest

_REFUSED_S = 1.0
"""How long a worker that refuses keeps from the next task, so that others have it first."""

Compute = Callable[[Task], Receipt]
"""What is done with a task; it is pickled, and so is a function of a module, or a `partial` of one."""


class Unfit(Exception):
    """This worker cannot do a task that another may do: its text says why, in one clause."""


class Refusal(NamedTuple):
    """What a worker gives back instead of a receipt, and why. error: of a bucket that it may not read, or cannot."""

    worker: str
    reason: str
    error: NotAvailable | None = None


def compute_task(source: str, work: bytes) -> Receipt | Refusal:
    """Do what `pack` has packed. It is looked at only if this is the source that packed it."""
    try:
        check_source(source)
        compute, task = pickle.loads(work)
        receipt: Receipt = compute(task)
        return receipt
    except (Unfit, Denied, Unreachable) as error:  # the latter two: of images in a bucket
        from distributed import get_worker

        time.sleep(_REFUSED_S)
        return Refusal(get_worker().address, str(error), error if isinstance(error, NotAvailable) else None)


def pack(compute: Compute, task: Task) -> bytes:
    """For `compute_task`. Nothing that is read from the environment, as credentials are, is in it."""
    return pickle.dumps((compute, task))


def check_source(expected: str) -> None:
    """Raises Unfit if this process runs other source than that of the digest."""
    found = source_digest()
    if found != expected:
        raise Unfit(f"it runs other source of frozenbase ({found[:12]}); expected {expected[:12]}, as here")


def extract_seen(token: str, task: Task) -> Receipt:
    """Compute a task with the cache of the run, if this worker sees the file `token` that the run has put there."""
    if not os.path.exists(token):
        raise Unfit(f"it does not see {os.path.dirname(token)}")
    return extract_shard(task)
