"""arrivals.py: runs at once on one cache share the work, though nobody claims a row."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from cache.hash_index import HashIndex
from cache.store import Cache
from stages.bases.recipe import FeatureSpec, Tap
from stages.data import images
from stages.extract import schedule, shard_task
from stages.extract.arrivals import Arrivals
from stages.extract.cluster import ClusterSpec
from stages.extract.shard_task import Receipt, Task
from stages.runtime import hardware
from tests.conftest import Pipeline, extract
from tests.support import fakes
from tests.support.networks import DEFAULT
from tests.support.process import start, wait_for_shards

RECIPE = replace(DEFAULT, pixels=images.PixelSpec(16, 16))
AVG, MAX = Tap(), Tap(pooling="max")
N, SHARD = 120, 4


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    found = {}
    for number in range(N):
        path = tmp_path / f"{number}.png"
        path.write_bytes(fakes.numbered(number))
        found[hashlib.sha256(path.read_bytes()).hexdigest()] = str(path)
    (tmp_path / "weights").write_bytes(b"")
    return found


def specs_of(taps: tuple[Tap, ...]) -> dict[str, FeatureSpec]:
    return {RECIPE.key(tap): FeatureSpec(RECIPE, tap) for tap in taps}


def open_cache(folder: Path) -> Cache:
    return Cache(folder / "cache", HashIndex())


def work_of(folder: Path, files: dict[str, str], taps: tuple[Tap, ...]) -> schedule.Work:
    """What the cache lacks of those files by now, in tasks of SHARD images."""
    cache = open_cache(folder)
    job = shard_task.Job(RECIPE, str(folder / "weights"), str(cache.root), 4, version("frozenbase"))
    missing = schedule.find_missing(cache, specs_of(taps), list(files))
    keyed = {RECIPE.key(tap): tap for tap in taps}
    return schedule.Work([(job, keyed)], missing, {image: [path] for image, path in files.items()}, SHARD)


def run_beside(folder: Path, files: dict[str, str], ours: tuple[Tap, ...], theirs: tuple[Tap, ...]) -> Any:
    """Our run, and in the middle of it all of theirs: (receipts of both, the progress of ours)."""
    progress, others = [], []

    class Beside:
        def bring(self, missing: Any) -> None:
            pass

        def equip(self, jobs: Any) -> Any:
            raise AssertionError

        def receive(self, receipt: Receipt) -> None:
            if not others:
                others.append(Receipt())
                work = work_of(folder, files, theirs)
                others[0] = schedule.compute_missing(open_cache(folder), work, ClusterSpec(1))

    work = work_of(folder, files, ours)
    own = schedule.compute_missing(open_cache(folder), work, ClusterSpec(1), progress.append, Beside())
    return own, others[0], sum(progress)


def stored_rows(folder: Path, tap: Tap) -> int:
    """Rows in all shards, those twice that were computed twice."""
    return sum(record["rows"] for record in open_cache(folder).features(RECIPE.components(tap)).shard_records())


def test_what_others_did_meanwhile_is_not_done_again(fake_embed: None, tmp_path: Path, files: dict[str, str]) -> None:
    own, others, progress = run_beside(tmp_path, files, (AVG,), (AVG,))
    in_flight = hardware.cpu_count() * SHARD
    assert own.rows <= in_flight
    assert N <= own.rows + others.rows <= N + in_flight
    assert progress == N
    assert open_cache(tmp_path).features(RECIPE.components(AVG)).missing(list(files)) == []


def test_of_rows_at_several_taps_only_those_are_done_that_others_have_not(
    fake_embed: None, tmp_path: Path, files: dict[str, str]
) -> None:
    own, _, progress = run_beside(tmp_path, files, (AVG, MAX), (MAX,))
    assert (own.rows, progress, stored_rows(tmp_path, AVG)) == (N, N, N)
    assert N <= stored_rows(tmp_path, MAX) <= N + hardware.cpu_count() * SHARD


def begun(folder: Path, files: dict[str, str], run: str = "run") -> Arrivals:
    work = work_of(folder, files, (AVG, MAX))
    found = Arrivals(open_cache(folder), work.specs, work.missing, run)
    found.begin(work.tasks(1, run))
    return found


def images_of(found: tuple[list[Task], int] | None) -> list[str]:
    assert found is not None
    return [image for task in found[0] for image, _ in task.rows]


def test_a_run_begins_somewhere_and_goes_on_to_the_neighbour(tmp_path: Path, files: dict[str, str]) -> None:
    ids, starts = list(files), set()
    for run in "abcdefgh":
        arrivals = begun(tmp_path, files, run)
        first, second = images_of(arrivals.next()), images_of(arrivals.next())
        starts.add(ids.index(first[0]))
        assert ids.index(second[0]) == ids.index(first[0]) + SHARD or ids.index(first[0]) == N - SHARD
    assert len(starts) > 2


def test_where_others_went_the_same_way_a_run_goes_on_elsewhere(tmp_path: Path, files: dict[str, str]) -> None:
    places = {ids: place for place, ids in enumerate(files)}
    jumps = 0
    for run in "abcdefgh":
        arrivals = begun(tmp_path, files, run)
        first = images_of(arrivals.next())
        arrivals.note(Receipt(SHARD, doubled=1))
        jumps += places[images_of(arrivals.next())[0]] != places[first[0]] + SHARD
    assert jumps >= 6


def test_every_task_comes_once(tmp_path: Path, files: dict[str, str]) -> None:
    arrivals, seen = begun(tmp_path, files), []
    while (found := arrivals.next()) is not None:
        assert found[1] == 0
        seen += images_of(found)
    assert sorted(seen) == sorted(files)


def test_images_that_lack_different_rows_are_different_tasks(
    fake_embed: None, tmp_path: Path, files: dict[str, str]
) -> None:
    arrivals, half = begun(tmp_path, files), dict(list(files.items())[::2])
    schedule.compute_missing(open_cache(tmp_path), work_of(tmp_path, half, (AVG,)), ClusterSpec(1))
    found = arrivals.next()
    assert found is not None
    assert found[1] == 0
    assert [(len(task.keys), len(task.rows)) for task in found[0]] in ([(1, 2), (2, 2)], [(2, 2), (1, 2)])


def test_a_damaged_shard_of_others_spares_nothing(fake_embed: None, tmp_path: Path, files: dict[str, str]) -> None:
    arrivals = begun(tmp_path, files)
    schedule.compute_missing(open_cache(tmp_path), work_of(tmp_path, files, (AVG, MAX)), ClusterSpec(1))
    for path in (tmp_path / "cache").glob("features/*/shards/*.h5"):
        path.write_bytes(path.read_bytes()[:-1] + b"!")
    assert len(images_of(arrivals.next())) == SHARD


def test_a_shard_that_was_there_already_is_told(fake_embed: None, tmp_path: Path, files: dict[str, str]) -> None:
    (task, *_) = work_of(tmp_path, files, (AVG, MAX)).tasks(1, "run")
    assert shard_task.extract_shard(task, lambda rows: None).doubled == 0
    assert shard_task.extract_shard(task, lambda rows: None).doubled == 2


def test_two_processes_at_once_share_the_work(pipeline: Pipeline, project: Path) -> None:
    """Their tasks take a while; twice are done those that both were at, a few of 60."""
    fakes.two_classes(project.parent / "images", 60)
    words = ("run", "extract", "-c", project, "--json", "--set", "extract.shard_rows=2")
    first = start(*words, FAKE_DELAY="0.05")
    wait_for_shards(project, 1)
    runs = [first, start(*words, FAKE_DELAY="0.05")]
    done = [(*process.communicate(timeout=120), process.returncode) for process in runs]
    assert [code for *_, code in done] == [0, 0], done
    computed = [json.loads(out)["extract"]["computed"] for out, *_ in done]
    assert 120 <= sum(computed) <= 180
    assert extract(pipeline, project) == (0, 120)
