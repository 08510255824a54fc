"""places.py: one text says where an image is, and whoever has it can read it."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest

from cache.hash_index import stat_file
from stages.sources.blobs import TooLarge
from stages.sources.places import Place, file_of, files_of, is_place, member_place, reading, text_of, within


def test_the_parts_of_a_members_place_whatever_its_names_hold() -> None:
    for archive, name in (("/a b:1+2:/x.tar", "k:1+2:3/é.png"), ("s3://b/p/x.parquet", "12/a:b.png")):
        place = member_place("tar", 512, 99, "version", archive, name)
        found = within(place)
        assert found is not None
        assert (found.kind, found.start, found.size, found.archive) == ("tar", 512, 99, archive)
        assert text_of(place) == f"{archive}/{name}"
        assert member_place("tar", 512, 99, "other", archive, name) != place


def test_which_file_workers_must_see() -> None:
    of_file = member_place("tar", 0, 1, "v", "/a/x.tar", "1.png")
    of_object = member_place("tar", 0, 1, "v", "s3://b/x.tar", "1.png")
    assert [file_of(place) for place in ("/a/1.png", of_file, of_object, "s3://b/1.png")] == [
        "/a/1.png", "/a/x.tar", None, None,
    ]  # fmt: skip
    assert files_of([of_object, of_file]) == ["/a/x.tar"]


def test_a_place_stays_one_on_its_way_to_a_worker() -> None:
    place = pickle.loads(pickle.dumps(member_place("tar", 0, 1, "v", "s3://b/x.tar", "1.png")))
    assert is_place(place)
    assert not is_place(str(place)[:])
    assert not is_place("s3://b/x.tar")
    assert is_place(Place("s3://b/x.png"))
    assert is_place("/a/1.png")


def test_a_file_is_read_with_its_stat_and_no_further_than_allowed(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"0123456789")
    with reading(str(path), 10) as read:
        assert read.data == b"0123456789"
        assert read.seen is not None
        assert read.seen[0] == stat_file(os.stat(path))
    with pytest.raises(TooLarge, match="10 bytes, more than 9"), reading(str(path), 9):
        pass
    with pytest.raises(FileNotFoundError), reading(str(tmp_path / "none")):
        pass


def test_a_tar_that_became_shorter_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(b"x" * 100)
    place = member_place("tar", 50, 60, "v", str(path), "1.png")
    with pytest.raises(OSError, match="its archive ends 10 bytes before it does"), reading(place):
        pass
    with pytest.raises(TooLarge), reading(place, 59):
        pass
