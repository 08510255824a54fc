"""gc.py: what nobody needs goes, oldest first; what is needed, or may still be in the making, stays.

Small shards become few, and each row stays what it is, whoever reads, writes or dies meanwhile.
"""

from __future__ import annotations

import itertools
import os
import random
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cache import gc, records
from cache.errors import Damaged, NotAvailable
from cache.gc import Entry
from cache.hash_index import HashIndex
from cache.store import Cache, FeatureStore
from tests.support import crash, promises
from tests.support.disk import Disk, write_tree
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


LARGE = 1 << 20
"""Bytes of a shard that a run would write; all that these tests write are smaller."""

TWICE = ((4, 5), (0, 1), (5, 6), (1, 2), (2, 3))
"""Puts in which some rows come twice; those of every other put are another GPU's."""


def crumbs(root: Path, kind: str = "vectors") -> FeatureStore:
    """A store of many small shards."""
    for number, numbers in enumerate(TWICE):
        store = promises.store_of(root, kind)
        rows = np.stack([promises.row(kind, i) for i in numbers]) + np.float32(number % 2 * promises.NOISE)
        store.put([name(i) for i in numbers], rows, {"engine": "fake", "seconds": 0.5, "written": number})
    return promises.store_of(root, kind)


def served(root: Path, kind: str = "vectors", numbers: range = range(7)) -> bytes:
    return promises.store_of(root, kind).read([name(i) for i in numbers]).tobytes()


def merged(root: Path, kind: str = "vectors", most: int = LARGE) -> list[str]:
    merge = gc.plan_merge(promises.store_of(root, kind), most)
    return [] if merge is None else gc.merge_shards(merge)


@pytest.mark.parametrize("kind", ["vectors", "maps"])
def test_small_shards_become_one_and_rows_stay_to_the_bit(tmp_path: Path, kind: str) -> None:
    store = crumbs(tmp_path, kind)
    before, old = served(tmp_path, kind), store.names()
    (new,) = merged(tmp_path, kind)
    assert store.names() == [new]
    assert served(tmp_path, kind) == before
    (record,) = store.shard_records()
    assert (record["rows"], record["engine"], record["seconds"], record["written"]) == (7, "fake", 1.75, 4)
    assert gc.plan_merge(store, LARGE) is None
    assert len(old) == len(TWICE)


def test_rows_of_one_shard_are_in_the_order_in_which_they_came(tmp_path: Path) -> None:
    for when, number in enumerate((3, 1, 2)):
        store = promises.store_of(tmp_path, "vectors")
        record = store.record_path(promises.put(store, "vectors", (number,)))
        os.utime(record, (when, when))
    (new,) = merged(tmp_path)
    assert promises.store_of(tmp_path, "vectors").layouts()[new].ids == (name(3), name(1), name(2))


def test_shards_are_filled_and_no_further(tmp_path: Path) -> None:
    store = promises.store_of(tmp_path, "vectors")
    for i in range(10):
        promises.put(store, "vectors", (i,))
    row = promises.row("vectors", 0).nbytes
    merged(tmp_path, most=4 * row)
    assert sorted(len(layout.ids) for layout in store.layouts().values()) == [2, 4, 4]
    assert merged(tmp_path, most=4 * row) == []  # those of 2 to 4 rows are no smaller than half


def test_a_large_shard_stays_as_it_is(tmp_path: Path) -> None:
    store = promises.store_of(tmp_path, "vectors")
    large = promises.put(store, "vectors", (0, 1, 2))
    for i in (3, 4):
        promises.put(store, "vectors", (i,))
    merged(tmp_path, most=6 * promises.row("vectors", 0).nbytes)
    assert (large in store.names(), len(store.names())) == (True, 2)


@pytest.mark.parametrize("number", range(4))
def test_a_large_shard_that_shares_a_row_with_a_small_one_comes_along(tmp_path: Path, number: int) -> None:
    """Else the new name, and not the old one, would decide which copy of the row is served."""
    store = promises.store_of(tmp_path, "vectors")
    large = promises.put(store, "vectors", (0, 1, 2, number + 4))
    for numbers in ((2, 3), (number + 8,)):
        promises.put(store, "vectors", numbers, promises.NOISE)
    ids = [name(i) for i in (0, 1, 2, 3, number + 4, number + 8)]
    before = store.read(ids).tobytes()
    merged(tmp_path, most=7 * promises.row("vectors", 0).nbytes)
    assert large not in store.names()
    assert promises.store_of(tmp_path, "vectors").read(ids).tobytes() == before


def test_rows_of_another_maker_stay_apart(tmp_path: Path) -> None:
    store = filled(tmp_path, 0.1, (0, 1))
    for number, facts in enumerate([{"engine": "a"}, {"engine": "a"}, {"engine": "a", "unchecked": True}]):
        store.put([name(2 + number)], np.ones((1, 3), np.float32), {**facts, "written": number})
    (new,) = gc.merge_shards(gc.plan_merge(store, LARGE))  # type: ignore[arg-type]
    assert len(store.names()) == 3
    (record,) = store.shard_records([new])
    assert (record["rows"], record["engine"], record.get("unchecked"), "seconds" in record) == (2, "a", None, False)
    assert store.missing([name(i) for i in range(5)]) == []


