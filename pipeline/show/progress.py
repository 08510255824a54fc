"""Owns progress on stderr: a bar on a terminal, a line every few seconds elsewhere. Not the counting."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pipeline.project import progress as protocol

_EVERY_S = 5.0


def make_progress(console: Console, quiet: bool) -> protocol.Progress:
    """A `protocol.Progress` that writes to `console`; one that stays silent if `quiet`."""

    @contextmanager
    def progress(title: str, total: int | None, done: int = 0) -> Iterator[Callable[[int], None]]:
        if console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            with Progress(*columns, console=console, transient=True) as bar:
                task = bar.add_task(title, total=total, completed=done, visible=total is not None)
                yield lambda n: bar.update(task, advance=n, visible=True)
        else:
            yield _Lines(console, title, total, done)

    return protocol.no_progress if quiet else progress


class _Lines:
    """At most one line every few seconds, for logs of batch jobs."""

    def __init__(self, console: Console, title: str, total: int | None, done: int) -> None:
        self.console, self.title, self.total, self.done = console, title, total, done
        self.printed = time.monotonic()
        self.first: tuple[float, int] | None = None  # the pace excludes start-up

    def __call__(self, n: int) -> None:
        self.done += n
        now = time.monotonic()
        since, before = self.first = self.first or (now, self.done)
        if now - self.printed >= _EVERY_S:
            self.printed = now
            of = f" of {self.total}" if self.total else ""
            self.console.print(f"{self.title}: {self.done}{of}{_pace(self.done - before, now - since)}")


def _pace(n: int, seconds: float) -> str:
    """`, 12/s` or `, 8.0 s each`; empty before the second call."""
    if not n or not seconds:
        return ""
    return f", {n / seconds:.0f}/s" if n >= seconds else f", {seconds / n:.1f} s each"
