"""cluster.py: real Dask clusters, bound to this machine, and what is said where there is none."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from cache.errors import PipelineError, Unusable
from stages.bases.recipe import Tap
from stages.extract import shard_task
from stages.extract.cluster import ClusterSpec, Files, connect
from stages.runtime import hardware
from tests.support import fakes, source_tree
from tests.support.networks import DEFAULT
from tests.support.process import events, run, start, wait_for_shards

VERSION = importlib.metadata.version("frozenbase")


def test_one_worker_is_this_process_which_needs_no_cluster(project: Path, tmp_path: Path) -> None:
    out, _ = run("run", "extract", "-c", project, "--json", WATCH=str(tmp_path / "log"))
    assert json.loads(out)["extract"]["computed"] == 24
    assert events(tmp_path / "log")[-1] == ["imported"]


def no_profile(dask_worker: Any) -> None:
    """Sampling all threads' frames can hang a process for good, in CPython up to 3.11.8 (gh-106883)."""
    assert "profile" not in dask_worker.periodic_callbacks


def test_two_workers_are_processes(tmp_path: Path) -> None:
    with connect(ClusterSpec(2), Files(tmp_path)) as (client, *_):
        assert len({*client.run(os.getpid).values(), os.getpid()}) == 3
        assert sum(client.nthreads().values()) == max(2, hardware.cpu_count())
        client.run(no_profile)


def test_no_scheduler_is_said_soon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stages.extract.cluster._CONNECT_TIMEOUT_S", 1)
    with (
        pytest.raises(Unusable, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9 "),
        connect(ClusterSpec(1, "tcp://127.0.0.1:9"), Files(tmp_path)),
    ):
        pass


@pytest.fixture(scope="module")
def running() -> Iterator[Any]:
    """A cluster that somebody else started."""
    import distributed

    with distributed.LocalCluster(n_workers=1, threads_per_worker=2, host="127.0.0.1", dashboard_address=None) as local:
        yield local


def test_a_running_cluster_is_used(running: Any, tmp_path: Path) -> None:
    with connect(ClusterSpec(1, running.scheduler_address), Files(tmp_path / "cache", ["/"], ["/"])) as (client, *_):
        assert client.submit(sum, [1, 2]).result() == 3
    assert list((tmp_path / "cache").iterdir()) == []


def refusal(running: Any, files: Files) -> str:
    with pytest.raises(Unusable) as refused, connect(ClusterSpec(1, running.scheduler_address), files):
        pass
    return str(refused.value)


def test_a_worker_that_does_not_see_a_file_is_refused(running: Any, tmp_path: Path) -> None:
    assert refusal(running, Files(tmp_path, ["/gone/weights"])).endswith(" does not see /gone/weights")
    assert refusal(running, Files(tmp_path, [], ["/gone/image.png"])).endswith(" does not see /gone/image.png")


def test_a_worker_with_other_source_of_the_same_version_is_refused(running: Any, tmp_path: Path) -> None:
    """One worker of two runs a copy of the source with one comment more."""
    copy = source_tree.copy_to(tmp_path / "copy")
    with open(copy / "stages" / "data" / "images.py", "a") as file:
        file.write("# another\n")
    worker = "import sys; from distributed.cli.dask_worker import main; sys.argv[0] = 'dask worker'; main()"
    words = [sys.executable, "-c", worker, running.scheduler_address, "--no-nanny", "--no-dashboard", "--nthreads", "1"]
    with subprocess.Popen(words, cwd=copy, stderr=subprocess.DEVNULL) as process:
        try:
            running.wait_for_workers(2, timeout=60)
            assert "runs other source of frozenbase (" in refusal(running, Files(tmp_path))
        finally:
            process.terminate()
    while len(running.scheduler.workers) > 1:
        time.sleep(0.05)


def test_a_scheduler_without_workers_is_refused(tmp_path: Path) -> None:
    import distributed

    with (
        distributed.LocalCluster(n_workers=0, host="127.0.0.1", dashboard_address=None) as empty,
        pytest.raises(Unusable, match="has no workers"),
        connect(ClusterSpec(1, empty.scheduler_address), Files(tmp_path)),
    ):
        pass


def test_an_error_keeps_its_hint_on_the_way_back_from_a_worker(running: Any, tmp_path: Path) -> None:
    with connect(ClusterSpec(1, running.scheduler_address), Files(tmp_path)) as (client, *_):
        with pytest.raises(PipelineError, match="found this") as caught:
            client.submit(_fail).result()
        assert (caught.value.hint, caught.value.exit_code) == ("do that", 2)


def _fail() -> None:
    raise Unusable("found this", "do that")


def test_a_worker_that_dies_is_replaced_and_its_shard_done_again(project: Path) -> None:
    """The real thing: two worker processes, one killed in the middle. FAKE does not reach them, so it is TensorFlow."""
    words = ("run", "extract", "-c", project, "--json", "--workers", "2", "--set", "extract.size=64")
    process = start(*words, "--set", "extract.shard_rows=4", FAKE="")
    wait_for_shards(project, 1)
    workers = [p for p in psutil.Process(process.pid).children(recursive=True) if "spawn_main" in " ".join(p.cmdline())]
    workers[0].kill()
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert json.loads(out)["extract"]["computed"] == 24
    assert json.loads(run(*words)[0])["extract"]["reused"] == 24


def test_worker_processes_stop_soon_when_told(project: Path) -> None:
    fakes.two_classes(project.parent / "images", 300)
    words = ("run", "extract", "-c", project, "--json", "--workers", "2", "--set", "extract.size=224")
    process = start(*words, "--set", "extract.shard_rows=100", FAKE="")
    wait_for_shards(project, 1)
    process.terminate()
    out, _ = process.communicate(timeout=10)
    assert process.returncode == 143
    assert json.loads(out)["error"]["code"] == "interrupted"
    assert json.loads(run(*words, "-n")[0])["status"]["stages"][0]["missing"] > 300


def test_extraction_on_a_running_cluster(running: Any, project: Path) -> None:
    words = ("run", "extract", "-c", project, "--json", "--set", "extract.size=64")
    out, _ = run(*words, "--scheduler", running.scheduler_address, FAKE="")
    assert json.loads(out)["extract"]["computed"] == 24
    assert json.loads(run(*words)[0])["extract"]["reused"] == 24


def test_tasks_are_small_and_plain() -> None:
    """Paths and specs: never arrays or models."""
    import pickle

    job = shard_task.Job(DEFAULT, "/weights", "/cache", None, VERSION)
    rows = tuple(("ab" * 32, (f"/images/{i}.png",)) for i in range(100))
    task = shard_task.Task(((job, {"k": Tap()}),), rows, "topic")
    assert len(pickle.dumps(task)) < 120 * 100
    assert pickle.loads(pickle.dumps(task)) == task
