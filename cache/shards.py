"""Owns the HDF5 layout of a shard: bytes in, arrays out. Not which shards count (store.py).

Layout, schema 1. Root attributes: `schema` (int64), `key` (S64). Datasets: `ids` (n, 32) uint8, each row the
SHA-256 of an image file; `features` (n, ...) float32 or float16, row for row. No links, no variable lengths, no
times: the same rows give the same bytes. Contiguous data starts on a page, so that it can be memory-mapped.
"""

import io
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np

SCHEMA = 1
MOST_ROW_BYTES = 2**28
"""Of a row from elsewhere. Maps of 512 x 512 x 64 float32 have a quarter of that."""
WRONG_DIGEST = "its SHA-256 is not its name"
_TRIAL_ROWS = 8
_DTYPES = ("float32", "float16")
_STORED = {"float32": h5py.h5t.IEEE_F32LE, "float16": h5py.h5t.IEEE_F16LE}
_FILTERS = [h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_DEFLATE]
_GZIP_SKIPPED = 0b10  # bit 1 of a chunk's mask: HDF5 stores a row without the second filter where it would not shrink
_MOST_GZIP = 1032  # zlib's own limit: bytes out for a byte in


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

    @property
    def row_bytes(self) -> int:
        return math.prod(self.shape[1:]) * self.dtype.itemsize


RECORD_FIELDS = {
    "schema": int, "key": str, "sha256": str, "rows": int, "bytes": int, "shape": list, "dtype": str,
    "engine": str | None, "device": str | None, "versions": dict | None, "seconds": int | float | None,
}  # fmt: skip
"""The fields of the record of a shard, and their types."""


