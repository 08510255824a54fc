"""cache/files.py: a file stands whole under its name, or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from cache import files


def test_publish_writes_exactly_the_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file"
    files.publish(path, b"x" * 3_000_000)
    assert path.read_bytes() == b"x" * 3_000_000
    assert os.listdir(path.parent) == ["file"]


def test_publish_replaces_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    files.publish(path, b"long old content")
    files.publish(path, b"new")
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("step", ["write", "fsync", "replace"])
def test_a_failure_at_any_step_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = tmp_path / "file"
    files.publish(path, b"old")

    def fail(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(OSError, match="No space left"):
        files.publish(path, b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_data_is_synced_before_the_rename_and_the_folder_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    fsync, replace = os.fsync, os.replace

    def note_fsync(descriptor: int) -> None:
        steps.append("folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "data")
        fsync(descriptor)

    def note_replace(source: Path, target: Path) -> None:
        steps.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "replace", note_replace)
    files.publish(tmp_path / "file", b"x")
    assert steps == ["data", "rename", "folder"]


def test_move_aside_keeps_the_evidence(tmp_path: Path) -> None:
    (tmp_path / "bad").write_bytes(b"evidence")
    moved = files.move_aside(tmp_path / "bad", tmp_path / "quarantine")
    assert moved is not None
    assert moved.read_bytes() == b"evidence"
    assert not (tmp_path / "bad").exists()
