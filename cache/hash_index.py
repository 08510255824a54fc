"""Owns the per-host index of digests: (path, stat) -> SHA-256. Not in the cache, which may be shared or read-only.

Losing it costs rehashing, nothing else. An entry counts only if the file's ctime was at least 2 s older than the
hashing: within one tick of a coarse clock a file can change without its stat changing. Digests of fresher files are
kept apart, for previews, which read no file.

Of what has no stat, there are (place, version) -> SHA-256, for an object in a bucket, and (place, version) -> contents,
for an archive: what was found in it by reading it once.
"""

import contextlib
import hashlib
import itertools
import logging
import os
import socket
import sqlite3
import stat
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import platformdirs

log = logging.getLogger(__name__)

MIN_AGE_S = 2.0
_BLOCK = 256
_THREADS = 8
"""For a disk or network that is slow to answer; on few CPUs the idle ones cost nothing."""
_RANGE = 20_000
"""Paths that are looked up at a time, so that entries of a million files are never in memory together."""

_TABLES = ("files", "fresh")
_SCHEMA = """
CREATE TABLE IF NOT EXISTS {} (
    path BLOB PRIMARY KEY, device INTEGER, inode INTEGER, size INTEGER, mtime_ns INTEGER, ctime_ns INTEGER,
    sha256 TEXT) WITHOUT ROWID
"""
_OBJECTS = """
CREATE TABLE IF NOT EXISTS objects (place BLOB PRIMARY KEY, version TEXT, sha256 TEXT, used INTEGER) WITHOUT ROWID
"""
_ARCHIVES = "CREATE TABLE IF NOT EXISTS archives (place BLOB PRIMARY KEY, version TEXT, contents BLOB, used INTEGER)"
_DAY = 86_400
_NOTED, _FORGOTTEN = 7 * _DAY, 90 * _DAY
"""How often the use of an entry is noted, and for how long one that is not used is kept."""

Stat = tuple[int, int, int, int, int]
"""(device, inode, size, mtime_ns, ctime_ns)"""

Seen = tuple[str, Stat, float, str]
"""(path, stat, time of hashing in s since the epoch, SHA-256)"""


def stat_file(result: os.stat_result) -> Stat:
    return (result.st_dev, result.st_ino, result.st_size, result.st_mtime_ns, result.st_ctime_ns)


def user_cache() -> Path | None:
    """The folder of this user's own caches on this host; None for a user without a home directory."""
    with contextlib.suppress(RuntimeError):
        folder = Path(platformdirs.user_cache_dir("frozenbase"))
        return folder if folder.is_absolute() else None
    return None


def default_index_path() -> Path | None:
    """One file per host, since device and inode numbers mean nothing on another."""
    folder = user_cache()
    return folder and folder / f"stat-{socket.gethostname()}.sqlite"


