"""gc.py: what nobody needs goes, oldest first; what is needed, or may still be in the making, stays."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest

from cache import gc, records
from cache.gc import Entry
from cache.hash_index import HashIndex
from cache.store import Cache, FeatureStore
from tests.support import crash
from tests.support.promises import name

DAY = 86_400.0


def cache_at(root: Path) -> Cache:
    return Cache(root, HashIndex())


def filled(root: Path, scale: float, numbers: tuple[int, ...] = (1, 2)) -> FeatureStore:
    store = cache_at(root).features({"scale": scale})
    store.put([name(i) for i in numbers], np.ones((len(numbers), 3), np.float32), {})
    return store


def age(path: Path, days: float) -> None:
    when = time.time() - days * DAY
    os.utime(path, (when, when))


def entry(label: str, size: int, used: float, kind: str = "features") -> Entry:
    return Entry(kind, label, Path(label), 0, size, used)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("older_than", "max_bytes", "needed", "going"),
    [
        (None, None, set(), []),
        (50, None, set(), ["oldest", "old"]),
        (50, None, {"old"}, ["oldest"]),
        (None, 30, set(), []),
        (None, 29, set(), ["oldest"]),
        (None, 10, set(), ["oldest", "old"]),
        (None, 10, {"oldest"}, ["old", "new"]),
        (None, 0, {"old", "new", "oldest"}, []),
        (85, 15, set(), ["oldest", "old"]),
    ],
)
def test_what_goes(older_than: float | None, max_bytes: int | None, needed: set[str], going: list[str]) -> None:
    found = [entry("new", 10, 90), entry("oldest", 10, 10), entry("old", 10, 40)]
    assert [e.name for e in gc.choose_surplus(found, needed, older_than, max_bytes, now=100)] == going


def test_a_leftover_goes_when_it_is_a_day_old_and_never_sooner() -> None:
    found = [entry("young", 5, 10 * DAY - DAY / 2, "leftover"), entry("old", 5, 8 * DAY, "leftover")]
    assert [e.name for e in gc.choose_surplus(found, set(), 0, 0, now=10 * DAY)] == ["old"]


def test_what_is_whole_stays_however_old_it_is_unless_asked_for() -> None:
    assert (
        gc.choose_surplus([entry("old", 5, 0), entry("bad", 5, 0, "quarantine")], set(), None, None, now=100 * DAY)
        == []
    )


def test_a_manifest_goes_with_what_is_noted_of_it(tmp_path: Path) -> None:
    name = cache_at(tmp_path).put_named("manifests", b"x", ".jsonl")
    (tmp_path / "manifests" / f"{name}.json").write_text("{}")
    (tmp_path / "quarantine").mkdir()
    (tmp_path / "quarantine" / "bad.h5.1").write_bytes(b"bad")
    assert len(list(gc.remove_entries(gc.list_entries(cache_at(tmp_path)), set))) == 2
    assert list((tmp_path / "manifests").iterdir()) == list((tmp_path / "quarantine").iterdir()) == []


def test_a_converted_model_goes_with_its_folder(tmp_path: Path) -> None:
    """Earlier versions stored models in the cache."""
    folder = tmp_path / "converted" / ("ab" * 32)
    records.publish_folder(folder, {"model.xml": b"<net/>", "model.bin": b"weights"}, {"key": folder.name})
    assert [e.kind for e in gc.remove_entries(gc.list_entries(cache_at(tmp_path)), set)] == ["converted"]
    assert list((tmp_path / "converted").iterdir()) == []


def test_entries_count_rows_and_all_bytes(tmp_path: Path) -> None:
    store = filled(tmp_path, 0.1)
    manifest = cache_at(tmp_path).put_named("manifests", b"{}\n", ".jsonl")
    (store.folder / "shards" / f"{'ab' * 32}.h5").write_bytes(b"without a record")
    (store.folder / "shards" / ".x.h5.host-1.tmp").write_bytes(b"temp")
    (tmp_path / "quarantine").mkdir()
    (tmp_path / "quarantine" / "bad.h5.1").write_bytes(b"bad")
    found = {(e.kind, e.name): e for e in gc.list_entries(cache_at(tmp_path))}
    rows = found.pop(("features", store.key))
    whole = [p for p in store.folder.rglob("*") if p.is_file() and p.stem != "ab" * 32 and p.suffix != ".tmp"]
    assert (rows.rows, rows.bytes) == (2, sum(p.stat().st_size for p in whole))
    assert {key: e.bytes for key, e in found.items()} == {
        ("manifest", manifest): 3,
        ("leftover", f"{'ab' * 32}.h5"): 16,
        ("leftover", ".x.h5.host-1.tmp"): 4,
        ("quarantine", "bad.h5.1"): 3,
    }


def test_what_is_removed_is_gone_and_the_rest_is_whole(tmp_path: Path) -> None:
    gone, kept = filled(tmp_path, 0.1), filled(tmp_path, 0.2)
    going = [e for e in gc.list_entries(cache_at(tmp_path)) if e.name == gone.key]
    assert list(gc.remove_entries(going, set)) == going
    assert not gone.folder.exists()
    assert cache_at(tmp_path).features(gone.components).missing([name(1)]) == [name(1)]
    assert cache_at(tmp_path).features(kept.components).missing([name(1), name(2)]) == []
    filled(tmp_path, 0.1)
    assert cache_at(tmp_path).features(gone.components).missing([name(1)]) == []


def test_what_a_job_comes_to_need_meanwhile_stays(tmp_path: Path) -> None:
    store = filled(tmp_path, 0.1)
    assert list(gc.remove_entries(gc.list_entries(cache_at(tmp_path)), lambda: {store.key})) == []
    assert cache_at(tmp_path).features(store.components).missing([name(1)]) == []


def test_rows_that_come_while_their_key_is_removed_are_served(tmp_path: Path) -> None:
    store = filled(tmp_path / "0", 0.1)
    with crash.standing(crash.Shim()) as shim:
        list(gc.remove_entries(gc.list_entries(cache_at(tmp_path / "0")), set))
    for at in range(1, shim.count):  # before the first operation, what comes is what goes
        store = filled(tmp_path / str(at), 0.1)
        going = gc.list_entries(cache_at(store.cache.root))
        with crash.standing(crash.Shim(crash.meanwhile_at(at, lambda: filled(tmp_path / str(at), 0.1, (8, 9))))):  # noqa: B023
            list(gc.remove_entries(going, set))
        rows = cache_at(store.cache.root).features(store.components).read([name(8), name(9)])
        assert np.array_equal(rows, np.ones((2, 3)))


def test_a_leftover_that_has_come_to_count_stays(tmp_path: Path) -> None:
    store = filled(tmp_path, 0.1)
    (shard,) = store.names()
    record = store.record_path(shard).read_bytes()
    store.record_path(shard).unlink()
    going = [e for e in gc.list_entries(cache_at(tmp_path)) if e.kind == "leftover"]
    assert [e.path for e in going] == [store.path(shard)]
    assert list(gc.remove_entries(going, lambda: {store.key})) == []
    store.record_path(shard).write_bytes(record)
    list(gc.remove_entries(going, set))
    assert cache_at(tmp_path).features(store.components).missing([name(1), name(2)]) == []


def test_the_last_use_is_noted_once_an_hour(tmp_path: Path) -> None:
    store = filled(tmp_path, 0.1)
    spec = store.folder / "spec.json"
    age(spec, 0.01)
    before = spec.stat().st_mtime
    store.note_use()
    assert spec.stat().st_mtime == before
    age(spec, 0.5)
    store.note_use()
    assert spec.stat().st_mtime > before


def test_a_manifest_in_use_again_is_young_again(tmp_path: Path) -> None:
    cache = cache_at(tmp_path)
    path = tmp_path / "manifests" / f"{cache.put_named('manifests', b'x', '.jsonl')}.jsonl"
    age(path, 3)
    cache.put_named("manifests", b"x", ".jsonl")
    assert time.time() - path.stat().st_mtime < DAY
