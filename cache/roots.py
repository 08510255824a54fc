"""Owns who says that they need what of a cache: projects under roots/, running jobs under jobs/. Not what is removed.

Neither is needed for correctness: a row that gc takes away from under a run is absent, and is said to be.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import threading
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from cache import files, records

JOB_SILENT_S = 3600
"""A job on another host that has not shown itself for so long is taken for dead."""

_BEAT_S = 60


@dataclass(frozen=True)
class Root:
    """A project that uses a cache: its pipeline.yaml, the names it needed last, and those that its tags need.

    Names are extract keys and manifest digests.
    """

    record: Path
    host: str
    path: Path
    needs: frozenset[str]
    tags: Mapping[str, tuple[str, ...]]

    @property
    def here(self) -> bool:
        """Whether `path` is one of this host, so that its absence means something."""
        return self.host == socket.gethostname()


def register(cache: Path, path: Path, needs: Iterable[str], tags: Mapping[str, Iterable[str]]) -> None:
    """Note that the project with that pipeline.yaml uses the cache. One that cannot be written goes without."""
    host = socket.gethostname()
    name = hashlib.sha256(os.fsencode(f"{host}\0{path}")).hexdigest()
    text = {
        "host": host,
        "path": str(path),
        "needs": sorted(needs),
        "tags": {tag: sorted(names) for tag, names in tags.items()},
    }
    target = cache / "roots" / f"{name}.json"
    with contextlib.suppress(OSError, UnicodeEncodeError):
        if records.load(target) != text:
            files.publish(target, records.dump(text))


def registered(cache: Path) -> list[Root]:
    """All projects that use the cache."""
    found = [(path, records.load(path) or {}) for path in sorted(cache.glob("roots/*.json"))]
    return [
        Root(
            path,
            str(text.get("host", "")),
            Path(text.get("path", "")),
            frozenset(text.get("needs", [])),
            {tag: tuple(names) for tag, names in text.get("tags", {}).items()},
        )
        for path, text in found
    ]


@contextmanager
def job(cache: Path, needs: Iterable[str]) -> Iterator[None]:
    """While this lasts, gc leaves alone the names in `needs`. Where the cache cannot be written, nothing is noted."""
    path = cache / "jobs" / f"{uuid.uuid4().hex}.json"
    text = {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "started": psutil.Process().create_time(),
        "needs": sorted(needs),
    }
    over = threading.Event()

    def beat() -> None:
        while not over.wait(_BEAT_S):
            files.touch(path)

    try:
        files.publish(path, records.dump(text))
    except OSError:
        yield
        return
    threading.Thread(target=beat, daemon=True).start()
    try:
        yield
    finally:
        over.set()
        with contextlib.suppress(OSError):
            files.remove(path)


def jobs(cache: Path, now: float) -> Iterator[tuple[Path, frozenset[str], bool]]:
    """(file, names it needs, whether it runs) of each job; `now` by the clock of the cache's file system."""
    for path in sorted(cache.glob("jobs/*.json")):
        text = records.load(path)
        if text is not None:
            yield path, frozenset(text.get("needs", [])), _runs(text, path, now)


def _runs(text: Mapping[str, Any], path: Path, now: float) -> bool:
    if text.get("host") != socket.gethostname():
        try:
            return now - path.stat().st_mtime < JOB_SILENT_S
        except FileNotFoundError:
            return False
    try:
        return bool(abs(psutil.Process(int(text["pid"])).create_time() - float(text["started"])) < 1)
    except (psutil.Error, KeyError, ValueError, TypeError):
        return False
