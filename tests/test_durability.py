"""A row whose put returned is there, and right, whenever a process is killed, the power is cut, or others write too."""

from __future__ import annotations

import os
import random
import shutil
import signal
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest

from tests import crash, promises
from tests.disk import Disk, Tree, likeness, write_tree

T = TypeVar("T")


def spread(items: list[T], n: int) -> list[T]:
    """n of the items, evenly; all where there are fewer."""
    n = min(len(items), max(1, n))
    return [items[i * len(items) // n] for i in range(n)]


@pytest.fixture
def past(fast_path: Path) -> Path:
    """A cache with good, damaged and orphaned files, to be copied."""
    root = fast_path / "past"
    promises.lay_out_damaged(root)
    return root


def copy_of(past: Path) -> Path:
    """A copy of that cache, in the place of the last one."""
    root = past.parent / "copy"
    shutil.rmtree(root, ignore_errors=True)
    return Path(shutil.copytree(past, root))


def operations(root: Path, work: Callable[[], object]) -> int:
    with crash.standing(crash.Shim()) as shim:
        work()
    return shim.count


def killed(root: Path, k: int, first: int) -> set[promises.Item]:
    """Work in a child that is killed at operation k; what it had been promised by then."""
    report = root.parent / "promised"
    report.write_bytes(b"")

    def work() -> None:
        with open(report, "ab", buffering=0) as file, crash.standing(crash.Shim(crash.killed_at(k))):
            promises.work(root, lambda item: file.write(f"{item[0]} {item[1]}\n".encode()), first)

    assert crash.wait(crash.fork(work)) in (0, -signal.SIGKILL)
    return {(kind, int(i)) for kind, i in (line.split() for line in report.read_text().splitlines())}


@pytest.mark.timeout(1500)
def test_kill_9_at_every_operation(past: Path, scale: float, tally: Counter[str]) -> None:
    """Once, and once more in the run after it; the puts begin at another of them in each round."""
    root = copy_of(past)
    count = operations(root, lambda: promises.work(root))
    points = [(k, round_) for round_ in range(1 + round(1200 * scale) // count) for k in range(count)]
    chosen = spread(points, round(1000 * scale))
    for k, round_ in chosen:
        root = copy_of(past)
        first = round_ % len(promises.PUTS)
        promised = killed(root, k, first)
        if round_:
            promised |= killed(root, (k * 7 + round_) % count, first)
        promises.check(root, promised | promises.BEFORE)
    tally["kills"] += len(chosen)
    assert count > 100


States = dict[frozenset[object], tuple[Tree, set[promises.Item]]]


def follow(disk: Disk, log: list[crash.Operation], excused: set[promises.Item], found: States) -> None:
    """Add to `found` what a power cut may leave after each operation of the log, and what was promised by then."""
    rng = random.Random(0)
    promised = set(promises.BEFORE)
    for operation in log:
        if operation.name == "promise":
            promised |= set(operation.arguments) - excused
            continue
        disk.apply(operation)
        for tree in disk.states(rng):
            found.setdefault(likeness(tree), (tree, set()))[1].update(promised)


def crash_states(past: Path, step: int) -> States:
    """States after one process, and after two, of which one does all its work before operation k of the other.

    Two that find the same damage may each set aside what the other has just mended: those rows are not promised.
    """
    root, found = copy_of(past), States()
    disk = Disk(root)
    with crash.standing(crash.Shim()) as alone:
        promises.work(root, alone.promise)
    follow(disk, alone.log, set(), found)
    for k in range(0, alone.count, step):
        root, shim = copy_of(past), crash.Shim()
        shim.fate = crash.meanwhile_at(k, partial(promises.work, root, shim.promise, k % 3))
        disk = Disk(root)
        with crash.standing(shim):
            promises.work(root, shim.promise)
        follow(disk, shim.log, {("vectors", i) for i in promises.FOUND_DAMAGED}, found)
    return found


@pytest.mark.timeout(1500)
def test_any_state_that_a_power_cut_may_leave(past: Path, scale: float, tally: Counter[str]) -> None:
    """Unsynced writes are dropped, torn or zeros, and unsynced entries of folders come in any combination."""
    found = crash_states(past, max(1, round(4 / scale)))
    chosen = spread(list(found.values()), round(5000 * scale))
    for tree, promised in chosen:
        root = past.parent / "state"
        write_tree(root, tree)
        promises.check(root, promised)
        shutil.rmtree(root)
    tally["crash states"] += len(chosen)
    assert len(chosen) >= min(5000, 5000 * scale)


def race(root: Path, noise: float, kill: int) -> list[int]:
    """Eight processes start at once, the last is killed at that operation; their exit codes."""
    gate, opener = os.pipe()

    def racer(number: int) -> None:
        os.close(opener)
        os.read(gate, 1)  # returns once the parent closes its end
        with crash.standing(crash.Shim(crash.killed_at(kill if number == 7 else -1))):
            promises.work(root, first=number % len(promises.PUTS), noise=noise if number == 1 else 0)
        promises.check_served(root, promises.AFTER - promises.BEFORE, noises=(0, noise))

    children = [crash.fork(partial(racer, number)) for number in range(8)]
    os.close(gate)
    os.close(opener)
    return [crash.wait(child) for child in children]


@pytest.mark.timeout(1500)
def test_eight_processes_fill_one_key_and_one_is_killed(fast_path: Path, scale: float, tally: Counter[str]) -> None:
    """Nobody fails, or waits for the dead one; half of the rounds start from nothing.

    In every third round one computes slightly other floats, as GPUs do: all are served one and the same row.
    """
    rng = random.Random(0)
    rounds, dead = max(3, round(200 * scale)), 0
    for number in range(rounds):
        root, noise = fast_path / str(number), promises.NOISE if number % 3 == 0 else 0
        if number % 2:
            promises.lay_out(root)
        *codes, last = race(root, noise, rng.randrange(60))
        assert codes == [0] * 7
        assert last in (0, -signal.SIGKILL)
        dead += last != 0
        assert promises.everything(root) == promises.everything(root)
        promises.check_served(root, promises.AFTER - promises.BEFORE, noises=(0, noise))
        shutil.rmtree(root)
    tally["races of 8 processes"] += rounds
    assert dead > rounds // 2
