"""registrations.py: who needs what, and which jobs run."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import pytest

from cache import registrations


def test_a_root_reads_as_it_was_registered(tmp_path: Path) -> None:
    registrations.register(tmp_path, Path("/p/pipeline.yaml"), ["b", "a"], {"v3": ["c"]})
    registrations.register(tmp_path, Path("/p/pipeline.yaml"), ["d"], {"v3": ["c"]})
    registrations.register(tmp_path, Path("/q/pipeline.yaml"), [], {})
    found = {str(root.path): root for root in registrations.list_registrations(tmp_path)}
    assert set(found) == {"/p/pipeline.yaml", "/q/pipeline.yaml"}
    root = found["/p/pipeline.yaml"]
    assert (root.needs, dict(root.tags), root.here) == (frozenset("d"), {"v3": ("c",)}, True)


def test_the_same_again_writes_nothing(tmp_path: Path) -> None:
    registrations.register(tmp_path, Path("/p"), ["a"], {})
    (path,) = (tmp_path / "roots").iterdir()
    before = path.stat().st_ino
    registrations.register(tmp_path, Path("/p"), ["a"], {})
    assert path.stat().st_ino == before


def test_the_same_again_after_an_hour_notes_the_time(tmp_path: Path) -> None:
    """Of a project that is gone, the rows stay for a time after its last run, not after its last change."""
    registrations.register(tmp_path, Path("/p"), ["a"], {})
    (path,) = (tmp_path / "roots").iterdir()
    os.utime(path, (0, 0))
    registrations.register(tmp_path, Path("/p"), ["a"], {})
    (root,) = registrations.list_registrations(tmp_path)
    assert time.time() - root.seen < 60


def test_a_project_of_another_host_is_never_gone(tmp_path: Path) -> None:
    registrations.register(tmp_path, tmp_path / "nowhere" / "pipeline.yaml", ["a"], {})
    (path,) = (tmp_path / "roots").iterdir()
    path.write_text(path.read_text().replace(socket.gethostname(), "another"))
    (root,) = registrations.list_registrations(tmp_path)
    assert (root.here, root.gone) == (False, False)


def test_a_job_shows_while_it_runs_and_not_after(tmp_path: Path) -> None:
    with registrations.running_job(tmp_path, ["a"]):
        ((_, needs, runs),) = registrations.list_jobs(tmp_path, time.time())
        assert (needs, runs) == (frozenset("a"), True)
    assert list(registrations.list_jobs(tmp_path, time.time())) == []


@pytest.mark.parametrize(("silent", "runs"), [(600, True), (2 * registrations.SILENT_S, False)])
def test_a_job_runs_as_long_as_it_shows_itself(tmp_path: Path, silent: float, runs: bool) -> None:
    """Whether the process is here tells little: containers share a host's name, and number their processes anew."""
    with registrations.running_job(tmp_path, ["a"]):
        (path,) = (tmp_path / "jobs").iterdir()
        assert [r for *_, r in registrations.list_jobs(tmp_path, path.stat().st_mtime + silent)] == [runs]


def test_a_job_shows_itself_again_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registrations, "_TOUCH_S", 0.01)
    with registrations.running_job(tmp_path, ["a"]):
        (path,) = (tmp_path / "jobs").iterdir()
        os.utime(path, (0, 0))
        deadline = time.time() + 10
        while path.stat().st_mtime == 0:
            assert time.time() < deadline
            time.sleep(0.01)


def test_where_nothing_can_be_written_the_work_goes_on(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with registrations.running_job(tmp_path / "file", ["a"]):
        registrations.register(tmp_path / "file", Path("/p"), ["a"], {})
    assert registrations.list_registrations(tmp_path / "file") == []


def test_what_may_not_be_looked_at_is_not_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registrations.register(tmp_path, tmp_path / "there" / "pipeline.yaml", ["a"], {})
    (root,) = registrations.list_registrations(tmp_path)
    assert root.gone
    monkeypatch.setattr(os, "stat", _denied)
    assert not root.gone


def _denied(path: Path) -> None:
    raise PermissionError(13, "Permission denied", str(path))


def test_a_damaged_note_is_passed_over(tmp_path: Path) -> None:
    for folder in ("roots", "jobs"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.json").write_bytes(b"{")
        (tmp_path / folder / "y.json").write_bytes(b'{"needs": null, "tags": {"v1": 3}}')
    assert [root.needs for root in registrations.list_registrations(tmp_path)] == [frozenset()]
    assert [needs for _, needs, _ in registrations.list_jobs(tmp_path, time.time())] == [frozenset(), frozenset()]
