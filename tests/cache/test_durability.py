"""A row whose put returned is there, and right, whenever a process is killed, the power is cut, or others write too."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import signal
from collections import Counter
from functools import partial
from pathlib import Path

import pytest

from cache import atomic_files
from cache.hash_index import HashIndex
from cache.store import Cache
from tests.support import crash, promises
from tests.support.disk import Disk, Tree, likeness, write_tree

pytestmark = pytest.mark.forks


@pytest.fixture
def past(fast_path: Path) -> Path:
    """A cache with good, damaged and orphaned files, to be copied."""
    root = fast_path / "past"
    promises.lay_out_damaged(root)
    return root


def killed(root: Path, k: int, first: int, again: bool = False) -> set[promises.Item]:
    """Work in a child that is killed at operation k, if it comes so far; what it had been promised by then."""
    report = root.parent / "promised"
    report.write_bytes(b"")

    def work() -> None:
        with open(report, "ab", buffering=0) as file, crash.standing(crash.Shim(crash.killed_at(k))):
            promises.work(root, lambda item: file.write(f"{item[0]} {item[1]}\n".encode()), first)

    code = crash.wait(crash.fork(work))
    assert code == -signal.SIGKILL or (code == 0 and again)
    return {(kind, int(i)) for kind, i in (line.split() for line in report.read_text().splitlines())}


@pytest.mark.timeout(1500)
def test_kill_9_at_every_operation(past: Path, scale: float, tally: Counter[str]) -> None:
    """Once, and once more in the run after it; the puts begin at another of them in each round."""
    root = promises.copy_of(past, past.parent)
    count = crash.operations(promises.work, root)
    points = [(k, round_) for round_ in range(1 + round(1000 * scale) // count) for k in range(count)]
    chosen = points if scale >= 1 else crash.spread(points, 1000 * scale)

    def check(point: tuple[int, int], place: Path) -> None:
        k, round_ = point
        root = promises.copy_of(past, place)
        promised = killed(root, k, round_ % len(promises.PUTS))
        if round_:
            promised |= killed(root, (k * 7 + round_) % count, 0, again=True)
        promises.check(root, promised | promises.BEFORE)

    crash.check_all(chosen, check, past.parent)
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
    root, found = promises.copy_of(past, past.parent), States()
    disk = Disk(root)
    with crash.standing(crash.Shim()) as alone:
        promises.work(root, alone.promise)
    follow(disk, alone.log, set(), found)
    for k in range(0, alone.count, step):
        root, shim = promises.copy_of(past, past.parent), crash.Shim()
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
    chosen = crash.spread(list(found.values()), 5000 * scale)

    def check(state: tuple[Tree, set[promises.Item]], place: Path) -> None:
        tree, promised = state
        write_tree(place / "state", tree)
        promises.check(place / "state", promised)
        shutil.rmtree(place / "state")

    crash.check_all(chosen, check, past.parent)
    tally["crash states"] += len(chosen)
    assert len(chosen) >= min(5000, 5000 * scale)


@pytest.mark.parametrize("there", ["nothing", "folders"])
def test_a_put_answers_for_what_a_dead_process_left_unsynced(fast_path: Path, tally: Counter[str], there: str) -> None:
    """Before operation k of a put, another process begins the same and dies at its operation j.

    Once the put has its answer, a power cut takes nothing. From nothing, the other comes first.
    """
    promised = {("vectors", 0), ("vectors", 1)} | ({("manifest", 0)} if there == "nothing" else set())

    def work(root: Path) -> None:
        promises.put(promises.store_of(root, "vectors"), "vectors", (0, 1))
        if there == "nothing":
            Cache(root, HashIndex()).put_named("manifests", promises.MANIFEST, ".jsonl")

    past = fast_path / "past"
    past.mkdir()
    if there == "folders":
        promises.lay_out(past)
    root = promises.copy_of(past, fast_path)
    count = crash.operations(work, root)
    for j, k in itertools.product(range(count), range(count if there == "folders" else 1)):
        root, shim = promises.copy_of(past, fast_path), crash.Shim()
        disk = Disk(root)

        def other(root: Path = root, shim: crash.Shim = shim, j: int = j) -> None:
            with crash.standing(crash.Shim(crash.dead_from(j))) as dead:
                dead.log = shim.log
                crash.dies(work, root)

        shim.fate = crash.meanwhile_at(k, other)
        with crash.standing(shim):
            work(root)
        for operation in shim.log:
            disk.apply(operation)
        for tree in disk.states(random.Random(0)):
            write_tree(fast_path / "state", tree)
            promises.check_served(fast_path / "state", promised)
            shutil.rmtree(fast_path / "state")
            tally["power cuts after a put beside a dead process"] += 1
    assert count > 20


def test_what_was_removed_stays_removed(fast_path: Path) -> None:
    (fast_path / "file").write_bytes(b"x")
    disk = Disk(fast_path)
    with crash.standing(crash.Shim()) as shim:
        atomic_files.remove(fast_path / "file")
    for operation in shim.log:
        disk.apply(operation)
    assert list(disk.states(random.Random(0))) == [{}]


def race(root: Path, noise: float, kill: int) -> list[int]:
    """Eight processes start at once, the last is killed at that operation; their exit codes."""
    gate, opener = os.pipe()

    def racer(number: int) -> None:
        os.close(opener)
        os.read(gate, 1)  # returns once the parent closes its end
        with crash.standing(crash.Shim(crash.killed_at(kill if number == 7 else -1))):
            promises.work(root, first=(number + kill) % len(promises.PUTS), noise=noise if number == 1 else 0)
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
    rounds = max(3, round(200 * scale))
    promises.work(fast_path / "done")
    least = crash.operations(promises.work, fast_path / "done")  # a kill at one of these always comes
    for number in range(rounds):
        root, noise = fast_path / str(number), promises.NOISE if number % 3 == 0 else 0
        if number % 2:
            promises.lay_out(root)
        assert race(root, noise, rng.randrange(least)) == [0] * 7 + [-signal.SIGKILL]
        assert promises.everything(root) == promises.everything(root)
        promises.check_served(root, promises.AFTER - promises.BEFORE, noises=(0, noise))
        shutil.rmtree(root)
    tally["races of 8 processes"] += rounds
