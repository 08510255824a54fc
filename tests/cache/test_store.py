"""store.py: a row is absent or complete, and right, whatever happened to the folder in between."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import pickle
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from cache import atomic_files, gc, shards
from cache.errors import NotAvailable, Unusable
from cache.hash_index import HashIndex
from cache.store import Cache, FeatureStore
from tests.support import crash

pytestmark = pytest.mark.forks

COMPONENTS = {"base": "fake", "scale": 0.1}


def name(i: int) -> str:
    return hashlib.sha256(i.to_bytes(4, "big")).hexdigest()


def row(i: int) -> np.ndarray:
    return np.array([i, i + 0.5, -i], np.float32)


def rows(numbers: list[int]) -> tuple[list[str], np.ndarray]:
    return [name(i) for i in numbers], np.stack([row(i) for i in numbers])


def put(store: FeatureStore, numbers: list[int]) -> str:
    return store.put(*rows(numbers), {"engine": "fake"})


def opened(root: Path) -> FeatureStore:
    return Cache(root, HashIndex()).features(COMPONENTS)


def test_rows_come_in_the_order_asked(tmp_path: Path) -> None:
    store = opened(tmp_path)
    put(store, [3, 1])
    put(store, [2, 0])
    found = opened(tmp_path).read([name(i) for i in (0, 1, 2, 3, 1)])
    assert np.array_equal(found, np.stack([row(i) for i in (0, 1, 2, 3, 1)]))


@pytest.mark.parametrize("maps", [False, True])
def test_rows_that_are_found_are_read_slice_by_slice(tmp_path: Path, maps: bool) -> None:
    """Compressed maps and plain vectors, each row by itself, whatever shard it lies in."""
    store = opened(tmp_path)
    values = np.arange(12, dtype=np.float32).reshape(12, 1) * np.ones(512 if maps else 3, np.float32)
    values = values.reshape(12, 8, 64) if maps else values
    store.put([name(i) for i in range(7)], values[:7], {})
    store.put([name(i) for i in range(7, 12)], values[7:], {})
    order = [3, 8, 1, 11, 3, 0]
    found = pickle.loads(pickle.dumps(opened(tmp_path).rows([name(i) for i in order])))
    assert (found.shape, found.dtype, len(found)) == ((6, *values.shape[1:]), np.float32, 6)
    for part in (slice(None), slice(1, 4), slice(5, None), slice(2, 2)):
        assert np.array_equal(found[part], values[order][part])
    assert np.array_equal(found[1:4, 0:2], values[order][1:4, 0:2])


def test_a_shard_that_went_after_its_rows_were_found_is_said_to_be_gone(tmp_path: Path) -> None:
    store = opened(tmp_path)
    shard = put(store, [1])
    found = store.rows([name(1)])
    store.path(shard).unlink()
    with pytest.raises(NotAvailable, match=f"{shard}.h5 was removed after"):
        found[:]


def test_missing_keeps_order_and_names_each_once(tmp_path: Path) -> None:
    store = opened(tmp_path)
    put(store, [1])
    assert store.missing([name(2), name(1), name(0), name(2)]) == [name(2), name(0)]


def test_reading_an_absent_row_names_it(tmp_path: Path) -> None:
    store = opened(tmp_path)
    put(store, [1])
    with pytest.raises(NotAvailable, match=f"1 of 2 rows are not in the cache .* image {name(9)[:12]}"):
        store.read([name(1), name(9)])


def test_the_key_s_components_lie_readable_beside_the_shards(tmp_path: Path) -> None:
    store = opened(tmp_path)
    put(store, [1])
    assert json.loads((tmp_path / "features" / store.key / "spec.json").read_text()) == COMPONENTS


def test_other_components_are_another_store(tmp_path: Path) -> None:
    put(opened(tmp_path), [1])
    other = Cache(tmp_path, HashIndex()).features({**COMPONENTS, "scale": 0.2})
    assert other.missing([name(1)]) == [name(1)]


def test_the_same_rows_again_change_no_file(tmp_path: Path) -> None:
    put(opened(tmp_path), [1, 2])
    before = {p: (p.stat().st_mtime_ns, p.stat().st_ino) for p in tmp_path.rglob("*")}
    put(opened(tmp_path), [1, 2])
    assert {p: (p.stat().st_mtime_ns, p.stat().st_ino) for p in tmp_path.rglob("*")} == before


def test_a_row_in_two_shards_is_served_from_the_smaller_name(tmp_path: Path) -> None:
    names = []
    for value in (1.0, 2.0):
        names.append(opened(tmp_path).put([name(0)], np.full((1, 3), value, np.float32), {}))
    expected = 1.0 if names[0] < names[1] else 2.0
    assert opened(tmp_path).read([name(0)])[0, 0] == expected


def test_a_shard_without_its_record_does_not_exist(tmp_path: Path) -> None:
    store = opened(tmp_path)
    shard = put(store, [1])
    (store.folder / "shards" / f"{shard}.json").unlink()
    assert opened(tmp_path).missing([name(1)]) == [name(1)]
    put(opened(tmp_path), [1])
    assert opened(tmp_path).missing([name(1)]) == []


@pytest.mark.parametrize("where", ["shard", "record"])
def test_a_damaged_file_is_set_aside_and_only_its_rows_are_missing(
    tmp_path: Path, where: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = opened(tmp_path)
    bad = put(store, [1, 2])
    put(store, [3])
    path = store.folder / "shards" / (f"{bad}.h5" if where == "shard" else f"{bad}.json")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data if where == "shard" else data[: len(data) // 2])
    with caplog.at_level(logging.WARNING):
        assert opened(tmp_path).missing([name(1), name(2), name(3)]) == [name(1), name(2)]
    assert len(caplog.records) == 1
    assert len(list((tmp_path / "quarantine").iterdir())) == 2
    assert f"1 shard of {store.key[:12]} damaged or missing (first: {bad[:12]}: " in caplog.text
    put(opened(tmp_path), [1, 2])
    assert np.array_equal(opened(tmp_path).read([name(2), name(3)]), np.stack([row(2), row(3)]))


def test_a_shard_that_is_gone_is_missing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = opened(tmp_path)
    shard = put(store, [1])
    (store.folder / "shards" / f"{shard}.h5").unlink()
    assert opened(tmp_path).missing([name(1)]) == [name(1)]
    assert f"(first: {shard[:12]}: it is missing); moved to {tmp_path}/quarantine; their rows" in caplog.text


def test_many_damaged_shards_are_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = opened(tmp_path)
    bad = sorted(put(store, [i]) for i in range(3))
    for shard in bad:
        (store.folder / "shards" / f"{shard}.h5").write_bytes(b"")
    assert len(opened(tmp_path).missing([name(i) for i in range(3)])) == 3
    assert [record.getMessage() for record in caplog.records] == [
        f"3 shards of {store.key[:12]} damaged or missing (first: {bad[0][:12]}: its SHA-256 is not its "
        f"name); moved to {tmp_path}/quarantine; their rows are computed again"
    ]


def test_what_another_process_set_aside_is_missing_here_too(tmp_path: Path) -> None:
    store = opened(tmp_path)
    shard = put(store, [1])
    assert store.missing([name(1)]) == []
    (store.folder / "shards" / f"{shard}.h5").write_bytes(b"")
    assert opened(tmp_path).missing([name(1)]) == [name(1)]
    assert store.missing([name(1)]) == [name(1)]


@pytest.mark.parametrize("field", ["schema", "key", "sha256", "rows", "bytes", "shape", "dtype"])
def test_a_record_that_tells_of_another_shard_does_not_count_and_put_mends_it(tmp_path: Path, field: str) -> None:
    store = opened(tmp_path)
    path = store.folder / "shards" / f"{put(store, [1])}.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), field: "other"}))
    put(opened(tmp_path), [1])
    assert np.array_equal(opened(tmp_path).read([name(1)]), [row(1)])
    (aside,) = (tmp_path / "quarantine").iterdir()
    assert json.loads(aside.read_bytes())[field] == "other"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), field: "other"}))
    assert opened(tmp_path).missing([name(1)]) == [name(1)]


def test_put_sets_aside_a_file_of_its_name_with_other_bytes(tmp_path: Path) -> None:
    store = opened(tmp_path)
    shard = put(store, [1])
    (store.folder / "shards" / f"{shard}.h5").write_bytes(b"other")
    put(opened(tmp_path), [1])
    assert np.array_equal(opened(tmp_path).read([name(1)]), [row(1)])
    assert [path.read_bytes() for path in (tmp_path / "quarantine").iterdir()] == [b"other"]


@pytest.mark.parametrize("content", ["", "{}", '{"base": "fake", "scale": 0.2}', '{"base": "fake", "scale": 1e999}'])
def test_a_spec_that_is_not_the_key_s_is_written_again(tmp_path: Path, content: str) -> None:
    store = opened(tmp_path)
    put(store, [1])
    (store.folder / "spec.json").write_text(content)
    opened(tmp_path).prepare()
    assert json.loads((store.folder / "spec.json").read_text()) == COMPONENTS


def test_the_records_tell_who_made_the_rows(tmp_path: Path) -> None:
    store = opened(tmp_path)
    both = [store.put(*rows([i]), {"engine": f"fake {i}", "rows": "many"}) for i in (1, 2)]
    assert opened(tmp_path).missing([name(1), name(2)]) == []  # what a record must say is not theirs to change
    assert [record["engine"] for record in store.shard_records(store.serving([name(2), name(3)]))] == ["fake 2"]
    assert [record["sha256"] for record in store.shard_records()] == sorted(both)
    (store.folder / "shards" / f"{both[0]}.json").unlink()
    assert [record["engine"] for record in store.shard_records(both)] == ["fake 2"]


def test_a_shard_is_checked_anew_and_said_to_be_whole_without_a_record_or_damaged(tmp_path: Path) -> None:
    store = opened(tmp_path)
    whole, bare, damaged = (put(store, [i]) for i in (1, 2, 3))
    store.record_path(bare).unlink()
    store.path(damaged).write_bytes(store.path(damaged).read_bytes()[:-1])
    assert [store.check(shard) is not None for shard in (whole, bare)] == [True, False]
    with pytest.raises(shards.BadShard, match="its SHA-256 is not its name"):
        store.check(damaged)


def test_what_is_named_by_its_bytes_is_compared_with_its_name(tmp_path: Path) -> None:
    cache = Cache(tmp_path, HashIndex())
    good, bad = (cache.put_named("manifests", data, ".jsonl") for data in (b"good", b"bad"))
    path = tmp_path / "manifests" / f"{bad}.jsonl"
    path.write_bytes(b"worse")
    assert cache.check_named("manifests", ".jsonl") == [(str(path), "its SHA-256 is not its name")]
    assert [path.stem for path in (tmp_path / "manifests").iterdir()] == [good]
    assert [path.read_bytes() for path in (tmp_path / "quarantine").iterdir()] == [b"worse"]
    assert cache.check_named("manifests", ".jsonl") == []


def test_a_cache_is_nobody_s_source(tmp_path: Path) -> None:
    put(opened(tmp_path), [1])
    assert (tmp_path / ".gitignore").read_text() == "*\n"


@pytest.mark.parametrize("content", ["", "[]", '{"format": 0}', '{"fosmat": 1}'])
def test_a_damaged_marker_is_written_again(tmp_path: Path, content: str) -> None:
    put(opened(tmp_path), [1])
    marker = (tmp_path / "CACHE.json").read_text()
    (tmp_path / "CACHE.json").write_text(content)
    opened(tmp_path).prepare()
    assert (tmp_path / "CACHE.json").read_text() == marker


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    put(opened(tmp_path), [1])
    (tmp_path / "CACHE.json").write_text('{"format": 2}')
    with pytest.raises(Unusable, match="cache format 2; this version reads format 1"):
        opened(tmp_path)


def test_looking_creates_nothing(tmp_path: Path) -> None:
    root = tmp_path / "cache"
    assert opened(root).missing([name(1)]) == [name(1)]
    assert not root.exists()


SOME_ROWS = st.lists(st.integers(0, 30), min_size=1, max_size=8, unique=True)


class StoreAgainstDict(RuleBasedStateMachine):
    """Puts of any order, reopening, damage, kills, races and gc, against a dict of what every shard holds."""

    @initialize()
    def start(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.root = Path(self.folder.name)
        self.shards: dict[str, list[int]] = {}
        self.store = opened(self.root)

    @rule(numbers=SOME_ROWS)
    def put(self, numbers: list[int]) -> None:
        self.shards[put(self.store, numbers)] = numbers

    @rule()
    def reopen(self) -> None:
        self.store = opened(self.root)

    @rule(numbers=SOME_ROWS, at=st.integers(0, 40))
    def kill(self, numbers: list[int], at: int) -> None:
        """A put dies at one of its operations: its shard is there if its record is."""
        with crash.standing(crash.Shim(crash.dead_from(at))):
            crash.dies(put, self.store, numbers)
        self.store = opened(self.root)
        shard = hashlib.sha256(shards.build_shard(self.store.key, *rows(numbers))).hexdigest()
        if (self.store.folder / "shards" / f"{shard}.json").exists():
            self.shards[shard] = numbers

    @rule(numbers=SOME_ROWS, others=SOME_ROWS, at=st.integers(0, 40))
    def race(self, numbers: list[int], others: list[int], at: int) -> None:
        """Another process puts its rows, and has put the same, before one operation of this one."""

        def other() -> None:
            store = opened(self.root)
            self.shards[put(store, others)] = others
            self.shards[put(store, numbers)] = numbers

        with crash.standing(crash.Shim(crash.meanwhile_at(at, other))):
            self.shards[put(self.store, numbers)] = numbers

    @rule(max_bytes=st.integers(0, 10**6), killed_at=st.integers(0, 12))
    def gc(self, max_bytes: int, killed_at: int) -> None:
        """All rows of the key go, as nobody needs them, or none; a gc that dies on the way has taken some."""
        cache = Cache(self.root, HashIndex())
        going = gc.choose_surplus(gc.list_entries(cache), (), None, max_bytes, time.time())
        with crash.standing(crash.Shim(crash.dead_from(killed_at))):
            crash.dies(lambda: list(gc.remove_entries(going, set)))
        self.store = opened(self.root)
        left = {path.stem for path in self.store.folder.glob("shards/*.json")}
        assert left == set(self.shards) or self.store.key in {entry.name for entry in going}
        self.shards = {shard: numbers for shard, numbers in self.shards.items() if shard in left}

    @rule(data=st.data(), flip=st.integers(0, 10**9), what=st.sampled_from(["flip", "truncate", "remove", "record"]))
    def damage(self, data: st.DataObject, flip: int, what: str) -> None:
        if not self.shards:
            return
        shard = data.draw(st.sampled_from(sorted(self.shards)))
        path = self.store.folder / "shards" / f"{shard}.{'json' if what == 'record' else 'h5'}"
        content = bytearray(path.read_bytes())
        if what == "flip":
            content[flip % len(content)] ^= 1 + flip % 255
        path.unlink()
        if what in ("flip", "truncate"):
            path.write_bytes(content if what == "flip" else content[: flip % len(content)])
        del self.shards[shard]
        self.store = opened(self.root)

    @invariant()
    def rows_are_those_of_the_dict(self) -> None:
        if not hasattr(self, "store"):
            return
        there = {i for numbers in self.shards.values() for i in numbers}
        everything = [name(i) for i in range(31)]
        assert self.store.missing(everything) == [name(i) for i in range(31) if i not in there]
        if there:
            ids, expected = rows(sorted(there))
            assert np.array_equal(self.store.read(ids), expected)

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.folder.cleanup()


TestStoreAgainstDict: Any = StoreAgainstDict.TestCase
TestStoreAgainstDict.settings = settings.get_profile("durability")


def test_a_named_file_that_vanishes_or_cannot_be_read_does_not_stop_the_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = Cache(tmp_path, HashIndex())
    first, second, third = sorted(cache.put_named("manifests", data, ".jsonl") for data in (b"1", b"2", b"3"))
    folder = tmp_path / "manifests"
    (folder / f"{second}.jsonl").unlink()
    os.mkfifo(folder / f"{second}.jsonl")
    (folder / f"{third}.jsonl").write_bytes(b"other")
    real = atomic_files.sha256_of

    def vanish(path: Path) -> str:
        if path.stem == first:
            path.unlink(missing_ok=True)
        return real(path)

    monkeypatch.setattr(atomic_files, "sha256_of", vanish)
    assert cache.check_named("manifests", ".jsonl") == [
        (str(folder / f"{second}.jsonl"), "cannot be read: it is not a regular file"),
        (str(folder / f"{third}.jsonl"), "its SHA-256 is not its name"),
    ]


def test_the_images_of_some_shards_are_named_and_a_record_is_replaced(tmp_path: Path) -> None:
    store = Cache(tmp_path, HashIndex()).features(COMPONENTS)
    rows = np.ones((2, 3), np.float32)
    first, second = store.put([name(0), name(1)], rows, {}), store.put([name(2), name(3)], 2 * rows, {})
    assert sorted(store.ids([first])) == sorted([name(0), name(1)])
    assert sorted(store.ids([first, second])) == sorted(map(name, range(4)))
    assert store.ids([]) == []
    (record,) = store.shard_records([second])
    store.rewrite_record({**record, "engine": "another"})
    assert [found["engine"] for found in store.shard_records([second])] == ["another"]
    assert store.missing([name(2), name(3)]) == []
