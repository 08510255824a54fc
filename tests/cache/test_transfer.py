"""transfer.py: rows come over as they are, or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cache import transfer
from cache.store import Cache, FeatureStore
from cache.transfer import Copied
from tests.support.promises import check_served, name, put, store_of


def taken(source: FeatureStore, target: Path) -> Copied:
    found, steps = Copied(), []
    transfer.copy_shards(source, store_of(target, "vectors").cache, source.names(), found, steps.append)
    assert steps == [1] * len(source.names())
    return found


@pytest.fixture
def source(tmp_path: Path) -> FeatureStore:
    store = store_of(tmp_path / "source", "vectors")
    put(store, "vectors", (1, 2))
    put(store, "vectors", (3,))
    return store


def test_rows_and_records_come_over_byte_for_byte(source: FeatureStore, tmp_path: Path) -> None:
    found = taken(source, tmp_path / "target")
    assert (found.shards, found.rows, found.there, found.refused) == (2, 3, 0, [])
    target = store_of(tmp_path / "target", "vectors")
    for shard in source.names():
        for path in (source.path(shard), source.record_path(shard)):
            assert (target.folder / "shards" / path.name).read_bytes() == path.read_bytes()
    assert found.bytes == sum(source.path(shard).stat().st_size for shard in source.names())
    check_served(tmp_path / "target", [("vectors", i) for i in (1, 2, 3)])


def test_what_is_there_stays_and_what_is_damaged_there_is_mended(source: FeatureStore, tmp_path: Path) -> None:
    taken(source, tmp_path / "target")
    first, second = source.names()
    target = store_of(tmp_path / "target", "vectors")
    target.path(first).write_bytes(b"other")
    before = target.path(second).stat().st_ino
    found = taken(source, tmp_path / "target")
    assert (found.shards, found.there) == (1, 1)
    assert target.path(second).stat().st_ino == before
    check_served(tmp_path / "target", [("vectors", i) for i in (1, 2, 3)])


@pytest.mark.parametrize("what", ["shard", "record", "shard gone", "record tells of another"])
def test_what_is_not_what_its_name_says_is_refused_and_left_where_it_is(
    source: FeatureStore, tmp_path: Path, what: str
) -> None:
    first, second = source.names()
    path = source.path(first) if what.startswith("shard") else source.record_path(first)
    data = path.read_bytes()
    damaged = {"shard": data[:-1] + b"?", "record": data[:-2], "record tells of another": data.replace(b"4", b"5")}
    path.write_bytes(damaged.get(what, b""))
    if what == "shard gone":
        path.unlink()
    found = taken(source, tmp_path / "target")
    assert (found.shards, [refused for refused, _ in found.refused]) == (1, [str(source.path(first))])
    assert store_of(tmp_path / "target", "vectors").names() == [second]
    assert not (tmp_path / "source" / "quarantine").exists()


def test_what_gc_took_meanwhile_is_passed_over(source: FeatureStore, tmp_path: Path) -> None:
    found = Copied()
    transfer.copy_shards(source, store_of(tmp_path / "target", "vectors").cache, [name(9)], found, lambda n: None)
    assert found == Copied()


def test_what_gc_takes_while_it_is_read_is_refused(
    source: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FeatureStore, "check", lambda store, shard: None)
    assert [reason for _, reason in taken(source, tmp_path / "target").refused] == ["its record is missing"] * 2


def test_what_changes_while_it_is_read_is_refused(
    source: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = FeatureStore.check

    def then_spoil(store: FeatureStore, shard: str) -> bool:
        found = check(store, shard)
        if store.folder == source.folder:
            store.path(shard).write_bytes(b"other")
        return found

    monkeypatch.setattr(FeatureStore, "check", then_spoil)
    assert [reason for _, reason in taken(source, tmp_path / "target").refused] == ["it changed while it was read"] * 2


def test_files_named_by_their_bytes_are_compared_with_their_names(tmp_path: Path) -> None:
    one, two = (store_of(tmp_path / which, "vectors").cache for which in ("one", "two"))
    good, bad = (one.put_named("manifests", data, ".jsonl") for data in (b"good", b"bad"))
    (one.root / "manifests" / f"{bad}.jsonl").write_bytes(b"worse")
    (one.root / "manifests" / "notes.jsonl").write_bytes(b"somebody's")
    found = Copied()
    assert transfer.copy_named(one, two, "manifests", ".jsonl", found) == [good]
    assert [path for path, _ in found.refused] == [str(one.root / "manifests" / f"{bad}.jsonl")]
    assert [path.read_bytes() for path in (two.root / "manifests").iterdir()] == [b"good"]


def test_a_store_that_is_read_tells_of_its_components(source: FeatureStore, tmp_path: Path) -> None:
    (found,) = Cache(tmp_path / "source", source.cache.index).stores()
    assert (found.key, found.components) == (source.key, source.components)
    (source.folder / "spec.json").write_text(json.dumps({**source.components, "scale": 9}))
    (found,) = Cache(tmp_path / "source", source.cache.index).stores()
    assert (found.key, found.components) == (source.key, {})
    assert np.array_equal(found.read([name(1)]), source.read([name(1)]))
