"""shards.py and transfer.py: a file that HDF5 can read, but that build_shard does not write, is refused in a sentence.

Its digest is right: a stranger names it in a record of their own.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import struct
import time
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from cache import records, shards, transfer
from cache.errors import Damaged
from cache.store import Cache, FeatureStore
from cache.transfer import Copied
from tests.support.promises import name, put, row, store_of

ROWS = np.arange(12, dtype="<f4").reshape(3, 4)
MAPS = np.zeros((3, 8, 8, 4), "<f4")
IDS = np.frombuffer(bytes.fromhex("".join(name(i) for i in range(3))), np.uint8).reshape(3, 32)
DEEP = json.loads("[" * 40 + "]" * 40)
Change = Callable[[Any], object]


def written(key: str, change: Change, features: np.ndarray = ROWS, compressed: bool = False) -> bytes:
    """A shard as build_shard writes it, made with h5py alone, and then changed."""
    options: dict[str, Any] = {}
    if compressed:
        options = {"chunks": (1, *features.shape[1:]), "compression": "gzip", "compression_opts": 4, "shuffle": True}
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", alignment_threshold=1024, alignment_interval=4096) as file:
        file.attrs.create("schema", 1, dtype="<i8")
        file.attrs.create("key", np.bytes_(key.encode()))
        file.create_dataset("ids", data=IDS[: len(features)])
        file.create_dataset("features", data=features, **options)
        change(file)
    return buffer.getvalue()


def publish(store: FeatureStore, data: bytes, of: tuple[int, ...] = ROWS.shape, **more: Any) -> str:
    """What a stranger lays down: the file under its right digest, and a record that fits it."""
    digest = hashlib.sha256(data).hexdigest()
    store.prepare()
    path = store.path(digest)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    facts = {"schema": 1, "key": store.key, "sha256": digest, "rows": of[0], "bytes": len(data)}
    record = {**facts, "shape": list(of[1:]), "dtype": "float32", "engine": "x", **more}
    store.record_path(digest).write_bytes(records.dump(record))
    return digest


def other(file: Any, dataset: str, **options: Any) -> None:
    del file[dataset]
    file.create_dataset(dataset, **options)


def virtual(file: Any) -> None:
    del file["features"]
    layout = h5py.VirtualLayout((3, 4), "<f4")
    layout[:] = h5py.VirtualSource("/etc/hostname", "x", (3, 4))
    file.create_virtual_dataset("features", layout)


def cyclic(file: Any) -> None:
    del file["features"]
    file["features"] = file["/"]


def named_type(file: Any) -> None:
    del file["features"]
    file["features"] = np.dtype("<f4")


def enumerated(file: Any) -> None:
    other(file, "ids", data=IDS, dtype=h5py.enum_dtype({"a": 1}, basetype="u1"))


def empty_chunks(file: Any) -> None:
    """Three rows are declared, and none is stored: HDF5 would make them up of zeros."""
    other(file, "features", shape=(3, 4), dtype="<f4", chunks=(1, 4), compression="gzip", compression_opts=4,
          shuffle=True)  # fmt: skip


def unknown_float(file: Any) -> None:
    """Numbers of 4 bytes with another exponent: numpy takes them for float32."""
    kind = h5py.h5t.IEEE_F32LE.copy()
    kind.set_ebias(100)
    del file["features"]
    space = h5py.h5s.create_simple((3, 4))
    h5py.h5d.create(file.id, b"features", kind, space).write(h5py.h5s.ALL, h5py.h5s.ALL, ROWS)


HOSTILE: dict[str, Change] = {
    "features: a soft link": lambda f: (f.__delitem__("features"), f.__setitem__("features", h5py.SoftLink("/ids"))),
    "features: an external link": lambda f: (
        f.__delitem__("features"), f.__setitem__("features", h5py.ExternalLink("/etc/hostname", "/x"))
    ),
    "features: external storage": lambda f: other(f, "features", shape=(3, 4), dtype="<f4", external="/etc/hostname"),
    "features: virtual": virtual,
    "features: the root group again": cyclic,
    "features: a group": lambda f: (f.__delitem__("features"), f.create_group("features")),
    "features: a type": named_type,
    "features: endless": lambda f: other(f, "features", shape=(3, 4), maxshape=(None, 4), dtype="<f4", chunks=(1, 4)),
    "features: endless and compressed": lambda f: other(
        f, "features", data=ROWS, maxshape=(None, 4), chunks=(1, 4), compression="gzip", shuffle=True
    ),
    "features: stored nowhere": lambda f: other(f, "features", shape=(3, 4), dtype="<f4"),
    "features: no rows": lambda f: other(f, "features", shape=(0, 4), dtype="<f4"),
    "features: huge, and stored nowhere": lambda f: other(f, "features", shape=(3, 2**40), dtype="<f4"),
    "features: of no shape": lambda f: other(f, "features", data=np.float32(1)),
    "features: a number for each row": lambda f: other(f, "features", data=np.ones(3, "<f4")),
    "features: big-endian": lambda f: other(f, "features", data=ROWS.astype(">f4")),
    "features: another float": unknown_float,
    "features: text": lambda f: other(f, "features", data=["a", "b", "c"]),
    "features: compressed otherwise": lambda f: other(f, "features", data=ROWS, chunks=(1, 4), compression="lzf"),
    "features: a filter more": lambda f: other(
        f, "features", data=ROWS, chunks=(1, 4), compression="gzip", shuffle=True, fletcher32=True
    ),
    "features: other chunks": lambda f: other(
        f, "features", data=ROWS, chunks=(3, 4), compression="gzip", shuffle=True
    ),
    "features: chunks without a filter": lambda f: other(f, "features", data=ROWS, chunks=(1, 4)),
    "ids: more than rows": lambda f: other(f, "ids", data=np.concatenate([IDS, IDS ^ 1])),
    "ids: fewer than rows": lambda f: other(f, "ids", data=IDS[:2]),
    "ids: repeated": lambda f: other(f, "ids", data=IDS[[0, 1, 0]]),
    "ids: compressed": lambda f: other(f, "ids", data=IDS, chunks=(1, 32), compression="gzip", shuffle=True),
    "ids: huge, and stored nowhere": lambda f: other(f, "ids", shape=(2**40, 32), dtype="u1"),
    "ids: of named values": enumerated,
    "a group more": lambda f: f.create_group("more"),
    "a group in a circle": lambda f: f.__setitem__("more", f["/"]),
    "an attribute more": lambda f: f.attrs.__setitem__("more", 1),
    "schema: a list": lambda f: f.attrs.create("schema", np.ones(4000, "<i8")),
    "schema: a list of one": lambda f: f.attrs.create("schema", np.ones(1, "<i8")),
    "schema: of 4 bytes": lambda f: f.attrs.create("schema", 1, dtype="<i4"),
    "schema: text": lambda f: f.attrs.create("schema", "1"),
    "key: of any length": lambda f: f.attrs.create("key", "ab" * 32),
}  # fmt: skip


SHAPES = {"features: a number for each row": (3,), "features: no rows": (0, 4)}
"""Those of which a record can tell, so that it is not the record that is refused."""


def imported(source: FeatureStore, root: Path) -> Copied:
    found = Copied()
    transfer.copy_shards(source, store_of(root, "vectors").cache, source.names(), found, lambda n: None)
    return found


@pytest.fixture
def source(tmp_path: Path) -> FeatureStore:
    return store_of(tmp_path / "theirs", "vectors")


def test_what_h5py_writes_without_a_change_is_imported(source: FeatureStore, tmp_path: Path) -> None:
    """So that the cases below are refused for their change alone."""
    publish(source, written(source.key, lambda file: None))
    publish(source, written(source.key, lambda file: None, ROWS[:2] + 1, compressed=True), (2, 4))
    found = imported(source, tmp_path / "ours")
    assert (found.shards, found.refused) == (2, [])
    assert np.array_equal(store_of(tmp_path / "ours", "vectors").read([name(2)]), ROWS[2:])


@pytest.mark.parametrize("what", HOSTILE)
def test_another_layout_is_refused_in_one_sentence(source: FeatureStore, tmp_path: Path, what: str) -> None:
    publish(source, written(source.key, HOSTILE[what]), SHAPES.get(what, ROWS.shape))
    ((_, reason),) = imported(source, tmp_path / "ours").refused
    assert "\n" not in reason
    assert store_of(tmp_path / "ours", "vectors").names() == []
    assert source.missing([name(0)]) == [name(0)]


def test_rows_that_go_on_past_the_end_of_the_file_are_refused(source: FeatureStore, tmp_path: Path) -> None:
    """Numbers in the file are changed: h5py alone cannot write such a one."""
    data = written(source.key, lambda file: None)
    for before, after in (((3, 4), (3, 400)), ((48,), (4800,))):  # dimensions, and bytes of features
        old, new = (struct.pack(f"<{len(numbers)}Q", *numbers) for numbers in (before, after))
        assert old in data
        data = data.replace(old, new)
    publish(source, data, (3, 400))
    ((_, reason),) = imported(source, tmp_path / "ours").refused
    assert "does not lie in the file" in reason or "invalid dataset size" in reason  # as libhdf5 has it
    assert source.missing([name(0)]) == [name(0)]


def test_rows_that_are_declared_but_not_stored_are_refused(source: FeatureStore, tmp_path: Path) -> None:
    publish(source, written(source.key, empty_chunks))
    ((_, reason),) = imported(source, tmp_path / "ours").refused
    assert "is not stored in 16 bytes" in reason
    with pytest.raises(Damaged, match="is not stored in 16 bytes"):
        source.read([name(0)])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_rows_that_are_not_finite_are_refused(source: FeatureStore, tmp_path: Path, value: float) -> None:
    rows = ROWS.copy()
    rows[2, 3] = value
    for compressed in (False, True):
        publish(source, written(source.key, lambda file: None, rows, compressed))
    reasons = [reason for _, reason in imported(source, tmp_path / "ours").refused]
    assert ["is not finite" in reason for reason in reasons] == [True, True]


def replace_chunk(stream: bytes, mask: int = 0) -> Change:
    def change(file: Any) -> None:
        file["features"].id.write_direct_chunk((0,) * file["features"].ndim, stream, mask)

    return change


@pytest.mark.parametrize(
    ("stream", "mask"),
    [
        (zlib.compress(bytes(300_000_000), 9), 0),
        (zlib.compress(bytes(1025)), 0),
        (zlib.compress(bytes(1023)), 0),
        (zlib.compress(bytes(1024))[:-6], 0),
        (b"no zlib", 0),
        (bytes(1000), 0b10),
        (bytes(1024), 0b11),
        (bytes(1024), 0b1),
    ],
    ids=["bomb", "a byte more", "a byte less", "torn", "no stream", "short", "bare", "only gzip"],
)
def test_a_row_that_inflates_to_another_size_is_refused_before_it_fills_the_memory(
    source: FeatureStore, tmp_path: Path, stream: bytes, mask: int
) -> None:
    maps = np.zeros((3, 8, 8, 4), "<f4")
    publish(source, written(source.key, replace_chunk(stream, mask), maps, compressed=True), maps.shape)
    tracemalloc.start()
    started = time.monotonic()
    ((_, reason),) = imported(source, tmp_path / "ours").refused
    assert tracemalloc.get_traced_memory()[1] < 20_000_000
    tracemalloc.stop()
    assert time.monotonic() - started < 10
    assert reason.count("\n") == 0
    with pytest.raises(Damaged):
        source.read([name(0)])


def test_a_row_that_hdf5_stored_without_gzip_is_read(source: FeatureStore) -> None:
    """As it does where gzip would make it longer."""
    maps = np.random.default_rng(0).normal(size=(3, 8, 8, 4)).astype("<f4")
    bare = maps[0].view(np.uint8).reshape(-1, 4).T.tobytes()
    publish(source, written(source.key, replace_chunk(bare, 0b10), maps, compressed=True), maps.shape)
    assert np.array_equal(source.read([name(0), name(1)]), maps[:2])


def test_a_row_of_gigabytes_is_refused(source: FeatureStore, tmp_path: Path) -> None:
    def huge(file: Any) -> None:
        shape = (1, 2**28)
        other(file, "features", shape=shape, dtype="<f4", chunks=shape, compression="gzip", shuffle=True)
        other(file, "ids", data=IDS[:1])
        file["features"].id.write_direct_chunk((0, 0), bytes(2**21), 0)

    publish(source, written(source.key, huge), (1, 2**28))
    ((_, reason),) = imported(source, tmp_path / "ours").refused
    assert "a row has 1,073,741,824 bytes" in reason


def test_rows_that_no_gzip_can_hold_are_refused(source: FeatureStore, tmp_path: Path) -> None:
    """Without it, a file of 3 kB could declare rows of terabytes."""

    def huge(file: Any) -> None:
        shape = (1, 2**28)
        other(file, "features", shape=shape, dtype="<f4", chunks=shape, compression="gzip", shuffle=True)
        other(file, "ids", data=IDS[:1])

    publish(source, written(source.key, huge), (1, 2**28))
    ((_, reason),) = imported(source, tmp_path / "ours").refused
    assert "cannot be 1,073,741,824 bytes, compressed to" in reason


def test_rows_of_another_shape_than_those_of_their_key_are_refused(source: FeatureStore, tmp_path: Path) -> None:
    ours = store_of(tmp_path / "ours", "vectors")
    put(ours, "vectors", (7,))
    publish(source, written(source.key, lambda file: None, np.ones((3, 5), "<f4")), (3, 5))
    ((_, reason),) = imported(source, tmp_path / "ours").refused
    assert "its rows are float32 (5,); other rows of this key are ((4,), 'float32')" in reason
    assert np.array_equal(store_of(tmp_path / "ours", "vectors").read([name(7)]), [row("vectors", 7)])


def test_two_shapes_in_one_key_are_said_when_it_is_read(source: FeatureStore) -> None:
    publish(source, written(source.key, lambda file: None))
    put(source, "vectors", (7,))
    publish(source, written(source.key, lambda file: None, np.ones((3, 5), "<f4")), (3, 5))
    with pytest.raises(Damaged, match=r"float32 \(4,\) and float32 \(5,\), which one key cannot have"):
        source.read([name(7)])


@pytest.mark.parametrize(
    "more",
    [{"rows": 10**4000}, {"rows": "3"}, {"shape": {"a": 1}}, {"engine": ["x"]}, {"seconds": "now"}, {"versions": 3},
     {"seconds": 10**300}, {"bytes": 1e300}, {"deep": DEEP}],
)  # fmt: skip
def test_a_record_with_other_types_is_refused(source: FeatureStore, tmp_path: Path, more: dict[str, Any]) -> None:
    publish(source, written(source.key, lambda file: None), **more)
    ((_, reason),) = imported(source, tmp_path / "ours").refused
    assert "its record is damaged" in reason
    assert source.shard_records() == []


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 5_000, "NaN", '{"rows": NaN}', '{"rows": 1e999}', "\xff"])
def test_json_that_no_reader_expects_is_a_damaged_record(source: FeatureStore, tmp_path: Path, text: str) -> None:
    digest = publish(source, written(source.key, lambda file: None))
    source.record_path(digest).write_bytes(text.encode("latin-1"))
    assert len(imported(source, tmp_path / "ours").refused) == 1
    assert source.shard_records() == []


@pytest.mark.parametrize("which", ["shard", "record", "folder"])
def test_a_link_is_refused_though_it_leads_to_a_valid_file(source: FeatureStore, tmp_path: Path, which: str) -> None:
    digest = publish(source, written(source.key, lambda file: None))
    path = {"shard": source.path, "record": source.record_path, "folder": lambda name: source.path(name).parent}[which](
        digest
    )
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    ((_, reason),) = imported(source, tmp_path / "ours").refused
    assert "it is a link" in reason


def lay_pipe(path: Path) -> None:
    os.mkfifo(path)


def lay_link(path: Path) -> None:
    target = path.with_name("elsewhere")
    target.write_bytes(b"{}")
    path.symlink_to(target)


def lay_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def lay_folder(path: Path) -> None:
    path.mkdir()


@pytest.mark.timeout(60)
@pytest.mark.parametrize("lay", [lay_pipe, lay_link, lay_device, lay_folder])
@pytest.mark.parametrize("which", ["shard", "record", "spec.json", "manifest"])
def test_what_is_no_file_is_refused_and_not_waited_for(
    source: FeatureStore, tmp_path: Path, which: str, lay: Callable[[Path], None]
) -> None:
    digest = publish(source, written(source.key, lambda file: None))
    manifest = source.cache.root / "manifests" / f"{'ab' * 32}.jsonl"
    manifest.parent.mkdir()
    paths = {"shard": source.path(digest), "record": source.record_path(digest), "manifest": manifest}
    path = paths.get(which, source.folder / which)
    path.unlink(missing_ok=True)
    lay(path)
    found = Copied()
    theirs = Cache(source.cache.root, source.cache.index)
    for store in theirs.stores():
        if store.components:
            transfer.copy_shards(store, Cache(tmp_path / "ours", theirs.index), store.names(), found, lambda n: None)
    transfer.copy_named(theirs, Cache(tmp_path / "ours", theirs.index), "manifests", ".jsonl", found)
    assert found.shards == (which == "manifest")
    assert len(found.refused) == (which != "spec.json")


def test_a_sparse_file_of_a_terabyte_is_not_read(source: FeatureStore, tmp_path: Path) -> None:
    digest = publish(source, written(source.key, lambda file: None))
    os.truncate(source.path(digest), 10**12)
    started = time.monotonic()
    ((_, reason),) = imported(source, tmp_path / "ours").refused
    assert "it has 1,000,000,000,000 bytes" in reason
    assert time.monotonic() - started < 10


def test_many_ids_are_bounded_by_the_file(source: FeatureStore, tmp_path: Path) -> None:
    """A file of 3.6 MB with 100,000 of them is read within seconds."""
    ids = np.random.default_rng(0).integers(0, 256, (100_000, 32), np.uint8)

    def many(file: Any) -> None:
        other(file, "ids", data=ids)
        other(file, "features", data=np.ones((100_000, 1), "<f4"))

    publish(source, written(source.key, many), (100_000, 1))
    started = time.monotonic()
    assert imported(source, tmp_path / "ours").rows == 100_000
    assert time.monotonic() - started < 20


def test_shards_of_this_package_pass(tmp_path: Path) -> None:
    for kind in ("vectors", "maps"):
        store = store_of(tmp_path, kind)
        layout = store.check(put(store, kind, (1, 2)))
        assert layout is not None
        shards.check_rows(layout)
