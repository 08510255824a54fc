"""cache/files.py: a file stands whole under its name, or not at all."""

from __future__ import annotations

import errno
import hashlib
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
    assert steps == ["folder", "data", "rename", "folder"]


def test_what_is_streamed_is_published_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "file"
    with files.publishing(path) as file:
        for part in (b"one ", b"two ", b"three"):
            file.write(part)
        file.seek(0)
        file.write(b"ONE")
        assert not path.exists()
    assert path.read_bytes() == b"ONE two three"
    assert os.listdir(path.parent) == ["file"]


def test_what_stops_a_stream_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "file"
    files.publish(path, b"old")

    def stopped() -> None:
        with files.publishing(path) as file:
            file.write(b"new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_the_clock_is_that_of_the_folder_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert abs(files.clock(tmp_path) - (tmp_path / "file").stat().st_mtime) < 60
    assert os.listdir(tmp_path) == ["file"]


def test_move_aside_keeps_the_evidence(tmp_path: Path) -> None:
    (tmp_path / "bad").write_bytes(b"evidence")
    assert files.move_aside(tmp_path / "bad", tmp_path / "quarantine")
    (moved,) = (tmp_path / "quarantine").iterdir()
    assert moved.name.startswith("bad.")
    assert moved.read_bytes() == b"evidence"
    assert not (tmp_path / "bad").exists()


def test_keep_leaves_what_is_right_and_sets_aside_what_is_not(tmp_path: Path) -> None:
    path, aside = tmp_path / "file", tmp_path / "aside"
    digest = hashlib.sha256(b"right").hexdigest()
    for found in (None, b"right", b"wrong"):
        if found is not None:
            path.write_bytes(found)
        before = path.stat().st_ino if found == b"right" else None
        files.keep(path, b"right", digest, aside)
        assert path.read_bytes() == b"right"
        assert before in (None, path.stat().st_ino)
    assert [moved.read_bytes() for moved in aside.iterdir()] == [b"wrong"]


def test_remove_is_fine_with_what_is_gone(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    for _ in range(2):
        files.remove(tmp_path / "file")
        assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EIO])
def test_a_folder_that_cannot_be_synced_is_tolerated_but_not_a_failing_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fail(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    if number == errno.EIO:
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            files.sync_folder(tmp_path)
    else:
        assert files.sync_folder(tmp_path) is None
