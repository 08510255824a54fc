"""atomic_files.py: a temporary folder goes when it was used, and a full disk is not taken for its own."""

from __future__ import annotations

import errno
import os
import resource
import tempfile
from pathlib import Path

import pytest

from cache import atomic_files
from cache.errors import Unwritable


def test_a_temporary_folder_goes_whatever_is_raised_within(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def use(error: Exception | None) -> None:
        with atomic_files.temporary_folder() as folder:
            (folder / "file").write_bytes(b"x")
            assert folder.parent == tmp_path
            if error is not None:
                raise error

    use(None)
    for error in (FileNotFoundError(errno.ENOENT, "an image"), Unwritable("mine", "", errno.ENOSPC, "full")):
        with pytest.raises(type(error)) as same:
            use(error)
        assert same.value is error
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("names", "where", "advice"),
    [
        (("frozenbase-a/file",), "{place}, where temporary files go,", "TMPDIR"),
        (("model", "frozenbase-a/model"), "{place}, where temporary files go,", "TMPDIR"),
        (("project/file",), "{place}/project/file", "write to another disk"),
        (("frozenbase-a/file", "project/copy"), "{place}/project/copy", "write to another disk"),
        ((), "a file that the system does not name, maybe in {place}, where temporary files go,", "TMPDIR"),
    ],
)
def test_a_full_disk_met_beside_a_temporary_folder_is_the_one_of_the_file_that_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...], where: str, advice: str
) -> None:
    """A file, or one and its copy; what is written to a file that is open bears no name."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    paths = [part for name in names for part in (str(tmp_path / name), None)][:3]

    def meet() -> None:
        with atomic_files.temporary_folder():
            if not names:
                Path("/dev/full").write_bytes(b"x")
            raise OSError(errno.ENOSPC, "words of a library", *paths)

    with pytest.raises(Unwritable) as caught:
        meet()
    assert caught.value.message == f"{where.format(place=tmp_path)} cannot be written: No space left on device"
    assert advice in caught.value.hint


def test_where_no_folder_takes_temporary_files_they_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where all their disks are full: no file may hold a byte."""
    monkeypatch.setattr(tempfile, "tempdir", None)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        with pytest.raises(Unwritable) as caught, atomic_files.temporary_folder():
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.message.startswith(
        "temporary files cannot be written: No usable temporary directory found in ["
    )
    assert "TMPDIR" in caught.value.hint
