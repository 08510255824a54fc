"""care.py: what a team's cache holds, and removing what nobody pushed to for long, in a folder."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from cache.transfer import Copied
from stages.buckets.object_store import ObjectStore
from stages.remote import bucket, care, pull
from stages.remote.push import Pushed, Pusher
from tests.support.bucket_server import fill, new_store

DAY = 86_400


@pytest.fixture
def remote(tmp_path: Path) -> ObjectStore:
    return ObjectStore(f"file://{tmp_path}/remote", make_folder=True)


def push(remote: ObjectStore, folder: Path, base: str, age: float = 0) -> str:
    """Push two shards of four rows under a key, and date their objects so long ago; the key."""
    store, before = new_store(folder / base, base), set(folder.rglob("remote/**/*"))
    fill(store, 2)
    pusher = Pusher(remote, Pushed())
    for name in store.names():
        pusher.push(store, name)
    for path in set(folder.rglob("remote/**/*")) - before:
        os.utime(path, (time.time() - age, time.time() - age))
    return store.key


def old(remote: ObjectStore, needed: set[str], age: float) -> list[tuple[str, str]]:
    now = time.time()
    going = care.choose_old(care.list_entries(remote, now), needed, age, now)
    for entry in going:
        care.remove(remote, entry)
    return sorted((entry.kind, entry.name) for entry in going)


def test_a_listing_says_rows_bytes_age_and_what_they_are(remote: ObjectStore, tmp_path: Path) -> None:
    key = push(remote, tmp_path, "net", 10 * DAY)
    digest = Pusher(remote, Pushed()).push_manifest(b"lines\n")
    rows, manifest = care.list_entries(remote, time.time())
    assert (rows.kind, rows.name, rows.rows, rows.components["base"]) == ("features", key, 8, "net")
    assert rows.bytes == sum(p.stat().st_size for p in (tmp_path / "remote" / "v1" / "features").rglob("*.*")) + 2 * 64
    assert time.time() - rows.pushed == pytest.approx(10 * DAY, abs=60)
    assert (manifest.kind, manifest.name, manifest.bytes) == ("manifest", digest, 6)
    assert "objects" not in rows.to_json()


def test_only_keys_that_nobody_pushed_to_for_long_go(remote: ObjectStore, tmp_path: Path) -> None:
    gone, kept, needed = push(remote, tmp_path, "a", 40 * DAY), push(remote, tmp_path, "b", 20 * DAY), "c"
    needed = push(remote, tmp_path, "c", 40 * DAY)
    assert old(remote, {needed}, 30 * DAY) == [("features", gone)]
    assert set(bucket.list_keys(remote)) == {kept, needed}


def test_a_push_to_a_key_keeps_all_of_it(remote: ObjectStore, tmp_path: Path) -> None:
    key = push(remote, tmp_path, "a", 40 * DAY)
    store = new_store(tmp_path / "other", "a")
    fill(store, 1, first=100)
    Pusher(remote, Pushed()).push(store, store.names()[0])
    assert old(remote, set(), 30 * DAY) == []
    assert len(bucket.list_key(remote, key).whole) == 3


def test_parts_of_a_push_under_way_stay_and_old_ones_go(remote: ObjectStore, tmp_path: Path) -> None:
    key = push(remote, tmp_path, "a")
    rows, ids, _ = bucket.parts_of(key, "12" * 32)
    remote.put(rows, b"rows")
    remote.put(ids, b"ids")
    assert old(remote, set(), DAY) == []
    for name in (rows, ids):
        os.utime(tmp_path / "remote" / name, (0, time.time() - 2 * DAY))
    assert old(remote, set(), 300 * DAY) == [("leftover", key)]
    assert len(bucket.list_key(remote, key).whole) == 2


def test_a_gc_that_is_killed_leaves_no_shard_that_counts_and_lacks_content(
    remote: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever number of objects is gone."""
    key = push(remote, tmp_path, "a", 40 * DAY)
    (entry,) = care.list_entries(remote, time.time())
    store, ids = (
        new_store(tmp_path / "a", "a"),
        new_store(tmp_path / "a", "a").ids(new_store(tmp_path / "a", "a").names()),
    )
    for number, name in enumerate(entry.objects):
        remote.delete([name])
        taken, theirs = Copied(), new_store(tmp_path / f"theirs{number}", "a")
        pull.pull_rows(remote, theirs, ids, taken)
        assert taken.refused == []
        whole = bucket.list_key(remote, key).whole
        assert sorted(theirs.missing(ids)) == sorted(set(ids) - set(store.ids(list(whole))))


def test_a_spec_of_another_key_describes_nothing(remote: ObjectStore, tmp_path: Path) -> None:
    key = push(remote, tmp_path, "a")
    (tmp_path / "remote" / bucket.spec_name(key)).write_bytes(b'{"base": "another"}')
    assert [entry.components for entry in care.list_entries(remote, time.time())] == [{}]
