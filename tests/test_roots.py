"""cache/roots.py: who needs what, and which jobs run."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cache import roots


def test_a_root_reads_as_it_was_registered(tmp_path: Path) -> None:
    roots.register(tmp_path, Path("/p/pipeline.yaml"), ["b", "a"], {"v3": ["c"]})
    roots.register(tmp_path, Path("/p/pipeline.yaml"), ["d"], {"v3": ["c"]})
    roots.register(tmp_path, Path("/q/pipeline.yaml"), [], {})
    found = {str(root.path): root for root in roots.registered(tmp_path)}
    assert set(found) == {"/p/pipeline.yaml", "/q/pipeline.yaml"}
    root = found["/p/pipeline.yaml"]
    assert (root.needs, dict(root.tags), root.here) == (frozenset("d"), {"v3": ("c",)}, True)


def test_the_same_again_writes_nothing(tmp_path: Path) -> None:
    roots.register(tmp_path, Path("/p"), ["a"], {})
    (path,) = (tmp_path / "roots").iterdir()
    before = path.stat().st_ino
    roots.register(tmp_path, Path("/p"), ["a"], {})
    assert path.stat().st_ino == before


def test_a_job_shows_while_it_runs_and_not_after(tmp_path: Path) -> None:
    with roots.job(tmp_path, ["a"]):
        ((_, needs, runs),) = roots.jobs(tmp_path, time.time())
        assert (needs, runs) == (frozenset("a"), True)
    assert list(roots.jobs(tmp_path, time.time())) == []


def test_a_job_that_was_killed_does_not_run(tmp_path: Path) -> None:
    program = "import os, sys, pathlib; from cache import roots; job = roots.job(pathlib.Path(sys.argv[1]), ['a']);"
    subprocess.run([sys.executable, "-c", f"{program} job.__enter__(); os.kill(os.getpid(), 9)", str(tmp_path)])
    ((path, needs, runs),) = roots.jobs(tmp_path, time.time())
    assert (needs, runs) == (frozenset("a"), False)
    text = json.loads(path.read_bytes())
    reused = {**text, "pid": os.getpid(), "started": text["started"] - 60}  # a number comes back, its start does not
    path.write_text(json.dumps(reused))
    assert [runs for *_, runs in roots.jobs(tmp_path, time.time())] == [False]


@pytest.mark.parametrize(("silent", "runs"), [(600, True), (2 * roots.JOB_SILENT_S, False)])
def test_a_job_on_another_host_runs_as_long_as_it_shows_itself(tmp_path: Path, silent: float, runs: bool) -> None:
    with roots.job(tmp_path, ["a"]):
        (path,) = (tmp_path / "jobs").iterdir()
        path.write_text(json.dumps({"host": f"not-{socket.gethostname()}", "pid": 1, "started": 0, "needs": ["a"]}))
        assert [r for *_, r in roots.jobs(tmp_path, path.stat().st_mtime + silent)] == [runs]


def test_a_damaged_note_is_passed_over(tmp_path: Path) -> None:
    for folder in ("roots", "jobs"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.json").write_bytes(b"{")
    assert [root.needs for root in roots.registered(tmp_path)] == [frozenset()]
    assert list(roots.jobs(tmp_path, time.time())) == []