def test_old_shards_are_read_for_a_day_by_who_has_found_rows_in_them(tmp_path: Path) -> None:
    store = crumbs(tmp_path)
    for path in store.folder.glob("shards/*.h5"):
        age(path, 30)
    reader, before = store.rows([name(i) for i in range(7)]), served(tmp_path)
    merged(tmp_path)
    cache = cache_at(tmp_path)
    for days, left in ((0.9, len(TWICE)), (1.1, 0)):
        found = gc.choose_surplus(gc.list_entries(cache), {store.key}, None, None, time.time() + days * DAY)
        list(gc.remove_entries(found, set))
        assert sum(not path.with_suffix(".json").exists() for path in store.folder.glob("shards/*.h5")) == left
        if left:
            assert reader[:].tobytes() == before
    with pytest.raises(NotAvailable, match="was removed after its rows were found"):
        reader[:]
    assert served(tmp_path) == before


def deaths(past: Path, place: Path) -> Iterator[Path]:
    """Copies of that cache after a merge that died before each of its operations."""
    count = crash.operations(merged, promises.copy_of(past, place))
    assert count > 20
    for k in range(count):
        root = promises.copy_of(past, place)
        with crash.standing(crash.Shim(crash.dead_from(k))):
            assert crash.dies(merged, root)
        yield root


def test_a_kill_at_any_operation_changes_no_row_and_the_next_merge_ends_it(
    fast_path: Path, tally: Counter[str]
) -> None:
    store = crumbs(fast_path / "past")
    before = served(fast_path / "past")
    for root in deaths(fast_path / "past", fast_path):
        assert served(root) == before
        merged(root)
        assert served(root) == before
        assert len(promises.store_of(root, "vectors").names()) == 1
        tally["merges of shards that died"] += 1
    assert len(store.names()) == len(TWICE)


def test_an_error_at_any_operation_removes_nothing_that_is_not_there_twice(fast_path: Path) -> None:
    crumbs(fast_path / "past")
    before = served(fast_path / "past")
    for k in range(crash.operations(merged, promises.copy_of(fast_path / "past", fast_path))):
        root = promises.copy_of(fast_path / "past", fast_path)
        with crash.standing(crash.Shim(crash.fails_at(k, 28))):
            assert crash.error_of(merged, root) == 28
        assert served(root) == before
        assert promises.temps(root) == []


def test_a_power_cut_takes_no_row(fast_path: Path, scale: float, tally: Counter[str]) -> None:
    """Unsynced removals come to the disk in any order, so that of two copies the other one may be left."""
    crumbs(fast_path / "past")
    root = promises.copy_of(fast_path / "past", fast_path)
    disk, most = Disk(root), max(2, round(64 * scale))
    with crash.standing(crash.Shim()) as shim:
        merged(root)
    for operation in shim.log:
        disk.apply(operation)
        for tree in itertools.islice(disk.states(random.Random(0)), most):
            write_tree(fast_path / "state", tree)
            promises.check_served(fast_path / "state", {("vectors", i) for i in range(7)}, (0, promises.NOISE))
            merged(fast_path / "state")
            promises.check_served(fast_path / "state", {("vectors", i) for i in range(7)}, (0, promises.NOISE))
            shutil.rmtree(fast_path / "state")
            tally["power cuts while shards were merged"] += 1


def others(kind: str, root: Path) -> Any:
    """What another process may do meanwhile."""
    store = promises.store_of(root, "vectors")
    if kind == "merge":
        return merged(root)
    if kind == "put the same":
        return crumbs(root)
    return promises.put(store, "vectors", (5, 8), promises.NOISE if kind == "put others' rows" else 0)


@pytest.mark.parametrize("kind", ["merge", "put", "put the same", "put others' rows"])
def test_any_other_process_at_any_operation(fast_path: Path, scale: float, tally: Counter[str], kind: str) -> None:
    """Nothing is lost; where the other one puts a row that is there, either copy is right."""
    crumbs(fast_path / "past")
    promised = {("vectors", i) for i in (*range(7), *((8,) if kind in ("put", "put others' rows") else ()))}
    count = crash.operations(merged, promises.copy_of(fast_path / "past", fast_path))
    for k in crash.spread(range(count), 5 * scale * count):
        root = promises.copy_of(fast_path / "past", fast_path)
        fate = crash.meanwhile_at(k, lambda root=root: others(kind, root))  # type: ignore[misc]
        with crash.standing(crash.Shim(fate)):
            error = None
            try:
                merged(root)
            except NotAvailable as gone:  # the other one has merged them
                error = gone
        assert error is None or kind == "merge"
        promises.check_served(root, promised, (0, promises.NOISE))
        merged(root)
        promises.check_served(root, promised, (0, promises.NOISE))
        assert len(promises.store_of(root, "vectors").names()) <= 2
        tally["merges of shards beside another process"] += 1


def test_a_damaged_row_gets_no_digest_of_its_own(tmp_path: Path) -> None:
    """The stat index may still believe a shard whose bytes have rotted."""
    store = crumbs(tmp_path)
    merge = gc.plan_merge(store, LARGE)
    assert merge is not None
    path = store.path(store.names()[2])
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(Damaged, match="SHA-256"):
        gc.merge_shards(merge)
    assert len(store.names()) == len(TWICE)
    path.unlink()
    store.record_path(path.stem).unlink()
    with pytest.raises(NotAvailable, match="removed meanwhile"):
        gc.merge_shards(merge)
    assert len(store.names()) == len(TWICE) - 1
