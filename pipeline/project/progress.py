"""Owns how work tells its progress. Not showing it (pipeline/show)."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Progress(Protocol):
    """progress(title, total or None) -> context that gives advance(n); `done` of the total were done before."""

    def __call__(
        self, title: str, total: int | None, done: int = 0
    ) -> AbstractContextManager[Callable[[int], None]]: ...


@contextmanager
def no_progress(title: str, total: int | None, done: int = 0) -> Iterator[Callable[[int], None]]:
    """A Progress that shows nothing."""
    yield lambda n: None
