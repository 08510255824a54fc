"""Owns running a function over items in threads of this process. Not a cluster (cluster.py)."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TypeVar

from stages.runtime.hardware import cpu_count

Item = TypeVar("Item")
Result = TypeVar("Result")


def run_in_threads(
    function: Callable[[Item], Result], items: Iterable[Item], threads: int | None = None
) -> list[Result]:
    """The results, in the order of the items; at most `threads` (None: one a CPU) at once.

    The first error is raised once the calls under way have ended; no other is started.
    """
    with ThreadPoolExecutor(threads or cpu_count()) as pool:
        try:
            calls = [pool.submit(function, item) for item in items]
            for call in as_completed(calls):
                call.result()
            return [call.result() for call in calls]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
