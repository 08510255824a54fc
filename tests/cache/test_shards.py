"""shards.py: one layout, checked on the way in and on the way out."""

from __future__ import annotations

import errno
import hashlib
import os
import resource
from pathlib import Path

import h5py
import numpy as np
import pytest

from cache import shards
from tests.support import GOLDEN

KEY = "ab" * 32


def ids(n: int) -> list[str]:
    return [hashlib.sha256(bytes([i])).hexdigest() for i in range(n)]


def written(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "shard.h5"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("shape", [(5,), (2, 3, 4)])
def test_round_trip(tmp_path: Path, dtype: str, shape: tuple[int, ...]) -> None:
    features = np.random.default_rng(0).normal(size=(7, *shape)).astype(dtype)
    layout = shards.inspect_shard(written(tmp_path, shards.build_shard(KEY, ids(7), features)), KEY)
    assert list(layout.ids) == ids(7)
    order = np.array([6, 0, 3, 3])
    assert np.array_equal(shards.read_rows(layout, order), features[order])
    assert shards.read_rows(layout, order).dtype == dtype


def test_the_same_rows_give_the_same_bytes() -> None:
    features = np.ones((3, 4), np.float32)
    assert shards.build_shard(KEY, ids(3), features) == shards.build_shard(KEY, ids(3), features)


def test_vectors_start_on_a_page_and_can_be_memory_mapped(tmp_path: Path) -> None:
    features = np.random.default_rng(0).normal(size=(300, 40)).astype(np.float32)
    layout = shards.inspect_shard(written(tmp_path, shards.build_shard(KEY, ids(100) + ids256(200), features)), KEY)
    assert layout.offset is not None
    assert layout.offset % 4096 == 0
    assert np.array_equal(np.memmap(layout.path, "<f4", "r", layout.offset, layout.shape), features)


def ids256(n: int) -> list[str]:
    return [hashlib.sha256(b"more" + i.to_bytes(4, "big")).hexdigest() for i in range(n)]


def test_vectors_are_mapped_and_never_compressed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zeros = np.zeros((4, 4000), np.float32)
    layout = shards.inspect_shard(written(tmp_path, shards.build_shard(KEY, ids(4), zeros)), KEY)
    assert layout.offset is not None
    monkeypatch.setattr(h5py, "File", None)
    assert np.array_equal(shards.read_rows(layout, np.arange(4)), zeros)


def test_maps_are_compressed_only_where_that_halves_them(tmp_path: Path) -> None:
    dense = np.random.default_rng(0).normal(size=(4, 7, 7, 16)).astype(np.float32)
    sparse = np.where(dense > 1.5, dense, 0).astype(np.float32)
    for features, compressed in ((dense, False), (sparse, True)):
        layout = shards.inspect_shard(written(tmp_path, shards.build_shard(KEY, ids(4), features)), KEY)
        assert (layout.offset is None) == compressed
        assert np.array_equal(shards.read_rows(layout, np.arange(4)), features)


@pytest.mark.parametrize(
    ("n", "features", "message"),
    [
        (2, np.ones((3, 4), np.float32), "2 ids for 3 rows"),
        (0, np.ones((0, 4), np.float32), "0 ids for 0 rows"),
        (3, np.ones((3, 4), np.float64), "dtype float64; expected one of float32, float16"),
        (3, np.array([[1], [np.nan], [np.inf]], np.float32), "2 rows are not finite, the first is 4bf5122f3445"),
    ],
)
def test_what_is_no_shard_is_not_built(n: int, features: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        shards.build_shard(KEY, ids(n), features)


def test_an_id_stands_once() -> None:
    with pytest.raises(ValueError, match="an id is repeated"):
        shards.build_shard(KEY, [ids(1)[0]] * 2, np.ones((2, 4), np.float32))


def golden(name: str) -> np.ndarray:
    """What the golden shards hold: vectors that start on a page, and compressed maps of zeros and a few halves."""
    numbers = np.arange(6 * 64, dtype=np.float32) / 2
    return numbers.reshape(6, 64) if name == "vectors" else np.where(numbers % 8 == 0, numbers, 0).reshape(6, 4, 4, 4)


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("vectors", "d0504b60b476a0d911d1d89df3e5f93636d80422dcf071704f41068af7855047"),
        ("maps", "a3724fc3c1cb9df94af4ff9d2c2a2ff056c6e7d44945a25ccdfd6f022663cb1f"),
    ],
)
def test_the_golden_shards_of_schema_1_are_still_read(name: str, digest: str) -> None:
    """Written by the first version; every later one must read them."""
    path = GOLDEN / f"shard-1-{name}.h5"
    assert hashlib.sha256(path.read_bytes()).hexdigest() == digest
    layout = shards.inspect_shard(path, KEY)
    assert list(layout.ids) == ids(6)
    assert np.array_equal(shards.read_rows(layout, np.arange(6)), golden(name))


OTHER_IDS = {
    "other rows": np.zeros((2, 32), np.uint8),
    "short ids": np.zeros((3, 16), np.uint8),
    "wide ids": np.zeros((3, 32), np.uint16),
    "flat ids": np.zeros(3, np.uint8),
}


def damage(path: Path, how: str) -> None:
    with h5py.File(path, "r+") as file:
        if how == "extra dataset":
            file["more"] = 1
        elif how == "soft link":
            del file["features"]
            file["features"] = h5py.SoftLink("/ids")
        elif how == "external link":
            del file["features"]
            file["features"] = h5py.ExternalLink("other.h5", "/features")
        elif how == "external storage":
            del file["features"]
            file.create_dataset("features", (3, 4), "<f4", external=[("/etc/hostname", 0, 48)])
        elif how == "newer schema":
            file.attrs["schema"] = 2
        elif how in OTHER_IDS:
            del file["ids"]
            file["ids"] = OTHER_IDS[how]
        elif how == "other compression":
            del file["features"]
            file.create_dataset("features", data=np.ones((3, 4), np.float32), compression="lzf")
        elif how == "integers":
            del file["features"]
            file["features"] = np.zeros((3, 4), np.int32)


@pytest.mark.parametrize(
    "how",
    [
        "extra dataset", "soft link", "external link", "external storage", "newer schema", "integers",
        "other compression", *OTHER_IDS,
    ],
)  # fmt: skip
def test_a_file_of_another_layout_is_refused(tmp_path: Path, how: str) -> None:
    path = written(tmp_path, shards.build_shard(KEY, ids(3), np.ones((3, 4), np.float32)))
    damage(path, how)
    with pytest.raises(shards.BadShard, match=r"shard\.h5: "):
        shards.inspect_shard(path, KEY)


def test_a_shard_of_another_key_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, shards.build_shard(KEY, ids(3), np.ones((3, 4), np.float32)))
    with pytest.raises(shards.BadShard, match="belongs to key"):
        shards.inspect_shard(path, "cd" * 32)


def test_bytes_that_are_no_hdf5_are_refused(tmp_path: Path) -> None:
    with pytest.raises(shards.BadShard, match=r"shard\.h5"):
        shards.inspect_shard(written(tmp_path, b"not hdf5"), KEY)


def test_a_shard_that_cannot_be_opened_now_is_not_called_bad(tmp_path: Path) -> None:
    """Too many open files says nothing about the shard: it must not go to quarantine for it."""
    path = written(tmp_path, shards.build_shard(KEY, ids(3), np.ones((3, 4), np.float32)))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        with pytest.raises(OSError) as caught:
            shards.inspect_shard(path, KEY)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert caught.value.errno == errno.EMFILE
