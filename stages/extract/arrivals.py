"""Owns which task of a run comes next, while others add to the same cache. Not what a task does (shard_task.py).

Nobody claims a row. Each run begins somewhere else, and looks before each task which of its rows are there by now. It
goes from one task to the next until it meets what somebody else did, and then on from another place. So of two runs on
the same images each computes what the other has not come to, and about those tasks twice that are in flight.
"""

import random
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from cache.shards import BadShard
from cache.store import Cache, FeatureStore
from stages.bases.recipe import Specs
from stages.extract.shard_task import Receipt, Task, split_task

Bring = Callable[[Mapping[str, Sequence[str]]], object]
"""bring(extract key -> ids without a row here): copies those rows to the cache which somebody has elsewhere by now."""


class Arrivals:
    """The tasks of a run, less what others have done. Its methods can be called from several threads."""

    def __init__(
        self, cache: Cache, specs: Specs, missing: Mapping[str, Sequence[str]], run: str, bring: Bring | None = None
    ) -> None:
        """`missing` is what `schedule.find_missing` returned: id -> keys. run: its name, by which tasks are drawn."""
        self._lock, self._random, self._bring = threading.Lock(), random.Random(run), bring
        self._stores = {key: cache.features(spec.components()) for key, spec in specs.items()}
        self._known = {key: set(store.names()) for key, store in self._stores.items()}  # before the look that follows
        by_key: dict[str, list[str]] = defaultdict(list)
        for image, keys in missing.items():
            for key in keys:
                by_key[key].append(image)
        self._missing = {key: set(self._stores[key].missing(images)) for key, images in by_key.items()}
        self._waiting: dict[int, Task] = {}
        self._latest: int | None = None  # None: the next task is drawn

    def begin(self, tasks: Sequence[Task]) -> None:
        """Those are the tasks; neighbours are next to each other."""
        self._waiting = dict(enumerate(tasks))

    def next(self) -> tuple[list[Task], int] | None:
        """What is to be computed next, and how many images of it are done; None after the last task.

        It is nothing, a task, or several, where its images lack different rows.
        """
        with self._lock:
            if not self._waiting:
                return None
            number = None if self._latest is None else self._latest + 1
            if number not in self._waiting:
                number = self._random.choice([*self._waiting])
            task = self._waiting.pop(number)
            left = self._split(task)
            done = len(task.rows) - sum(len(part.rows) for part in left)
            self._latest = None if done else number
        return left, done

    def note(self, receipt: Receipt) -> None:
        """Take in what a task of this run has stored: nobody else's shards need to be read for that."""
        with self._lock:
            if receipt.doubled:
                self._latest = None  # somebody goes the same way
            for key, name in receipt.shards:
                if key in self._known:
                    self._known[key].add(name)

    def _split(self, task: Task) -> list[Task]:
        for key in task.keys:
            self._look(self._stores[key])
        if self._bring is not None:
            lacking = {key: [image for image, _ in task.rows if image in self._missing[key]] for key in task.keys}
            self._bring({key: images for key, images in lacking.items() if images})
            for key in task.keys:
                self._look(self._stores[key])
        return split_task(task, self._missing)

    def _look(self, store: FeatureStore) -> None:
        """Only shards that came since the last look are read: whole, as the work of others."""
        for name in set(store.names()) - self._known[store.key]:
            with suppress(BadShard, OSError):  # its rows stay missing, and the next run says what is wrong with it
                layout = store.check(name)
                if layout is not None:
                    self._missing[store.key].difference_update(layout.ids)
            self._known[store.key].add(name)
