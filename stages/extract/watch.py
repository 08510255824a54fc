"""Owns noticing that a cluster has lost its workers or scheduler, and giving it up. Not sending tasks (schedule.py)."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from cache.errors import PipelineError

if TYPE_CHECKING:
    from distributed import Client

log = logging.getLogger(__name__)

CHECK_S = 5.0
"""Seconds between two looks at the cluster, and how long the scheduler may take to answer one."""

SILENT_S = 15.0
"""A worker that has not reported to the scheduler for so long is stuck. Warned of before 30 s have passed."""

_HINT = "run again, once the cluster has workers: finished shards are kept; with fewer --workers if memory ran out"


class Watch:
    """Warns if rows stop coming because workers or the scheduler are lost, and raises once `timeout` seconds are over.

    A cluster that is merely slow has all its workers, and is waited for.
    """

    def __init__(self, client: Client, timeout: float, count_kept: Callable[[], int]) -> None:
        self._client, self._timeout, self._count_kept = client, timeout, count_kept
        self._last_row = self._last_check = time.monotonic()
        self._workers = self._found = frozenset(client.nthreads())  # when the last row came, and at the last check
        self._reported: dict[str, tuple[float, float]] = {}  # worker -> its latest report, and when we noticed it
        self._unfit: dict[str, str] = {}  # worker -> why it computes nothing
        self._warned = False

    def note_row(self, worker: str | None = None) -> None:
        """Call whenever rows come, with the worker, if it is known."""
        self._last_row, self._workers = time.monotonic(), self._found or self._workers
        self._unfit.pop(worker or "", None)

    def note_unfit(self, worker: str, reason: str) -> None:
        """Call where a worker refuses a task, which another may do. Told once for each reason."""
        if self._unfit.get(worker) != reason:
            log.warning("worker %s computes nothing: %s", worker, reason)
        self._unfit[worker] = reason

    def fit_workers(self) -> list[str]:
        """Those that were there at the last check and refuse nothing."""
        return sorted(self._found - self._unfit.keys())

    def check(self) -> None:
        """Call often. Raises PipelineError if the scheduler is gone, or after the time-out."""
        if self._client.status != "running":
            raise self.lost_scheduler_error()
        now = time.monotonic()
        if now - self._last_check < min(CHECK_S, self._timeout / 4):
            return
        problem, self._last_check, waited = self._find_problem(now), now, now - self._last_row
        if problem is None:
            if self._warned:
                log.warning("the cluster is complete again, and extraction goes on")
            self._warned = False
        elif waited >= self._timeout:
            raise PipelineError(
                f"no new row for {waited:.0f} s: {problem}; {self._count_kept():,} new rows are kept", _HINT
            )
        elif waited >= min(SILENT_S, self._timeout / 2) and not self._warned:
            self._warned = True
            log.warning(
                "no new row for %.0f s: %s; %s. Extraction goes on if the cluster recovers within "
                "%.0f s (cluster.timeout)", waited, problem, self._kept(), self._timeout - waited,
            )  # fmt: skip

    def _find_problem(self, now: float) -> str | None:
        try:
            found = self._client.sync(self._client.scheduler.identity, callback_timeout=CHECK_S)["workers"]
        except (OSError, TimeoutError):
            return "the scheduler does not answer"
        for address, worker in found.items():
            if self._reported.get(address, (None,))[0] != worker["last_seen"]:
                self._reported[address] = worker["last_seen"], now
        stuck = {address for address in found if now - self._reported[address][1] >= SILENT_S}
        self._found = frozenset(found) - stuck
        lost = (self._workers - found.keys()) | stuck
        if not found:
            return f"0 of {len(self._workers)} workers are left"
        unfit = self._unfit.keys() & found.keys()
        if unfit and not found.keys() - unfit - stuck:
            return f"no worker can compute, for example: {self._unfit[min(unfit)]}"
        return f"{len(lost)} of {len(self._workers | found.keys())} workers are gone or do not answer" if lost else None

    def lost_scheduler_error(self) -> PipelineError:
        """The error of a run whose scheduler died; its tasks died with it."""
        return PipelineError(f"the connection to the Dask scheduler is lost; {self._kept()}", _HINT)

    def _kept(self) -> str:
        return f"{self._count_kept():,} new rows are kept"
