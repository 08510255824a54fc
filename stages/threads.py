"""Owns running a function over items side by side, in Dask's threads in this process. Not a cluster (cluster.py)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def side_by_side(function: Callable[[Item], Result], items: Iterable[Item], threads: int | None = None) -> list[Result]:
    """The results, in the order of the items; at most `threads` (None: one a core) at once. The first error is raised.

    By Dask's threaded scheduler itself, since dask.compute imports `distributed` whatever scheduler it is told.
    """
    from dask.threaded import get

    tasks = {f"task {number}": (partial(function, item),) for number, item in enumerate(items)}
    return list(get(tasks, list(tasks), num_workers=threads))
