"""Owns having a cluster compute a run's tasks: so many at a time, until all have ended. Not which (schedule.py)."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import TYPE_CHECKING

from cache.errors import PipelineError
from stages.extract.shard_task import Receipt, Task, stop_run
from stages.extract.source_digest import source_digest
from stages.extract.watch import CHECK_S, Watch
from stages.extract.worker import Compute, Refusal, compute_task, pack

if TYPE_CHECKING:
    from distributed import Client, as_completed

_POLL_S = 0.05


def compute_all(
    client: Client, compute: Compute, run: str, tasks: Iterator[Task], at_a_time: int, watch: Watch,
    advance: Callable[[int], object], add: Callable[[Receipt], object],
) -> None:  # fmt: skip
    """Submit `at_a_time` tasks, and for each that ends the next one; `add` has their receipts.

    `tasks` is asked for a task when it is to be submitted. Raises PipelineError if a row cannot be stored, or workers
    or the scheduler are lost; NotAvailable where no worker can read the images' bucket.
    """
    import distributed

    def progress(event: tuple[float, tuple[str, int]]) -> None:
        worker, rows = event[1]
        watch.note_row(worker)
        advance(rows)

    def submit(task: Task, refused: bool = False) -> None:
        # One task alone would go to the same worker each time: Dask takes turns by the number of tasks there are.
        others = watch.fit_workers() if refused else None
        future = client.submit(
            compute_task, source_digest(), pack(compute, task), pure=False, workers=others or None,
            allow_other_workers=bool(others),
        )  # fmt: skip
        sent[future.key] = task
        flying.add(future)

    sent: dict[str, Task] = {}
    client.subscribe_topic(run, progress)
    flying = distributed.as_completed(loop=client.loop, with_results=True)  # a result may be lost with its worker
    try:
        for task in islice(tasks, at_a_time):
            submit(task)
        while flying.count():
            watch.check()
            if not flying.has_ready():
                time.sleep(_POLL_S)
                continue
            future, done = next(flying)
            if isinstance(done, distributed.CancelledError):
                raise done
            task = sent.pop(future.key)
            if isinstance(done, Refusal):
                watch.note_unfit(done.worker, done.reason)
                if done.error is not None and not watch.fit_workers():
                    raise done.error
                submit(task, refused=True)
                continue
            add(done)
            watch.note_row()
            for task in islice(tasks, 1):
                submit(task)
    except distributed.CancelledError as error:
        raise watch.lost_scheduler_error() from error
    except distributed.KilledWorker as error:
        raise PipelineError(
            f"worker processes died several times on the same shard ({error})",
            "run again: finished shards are kept; with fewer --workers if memory ran out",
        ) from error
    finally:
        if flying.count():
            _stop_tasks(client, run, flying)


def _stop_tasks(client: Client, run: str, flying: as_completed) -> None:
    """End a run's tasks, as far as workers and scheduler answer; that they do not must not hide the error."""
    with contextlib.suppress(Exception):
        with flying.lock:
            futures = list(flying.futures)
        client.cancel(futures)  # without the lock, for which the thread waits that has to do it
        client.sync(client._run, stop_run, run, callback_timeout=CHECK_S)  # client.run waits for stuck workers
