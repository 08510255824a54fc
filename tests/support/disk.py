"""A disk that keeps no more than it must: the states that a power cut may leave after what atomic_files.py did.

Holds no tests, and doesn't say what is promised in these states (promises.py).
"""

from __future__ import annotations

import itertools
import os
import random
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.support.crash import Operation

Tree = dict[str, bytes | None]
"""What lies under a folder, by relative path: bytes of a file, None for a folder."""


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
