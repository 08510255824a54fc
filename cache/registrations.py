"""Owns who needs what of a cache: projects register under roots/, running jobs under jobs/. Not what gc removes.

Correctness does not depend on it: a reader of a deleted row gets NotAvailable.
"""

import contextlib
import hashlib
import logging
import os
import socket
import threading
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cache import atomic_files, records

log = logging.getLogger(__name__)

SILENT_S = 3600
"""A running job touches its file every minute. After this long without, it counts as ended; no process id is used."""

GONE_S = 30 * 86_400
"""A project whose pipeline.yaml is gone counts for this long after its last run: its disk may just not be mounted."""

_TOUCH_S = 60


@dataclass(frozen=True)
class Registration:
    """A project that uses a cache: its pipeline.yaml, the names that its last run needed, and those that its tags need.

    Names are extract keys and manifest digests. `seen` is the time of its last run, in s since the epoch.
    """

    record: Path
    host: str
    path: Path
    needs: frozenset[str]
    tags: Mapping[str, tuple[str, ...]]
    seen: float

    @property
    def here(self) -> bool:
        """Whether the project is on this host."""
        return self.host == socket.gethostname()

    @property
    def gone(self) -> bool:
        """Whether it was on this host and is no longer there. A path without permission is not gone."""
        try:
            os.stat(self.path)
        except (FileNotFoundError, NotADirectoryError):
            return self.here
        except (OSError, ValueError):  # ValueError: what no path can be, as others may have written it
            return False
        return False


def register(cache: Path, path: Path, needs: Iterable[str], tags: Mapping[str, Iterable[str]]) -> None:
    """Record that the project with that pipeline.yaml uses the cache. Logs it where the cache cannot be written."""
    text = {
        "host": socket.gethostname(),
        "path": str(path),
        "needs": sorted(needs),
        "tags": {tag: sorted(names) for tag, names in tags.items()},
    }
    target = _record(cache, path)
    try:
        if records.load(target) != text:
            atomic_files.publish(target, records.dump(text))
        atomic_files.note_use(target, SILENT_S)
    except (OSError, UnicodeEncodeError) as error:
        log.info("%s is not registered in %s, so its gc may remove these rows: %s", path, cache, error)


def load_registration(cache: Path, path: Path) -> Registration | None:
    """The registration of the project with that pipeline.yaml on this host."""
    return _read(_record(cache, path))


def list_registrations(cache: Path) -> list[Registration]:
    """All projects that use the cache."""
    return [root for path in sorted(cache.glob("roots/*.json")) if (root := _read(path)) is not None]


@contextmanager
def running_job(cache: Path, needs: Iterable[str]) -> Iterator[None]:
    """While this lasts, gc keeps the names in `needs`; without effect where the cache cannot be written."""
    path, ended = cache / "jobs" / f"{uuid.uuid4().hex}.json", threading.Event()

    def touch() -> None:
        while not ended.wait(_TOUCH_S):
            atomic_files.note_use(path)

    text = {"host": socket.gethostname(), "pid": os.getpid(), "needs": sorted(needs)}
    try:
        atomic_files.publish(path, records.dump(text))
    except OSError:
        yield
        return
    threading.Thread(target=touch, daemon=True).start()
    try:
        yield
    finally:
        ended.set()
        with contextlib.suppress(OSError):
            atomic_files.remove(path)


def list_jobs(cache: Path, now: float) -> Iterator[tuple[Path, frozenset[str], bool]]:
    """(file, names it needs, whether it is running) of each job; `now` by the clock of the cache's file system."""
    for path in sorted(cache.glob("jobs/*.json")):
        text = records.load(path)
        with contextlib.suppress(FileNotFoundError):  # it has just ended
            runs = now - path.stat().st_mtime < SILENT_S
            yield path, _names((text or {}).get("needs")), runs


def _record(cache: Path, path: Path) -> Path:
    name = hashlib.sha256(os.fsencode(f"{socket.gethostname()}\0{path}")).hexdigest()
    return cache / "roots" / f"{name}.json"


def _read(path: Path) -> Registration | None:
    text = records.load(path)
    if text is None or not isinstance(text.get("tags"), dict):
        return None
    tags = {tag: tuple(_names(names)) for tag, names in text["tags"].items()}
    place = (str(text.get("host")), Path(str(text.get("path"))))
    with contextlib.suppress(FileNotFoundError):
        return Registration(path, *place, _names(text.get("needs")), tags, path.stat().st_mtime)
    return None


def _names(value: Any) -> frozenset[str]:
    return frozenset(map(str, value)) if isinstance(value, list) else frozenset()