class HashIndex:
    """Digests of files, from the index where their stat is unchanged, else by reading them.

    `path` is the SQLite file; with None, or where it cannot be opened, the index lives as long as the process.
    """

    def __init__(self, path: Path | None = None, min_age_s: float = MIN_AGE_S) -> None:
        self.min_age_s = min_age_s
        self._db = _connect(path)
        self._lock = threading.Lock()  # of one connection: heads are trained in parallel

    def digest(self, path: Path) -> str:
        """SHA-256 of one file. Raises OSError where it cannot be read."""
        found = self.digests([str(path)])[str(path)]
        if isinstance(found, OSError):
            raise found
        return found

    def digests(
        self, paths: Sequence[str], on_hashed: Callable[[int], object] = lambda n: None
    ) -> dict[str, str | OSError]:
        """SHA-256 of each absolute path, or the error met; `on_hashed(n)` is called as files are read."""
        found = self.known(paths)
        to_hash = [path for path in paths if path not in found]
        with ThreadPoolExecutor(_THREADS) as threads:
            run = threads.map if len(to_hash) > 1 else map  # one file is not worth a thread
            for start in range(0, len(to_hash), _BLOCK):
                part = to_hash[start : start + _BLOCK]
                shares = [part[first::_THREADS] for first in range(_THREADS)]
                # a task for each file would cost as much as hashing a small one
                hashed = run(lambda share: [(path, _hash(path)) for path in share], shares)
                results = dict(itertools.chain.from_iterable(hashed))
                self.remember(result for result in results.values() if not isinstance(result, OSError))
                found |= {path: r if isinstance(r := results[path], OSError) else r[3] for path in part}
                on_hashed(len(part))
        return found

    def known(self, paths: Sequence[str], fresh: bool = False) -> dict[str, str | OSError]:
        """As `digests`, but no file is read: those that are not in the index are left out.

        With `fresh`, files that were hashed within 2 s of a change are in it too.
        """
        looked: dict[str, str | OSError] = {}
        ordered = sorted(paths, key=os.fsencode)
        for start in range(0, len(ordered), _RANGE):
            part = ordered[start : start + _RANGE]
            self._look(part, [self._load(table, part) for table in (_TABLES if fresh else _TABLES[:1])], looked)
        return {path: looked[path] for path in paths if path in looked}

    def _look(
        self, paths: Sequence[str], tables: Sequence[Mapping[str, tuple[Stat, str]]], found: dict[str, str | OSError]
    ) -> None:
        """Put into `found` what `known` gives of these paths."""
        for path in paths:
            try:
                status = os.stat(path)
            except OSError as error:
                found[path] = error
                continue
            if not stat.S_ISREG(status.st_mode):
                found[path] = OSError("it is not a regular file")
                continue
            for entries in tables:
                if (entry := entries.get(path)) is not None and entry[0] == stat_file(status):
                    found[path] = entry[1]

    def find_files(self, ids: Collection[str], most: int) -> dict[str, str]:
        """id -> path of up to `most` files that had the bytes of one of `ids` when they were last read."""
        wanted, found = set(ids), dict[str, str]()
        with self._using("read"):
            for path, sha256 in self._db.execute("SELECT path, sha256 FROM files"):
                if sha256 in wanted and os.path.exists(path):
                    found[sha256] = os.fsdecode(path)
                if len(found) == most:
                    break
        return found

    def remember(self, seen: Iterable[Seen]) -> None:
        """Add digests; those of files that changed less than `min_age_s` before they were hashed count as fresh."""
        values: dict[str, list[tuple[Any, ...]]] = {"files": [], "fresh": []}
        for path, status, when, sha256 in seen:
            table = "files" if when - status[4] / 1e9 >= self.min_age_s else "fresh"
            values[table].append((os.fsencode(path), *status, sha256))
        with self._using("written"):
            for table, rows in values.items():
                self._db.executemany(f"INSERT OR REPLACE INTO {table} VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
            self._db.executemany("DELETE FROM fresh WHERE path = ?", [row[:1] for row in values["files"]])

    def find_objects(self, versions: Mapping[str, str]) -> dict[str, str]:
        """Place -> SHA-256 of those that had that version when they were read."""
        if not versions:
            return {}
        return {
            place: sha256
            for place, (version, sha256) in self._versioned("objects", "sha256", min(versions), max(versions)).items()
            if versions.get(place) == version
        }

    def remember_objects(self, seen: Iterable[tuple[str, str, str]]) -> None:
        """Add (place, version, SHA-256)."""
        self._remember("objects", seen)

    def find_contents(self, place: str, version: str) -> bytes | None:
        """What was remembered of the archive at `place` in that version."""
        found = self._versioned("archives", "contents", place, place).get(place, ("", None))
        return found[1] if found[0] == version else None

    def remember_contents(self, place: str, version: str, contents: bytes) -> None:
        self._remember("archives", [(place, version, contents)])

    def _versioned(self, table: str, column: str, first: str, last: str) -> dict[str, tuple[str, Any]]:
        """Place -> (version, value) of the places from `first` to `last`, which are noted as used."""
        now, between = int(time.time()), (os.fsencode(first), os.fsencode(last))
        with self._using("read"):
            found = self._db.execute(
                f"SELECT place, version, {column}, used FROM {table} WHERE place BETWEEN ? AND ?", between
            ).fetchall()
            if any(row[3] < now - _NOTED for row in found):
                self._db.execute(f"UPDATE {table} SET used = ? WHERE place BETWEEN ? AND ?", (now, *between))
            return {os.fsdecode(place): (version, value) for place, version, value, _ in found}
        return {}

    def _remember(self, table: str, seen: Iterable[tuple[str, str, Any]]) -> None:
        rows = [(os.fsencode(place), version, value, int(time.time())) for place, version, value in seen]
        with self._using("written"):
            self._db.executemany(f"INSERT OR REPLACE INTO {table} VALUES (?, ?, ?, ?)", rows)

    def prune(self) -> None:
        """Forget files that are gone, and objects and archives that were not asked for in 90 days.

        Files on a disk that is not mounted now are hashed again.
        """
        for table in _TABLES:
            with self._using("pruned"):
                known = self._db.execute(f"SELECT path FROM {table}").fetchall()
                gone = [row for row in known if not os.path.exists(row[0])]
                self._db.executemany(f"DELETE FROM {table} WHERE path = ?", gone)
        for table in ("objects", "archives"):
            with self._using("pruned"):
                self._db.execute(f"DELETE FROM {table} WHERE used < ?", (int(time.time()) - _FORGOTTEN,))

    def _load(self, table: str, paths: Sequence[str]) -> dict[str, tuple[Stat, str]]:
        """Entries for `paths`, which are sorted: one range query, since they mostly share a folder."""
        between = (os.fsencode(paths[0]), os.fsencode(paths[-1]))
        with self._using("read"):
            found = self._db.execute(f"SELECT * FROM {table} WHERE path BETWEEN ? AND ?", between)
            return {os.fsdecode(row[0]): (row[1:6], row[6]) for row in found}
        return {}

    @contextlib.contextmanager
    def _using(self, what: str) -> Iterator[None]:
        """A transaction of the connection's only user; an index that fails is as good as an empty one."""
        try:
            with self._lock, self._db:
                yield
        except (sqlite3.Error, OverflowError) as error:
            log.debug("stat index not %s: %s", what, error)


def _hash(path: str) -> Seen | OSError:
    """Read a file; if its stat changed meanwhile, read again, so that the digest belongs to the stat."""
    try:
        for _ in range(3):
            with open(path, "rb", buffering=0) as file:
                before, when = stat_file(os.fstat(file.fileno())), time.time()
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
                if stat_file(os.fstat(file.fileno())) == before:
                    return (path, before, when, sha256)
        return OSError(f"it changes while it is read: {path}")
    except OSError as error:
        return error


def _connect(path: Path | None) -> sqlite3.Connection:
    for _ in range(2):
        if path is None:
            break
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            return _opened(path)
        except (OSError, sqlite3.OperationalError) as error:  # unwritable, or locked for long
            log.debug("stat index %s: %s", path, error)
            break
        except sqlite3.DatabaseError as error:
            log.debug("stat index %s: %s; it is deleted and made again", path, error)
            with contextlib.suppress(OSError):
                path.unlink()
    return _opened(":memory:")


def _opened(path: Path | str) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=10, check_same_thread=False)
    for table in _TABLES:
        db.execute(_SCHEMA.format(table))
        db.execute(f"SELECT sha256 FROM {table} LIMIT 1").fetchone()
    db.execute(_OBJECTS)
    db.execute(_ARCHIVES)
    return db
