"""Stands between cache/files.py and the disk: to record, fail or kill there, and to tell what a power cut leaves.

Holds no tests, and doesn't say what is promised after a crash (promises.py).
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import re
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from cache import files

OPERATIONS = ("open", "write", "fsync", "close", "replace", "unlink", "mkdir")

Fate = Callable[[int, str, tuple[Any, ...]], object]
"""Told of each operation before it happens, by number, name and arguments; it may raise, kill, or do something else."""

Tree = dict[str, bytes | None]
"""What lies under a folder, by relative path: bytes of a file, None for a folder."""


class Dead(BaseException):
    """A process that was killed, played in this one: from here on nothing reaches the disk, no cleaning up either."""


@dataclass(frozen=True)
class Operation:
    name: str
    arguments: tuple[Any, ...]
    result: Any


class Shim:
    """Stands for `os` in cache/files.py. Keeps a log of the operations that came to pass."""

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
    """`shim` stands for `os` in cache/files.py."""
    with mock.patch.object(files, "os", shim):
        yield shim


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


def meanwhile_at(k: int, other: Callable[[], object]) -> Fate:
    """Before operation k, another process, played by `other`, does all of its work."""
    return lambda number, *_: other() if number == k else None


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


def read_tree(root: Path) -> Tree:
    return {str(path.relative_to(root)): None if path.is_dir() else path.read_bytes() for path in root.rglob("*")}


def write_tree(root: Path, tree: Tree) -> None:
    root.mkdir()
    for path in sorted(tree):
        data = tree[path]
        if data is None:
            (root / path).mkdir()
        else:
            (root / path).write_bytes(data)


def likeness(tree: Tree) -> frozenset[tuple[str, bytes | None]]:
    """What makes two trees the same state: random parts of names don't count."""
    return frozenset((re.sub(r"\.(\S*-)?[0-9a-f]{8,12}(\.tmp)?$", ".*", path), data) for path, data in tree.items())


_FOLDER = -1


class Disk:
    """A disk that keeps only what it must: bytes of a file once that is fsynced, entries of a folder once that is.

    Until then any part of them may be there: no entry, or an older one; no byte, half of them, or zeros.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.durable: list[bytes] = []
        self.current: list[bytes] = []
        self.entries: dict[str, dict[str, int]] = {".": {}}
        self.pending: list[tuple[str, dict[str, int | None]]] = []
        self._now: dict[str, int] = {}
        self._open: dict[int, int | str] = {}
        for path, data in sorted(read_tree(root).items()):
            parent, name = os.path.split(path)
            if data is None:
                self.entries[path] = {}
            self.entries[parent or "."][name] = self._file(path, data) if data is not None else _FOLDER

    def apply(self, operation: Operation) -> None:
        """Follow an operation that came to pass."""
        getattr(self, f"_on_{operation.name}")(operation.result, *operation.arguments)

    def states(self, rng: random.Random, most: int = 64) -> Iterator[Tree]:
        """What may be found after a power cut now: all of it where that is little, else a sample."""
        for kept in _subsets(len(self.pending), rng, most):
            entries = {folder: dict(inside) for folder, inside in self.entries.items()}
            for number in kept:
                folder, change = self.pending[number]
                for name, file in change.items():
                    if file is None:
                        entries[folder].pop(name, None)
                    else:
                        entries[folder][name] = file
            yield from self._contents(dict(_walk(entries, ".")), rng, most)

    def _contents(self, found: dict[str, int], rng: random.Random, most: int) -> Iterator[Tree]:
        loose = sorted({i for i in found.values() if i != _FOLDER and self.durable[i] != self.current[i]})
        choices = list(
            itertools.islice(itertools.product(*(_torn(self.durable[i], self.current[i]) for i in loose)), 4096)
        )
        for choice in choices if len(choices) <= most else rng.sample(choices, most):
            data = dict(zip(loose, choice, strict=True))
            yield {path: None if i == _FOLDER else data.get(i, self.durable[i]) for path, i in found.items()}

    def _file(self, path: str, data: bytes = b"") -> int:
        self.durable.append(data)
        self.current.append(data)
        self._now[path] = len(self.durable) - 1
        return self._now[path]

    def _split(self, path: Path) -> tuple[str, str, str]:
        relative = os.path.relpath(path, self.root)
        return relative, os.path.dirname(relative) or ".", os.path.basename(relative)

    def _on_open(self, descriptor: int, path: Path, flags: int, *_: int) -> None:
        relative, folder, name = self._split(path)
        self._open[descriptor] = relative
        if flags & os.O_CREAT:
            self._open[descriptor] = self._file(relative)
            self.pending.append((folder, {name: self._now[relative]}))

    def _on_write(self, written: int, descriptor: int, data: bytes) -> None:
        self.current[self._open[descriptor]] += data[:written]  # type: ignore[index]

    def _on_fsync(self, _: None, descriptor: int) -> None:
        target = self._open[descriptor]
        if isinstance(target, int):
            self.durable[target] = self.current[target]
            return
        for folder, change in self.pending:
            if folder == target:
                inside = {**self.entries[folder], **change}
                self.entries[folder] = {name: file for name, file in inside.items() if file is not None}
        self.pending = [(folder, change) for folder, change in self.pending if folder != target]

    def _on_close(self, _: None, descriptor: int) -> None:
        del self._open[descriptor]

    def _on_replace(self, _: None, source: Path, target: Path) -> None:
        old, from_folder, from_name = self._split(source)
        new, to_folder, to_name = self._split(target)
        file = self._now[new] = self._now.pop(old)
        if from_folder == to_folder:  # one entry of the journal, everywhere
            self.pending.append((from_folder, {from_name: None, to_name: file}))
        else:
            self.pending += [(from_folder, {from_name: None}), (to_folder, {to_name: file})]

    def _on_unlink(self, _: None, path: Path) -> None:
        relative, folder, name = self._split(path)
        del self._now[relative]
        self.pending.append((folder, {name: None}))

    def _on_mkdir(self, _: None, path: Path) -> None:
        relative, folder, name = self._split(path)
        self.entries[relative] = {}
        self.pending.append((folder, {name: _FOLDER}))


def _walk(entries: dict[str, dict[str, int]], folder: str) -> Iterator[tuple[str, int]]:
    for name, file in entries[folder].items():
        path = name if folder == "." else f"{folder}/{name}"
        yield path, file
        if file == _FOLDER:
            yield from _walk(entries, path)


def _torn(durable: bytes, current: bytes) -> list[bytes]:
    half, zeros = current[: len(current) // 2], bytes(len(current))
    return list(dict.fromkeys([durable, half, current[:-1], zeros, half + zeros[len(half) :], current]))


def _subsets(n: int, rng: random.Random, most: int) -> Iterator[Sequence[int]]:
    """Of n pending changes those that came to the disk: every choice, or none, all, all but one, one, and some more."""
    if 2**n <= most:
        for size in range(n + 1):
            yield from itertools.combinations(range(n), size)
        return
    yield ()
    yield range(n)
    for i in range(n):
        yield (i,)
        yield [j for j in range(n) if j != i]
    for _ in range(most - 2 * n - 2):
        yield [j for j in range(n) if rng.random() < 0.5]
