"""Stands between cache/atomic_files.py and the disk, to record, fail or kill there.

Holds no tests, and doesn't say what a power cut leaves (disk.py) nor what is promised after a crash (promises.py).
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

from cache import atomic_files

T = TypeVar("T")
OPERATIONS = ("open", "write", "fsync", "close", "replace", "unlink", "mkdir", "rmdir")

Fate = Callable[[int, str, tuple[Any, ...]], object]
"""Told of each operation before it happens, by number, name and arguments; it may raise, kill, or do something else."""


class Dead(BaseException):
    """A process that was killed, played in this one: from here on nothing reaches the disk, no cleaning up either."""


@dataclass(frozen=True)
class Operation:
    name: str
    arguments: tuple[Any, ...]
    result: Any


class Shim:
    """Stands for `os` in cache/atomic_files.py. Keeps a log of the operations that came to pass."""

    def __init__(self, fate: Fate = lambda *_: None) -> None:
        self.fate = fate
        self.count = 0
        self.log: list[Operation] = []

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        return partial(self._perform, name, real) if name in OPERATIONS else real

    def promise(self, item: Any) -> None:
        """Note in the log that `item` has been promised by now."""
        self.log.append(Operation("promise", (item,), None))

    def _perform(self, name: str, real: Callable[..., Any], *arguments: Any) -> Any:
        number, self.count = self.count, self.count + 1
        try:
            self.fate(number, name, arguments)
        except BaseException:
            if name == "close":  # a descriptor is gone even where closing it fails
                real(*arguments)
            raise
        if name == "write":
            arguments = (arguments[0], bytes(arguments[1]))
        result = real(*arguments)
        self.log.append(Operation(name, arguments, result))
        return result


@contextlib.contextmanager
def standing(shim: Shim) -> Iterator[Shim]:
    """`shim` stands for `os` in cache/atomic_files.py."""
    with mock.patch.object(atomic_files, "os", shim):
        yield shim


def operations(work: Callable[..., object], *arguments: object) -> int:
    """How many operations `work` takes."""
    with standing(Shim()) as shim:
        work(*arguments)
    return shim.count


def _half(name: str, arguments: tuple[Any, ...]) -> None:
    if name == "write":
        os.write(arguments[0], arguments[1][: len(arguments[1]) // 2])


def killed_at(k: int) -> Fate:
    """kill -9 just before operation k; where that is a write, after half of it."""

    def fate(number: int, name: str, arguments: tuple[Any, ...]) -> None:
        if number == k:
            _half(name, arguments)
            os.kill(os.getpid(), signal.SIGKILL)

    return fate


def dead_from(k: int) -> Fate:
    """The same in this process, without a signal."""

    def fate(number: int, name: str, arguments: tuple[Any, ...]) -> None:
        if number == k:
            _half(name, arguments)
        if number >= k:
            raise Dead

    return fate


def fails_at(k: int, error: int) -> Fate:
    """Operation k raises OSError; where that is a write, after half of it."""

    def fate(number: int, name: str, arguments: tuple[Any, ...]) -> None:
        if number == k:
            _half(name, arguments)
            raise OSError(error, os.strerror(error))

    return fate


def full_after(size: int) -> Fate:
    """A disk on which that many bytes have room."""
    left = size

    def fate(_: int, name: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        if name != "write":
            return
        if len(arguments[1]) > left:
            os.write(arguments[0], arguments[1][:left])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        left -= len(arguments[1])

    return fate


def meanwhile_at(k: int, other: Callable[[], object]) -> Fate:
    """Before operation k, another process, played by `other`, does all of its work."""
    return lambda number, *_: other() if number == k else None


def dies(work: Callable[..., object], *arguments: object) -> bool:
    """Whether `work` comes to a point where this process is played dead."""
    try:
        work(*arguments)
    except Dead:
        return True
    return False


def error_of(work: Callable[..., object], *arguments: object) -> int:
    """errno of the OSError that `work` raises; 0 if it raises none."""
    try:
        work(*arguments)
    except OSError as error:
        return error.errno or -1
    return 0


def fork(work: Callable[[], object]) -> int:
    """Run `work` in a child, and return its id. The child's exit code is 0 if nothing was raised, else 1."""
    assert threading.active_count() == 1, "a process with threads must not be forked"
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        work()
        code = 0
    except BaseException:  # noqa: BLE001 (whatever it is, a child must not go on as a second pytest)
        traceback.print_exc()
    finally:
        os._exit(code)


def wait(child: int) -> int:
    """Exit code of a child, or minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def spread(items: Sequence[T], n: float) -> Sequence[T]:
    """n of the items, evenly; all where there are fewer, and at least one."""
    n = min(len(items), max(1, round(n)))
    return [items[i * len(items) // n] for i in range(n)]


def check_all(cases: Sequence[T], check: Callable[[T, Path], object], folder: Path) -> None:
    """Check each case, with a process per core, each with a folder of its own."""

    def some(number: int) -> None:
        place = folder / f"process-{number}"
        place.mkdir()
        for case in cases[number::processes]:
            check(case, place)

    processes = os.cpu_count() or 1
    children = [fork(partial(some, number)) for number in range(processes)]
    assert [wait(child) for child in children] == [0] * processes, "see what it wrote to stderr"
