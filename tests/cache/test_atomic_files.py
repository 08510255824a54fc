"""atomic_files.py: a file stands whole under its name, or not at all."""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cache import atomic_files
from cache.errors import PipelineError, Unwritable
from tests.support import crash

pytestmark = pytest.mark.forks


def test_publish_writes_exactly_the_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file"
    atomic_files.publish(path, b"x" * 3_000_000)
    assert path.read_bytes() == b"x" * 3_000_000
    assert os.listdir(path.parent) == ["file"]


def test_publish_replaces_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    atomic_files.publish(path, b"long old content")
    atomic_files.publish(path, b"new")
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("step", ["write", "fsync", "replace"])
def test_a_failure_at_any_step_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = tmp_path / "file"
    atomic_files.publish(path, b"old")

    def fail(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(Unwritable, match="No space left"):
        atomic_files.publish(path, b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def _streamed(path: Path, data: bytes) -> None:
    with atomic_files.publish_stream(path) as file:
        file.write(data)


@pytest.mark.parametrize("publish", [atomic_files.publish, _streamed])
def test_data_is_synced_before_the_rename_and_the_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, publish: Callable[[Path, bytes], None]
) -> None:
    steps: list[str] = []
    fsync, replace = os.fsync, os.replace

    def note_fsync(descriptor: int) -> None:
        steps.append("folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else os.pread(descriptor, 9, 0).decode())
        fsync(descriptor)

    def note_replace(source: Path, target: Path) -> None:
        steps.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "replace", note_replace)
    publish(tmp_path / "file", b"data")
    assert steps == ["folder", "data", "rename", "folder"]


def test_what_is_streamed_is_published_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "file"
    with atomic_files.publish_stream(path) as file:
        for part in (b"one ", b"two ", b"three"):
            file.write(part)
        file.seek(0)
        file.write(b"ONE")
        assert not path.exists()
    assert path.read_bytes() == b"ONE two three"
    assert os.listdir(path.parent) == ["file"]


def test_what_stops_a_stream_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "file"
    atomic_files.publish(path, b"old")

    def stopped() -> None:
        with atomic_files.publish_stream(path) as file:
            file.write(b"new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_the_clock_is_that_of_the_folder_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert abs(atomic_files.disk_clock(tmp_path) - (tmp_path / "file").stat().st_mtime) < 60
    assert os.listdir(tmp_path) == ["file"]


def test_move_aside_keeps_the_evidence(tmp_path: Path) -> None:
    (tmp_path / "bad").write_bytes(b"evidence")
    assert atomic_files.quarantine(tmp_path / "bad", tmp_path / "quarantine")
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
        atomic_files.store_content(path, b"right", digest, aside)
        assert path.read_bytes() == b"right"
        assert before in (None, path.stat().st_ino)
    assert [moved.read_bytes() for moved in aside.iterdir()] == [b"wrong"]


@pytest.mark.parametrize("there", ["a folder", "what is right"])
def test_keep_says_whether_it_could_not_read_or_not_sync(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: str
) -> None:
    def fail(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    path, digest = tmp_path / "file", hashlib.sha256(b"right").hexdigest()
    if there == "a folder":
        path.mkdir()
    else:
        path.write_bytes(b"right")
        monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(Unwritable) as caught:
        atomic_files.store_content(path, b"right", digest, tmp_path / "aside")
    said = {
        "a folder": f"{path} cannot be read: Is a directory",
        "what is right": f"{tmp_path} cannot be synced: Input",
    }
    assert str(caught.value).startswith(said[there])
    assert os.listdir(tmp_path) == ["file"]


def test_remove_is_fine_with_what_is_gone(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    for _ in range(2):
        atomic_files.remove(tmp_path / "file")
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
            atomic_files.sync_folder(tmp_path)
    else:
        assert atomic_files.sync_folder(tmp_path) is None


def _in_the_way(folder: Path) -> Path:
    (folder / "file").write_bytes(b"")
    return folder / "file" / "below" / "new"


def _a_folder(folder: Path) -> Path:
    (folder / "new").mkdir()
    return folder / "new"


@pytest.mark.parametrize(
    ("place", "reason", "advice"),
    [
        (_in_the_way, "Not a directory", "a file is where a folder should be"),
        (_a_folder, "Is a directory", "a file is where a folder should be, or the other way round"),
        (lambda folder: folder / ("n" * 300), "File name too long", "choose a shorter name"),
    ],
)
def test_what_cannot_be_written_is_one_sentence(
    tmp_path: Path, place: Callable[[Path], Path], reason: str, advice: str
) -> None:
    path = place(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(Unwritable) as caught:
        atomic_files.publish(path, b"new")
    assert caught.value.message == f"{path} cannot be written: {reason}"
    assert advice in caught.value.hint
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("number", "advice"),
    [(errno.ENOSPC, "make room"), (errno.EROFS, "choose another folder"), (errno.EIO, "check that disk")],
)
def test_what_cannot_be_written_says_what_to_do_and_goes_through_a_pickle(
    tmp_path: Path, number: int, advice: str
) -> None:
    with crash.standing(crash.Shim(crash.fails_at(2, number))), pytest.raises(PipelineError) as caught:
        atomic_files.publish(tmp_path / "new", b"data")
    again = pickle.loads(pickle.dumps(caught.value))
    for error in (caught.value, again):
        assert str(error) == f"{tmp_path / 'new'} cannot be written: {os.strerror(number)}"
        assert advice in error.hint
        assert (error.exit_code, error.errno, error.strerror) == (1, number, os.strerror(number))


@pytest.mark.parametrize("there", ["folder", "removed"])
def test_what_cannot_be_removed_is_named(tmp_path: Path, there: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    (tmp_path / "file").write_bytes(b"x")
    monkeypatch.setattr(os, "fsync" if there == "removed" else "unlink", fail)
    where = f"{tmp_path} cannot be synced" if there == "removed" else f"{tmp_path / 'file'} cannot be removed"
    with pytest.raises(Unwritable, match=f"{where}: Input/output error"):
        atomic_files.remove(tmp_path / "file")


def test_several_files_are_published_in_their_order(tmp_path: Path) -> None:
    seen: list[str] = []

    def note(_: int, name: str, arguments: tuple[Any, ...]) -> None:
        if name == "replace":
            seen.append(Path(arguments[1]).name)

    with crash.standing(crash.Shim(note)):
        atomic_files.publish_all(tmp_path / "r", {"a": b"1", "b": b"2", "record": b"3"})
    assert seen == ["a", "b", "record"]
    assert {path.name: path.read_bytes() for path in (tmp_path / "r").iterdir()} == {
        "a": b"1",
        "b": b"2",
        "record": b"3",
    }


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO], ids=errno.errorcode.get)
def test_of_several_files_none_is_published_where_one_cannot_be_written(tmp_path: Path, error: int) -> None:
    """Up to the first rename, whichever operation fails; each file is synced before that, and once."""
    contents = {"a": b"1" * 100, "b": b"2" * 100, "record": b"3"}
    operations: list[str] = []
    synced: list[str] = []

    def note(_: int, name: str, arguments: tuple[Any, ...]) -> None:
        operations.append(name)
        if name == "fsync":
            synced.append(Path(os.readlink(f"/proc/self/fd/{arguments[0]}")).suffix)

    with crash.standing(crash.Shim(note)):
        atomic_files.publish_all(tmp_path / "whole", contents)
    before = operations.index("replace")
    followed = [then for name, then in itertools.pairwise(operations[: before + 1]) if name == "write"]
    assert followed == ["fsync"] * 3
    assert synced.count(".tmp") == 3
    for k in range(before):
        folder = tmp_path / str(k)
        with crash.standing(crash.Shim(crash.fails_at(k, error))), pytest.raises(Unwritable):
            atomic_files.publish_all(folder, contents)
        assert not any(folder.glob("*"))


def test_a_folder_in_the_way_of_one_file_keeps_all_from_being_published(tmp_path: Path) -> None:
    (tmp_path / "model.json").mkdir()
    with pytest.raises(Unwritable, match=r"model\.json cannot be written: Is a directory"):
        atomic_files.publish_all(tmp_path, {"model.onnx": b"1", "model.json": b"2"})
    assert [path.name for path in tmp_path.iterdir()] == ["model.json"]


@pytest.mark.parametrize("letter", ["x", "\u00e9", "\u732b", "\U0001f408"])
def test_a_name_that_the_disk_takes_can_be_published(tmp_path: Path, letter: str) -> None:
    """255 bytes, of one to four a character; the temp file's name is longer by a host's."""
    name = letter * (255 // len(letter.encode()))
    atomic_files.publish(tmp_path / name, b"x")
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(("umask", "mode"), [(0o002, 0o664), (0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_the_umask_says_who_may_read_and_write(tmp_path: Path, umask: int, mode: int) -> None:
    """In a cache that a group shares, its members note uses of each other's files, if the umask lets them write."""
    before = os.umask(umask)
    try:
        atomic_files.publish(tmp_path / "new" / "file", b"x")
        with atomic_files.temporary_folder() as folder:
            assert folder.stat().st_mode & 0o777 == 0o700
    finally:
        os.umask(before)
    assert (tmp_path / "new" / "file").stat().st_mode & 0o777 == mode
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o777 & ~umask


def test_of_two_who_would_replace_a_file_one_may(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with atomic_files.exclusive(path) as first:
        with atomic_files.exclusive(path) as second:
            assert (first, second) == (True, False)
        assert len(os.listdir(tmp_path)) == 1, "the second takes nothing from the first"
    assert os.listdir(tmp_path) == []
    with pytest.raises(ZeroDivisionError), atomic_files.exclusive(path):
        raise ZeroDivisionError
    assert os.listdir(tmp_path) == []


def test_what_a_killed_process_held_is_free_again_after_a_minute(tmp_path: Path) -> None:
    path = tmp_path / "file"
    lock = tmp_path / ".file.lock"
    for age, there in ((50, True), (70, False)):
        lock.touch()
        os.utime(lock, (lock.stat().st_mtime - age,) * 2)
        with atomic_files.exclusive(path) as held:
            assert not held
        assert lock.exists() == there
    with atomic_files.exclusive(path) as held:
        assert held


def test_a_folder_where_nothing_may_be_replaced_is_named(tmp_path: Path) -> None:
    path = tmp_path / "gone" / "file"
    with pytest.raises(Unwritable, match=r"gone/file cannot be written: No such file"), atomic_files.exclusive(path):
        pass
