"""pull.py: the fewest shards that are needed, and nothing that is not as it should be, from a folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cache import shards as shard_files
from cache.store import FeatureStore
from cache.transfer import Copied
from stages.buckets.object_store import ObjectStore
from stages.remote import bucket, pull
from stages.remote.push import Pushed, Pusher
from tests.support.bucket_server import fill, new_store, push_all


@pytest.fixture
def remote(tmp_path: Path) -> ObjectStore:
    return ObjectStore(f"file://{tmp_path}/remote", make_folder=True)


@pytest.fixture
def ours(tmp_path: Path, remote: ObjectStore) -> FeatureStore:
    """A cache of five shards of four rows, all pushed."""
    store = new_store(tmp_path / "ours")
    fill(store, 5)
    push_all(remote, store)
    return store


def taken_of(remote: ObjectStore, store: FeatureStore, ids: list[str]) -> Copied:
    taken = Copied()
    pull.pull_rows(remote, store, ids, taken)
    return taken


def test_the_same_rows_come(remote: ObjectStore, ours: FeatureStore, tmp_path: Path) -> None:
    theirs, ids = new_store(tmp_path / "theirs"), ours.ids(ours.names())
    taken = taken_of(remote, theirs, ids)
    assert (taken.shards, taken.rows, taken.refused) == (5, 20, [])
    np.testing.assert_array_equal(theirs.read(ids), ours.read(ids))
    assert theirs.shard_records() == ours.shard_records()


def test_no_more_is_pulled_than_is_needed(remote: ObjectStore, ours: FeatureStore, tmp_path: Path) -> None:
    theirs = new_store(tmp_path / "theirs")
    three = ours.ids([ours.names()[2]])[:3]
    assert taken_of(remote, theirs, three).shards == 1
    assert taken_of(remote, theirs, ["e" * 64]).shards == 0
    assert taken_of(remote, theirs, three).shards == 0


def test_a_shard_with_most_rows_spares_smaller_ones(remote: ObjectStore, ours: FeatureStore, tmp_path: Path) -> None:
    """Rows that others have pushed in other shards too."""
    other = new_store(tmp_path / "other")
    fill(other, 1, rows=20)
    push_all(remote, other)
    theirs = new_store(tmp_path / "theirs")
    taken = taken_of(remote, theirs, ours.ids(ours.names()))
    assert (taken.shards, taken.rows) == (1, 20)


def test_a_hint_that_lies_costs_a_pull_and_no_row(remote: ObjectStore, ours: FeatureStore, tmp_path: Path) -> None:
    liar, honest = ours.names()[:2]
    wanted = ours.ids([honest])
    hint = tmp_path / "remote" / bucket.parts_of(ours.key, liar).ids
    hint.write_bytes(bucket.hint_of([*wanted, "e" * 64]))  # five images, to be tried first
    theirs = new_store(tmp_path / "theirs")
    assert taken_of(remote, theirs, wanted).shards == 2
    np.testing.assert_array_equal(theirs.read(wanted), ours.read(wanted))


def _swap(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


DAMAGE: dict[str, tuple[str, Callable[[bytes], bytes | None], str]] = {
    "rows swapped": ("rows", _swap, shard_files.WRONG_DIGEST),
    "rows truncated": ("rows", lambda d: d[:-1], shard_files.WRONG_DIGEST),
    "rows empty": ("rows", lambda d: b"", shard_files.WRONG_DIGEST),
    "rows no HDF5": ("rows", lambda d: b"\x89HDF\r\n\x1a\n" * 40, shard_files.WRONG_DIGEST),
    "rows evicted": ("rows", lambda d: None, "not all of its content"),
    "ids evicted": ("ids", lambda d: None, "not all of its content"),
    "ids truncated": ("ids", lambda d: d[:-8], "not as it was written"),
    "record no JSON": ("record", lambda d: d[:-9], "record"),
    "record of another": ("record", lambda d: d.replace(b'"rows": 4', b'"rows": 5'), "record is of another shard"),
    "record too large": ("record", lambda d: d + b" " * 1_000_000, "are expected"),
    "record nested": ("record", lambda d: b'{"a": ' * 50 + b"1" + b"}" * 50, "record"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_what_is_damaged_is_told_and_the_rest_comes(
    remote: ObjectStore, ours: FeatureStore, tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    part, change, reason = DAMAGE[what]
    parsed: list[str] = []
    real = shard_files.inspect_shard

    def inspect(path: Path, key: str) -> shard_files.ShardLayout:
        parsed.extend([] if tmp_path / "ours" in path.parents else [path.stem])
        return real(path, key)

    monkeypatch.setattr(shard_files, "inspect_shard", inspect)
    name, ids = ours.names()[1], ours.ids(ours.names())
    path = tmp_path / "remote" / getattr(bucket.parts_of(ours.key, name), part)
    changed = change(path.read_bytes())
    path.unlink()
    if changed is not None:
        path.write_bytes(changed)
    theirs = new_store(tmp_path / "theirs")
    taken = taken_of(remote, theirs, ids)
    ((told, why),) = taken.refused
    assert (told.startswith(f"v1/features/{ours.key}/"), name in told, reason in why) == (True, True, True), (told, why)
    assert sorted(theirs.missing(ids)) == sorted(ours.ids([name]))
    assert name not in theirs.names()
    assert (name in parsed) == (what == "record of another")  # libhdf5 sees no byte before the digest is right
    assert list((tmp_path / "theirs").rglob(f"*{name}*")) == []
    if part == "rows":  # a push of the same content heals what has another size, and what is gone
        assert push_all(remote, ours).shards == int(len(changed or b"") != len(ours.path(name).read_bytes()))


def test_without_a_record_it_is_being_pushed_and_not_told(
    remote: ObjectStore, ours: FeatureStore, tmp_path: Path
) -> None:
    (tmp_path / "remote" / bucket.parts_of(ours.key, ours.names()[0]).record).unlink()
    taken = taken_of(remote, new_store(tmp_path / "theirs"), ours.ids(ours.names()))
    assert (taken.shards, taken.refused) == (4, [])


def test_rows_of_another_dtype_than_the_key_s_are_refused(remote: ObjectStore, tmp_path: Path) -> None:
    """Somebody who may write can put any rows under a key, but not those that would stop a run."""
    store = new_store(tmp_path / "ours")
    about = {"engine": "fake", "device": "none", "versions": {}, "seconds": 0.1}
    store.put(["a" * 64], np.ones((1, 8), np.float16), about)
    push_all(remote, store)
    taken = taken_of(remote, new_store(tmp_path / "theirs"), ["a" * 64])
    assert taken.shards == 0
    assert "their key is of float32" in taken.refused[0][1]


def test_rows_of_another_engine_are_marked_unchecked(remote: ObjectStore, ours: FeatureStore, tmp_path: Path) -> None:
    """As after an import: the next run that has images of both compares them."""
    theirs = new_store(tmp_path / "theirs")
    theirs.put(["f" * 64], np.ones((1, 8), np.float32), {"engine": "other", "device": "none", "versions": {}})
    taken_of(remote, theirs, ours.ids(ours.names()))
    assert sorted(json.loads(p.read_text()).get("unchecked", False) for p in theirs.folder.glob("shards/*.json")) == [
        False, *[True] * 5,
    ]  # fmt: skip


def test_a_manifest_comes_whole_or_not_at_all(remote: ObjectStore, tmp_path: Path) -> None:
    pusher, cache = Pusher(remote, Pushed()), new_store(tmp_path / "theirs").cache
    digest = pusher.push_manifest(b'{"id": "x", "path": "x.png"}\n')
    assert pull.pull_manifest(remote, cache, digest).read_bytes() == b'{"id": "x", "path": "x.png"}\n'
    (tmp_path / "remote" / bucket.manifest_name(digest)).write_bytes(b"other")
    with pytest.raises(ValueError, match="not its name"):
        pull.pull_manifest(remote, cache, digest)
