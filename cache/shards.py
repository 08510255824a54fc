"""Owns the HDF5 layout of a shard: bytes in, arrays out. Not which shards count (store.py).

Layout, schema 1. Root attributes: `schema` (int64), `key` (S64). Datasets: `ids` (n, 32) uint8, each row the
SHA-256 of an image file; `features` (n, ...) float32 or float16, row for row. No links, no variable lengths, no
times: the same rows give the same bytes. Contiguous data starts on a page, so that it can be memory-mapped.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

SCHEMA = 1
WRONG_DIGEST = "its SHA-256 is not its name"
_TRIAL_ROWS = 8
_DTYPES = ("float32", "float16")


class BadShard(Exception):
    """The file is not a shard as this module writes it."""


@dataclass(frozen=True)
class ShardLayout:
    """What a shard holds. `offset` is the byte at which contiguous features start, None if compressed."""

    path: Path
    ids: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int | None


def build_shard(key: str, ids: Sequence[str], features: np.ndarray) -> bytes:
    """The bytes of a shard.

    Parameters
    ----------
    key : str
        The extract key the rows belong to, 64 hex digits.
    ids : sequence of str, length n
        SHA-256 of each image file, 64 hex digits, without duplicates.
    features : ndarray of shape (n, ...), float32 or float16
        Vectors are stored uncompressed; maps too, unless shuffle and gzip at least halve the first rows.

    Raises
    ------
    ValueError
        Rows and ids differ in number, ids repeat, the dtype is another, or a value is not finite.
    """
    features = np.ascontiguousarray(features)
    if len(ids) != len(features) or len(ids) == 0:
        raise ValueError(
            f"shard of {key[:12]}: {len(ids)} ids for {len(features)} rows; expected one id a row, at least one row"
        )
    if len(set(ids)) != len(ids):
        raise ValueError(f"shard of {key[:12]}: an id is repeated")
    if features.dtype.name not in _DTYPES:
        raise ValueError(f"shard of {key[:12]}: dtype {features.dtype}; expected one of {', '.join(_DTYPES)}")
    finite = np.isfinite(features).reshape(len(ids), -1).all(axis=1)
    if not finite.all():
        bad = ids[int(np.argmin(finite))]
        raise ValueError(f"shard of {key[:12]}: {int((~finite).sum())} rows are not finite, the first is {bad[:12]}")
    id_rows = np.frombuffer(bytes.fromhex("".join(ids)), dtype=np.uint8).reshape(len(ids), 32)
    options: dict[str, Any] = {}
    if features.ndim > 2 and _compresses(features):
        options = {"chunks": (1, *features.shape[1:]), "compression": "gzip", "compression_opts": 4, "shuffle": True}
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", alignment_threshold=1024, alignment_interval=4096) as file:
        file.attrs.create("schema", SCHEMA, dtype="<i8")
        file.attrs.create("key", np.bytes_(key.encode("ascii")))
        file.create_dataset("ids", data=id_rows)
        file.create_dataset("features", data=features, dtype=features.dtype.newbyteorder("<"), **options)
    return buffer.getvalue()


def inspect_shard(path: Path, key: str) -> ShardLayout:
    """The layout of a shard whose digest has been checked.

    Raises
    ------
    BadShard
        It is not schema 1 of exactly this layout, or belongs to another key.
    OSError
        It cannot be opened, though it may be valid: too many open files, for one.
    """
    try:
        with h5py.File(path, "r", locking=False) as file:
            return _layout(path, key, file)
    except (OSError, KeyError, ValueError) as error:
        if isinstance(error, OSError) and error.errno:
            raise
        raise BadShard(f"{path.name}: {error}") from error


def read_rows(layout: ShardLayout, positions: np.ndarray) -> np.ndarray:
    """The rows at `positions` (int array of any order), as stored: ndarray of shape (len(positions), ...).

    Other rows are not kept in memory.
    """
    if layout.offset is not None:
        mapped = np.memmap(layout.path, layout.dtype, "r", layout.offset, layout.shape)
        return np.asarray(mapped[positions])
    wanted, back = np.unique(positions, return_inverse=True)
    with h5py.File(layout.path, "r", locking=False) as file:
        stored: np.ndarray = file["features"][wanted]
    return np.asarray(stored[back])


def _layout(path: Path, key: str, file: Any) -> ShardLayout:
    if int(file.attrs["schema"]) != SCHEMA:
        raise BadShard(f"{path.name}: schema {int(file.attrs['schema'])}; expected {SCHEMA}")
    if bytes(file.attrs["key"]).decode("ascii") != key:
        raise BadShard(f"{path.name}: belongs to key {file.attrs['key']!r}; expected {key}")
    if sorted(file) != ["features", "ids"]:
        raise BadShard(f"{path.name}: holds {sorted(file)}; expected features and ids")
    for name in file:
        if not isinstance(file.get(name, getlink=True), h5py.HardLink) or file[name].external or file[name].is_virtual:
            raise BadShard(f"{path.name}: {name} lies outside the file")
    ids, features = file["ids"], file["features"]
    if ids.dtype != np.uint8 or ids.ndim != 2 or ids.shape[1] != 32 or len(ids) != len(features):
        raise BadShard(f"{path.name}: ids {ids.dtype} {ids.shape} for features {features.shape}")
    if features.dtype.name not in _DTYPES or features.compression not in (None, "gzip"):
        raise BadShard(f"{path.name}: features {features.dtype}, compression {features.compression}")
    text = ids[:].tobytes().hex()
    names = tuple(text[i : i + 64] for i in range(0, len(text), 64))
    return ShardLayout(path, names, features.shape, features.dtype, features.id.get_offset())


def _compresses(features: np.ndarray) -> bool:
    """Whether byte shuffle and zlib at least halve the first rows (maps after a ReLU often are mostly zeros)."""
    sample = features[:_TRIAL_ROWS]
    shuffled = sample.view(np.uint8).reshape(-1, sample.dtype.itemsize).T.tobytes()
    return 2 * len(zlib.compress(shuffled, 4)) <= len(shuffled)
