"""What the cache promises, whatever happened to it, and a piece of work that does all it can do to the disk.

Holds no tests, and doesn't say how things go wrong (crash.py).
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np

from cache.hash_index import HashIndex
from cache.store import Cache, FeatureStore, key_of

VECTORS: dict[str, Any] = {"base": "fake", "scale": 0.1}
MAPS: dict[str, Any] = {**VECTORS, "tap": "map"}
NOISE = 2.0**-10  # rows that another GPU computed
MANIFEST = b'{"id": 1}\n'
MANIFEST_NAME = hashlib.sha256(MANIFEST).hexdigest()

Item = tuple[str, int]
"""A row by kind and number, or the manifest: ("manifest", 0)."""

PUTS = (("vectors", (0, 1)), ("maps", (0, 1, 2)), ("vectors", (1, 2)), ("vectors", (8, 9)))
FOUND_GOOD, FOUND_DAMAGED, FOUND_WITHOUT_RECORD, FOUND_RECORD_DAMAGED = (6, 7), (8, 9), (1, 2), (3,)
BEFORE: frozenset[Item] = frozenset(("vectors", i) for i in FOUND_GOOD)
ORPHAN = f".{MANIFEST_NAME}.h5.elsewhere-1-0123456789ab.tmp"
AFTER = BEFORE | {(kind, i) for kind, numbers in PUTS for i in numbers} | {("manifest", 0)}


def name(i: int) -> str:
    return hashlib.sha256(i.to_bytes(4, "big")).hexdigest()


def row(kind: str, i: int) -> np.ndarray:
    """A vector, stored as it is, or a map of few values, which is compressed."""
    vector = np.array([i, i + 0.5, -i, 1 / (i + 3)], np.float32)
    return vector if kind == "vectors" else np.tile(vector, (3, 8, 4)) * (np.arange(16) % 4 == 0)


def store_of(root: Path, kind: str) -> FeatureStore:
    return Cache(root, HashIndex()).features(VECTORS if kind == "vectors" else MAPS)


def put(store: FeatureStore, kind: str, numbers: Collection[int], noise: float = 0) -> str:
    rows = np.stack([row(kind, i) for i in numbers]) + np.float32(noise)
    return store.put([name(i) for i in numbers], rows, {"engine": "fake"})


def lay_out(root: Path) -> None:
    """A cache with a past: a good shard, one without a record, an orphaned temp file."""
    store = store_of(root, "vectors")
    put(store, "vectors", FOUND_GOOD)
    folder = store.folder / "shards"
    (folder / f"{put(store, 'vectors', FOUND_WITHOUT_RECORD)}.json").unlink()
    (folder / ORPHAN).write_bytes(b"left behind")


def lay_out_damaged(root: Path) -> None:
    """The same, and a damaged shard and a damaged record."""
    lay_out(root)
    store = store_of(root, "vectors")
    folder = store.folder / "shards"
    damaged = folder / f"{put(store, 'vectors', FOUND_DAMAGED)}.h5"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    (folder / f"{put(store, 'vectors', FOUND_RECORD_DAMAGED)}.json").write_bytes(b"{")


def copy_of(past: Path, place: Path) -> Path:
    """A copy of such a cache in `place`, instead of the last one."""
    root = place / "copy"
    shutil.rmtree(root, ignore_errors=True)
    return Path(shutil.copytree(past, root))


def work(root: Path, done: Callable[[Item], object] = lambda item: None, first: int = 0, noise: float = 0) -> None:
    """All that the cache does to the disk, beginning with put number `first`; `done` is told of each promise given."""
    cache = Cache(root, HashIndex())
    for kind, numbers in PUTS[first:] + PUTS[:first]:
        store = cache.features(VECTORS if kind == "vectors" else MAPS)
        store.missing([name(i) for i in numbers])  # as a run does; it moves what is damaged to quarantine
        put(store, kind, numbers, noise)
        for i in numbers:
            done((kind, i))
    cache.put_named("manifests", MANIFEST, ".jsonl")
    done(("manifest", 0))


def check_served(root: Path, promised: Collection[Item], noises: Collection[float] = (0,)) -> None:
    """Opening works; what was promised is there; every row that is there is right, bitwise, or right with a noise."""
    for kind in ("vectors", "maps"):
        store = store_of(root, kind)
        absent = set(store.missing([name(i) for i in range(12)]))
        there = [i for i in range(12) if name(i) not in absent]
        lost = [i for k, i in promised if k == kind and i not in there]
        assert not lost, f"put had returned for {kind} {lost}"
        rows = store.read([name(i) for i in there]) if there else np.empty(0)
        for i, found in zip(there, rows, strict=True):
            right = [(row(kind, i) + np.float32(noise)).tobytes() for noise in noises]
            assert found.dtype == np.float32
            assert found.tobytes() in right, f"wrong row: {kind} {i}"
    if ("manifest", 0) in promised:
        assert (root / "manifests" / f"{MANIFEST_NAME}.jsonl").read_bytes() == MANIFEST


def everything(root: Path) -> list[bytes]:
    """The bytes of all rows that `work` puts."""
    wanted = [(kind, sorted(i for k, i in AFTER - BEFORE if k == kind)) for kind in ("vectors", "maps")]
    return [store_of(root, kind).read([name(i) for i in numbers]).tobytes() for kind, numbers in wanted]


def check(root: Path, promised: Collection[Item]) -> None:
    """What holds after any crash, fault or damage; and the same work again, with no flag, ends with everything."""
    check_served(root, promised)
    work(root)
    check_served(root, AFTER)
    assert json.loads((root / "CACHE.json").read_bytes())["format"] == 1
    for kind in (VECTORS, MAPS):
        assert key_of(json.loads((root / "features" / key_of(kind) / "spec.json").read_bytes())) == key_of(kind)


def temps(root: Path) -> list[str]:
    """Temp files that lie about, but for the one that was there from the start."""
    return [str(path) for path in root.rglob(".*.tmp") if path.name != ORPHAN]
