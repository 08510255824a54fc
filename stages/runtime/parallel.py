"""Owns running a function over items side by side, in Dask's threads in this process. Not a cluster (cluster.py)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def run_in_threads(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    threads: int | None = None,
    on_error: Callable[[], object] = lambda: None,
) -> list[Result]:
    """The results, in the order of the items; at most `threads` (None: one a core) at once.

    The first error is raised once those under way are done, which `on_error` may tell to hurry. By Dask's threaded
    scheduler itself, since dask.compute imports `distributed` whatever scheduler it is told.
    """
    from dask.system import CPU_COUNT
    from dask.threaded import get

    tasks = {f"task {number}": (partial(function, item),) for number, item in enumerate(items)}
    with ThreadPoolExecutor(threads or CPU_COUNT) as pool:
        try:
            return list(get(tasks, list(tasks), pool=pool))
        except BaseException:
            on_error()
            raise
