"""hash_index.py: never a stale digest, and never a second reading that could be spared."""

from __future__ import annotations

import hashlib
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cache import hash_index
from cache.hash_index import HashIndex


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of files whose bytes are read."""
    names: list[str] = []
    original = hashlib.file_digest

    def note(file: object, algorithm: str) -> object:
        names.append(os.path.basename(os.readlink(f"/proc/self/fd/{file.fileno()}")))  # type: ignore[attr-defined]
        return original(file, algorithm)  # type: ignore[call-overload]

    monkeypatch.setattr(hashlib, "file_digest", note)
    return names


def test_an_old_file_is_read_once(tmp_path: Path, reads: list[str]) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"1")
    for _ in range(2):  # another process each time, as it were
        assert HashIndex(tmp_path / "index", min_age_s=0).digest(path) == sha(b"1")
    assert reads == ["a"]


def test_a_young_file_is_read_every_time(tmp_path: Path, reads: list[str]) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"1")
    for _ in range(2):
        HashIndex(tmp_path / "index", min_age_s=60).digest(path)
    assert reads == ["a", "a"]


def test_threads_that_ask_at_once_are_all_answered(tmp_path: Path) -> None:
    paths = [tmp_path / str(number) for number in range(8)]
    for path in paths:
        path.write_bytes(path.name.encode())
    index = HashIndex(tmp_path / "index", min_age_s=60)
    with ThreadPoolExecutor(8) as threads:
        for _ in range(100):
            assert list(threads.map(index.digest, paths)) == [sha(path.name.encode()) for path in paths]


def test_an_edit_with_size_and_mtime_restored_is_caught(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"1")
    index = HashIndex(tmp_path / "index", min_age_s=0)
    index.digest(path)
    before = path.stat()
    time.sleep(0.02)
    path.write_bytes(b"2")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert index.digest(path) == sha(b"2")


def test_another_file_moved_to_the_path_is_caught(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1")
    (tmp_path / "b").write_bytes(b"2")
    index = HashIndex(tmp_path / "index", min_age_s=0)
    index.digest(tmp_path / "a")
    os.replace(tmp_path / "b", tmp_path / "a")
    assert index.digest(tmp_path / "a") == sha(b"2")


@pytest.mark.parametrize("how", ["deleted", "garbage", "a folder"])
def test_losing_the_index_costs_rehashing_only(tmp_path: Path, how: str) -> None:
    path, db = tmp_path / "a", tmp_path / "index"
    path.write_bytes(b"1")
    HashIndex(db, min_age_s=0).digest(path)
    db.unlink()
    if how == "garbage":
        db.write_bytes(b"garbage" * 1000)
    elif how == "a folder":
        db.mkdir()
    assert HashIndex(db, min_age_s=0).digest(path) == sha(b"1")
    if how != "a folder":
        assert HashIndex(db, min_age_s=0).known([str(path)]) == {str(path): sha(b"1")}


@pytest.mark.parametrize("changes", [1, 3])
def test_a_file_that_changes_while_it_is_read_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: int
) -> None:
    path, now, left = tmp_path / "a", time.time, [changes]
    path.write_bytes(b"1")

    def change() -> float:
        """The time of hashing is noted between a look at the stat and the reading."""
        if left[0]:
            left[0] -= 1
            path.write_bytes(b"changed" * left[0])
        return now()

    monkeypatch.setattr(time, "time", change)
    index = HashIndex(tmp_path / "index", min_age_s=0)
    if changes == 1:
        assert index.digest(path) == sha(b"")
    else:
        with pytest.raises(OSError, match="it changes while it is read"):
            index.digest(path)


def test_an_error_is_told_for_its_file_alone(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1")
    good, gone = str(tmp_path / "a"), str(tmp_path / "gone")
    found = HashIndex().digests([good, gone])
    assert found[good] == sha(b"1")
    assert isinstance(found[gone], FileNotFoundError)
    with pytest.raises(FileNotFoundError):
        HashIndex().digest(tmp_path / "gone")


def test_names_that_are_not_utf8(tmp_path: Path, reads: list[str]) -> None:
    path = os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe.png")
    with open(path, "wb") as file:
        file.write(b"1")
    for _ in range(2):
        assert HashIndex(tmp_path / "index", min_age_s=0).digests([path])[path] == sha(b"1")
    assert len(reads) == 1


def test_a_file_that_was_hashed_fresh_is_known_to_previews_until_it_changes(tmp_path: Path) -> None:
    """A digest is never taken from it, so that what changes within a tick of the clock is found all the same."""
    path, db = tmp_path / "a.png", tmp_path / "index.sqlite"
    path.write_bytes(b"1")
    assert HashIndex(db).digest(path) == sha(b"1")
    again = HashIndex(db)
    assert again.known([str(path)]) == {}
    assert again.known([str(path)], fresh=True) == {str(path): sha(b"1")}
    os.utime(path, (1, 1))
    assert again.known([str(path)], fresh=True) == {}
    HashIndex(db, min_age_s=0).digest(path)
    assert again.known([str(path)]) == {str(path): sha(b"1")}


def test_files_are_found_by_their_bytes_as_many_as_asked(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / name).write_bytes(name.encode())
    index = HashIndex(tmp_path / "index", min_age_s=0)
    index.digests([str(tmp_path / name) for name in "abc"])
    (tmp_path / "b").unlink()
    wanted = [sha(b"a"), sha(b"b"), sha(b"d")]
    assert index.find_files(wanted, 9) == {sha(b"a"): str(tmp_path / "a")}
    assert index.find_files([sha(b"a"), sha(b"c")], 2).keys() == {sha(b"a"), sha(b"c")}
    assert len(index.find_files([sha(b"a"), sha(b"c")], 1)) == 1


def test_an_object_is_found_by_its_version_alone(tmp_path: Path) -> None:
    index = HashIndex(tmp_path / "index")
    assert index.find_objects({}) == {}
    index.remember_objects([("s3://b/a", "1", "x" * 64), ("s3://b/b", "1", "y" * 64), ("s3://b/c", "1", "z" * 64)])
    index.remember_objects([("s3://b/b", "2", "w" * 64)])
    again = HashIndex(tmp_path / "index")
    assert again.find_objects({"s3://b/b": "2", "s3://b/a": "1", "s3://b/c": "0", "s3://b/d": "1"}) == {
        "s3://b/a": "x" * 64, "s3://b/b": "w" * 64,
    }  # fmt: skip
    assert again.find_objects({"s3://b/b": "1"}) == {}


def test_contents_of_an_archive_are_found_by_its_version_alone(tmp_path: Path) -> None:
    index = HashIndex(tmp_path / "index")
    index.remember_contents("/x.tar", "1", b"one")
    assert HashIndex(tmp_path / "index").find_contents("/x.tar", "1") == b"one"
    assert index.find_contents("/x.tar", "2") is None
    assert index.find_contents("/y.tar", "1") is None


def test_objects_and_archives_that_nobody_asks_for_are_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, day = time.time(), 86_400
    index = HashIndex(tmp_path / "index")

    def on(days: float) -> None:
        monkeypatch.setattr(hash_index.time, "time", lambda: now + days * day)

    on(0)
    index.remember_objects([("s3://b/a", "1", "x" * 64), ("s3://b/b", "1", "y" * 64)])
    index.remember_contents("/x.tar", "1", b"one")
    index.remember_contents("/y.tar", "1", b"two")
    on(6)
    index.find_objects({"s3://b/b": "1"})  # used within a week: not noted
    on(8)
    assert index.find_objects({"s3://b/a": "1"}) == {"s3://b/a": "x" * 64}
    assert index.find_contents("/x.tar", "1") == b"one"
    on(89)
    index.prune()
    assert len(index.find_objects({"s3://b/a": "1"})) == 1
    on(91)
    index.prune()
    assert index.find_objects({"s3://b/a": "1", "s3://b/b": "1"}) == {"s3://b/a": "x" * 64}
    assert (index.find_contents("/x.tar", "1"), index.find_contents("/y.tar", "1")) == (b"one", None)
    on(91 + 7 + 91)
    index.prune()
    assert index.find_objects({"s3://b/a": "1"}) == {}
