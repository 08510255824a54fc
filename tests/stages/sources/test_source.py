"""source.py: the same images, by the same ids and labels, wherever they lie, and read no oftener than needed."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from cache.errors import NotAvailable, Unusable
from cache.hash_index import HashIndex
from stages.buckets import object_store
from stages.buckets.object_store import Denied, Unreachable
from stages.data import scan, tables
from stages.sources import blobs, places
from stages.sources.source import Source
from tests.support import archives, bucket_server
from tests.support.archives import parquet_of, samples, tar_of, two_labels
from tests.support.bucket_server import BucketServer

IMAGES = two_labels(4)
WANTED = Counter((label, hashlib.sha256(data).hexdigest()) for label, data in IMAGES)
COLUMNS = {"path": "path", "label": "label", "split": "split", "group": "group"}


def of_folder() -> dict[str, bytes]:
    return {f"{label}/{number}.png": data for number, (label, data) in enumerate(IMAGES)}


def of_tars() -> dict[str, bytes]:
    return {"000.tar": tar_of(samples(IMAGES[:5])), "more/001.tar": tar_of(samples(IMAGES[5:], 5))}


def of_parquet() -> dict[str, bytes]:
    return {"data/train.parquet": parquet_of(IMAGES, group=3)}


LAYOUTS = {"folder": of_folder, "tar": of_tars, "parquet": of_parquet}


@pytest.fixture(scope="module")
def server() -> Iterator[BucketServer]:
    with bucket_server.running() as running:
        yield running


@pytest.fixture
def bucket(server: BucketServer, monkeypatch: pytest.MonkeyPatch) -> BucketServer:
    bucket_server.use(server, monkeypatch)
    return server


def lay_out(kind: str, files: dict[str, bytes], tmp_path: Path, server: BucketServer) -> str:
    """Put files in a folder, a folder as a bucket, or a bucket; the root to give."""
    if kind == "s3":
        prefix = f"images/{hashlib.sha256(str(tmp_path).encode()).hexdigest()[:8]}"
        server.put_files({f"{prefix}/{name}": data for name, data in files.items()})
        return f"s3://team/{prefix}"
    archives.write_files(tmp_path / "root", files)
    for path in (tmp_path / "root").rglob("*"):
        os.utime(path, ns=(10**18, 10**18))
    return f"file://{tmp_path}/root" if kind == "file" else str(tmp_path / "root")


def look(root: str, index: HashIndex) -> tuple[Source, scan.Found]:
    source = Source(root, index=index)
    return source, scan.hash_files(scan.scan_folders(source), source, index)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", ["disk", "file", "s3"])
def test_the_same_images_wherever_they_lie(kind: str, layout: str, tmp_path: Path, bucket: BucketServer) -> None:
    root = lay_out(kind, LAYOUTS[layout](), tmp_path, bucket)
    source, found = look(root, HashIndex())
    assert Counter((row.label, row.id) for row in found.rows) == WANTED
    assert (found.rejected, found.unhashed) == ([], [])
    for row in found.rows:
        place = source.place(row.path)
        assert source.has(row.path)
        with places.reading(place) as read:
            assert hashlib.sha256(read.data).hexdigest() == row.id
        assert places.text_of(place).startswith(root)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_second_look_lists_once_and_reads_nothing(layout: str, tmp_path: Path, bucket: BucketServer) -> None:
    root, index = lay_out("s3", LAYOUTS[layout](), tmp_path, bucket), HashIndex(tmp_path / "index")
    _, first = look(root, index)
    bucket.requests.clear()
    source, second = look(root, index)
    assert second.rows == first.rows
    assert [source.has(row.path) for row in second.rows] == [True] * len(IMAGES)
    assert bucket.requests == [("GET", "")]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_changed_is_read_again_and_nothing_else(layout: str, tmp_path: Path, bucket: BucketServer) -> None:
    files, index = LAYOUTS[layout](), HashIndex(tmp_path / "index")
    root = lay_out("s3", files, tmp_path, bucket)
    look(root, index)
    name = next(iter(files))
    others = two_labels(4, 100)[: len(IMAGES)]
    new = {"folder": others[0][1], "tar": tar_of(samples(others[:5])), "parquet": parquet_of(others)}[layout]
    lay_out("s3", {name: new}, tmp_path, bucket)
    bucket.requests.clear()
    _, found = look(root, index)
    prefix = root.removeprefix("s3://team/")
    assert {asked for method, asked in bucket.requests if asked} == {f"{prefix}/{name}"}
    ids = {row.id for row in found.rows}
    assert hashlib.sha256(others[0][1]).hexdigest() in ids
    assert hashlib.sha256(IMAGES[0][1]).hexdigest() not in ids


@pytest.mark.parametrize("layout", ["tar", "parquet"])
def test_an_archive_on_disk_that_did_not_change_is_not_opened(
    layout: str, tmp_path: Path, bucket: BucketServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, index = lay_out("disk", LAYOUTS[layout](), tmp_path, bucket), HashIndex(tmp_path / "index")
    look(root, index)  # in the tick in which it was written: not remembered
    later = time.time() + 10
    monkeypatch.setattr(blobs.time, "time", lambda: later)
    _, first = look(root, index)
    opened: list[str] = []
    monkeypatch.setattr(blobs, "open_blob", lambda blob, window=0: opened.append(blob.address))
    _, second = look(root, index)
    assert (second.rows, opened) == (first.rows, [])


def test_a_preview_reads_no_archive_to_its_end(tmp_path: Path, bucket: BucketServer) -> None:
    root = lay_out("s3", of_parquet(), tmp_path, bucket)
    source = Source(root, read_files=False)
    found = scan.hash_files(scan.scan_folders(source), source, HashIndex(), read_files=False)
    assert (len(found.unhashed), found.rows) == (len(IMAGES), [])
    assert Counter(row.label for row in found.unhashed) == Counter(label for label, _ in IMAGES)


def test_one_archive_and_one_image_can_be_named(tmp_path: Path, bucket: BucketServer) -> None:
    root = lay_out("s3", {**of_tars(), "a.png": IMAGES[0][1]}, tmp_path, bucket)
    assert len(Source(f"{root}/000.tar").list().members) == 5
    assert Source(f"{root}/a.png").list().names == ["a.png"]
    with pytest.raises(Unusable, match=r"b\.png is not there"):
        Source(f"{root}/b.png").list()
    disk = lay_out("disk", of_tars(), tmp_path, bucket)
    assert sorted(Source(f"{disk}/000.tar").list().members)[0] == "000.tar/0000.png"


def test_archives_beside_images_are_other_files(tmp_path: Path, bucket: BucketServer) -> None:
    for kind in ("disk", "s3"):
        _, found = look(lay_out(kind, {**of_folder(), "x/b.tar": b"", "c.parquet": b""}, tmp_path, bucket), HashIndex())
        assert len(found.rows) == len(IMAGES)
        assert found.ignored == {".tar": 1, ".parquet": 1}


def test_splits_are_those_in_the_names_of_archives(tmp_path: Path, bucket: BucketServer) -> None:
    files = {
        "data/train-00000-of-00001.parquet": parquet_of(IMAGES[:4]),
        "data/validation-00000-of-00001.parquet": parquet_of(IMAGES[4:]),
    }
    _, found = look(lay_out("disk", files, tmp_path, bucket), HashIndex())
    assert Counter(row.split for row in found.rows) == {"train": 4, "val": 4}


def test_a_table_names_objects_below_a_url(tmp_path: Path, bucket: BucketServer) -> None:
    root = lay_out("s3", of_folder(), tmp_path, bucket)
    table = tmp_path / "labels.csv"
    first = next(iter(of_folder()))
    table.write_text(f"path,label\n{first},a\n{root}/bright/1.png,b\nBRIGHT/3.PNG,c\nnone/x.png,d\n")
    source = Source(root)
    found = scan.hash_files(tables.read_table(table, COLUMNS, source), source, HashIndex())
    assert [row.path for row in found.rows] == [first, "bright/1.png", "bright/3.png"]
    assert [(reject.path, reject.reason) for reject in found.rejected] == [
        ("none/x.png", "cannot be read: it is not there")
    ]
    table.write_text("path,label\n../other/x.png,a\n")
    with pytest.raises(Unusable, match=r"leaves data\.root"):
        tables.read_table(table, COLUMNS, source)


@pytest.mark.parametrize("fault", ["403", "expired"])
@pytest.mark.parametrize("what", ["list", "read"])
def test_a_denial_is_an_error_and_no_empty_folder(fault: str, what: str, tmp_path: Path, bucket: BucketServer) -> None:
    root = lay_out("s3", of_folder(), tmp_path, bucket)
    bucket.fail = lambda method, name: fault if (not name) == (what == "list") else None
    with pytest.raises(Denied) as refused:
        look(root, HashIndex())
    assert "--offline" not in refused.value.hint
    assert bucket_server.SECRET not in f"{refused.value} {refused.value.hint}"


@pytest.mark.parametrize("fault", ["429", "500", "reset", "truncated"])
def test_what_passes_is_tried_again_and_what_stays_is_an_error(
    fault: str, tmp_path: Path, bucket: BucketServer
) -> None:
    root = lay_out("s3", of_tars(), tmp_path, bucket)
    left = [fault]
    bucket.fail = lambda method, name: left.pop() if name and left else None
    assert Counter((row.label, row.id) for row in look(root, HashIndex())[1].rows) == WANTED
    bucket.fail = lambda method, name: fault if name else None
    with pytest.raises(Unreachable):
        look(root, HashIndex())


def test_an_object_that_goes_between_list_and_read_is_a_reject(tmp_path: Path, bucket: BucketServer) -> None:
    root = lay_out("s3", of_folder(), tmp_path, bucket)
    bucket.fail = lambda method, name: "404" if name.endswith("/0.png") else None
    _, found = look(root, HashIndex())
    assert [(reject.path, reject.reason) for reject in found.rejected] == [
        ("dark/0.png", "cannot be read: it was listed, but is not there any more")
    ]
    assert len(found.rows) == len(IMAGES) - 1


def test_credentials_that_expire_between_two_pages_are_no_end(
    tmp_path: Path, bucket: BucketServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_store, "_TIMEOUTS", {})  # moto takes a while for a page
    root = lay_out("s3", {f"{number}.png": b"" for number in range(1003)}, tmp_path, bucket)
    bucket.fail = lambda method, name: "expired" if len(bucket.requests) > 1 else None
    with pytest.raises(Denied, match="expired"):
        look(root, HashIndex())


def test_an_archive_that_changes_while_it_is_read_is_a_reject(tmp_path: Path, bucket: BucketServer) -> None:
    root = lay_out("s3", {"0.tar": tar_of(samples(IMAGES))}, tmp_path, bucket)
    prefix = root.removeprefix("s3://team/")

    def change(method: str, name: str) -> str | None:
        if name:
            bucket.put_files({f"{prefix}/0.tar": tar_of(samples(two_labels(4, 50)))})
        return None

    bucket.fail = change
    _, found = look(root, HashIndex())
    assert [(reject.path, reject.reason) for reject in found.rejected] == [
        ("0.tar", "cannot be read: it was changed while it was read")
    ]


@pytest.mark.parametrize(
    "url",
    ["s3://key:secret@bucket/x", "s3://bucket/x?X-Amz-Signature=secret", "http://host/x", "s3://", "s3://b/../secret"],
)
def test_a_url_with_a_secret_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(Unusable) as refused:
        Source(url)
    assert "secret" not in f"{refused.value} {refused.value.hint}"


def test_offline_a_bucket_is_left_alone(tmp_path: Path, bucket: BucketServer) -> None:
    with pytest.raises(NotAvailable, match="--offline leaves it alone"):
        Source("s3://team/x", offline=True).list()
    assert bucket.requests == []


def test_no_bucket_is_no_empty_one(bucket: BucketServer) -> None:
    with pytest.raises(Unusable, match="no images"):
        look("s3://team/nothing/there", HashIndex())
    with pytest.raises(Unreachable, match="no such bucket"):
        look("s3://nobody-s/x", HashIndex())


@pytest.mark.parametrize("kind", ["file", "s3"])
def test_a_url_is_taken_as_it_is_written(kind: str, tmp_path: Path, bucket: BucketServer) -> None:
    name = "a b%20c/ü/1.png"
    root = lay_out(kind, {name: IMAGES[0][1], "a b c/2.png": IMAGES[1][1]}, tmp_path, bucket)
    _, found = look(f"{root}/a b%20c", HashIndex())
    assert [(row.path, row.label) for row in found.rows] == [("ü/1.png", "ü")]
    assert found.rejected == []


def test_an_archive_that_cannot_be_opened_is_a_reject(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.tar")
    (tmp_path / "b.tar").write_bytes(tar_of(samples(IMAGES)))
    _, found = look(str(tmp_path), HashIndex())
    assert len(found.rows) == len(IMAGES)
    assert [tuple(reject) for reject in found.rejected] == [("a.tar", "cannot be read: it is not a regular file")]


def test_a_table_beside_no_image_is_no_archive(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"path": ["1.png"], "label": ["a"]}), tmp_path / "labels.parquet")
    source = Source(tmp_path)
    found = scan.hash_files(tables.read_table(tmp_path / "labels.parquet", COLUMNS, source), source, HashIndex())
    assert [(reject.path, reject.reason) for reject in found.rejected] == [
        ("1.png", "cannot be read: No such file or directory")
    ]
    with pytest.raises(Unusable, match="no column of images") as refused:
        look(str(tmp_path), HashIndex())
    assert "data.table" in refused.value.hint


def test_markers_of_folders_and_odd_names(tmp_path: Path, bucket: BucketServer) -> None:
    files = {"a/": b"", "a/ü #1%20?.png": IMAGES[0][1], "a/.hidden.png": b"", "__MACOSX/x.png": b"", "a/n.txt": b""}
    _, found = look(lay_out("s3", files, tmp_path, bucket), HashIndex())
    assert [(row.path, row.label) for row in found.rows] == [("a/ü #1%20?.png", "a")]
    assert found.ignored == {"hidden": 1, "of a system": 1, ".txt": 1, "without extension": 1}


@pytest.mark.parametrize(
    "name", ["tar:0+9:0123456789ab:11:/etc/passwd/x.png", "s3://team/folder/x.png", "http://h/x.png"]
)
def test_no_name_is_taken_for_a_place(name: str, tmp_path: Path, bucket: BucketServer) -> None:
    """Names are others': of folders, objects, members of tars and tables."""
    source = Source(tmp_path)
    assert source.place(name) == f"{tmp_path}/{name}"
    assert not source.has(name)
    assert isinstance(source.digests([name], HashIndex())[name], FileNotFoundError)
    table = tmp_path / "labels.jsonl"
    table.write_text(f'{{"path": "{name}", "label": "a", "id": "{"0" * 64}"}}\n')
    (row,) = tables.read_table(table, COLUMNS, source).rows
    assert not source.has(row.path)
    data = tar_of({name.removeprefix("/").replace("//", "/"): IMAGES[0][1]})
    (tmp_path / "a.tar").write_bytes(data)
    _, found = look(str(tmp_path), HashIndex())
    assert [row.id for row in found.rows] == [hashlib.sha256(IMAGES[0][1]).hexdigest()]
    assert bucket.requests == []


def test_bytes_in_flight_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    limit = blobs._Bytes(10)
    limit.take(100)  # alone it may be larger
    waited: list[str] = []

    def take() -> None:
        limit.take(6)
        waited.append("taken")

    thread = threading.Thread(target=take)
    thread.start()
    thread.join(0.1)
    assert waited == []
    limit.give_back(100)
    thread.join(5)
    assert waited == ["taken"]
    limit.take(4)
    assert limit._held == 10
