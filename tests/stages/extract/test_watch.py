"""watch.py: a run that loses its cluster says so, goes on if it comes back, and ends otherwise. Real clusters."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import dask
import distributed
import psutil
import pytest

from stages.extract import watch
from tests.conftest import Pipeline, Ran, counts
from tests.support import fakes
from tests.support.dask_cluster import FAKE_WORKER, Cluster

pytestmark = pytest.mark.timeout(100)
TIMEOUT_S = 4
SLOW = {"FAKE_DELAY": "0.05"}


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    monkeypatch.setattr(watch, "SILENT_S", 2.0)
    monkeypatch.setattr(watch, "CHECK_S", 1.0)
    made = Cluster(tmp_path, **SLOW)
    made.add_worker()
    made.add_worker()
    try:
        with distributed.Client(made.address, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=60)
        yield made
    finally:
        made.close()


def run_and(pipeline: Pipeline, project: Path, then: Callable[[], None], *words: str) -> tuple[Ran, float]:
    """Extract some hundred images; once the first shard is there, do `then`. What came of it, and the seconds since."""
    fakes.two_classes(project.parent / "images", 100)
    since: list[float] = []
    ended = threading.Event()

    def wait() -> None:
        while not list((project.parent / ".features").glob("features/*/shards/*.json")):
            if ended.wait(0.02):
                return
        since.append(time.monotonic())
        then()

    thread = threading.Thread(target=wait)
    thread.start()
    options = ("--json", "--set", "extract.shard_rows=8", "--set", f"cluster.timeout={TIMEOUT_S}")
    ran = pipeline("run", "extract", "-c", project, *options, *words)
    ended.set()
    thread.join()
    assert since, ran.out
    return ran, time.monotonic() - since[0]


def check_lost(ran: Ran, message: str) -> None:
    assert ran.code == 1
    error = ran.json["error"]
    assert message in error["message"]
    assert " new rows are kept" in error["message"]
    assert not error["message"].startswith("0 new rows")
    assert error["hint"].startswith("run again, once the cluster has workers")


def test_a_run_whose_workers_all_die_says_so_and_ends_and_keeps_its_rows(
    pipeline: Pipeline, project: Path, cluster: Cluster
) -> None:
    ran, seconds = run_and(pipeline, project, lambda: cluster.signal(signal.SIGKILL), "--scheduler", cluster.address)
    check_lost(ran, "0 of 2 workers are left")
    assert "WARNING: no new row for" in ran.err
    assert "0 of 2 workers are left; " in ran.err
    assert seconds < TIMEOUT_S + 20
    computed, reused = counts(pipeline("run", "extract", "-c", project, "--json"))
    assert computed > 0
    assert reused >= 8


def test_it_goes_on_if_workers_come_back(pipeline: Pipeline, project: Path, cluster: Cluster) -> None:
    def replace() -> None:
        cluster.signal(signal.SIGKILL)
        time.sleep(TIMEOUT_S * 0.75)
        cluster.add_worker()

    words = ("--scheduler", cluster.address, "--set", "cluster.timeout=20")
    ran, _ = run_and(pipeline, project, replace, *words)
    assert sum(counts(ran)) == 200


def test_a_scheduler_that_dies_ends_the_run(pipeline: Pipeline, project: Path, cluster: Cluster) -> None:
    def kill() -> None:
        cluster.signal(signal.SIGKILL, slice(1))

    ran, _ = run_and(pipeline, project, kill, "--scheduler", cluster.address)
    check_lost(ran, "the connection to the Dask scheduler is lost")


@pytest.mark.parametrize(
    ("processes", "message"),
    [(slice(1), "the scheduler does not answer"), (slice(1, None), "2 of 2 workers are gone or do not answer")],
)
def test_what_is_stopped_for_long_ends_the_run(
    pipeline: Pipeline, project: Path, cluster: Cluster, processes: slice, message: str
) -> None:
    def stop() -> None:
        cluster.signal(signal.SIGSTOP, processes)

    ran, seconds = run_and(pipeline, project, stop, "--scheduler", cluster.address)
    check_lost(ran, message)
    assert message in ran.err
    assert seconds < TIMEOUT_S + 40


def test_what_is_stopped_for_a_while_is_waited_for(pipeline: Pipeline, project: Path, cluster: Cluster) -> None:
    def pause() -> None:
        cluster.signal(signal.SIGSTOP)
        time.sleep(TIMEOUT_S)
        cluster.signal(signal.SIGCONT)

    ran, _ = run_and(pipeline, project, pause, "--scheduler", cluster.address, "--set", "cluster.timeout=20")
    assert counts(ran) == (200, 0)


def test_a_scheduler_that_is_stuck_at_the_start_is_said(
    pipeline: Pipeline, project: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stages.extract.cluster._CONNECT_TIMEOUT_S", 2)
    cluster.signal(signal.SIGSTOP, slice(1))
    ran = pipeline("run", "extract", "-c", project, "--scheduler", cluster.address)
    assert (ran.code, "it takes connections, but does not answer" in ran.err) == (2, True)


def test_a_worker_that_is_stuck_at_the_start_is_said(
    pipeline: Pipeline, project: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stages.extract.cluster._ANSWER_TIMEOUT_S", 2)
    words = ("run", "extract", "-c", project, "--scheduler", cluster.address)
    cluster.signal(signal.SIGSTOP, slice(1, 2))
    ran = pipeline(*words)
    assert (ran.code, "not all workers of the scheduler" in ran.err) == (2, True)


def test_local_processes_that_are_killed_one_after_the_other_end_the_run(
    pipeline: Pipeline, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the kernel does where memory runs out."""
    ended = threading.Event()
    killers = []

    def kill() -> None:
        while not ended.wait(0.2):
            for process in psutil.Process().children(recursive=True):
                if "spawn_main" in " ".join(process.cmdline()):
                    process.kill()

    def kill_from_now_on() -> None:
        killers.append(threading.Thread(target=kill))
        killers[0].start()

    for name, value in SLOW.items():
        monkeypatch.setenv(name, value)
    with dask.config.set({"distributed.worker.preload": [FAKE_WORKER]}):
        try:
            ran, _ = run_and(pipeline, project, kill_from_now_on, "--workers", "2")
        finally:
            ended.set()
            for killer in killers:
                killer.join()
    assert ran.code == 1
    assert "with fewer --workers if memory ran out" in ran.json["error"]["hint"]
