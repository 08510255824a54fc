"""bucket.py: names of objects, and which shards count, in a folder that is an object store."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from stages.buckets.object_store import ObjectStore
from stages.remote import bucket
from stages.remote.push import Pushed, Pusher
from tests.support.bucket_server import fill, new_store

KEY = "ab" * 32


@pytest.fixture
def remote(tmp_path: Path) -> ObjectStore:
    return ObjectStore(f"file://{tmp_path}/remote", make_folder=True)


def test_a_hint_names_the_images_by_their_first_digits() -> None:
    ids = ["0123456789abcdef" + "0" * 48, "f" * 64]
    assert bucket.read_hint(bucket.hint_of(ids)).tolist() == bucket.short_ids(ids).tolist()
    assert bucket.short_ids(ids).tolist() == [0x0123456789ABCDEF, 2**64 - 1]
    assert len(bucket.hint_of(ids)) == 32 + 2 * 8


@pytest.mark.parametrize(
    "change", [lambda d: d[:-8], lambda d: d[:-1], lambda d: d[:32], lambda d: b"", lambda d: b"?" + d[1:]]
)
def test_a_damaged_hint_is_seen(change: object) -> None:
    with pytest.raises(ValueError, match="not as it was written"):
        bucket.read_hint(change(bucket.hint_of(["a" * 64, "b" * 64])))  # type: ignore[operator]


def test_a_shard_counts_with_all_its_parts_and_no_sooner(remote: ObjectStore) -> None:
    for shard in ("11" * 32, "22" * 32, "33" * 32):
        rows, ids, record = bucket.parts_of(KEY, shard)
        remote.put(rows, b"rows")
        if not shard.startswith("2"):
            remote.put(ids, bucket.hint_of(["a" * 64]))
        if not shard.startswith("3"):
            remote.put(record, b"{}")
    remote.put(f"v1/features/{KEY}/shards/notes.txt", b"of somebody")
    found = bucket.list_key(remote, KEY)
    assert list(found.whole) == ["11" * 32]
    assert (found.whole["11" * 32].rows, found.whole["11" * 32].bytes) == (1, 4 + 40 + 2)
    assert sorted(found.torn) == ["22" * 32, "33" * 32]
    assert list(bucket.list_keys(remote)) == [KEY]
    assert bucket.list_key(remote, "cd" * 32) == bucket.Contents({}, {}, None)


def test_nothing_but_rows_records_ids_and_specs_is_written(remote: ObjectStore, tmp_path: Path) -> None:
    store = new_store(tmp_path / "cache")
    ids = fill(store, 2)
    (tmp_path / "cache" / "weights").mkdir()
    (tmp_path / "cache" / "weights" / "note.json").write_text("{}")
    done = Pushed()
    pusher = Pusher(remote, done)
    for name in store.names():
        pusher.push(store, name)
    assert (done.shards, done.rows, done.lost) == (2, 8, "")
    files = {p.relative_to(tmp_path / "remote").as_posix() for p in (tmp_path / "remote").rglob("*") if p.is_file()}
    parts = {name for shard in store.names() for name in bucket.parts_of(store.key, shard)}
    assert files == {*parts, bucket.spec_name(store.key)}
    assert json.loads((tmp_path / "remote" / bucket.spec_name(store.key)).read_text()) == store.components
    hints = [bucket.read_hint(remote.get(bucket.parts_of(store.key, n).ids, 1000)) for n in store.names()]
    assert sorted(np.concatenate(hints).tolist()) == sorted(bucket.short_ids(ids).tolist())