def record_facts(key: str, name: str, size: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> dict[str, Any]:
    """The fields of a record that follow from its shard."""
    return {
        "schema": SCHEMA,
        "key": key,
        "sha256": name,
        "rows": shape[0],
        "bytes": size,
        "shape": list(shape[1:]),
        "dtype": dtype.name,
    }


def build_shard(key: str, ids: Sequence[str], features: np.ndarray) -> bytes:
    """The bytes of a shard of an extract key.

    ids: SHA-256 of each image file, 64 hex digits, without duplicates. features: (n, ...), float32 or float16; vectors
    are stored uncompressed, and maps too, unless shuffle and gzip at least halve the first rows.
    Raises ValueError where rows and ids differ in number, ids repeat, the dtype is another, or a value is not finite.
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

    Raises BadShard where it is not schema 1 of exactly this layout, or belongs to another key; OSError where it cannot
    be opened, though it may be valid: too many open files, for one.
    """
    try:
        with h5py.File(path, "r", locking=False) as file:
            return _layout(path, key, file)
    except (OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
        if isinstance(error, OSError) and error.errno:
            raise
        raise BadShard(f"{path.name}: {error}") from error


def read_rows(layout: ShardLayout, positions: np.ndarray) -> np.ndarray:
    """The rows at `positions` (int array of any order), as stored: ndarray of shape (len(positions), ...).

    Other rows are not kept in memory. Raises BadShard where a compressed row is not of the size that it should have.
    """
    if layout.offset is not None:
        mapped = np.memmap(layout.path, layout.dtype, "r", layout.offset, layout.shape)
        return np.asarray(mapped[positions])
    wanted, back = np.unique(positions, return_inverse=True)
    stored = np.empty((len(wanted), *layout.shape[1:]), layout.dtype)
    with open(layout.path, "rb") as raw, h5py.File(layout.path, "r", locking=False) as file:
        for row, position in zip(stored, wanted.tolist(), strict=True):
            chunk = file["features"].id.get_chunk_info_by_coord((position, *(0 for _ in row.shape)))
            row[...] = _inflate(chunk, raw, layout).reshape(row.shape)
    return stored[back]


def check_rows(layout: ShardLayout) -> None:
    """Read each row. Raises BadShard where one is not finite, larger than MOST_ROW_BYTES, or not of its size."""
    if layout.row_bytes > MOST_ROW_BYTES:
        raise BadShard(f"{layout.path.name}: a row has {layout.row_bytes:,} bytes; at most {MOST_ROW_BYTES:,} are read")
    step = max(1, MOST_ROW_BYTES // 16 // layout.row_bytes)
    for start in range(0, layout.shape[0], step):
        rows = read_rows(layout, np.arange(start, min(start + step, layout.shape[0])))
        if not np.isfinite(rows).all():
            raise BadShard(f"{layout.path.name}: a value in rows {start} to {start + len(rows) - 1} is not finite")


def _inflate(chunk: Any, raw: BinaryIO, layout: ShardLayout) -> np.ndarray:
    """One row, flat. Not by libhdf5, which inflates a chunk to whatever its bytes hold before it looks at the size."""
    size = layout.row_bytes
    raw.seek(chunk.byte_offset or 0)  # None, of size 0, where the row is not stored
    data = raw.read(min(chunk.size, size + 1024))
    if chunk.filter_mask == 0:
        try:
            inflater = zlib.decompressobj()
            data = inflater.decompress(data, size)
            data += inflater.decompress(inflater.unconsumed_tail, 1)  # the end of the stream, or a byte too many
        except zlib.error as error:
            raise BadShard(f"{layout.path.name}: {error}") from error
    if len(data) != size or chunk.filter_mask not in (0, _GZIP_SKIPPED):
        raise BadShard(f"{layout.path.name}: a row is not stored in {size:,} bytes by shuffle and gzip")
    return np.frombuffer(data, np.uint8).reshape(layout.dtype.itemsize, -1).T.copy().view(layout.dtype)[:, 0]


def _layout(path: Path, key: str, file: Any) -> ShardLayout:
    """Nothing but what `build_shard` writes: each thing is looked at before it is read, and all lies in the file."""
    schema, name = (_attribute(file, *wanted) for wanted in (("schema", np.dtype("<i8")), ("key", np.dtype("S64"))))
    _expect(schema == SCHEMA, path, f"schema {schema}; expected {SCHEMA}")
    _expect(name == key.encode("ascii"), path, f"belongs to key {name!r}; expected {key}")
    _expect(len(file) == 2, path, "holds more than ids and features, or less")
    _expect(h5py.h5a.get_num_attrs(file.id) == 2, path, "has other attributes than schema and key")
    size = path.stat().st_size
    ids, ids_offset = _dataset(path, file, "ids", size)
    features, offset = _dataset(path, file, "features", size)
    shapes = f"ids {ids.dtype} {ids.shape} for features {features.dtype} {features.shape}"
    of_ids = ids_offset is not None and ids.id.get_type() == h5py.h5t.STD_U8LE and ids.shape[1:] == (32,)
    _expect(of_ids and features.ndim > 1 and len(ids) == len(features), path, shapes)
    dtype = features.dtype
    _expect(features.id.get_type() == _STORED.get(dtype.name), path, shapes)
    text = ids[:].tobytes().hex()
    names = tuple(text[i : i + 64] for i in range(0, len(text), 64))
    _expect(len(set(names)) == len(names), path, "an id is repeated")
    return ShardLayout(path, names, features.shape, dtype, offset)


def _expect(true: bool, path: Path, otherwise: str) -> None:
    if not true:
        raise BadShard(f"{path.name}: {otherwise}")


def _attribute(file: Any, name: str, dtype: np.dtype[Any]) -> Any:
    """A single value: read only if it is of that type, since others may be of any size."""
    found = h5py.h5a.open(file.id, name.encode())
    if found.shape != () or found.dtype != dtype:
        raise ValueError(f"attribute {name} is {found.dtype} {found.shape}; expected {dtype}")
    return file.attrs[name]


def _dataset(path: Path, file: Any, name: str, size: int) -> tuple[Any, int | None]:
    """A dataset that lies within the `size` bytes of its file, and the byte at which it starts if it is contiguous."""
    link = file.get(name, getlink=True)
    found: Any = file[name] if isinstance(link, h5py.HardLink) else None
    _expect(isinstance(found, h5py.Dataset), path, f"{name} is not a dataset in this file")
    made = found.id.get_create_plist()
    _expect(found.maxshape == found.shape, path, f"{name} is of no fixed shape")
    stored = math.prod(found.shape) * found.id.get_type().get_size()
    if found.chunks is None:
        offset = found.id.get_offset()  # None where it is stored in other files, or nowhere
        _expect((offset or size) + stored <= size, path, f"{name} does not lie in the file")
        return found, offset
    filters = [made.get_filter(number)[0] for number in range(min(made.get_nfilters(), 3))]
    _expect(filters == _FILTERS, path, f"{name} is filtered by {filters}; expected {_FILTERS}")
    _expect(found.chunks == (1, *found.shape[1:]), path, f"{name} has chunks of {found.chunks}")
    _expect(stored <= _MOST_GZIP * size, path, f"{name} cannot be {stored:,} bytes, compressed to {size:,}")
    return found, None


def _compresses(features: np.ndarray) -> bool:
    """Whether byte shuffle and zlib at least halve the first rows (maps after a ReLU often are mostly zeros)."""
    sample = features[:_TRIAL_ROWS]
    shuffled = sample.view(np.uint8).reshape(-1, sample.dtype.itemsize).T.tobytes()
    return 2 * len(zlib.compress(shuffled, 4)) <= len(shuffled)
