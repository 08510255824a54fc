"""Owns a thread on which shards travel while tasks go on. Not what travels (push.py, pull.py)."""

import queue
import threading
from collections.abc import Callable


class Background:
    """Does one thing after the other on a thread of its own; each sees to its own errors."""

    def __init__(self) -> None:
        self._given_up = False
        self._waiting: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def offer(self, work: Callable[[], object]) -> None:
        self._waiting.put(work)

    def close(self) -> None:
        """Wait until all that was offered is done."""
        if not self._given_up:
            self._waiting.put(None)
            self._thread.join()

    def give_up(self) -> None:
        """Do nothing more, and wait for nothing."""
        self._given_up = True
        self._waiting.put(None)

    def _work(self) -> None:
        while (work := self._waiting.get()) is not None and not self._given_up:
            work()
