"""tar.py: WebDataset's samples and class folders, and tars that are damaged, or made to do harm."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Mapping

import pytest

from stages.sources.listing import Contents, ignore
from stages.sources.tar import read_tar
from tests.support.archives import tar_of
from tests.support.fakes import numbered


def look(data: bytes, hashing: bool = True, most: int = 10_000) -> Contents:
    return read_tar(io.BytesIO(data), len(data), most, ignore if hashing else None)


def labels(members: Mapping[str, bytes]) -> dict[str, str | None]:
    return {one.name: one.label for one in look(tar_of(members)).members}


def test_each_image_can_be_read_where_it_is_said_to_be() -> None:
    members = {"a/1.png": numbered(1), "a/1.cls": b"7", "b/2.jpg": numbered(2)}
    data = tar_of(members)
    found = look(data)
    assert {one.name: data[one.start : one.start + one.size] for one in found.members} == {
        name: members[name] for name in ("a/1.png", "b/2.jpg")
    }
    assert [one.sha256 for one in found.members] == [
        hashlib.sha256(members[one.name]).hexdigest() for one in found.members
    ]
    assert [one.sha256 for one in look(data, hashing=False).members] == [None, None]


@pytest.mark.parametrize(
    ("more", "label"),
    [
        ({"1.cls": b" 3\n"}, "3"), ({"1.txt": b"cat\n"}, "cat"), ({"1.json": b'{"label": 4}'}, "4"),
        ({"1.json": b'{"class": "cat", "x": 1}'}, "cat"), ({"1.json": b"[1]"}, None), ({"1.json": b"{"}, None),
        ({"1.txt": b"cat", "1.cls": b"3", "1.json": b'{"label": 4}'}, "3"), ({"1.cls": b""}, None),
        ({"2.cls": b"3"}, None), ({"1.txt": b"x" * 201}, None), ({"1.json": b"[" * 100_000}, None),
    ],
)  # fmt: skip
def test_labels_of_a_sample(more: dict[str, bytes], label: str | None) -> None:
    assert labels({"1.png": numbered(1), **more}) == {"1.png": label}
    assert labels({**more, "1.png": numbered(1)}) == {"1.png": label}


def test_a_long_text_is_told() -> None:
    assert look(tar_of({"1.png": numbered(1), "1.txt": b"x" * 201})).notes == [
        "1 texts are longer than 200 characters, and are no labels"
    ]


def test_samples_are_named_up_to_the_first_dot_of_their_base() -> None:
    members = {"v1.0/1.left.png": numbered(1), "v1.0/1.right.png": numbered(2), "v1.0/1.cls": b"cat", "1.cls": b"dog"}
    assert labels(members) == {"v1.0/1.left.png": "cat", "v1.0/1.right.png": "cat"}


def test_without_labels_the_first_folder_is_the_label() -> None:
    assert labels({"./cat/a/1.png": numbered(1), "dog/2.png": numbered(2), "3.png": numbered(3)}) == {
        "cat/a/1.png": "cat", "dog/2.png": "dog", "3.png": None,
    }  # fmt: skip


def test_long_and_foreign_names() -> None:
    name = "ünïcode " + "x" * 300 + ".png"
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
            about = tarfile.TarInfo(name)
            about.size = len(numbered(1))
            tar.addfile(about, io.BytesIO(numbered(1)))
        assert [one.name for one in look(buffer.getvalue()).members] == [name]


def _special(kind: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        about = tarfile.TarInfo("1.png")
        about.type, about.linkname = kind, "/etc/passwd"
        tar.addfile(about)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_are_no_images(kind: bytes) -> None:
    found = look(_special(kind))
    assert (found.members, found.ignored) == ([], {"link or special file": 1})


@pytest.mark.parametrize("name", ["../1.png", "/etc/1.png", "a/../../1.png", "a//1.png"])
def test_names_that_lead_out_are_rejects(name: str) -> None:
    found = look(tar_of({name: numbered(1)}))
    assert [reject.reason for reject in found.rejected] == ["has a name that would lead out of its archive"]
    assert found.members == []


def test_other_files_are_counted() -> None:
    found = look(tar_of({"._1.png": b"", "__MACOSX/1.png": b"", "1.npy": b"", "LICENSE": b"", "2.png": numbered(1)}))
    assert found.ignored == {"hidden": 1, "of a system": 1, ".npy": 1, "without extension": 1}


def test_an_image_that_is_too_large_is_a_reject() -> None:
    found = look(tar_of({"1.png": b"x" * 11, "2.png": b"x" * 10}), most=10)
    assert [(reject.path, reject.reason) for reject in found.rejected] == [("1.png", "11 bytes, more than 10")]
    assert [one.name for one in found.members] == ["2.png"]


def test_of_two_members_of_one_name_the_first_is_used() -> None:
    first = tar_of({"1.png": numbered(1)})
    length = 512 + -(-len(numbered(1)) // 512) * 512
    found = look(first[:length] + tar_of({"1.png": numbered(2)}))
    assert [one.sha256 for one in found.members] == [hashlib.sha256(numbered(1)).hexdigest()]
    assert [reject.reason for reject in found.rejected] == ["has the name of an earlier one, which is used"]


def _cut(data: bytes) -> bytes:
    return data[:1600]


def _no_end(data: bytes) -> bytes:
    return data[: 3 * 1024]


def _bad_header(data: bytes) -> bytes:
    return data[:1024] + b"\x01" * 512 + data[1536:]


@pytest.mark.parametrize("damage", [_cut, _bad_header])
def test_a_damaged_tar_gives_what_is_before_the_damage_and_a_reject(damage: Callable[[bytes], bytes]) -> None:
    data = damage(tar_of({f"{number}.png": numbered(number) for number in range(3)}))
    found = look(data)
    assert [one.name for one in found.members] == ["0.png"]
    assert "is no whole tar" in found.rejected[-1].reason or "its archive ends" in found.rejected[-1].reason


def test_a_tar_without_its_end_mark_is_whole() -> None:
    found = look(_no_end(tar_of({f"{number}.png": numbered(number) for number in range(3)})))
    assert (len(found.members), found.rejected) == (3, [])


@pytest.mark.parametrize("data", [b"", b"no tar", b"\x1f\x8b" + b"x" * 2000, json.dumps({"a": 1}).encode() * 100])
def test_what_is_no_tar(data: bytes) -> None:
    found = look(data)
    assert found.members == []
    assert [reject.reason.startswith("is no whole tar") for reject in found.rejected] == [True]
