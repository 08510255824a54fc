"""parquet.py: columns of images in Hugging Face's layout and others, and files that are damaged or are no images."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cache.errors import Unusable
from stages.sources import parquet
from stages.sources.listing import Contents, ignore
from stages.sources.places import reading
from stages.sources.source import COLUMNS, Source
from tests.support.archives import parquet_of, two_labels

IMAGES = two_labels(4)


def look(data: bytes, hashing: bool = True, columns: Mapping[str, str] = COLUMNS, most: int = 10_000) -> Contents:
    return parquet.read_parquet(io.BytesIO(data), "x.parquet", columns, most, ignore if hashing else None)


def written(columns: dict[str, Any], **options: Any) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer, **options)
    return buffer.getvalue()


def test_classes_by_the_names_of_the_metadata_and_ids_by_the_bytes() -> None:
    found = look(parquet_of(IMAGES, group=3))
    assert [(one.label, one.sha256) for one in found.members] == [
        (label, hashlib.sha256(data).hexdigest()) for label, data in IMAGES
    ]
    assert [(one.name, one.start, one.size) for one in found.members][:4] == [
        ("0", 0, 0), ("1", 0, 1), ("2", 0, 2), ("3", 1, 0),
    ]  # fmt: skip
    unread = look(parquet_of(IMAGES), hashing=False)
    assert [(one.label, one.sha256) for one in unread.members] == [(label, None) for label, _ in IMAGES]


def test_a_binary_column_and_plain_labels() -> None:
    data = [data for _, data in IMAGES]
    found = look(written({"img": data, "label": [label for label, _ in IMAGES], "split": ["train"] * 8, "x": [1] * 8}))
    assert [(one.label, one.split) for one in found.members] == [(label, "train") for label, _ in IMAGES]
    assert [one.label for one in look(written({"img": data, "label": [1, None, 2] + [3] * 5})).members][:3] == [
        "1", None, "2",
    ]  # fmt: skip


def test_columns_are_named_as_those_of_a_table() -> None:
    data = written({"image": [data for _, data in IMAGES], "kind": ["a"] * 8, "who": ["p", "q"] * 4})
    found = look(data, columns={"label": "kind", "split": "split", "group": "who"})
    assert [(one.label, one.group) for one in found.members][:2] == [("a", "p"), ("a", "q")]


def test_file_names_are_kept_and_lead_nowhere() -> None:
    paths = ["a.png", "d/b.png", "../../c.png", "/etc/passwd", "..", "x\\y.png", None, ""]
    names = [one.name for one in look(parquet_of(IMAGES, paths=paths)).members]
    assert names == ["0/a.png", "1/b.png", "2/c.png", "3/passwd", "4", "5/y.png", "6", "7"]


def test_a_row_without_bytes_and_a_large_one_are_rejects() -> None:
    data = written({"image": [{"bytes": b"x" * 11, "path": None}, {"bytes": None, "path": "/a.png"}, None]})
    found = look(data, most=10)
    assert [(reject.path, reject.reason) for reject in found.rejected] == [
        ("0", "11 bytes, more than 10"), ("1/a.png", "has no bytes: its row names a file elsewhere, or nothing"),
        ("2", "has no bytes: its row names a file elsewhere, or nothing"),
    ]  # fmt: skip
    assert found.members == []


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"path": ["a.png"], "label": ["x"]}, "no column of images; it has 'path', 'label'"),
        ({"a": [b"x"], "b": [b"y"]}, "no column of images"),
        ({"image": [b"x"], "label": [["a", "b"]]}, "one class per image is expected"),
    ],
)
def test_what_is_no_file_of_images(columns: dict[str, Any], said: str) -> None:
    with pytest.raises(Unusable, match=said):
        look(written(columns))


def test_a_row_group_that_is_too_large_is_refused_before_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "GROUP_BYTES", 1000)
    with pytest.raises(Unusable, match=r"a row group of [\d,]+ bytes; at most 1,000") as refused:
        look(parquet_of(IMAGES))
    assert "row_group_size" in refused.value.hint


@pytest.mark.parametrize("data", [b"", b"PAR1", b"no parquet" * 100, parquet_of(IMAGES)[:-100]])
def test_a_file_that_is_not_whole_is_a_reject(data: bytes) -> None:
    found = look(data)
    assert found.members == []
    assert found.rejected[0].reason.startswith("is no whole Parquet file")


def test_each_row_group_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.parquet").write_bytes(parquet_of(IMAGES, group=4))
    source = Source(tmp_path)
    members = list(source.list().members.values())
    decoded: list[int] = []
    plain = parquet._read_group

    def note(archive: str, version: str, group: int) -> Any:
        decoded.append(group)
        return plain(archive, version, group)

    monkeypatch.setattr(parquet, "_read_group", note)
    for member in members + members[:4]:
        with reading(member.place) as read:
            assert hashlib.sha256(read.data).hexdigest() == member.sha256
    assert decoded == [0, 1]
    monkeypatch.setattr(parquet, "HELD_BYTES", 1)
    parquet._groups._held.clear()
    for member in (members[0], members[7], members[0]):
        with reading(member.place):
            pass
    assert decoded == [0, 1, 0, 1, 0]


def test_a_file_that_was_written_anew_is_opened_anew(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(parquet_of(IMAGES))
    old = next(iter(Source(tmp_path).list().members.values()))
    with reading(old.place) as read:
        assert read.data == IMAGES[0][1]
    others = two_labels(4, 100)
    path.write_bytes(parquet_of(others))
    new = next(iter(Source(tmp_path).list().members.values()))
    with reading(new.place) as read:
        assert read.data == others[0][1]


def test_a_fresh_process_needs_nothing_that_others_imported(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(parquet_of(IMAGES))
    program = (
        "import sys; from stages.sources.source import Source; from stages.sources.places import reading\n"
        "for member in Source(sys.argv[1]).list().members.values():\n    with reading(member.place): pass\n"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True)
