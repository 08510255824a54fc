"""Owns what is in a Parquet file with images: a column of them, as Hugging Face has it, and labels. Not where it lies.

The column is a struct with `bytes` (and perhaps `path`), or binary. Which it is, and the names of classes, are told by
the schema's metadata (`huggingface`) where they are there. Rows are read by whole row groups, since no part of one can
be decoded alone.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, BinaryIO, NamedTuple

from cache.errors import Unusable
from stages.runtime.hardware import cpu_count
from stages.runtime.silent_imports import import_parquet
from stages.sources import blobs
from stages.sources.blobs import Blob
from stages.sources.listing import Contents, Inside, OnHashed, Reject

GROUP_BYTES = 2_000_000_000
"""The largest row group, in bytes as it says of itself."""

HELD_BYTES = max(512_000_000, 64_000_000 * cpu_count())
"""Row groups that a process keeps, so that each is decoded once for all its images. The one in use counts, too."""

_NAMES = ("image", "img", "jpg", "png", "picture")


class _Columns(NamedTuple):
    """Names of the columns, None for those that are not there; and the names of the classes, by number."""

    image: str
    nested: bool
    has_paths: bool
    said: dict[str, str]
    classes: Sequence[str] | None


def read_parquet(
    file: BinaryIO, place: str, wanted: Mapping[str, str], most: int, on_hashed: OnHashed | None
) -> Contents:
    """What is in a Parquet file; with `on_hashed`, with the SHA-256 of each image of up to `most` bytes.

    wanted: the names of the columns `label`, `split` and `group`, if they are there. Raises Unusable where it has no
    column of images or too large row groups, OSError where it cannot be read.
    """
    pa, parquet = import_parquet()
    try:
        opened = parquet.ParquetFile(file, pre_buffer=False)
    except pa.lib.ArrowInvalid as error:
        return Contents(rejected=[Reject("", f"is no whole Parquet file: {_first_line(error)}")])
    columns = _find_columns(opened.schema_arrow, place, wanted)
    _check_groups(opened.metadata, place)
    found, row = Contents(), 0
    for group in range(opened.num_row_groups):
        try:
            row = _add_group(opened, group, row, columns, most, found, on_hashed)
        except (pa.lib.ArrowInvalid, OSError) as error:
            if isinstance(error, OSError) and not isinstance(error, pa.lib.ArrowException):
                raise
            found.rejected.append(Reject("", f"has a damaged row group, number {group}: {_first_line(error)}"))
            row += opened.metadata.row_group(group).num_rows
    return found


def _add_group(
    opened: Any, group: int, first: int, columns: _Columns, most: int, found: Contents, on_hashed: OnHashed | None
) -> int:
    """Add the rows of a group, of which the first has that number; the number of the next."""
    leaves = [f"{columns.image}.path"] if columns.has_paths else []
    if on_hashed is not None:
        leaves.append(f"{columns.image}.bytes" if columns.nested else columns.image)
    table = opened.read_row_group(group, columns=[*leaves, *columns.said.values()], use_threads=False)
    count = int(opened.metadata.row_group(group).num_rows)
    texts = {part: table.column(name).to_pylist() for part, name in columns.said.items()}
    paths = _part(table, columns.image, "path").to_pylist() if columns.has_paths else [None] * count
    data = _part(table, columns.image, "bytes" if columns.nested else None) if on_hashed is not None else None
    for number in range(count):
        path = str(paths[number] or "").replace("\\", "/").replace("\0", "")
        base = os.path.basename(path)
        name = f"{first + number}" + (f"/{base}" if base and base != ".." else "")
        digest = None
        if data is not None:
            value = data[number]
            if not value.is_valid:
                found.rejected.append(Reject(name, "has no bytes: its row names a file elsewhere, or nothing"))
                continue
            buffer = value.as_buffer()
            if buffer.size > most:
                found.rejected.append(Reject(name, f"{buffer.size} bytes, more than {most}"))
                continue
            digest = hashlib.sha256(buffer).hexdigest()
        told = {part: _text(values[number], columns.classes if part == "label" else None)
                for part, values in texts.items()}  # fmt: skip
        found.members.append(Inside(name, group, number, told.get("label"), told.get("split"), told.get("group"),
                                    digest))  # fmt: skip
    if on_hashed is not None:
        on_hashed(count)
    return first + count


def _find_columns(schema: Any, place: str, wanted: Mapping[str, str]) -> _Columns:
    pa, _ = import_parquet()
    features: dict[str, Any] = {}
    with suppress(KeyError, ValueError, TypeError, AttributeError):
        features = dict(json.loads(schema.metadata[b"huggingface"])["info"]["features"])
    types = {name: schema.field(name).type for name in schema.names}

    def is_struct(name: str) -> bool:
        return bool(pa.types.is_struct(types[name]) and types[name].get_field_index("bytes") >= 0)

    def kind(name: str) -> str:
        feature = features.get(name)
        return str(feature.get("_type", "")) if isinstance(feature, dict) else ""

    images = [name for name in types if kind(name) == "Image" or is_struct(name)]
    binary = [name for name in types if pa.types.is_binary(types[name]) or pa.types.is_large_binary(types[name])]
    images = images or [name for name in _NAMES if name in binary] or (binary if len(binary) == 1 else [])
    if not images:
        raise Unusable(
            f"{place}: no column of images; it has {', '.join(map(repr, types))}",
            "if it is a table of files, name it with data.table; a column of images is a struct with bytes, or binary",
        )
    image = "image" if "image" in images else images[0]
    said = {part: name for part, name in wanted.items() if name in types and name != image}
    classed = [name for name in types if kind(name) == "ClassLabel"]
    if "label" not in said and len(classed) == 1:
        said["label"] = classed[0]
    names = features[said["label"]].get("names") if said.get("label") in classed else None
    nested = is_struct(image)
    has_paths = nested and types[image].get_field_index("path") >= 0
    return _Columns(image, nested, has_paths, said, names if isinstance(names, list) else None)


def _check_groups(metadata: Any, place: str) -> None:
    largest = max((metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups)), default=0)
    if largest > GROUP_BYTES:
        raise Unusable(
            f"{place}: a row group of {largest:,} bytes; at most {GROUP_BYTES:,} are read at a time",
            "write it again with fewer rows in a row group: pyarrow.parquet.write_table(..., row_group_size=100)",
        )


def _part(table: Any, column: str, part: str | None) -> Any:
    """One array of the values of a column, or of a field of a struct column."""
    whole = table.column(column).combine_chunks()
    whole = whole.chunk(0) if hasattr(whole, "chunk") and whole.num_chunks else whole
    return whole if part is None else whole.flatten()[whole.type.get_field_index(part)]  # null where the struct is


def _text(value: Any, classes: Sequence[str] | None) -> str | None:
    """A label, split or group. Raises Unusable for several."""
    if value is None or value != value:
        return None
    if isinstance(value, list | dict):
        raise Unusable(
            f"the column of labels has the value {value!r}; one class per image is expected, not several",
            "for several labels name them in a table (data.table), whose paths are those of the images below data.root",
        )
    if classes is not None and isinstance(value, int):
        return None if value < 0 else str(classes[value]) if value < len(classes) else str(value)
    return str(value).strip() or None


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0][:200]


class _Groups:
    """The row groups that were decoded last."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._decoding: dict[tuple[str, str, int], threading.Lock] = {}
        self._held: OrderedDict[tuple[str, str, int], Any] = OrderedDict()

    def get(self, archive: str, version: str, group: int) -> Any:
        """The images of a row group: an array of binary."""
        key = (archive, version, group)
        with self._lock:
            one = self._decoding.setdefault(key, threading.Lock())
        with one:  # others wait for the thread that decodes it
            with self._lock:
                if key in self._held:
                    self._held.move_to_end(key)
                    return self._held[key]
            found = _read_group(archive, version, group)
            with self._lock:
                self._held[key] = found
                self._decoding.pop(key, None)
                while len(self._held) > 1 and sum(array.nbytes for array in self._held.values()) > HELD_BYTES:
                    self._held.popitem(last=False)
            return found


_groups = _Groups()


def read_row(archive: str, version: str, group: int, row: int, most: int) -> bytes:
    """The image in a row of a row group. Raises OSError where it is not there, or has more than `most` bytes."""
    images = _groups.get(archive, version, group)
    if row >= len(images) or not images[row].is_valid:
        raise OSError("its archive has no such row any more")
    buffer = images[row].as_buffer()
    blobs.check_size(buffer.size, most)
    return bytes(buffer)


def _read_group(archive: str, version: str, group: int) -> Any:
    pa, parquet = import_parquet()
    blob, metadata = _open(archive, version)
    with blobs.open_blob(blob) as file:
        try:
            opened = parquet.ParquetFile(file, metadata=metadata, pre_buffer=False)
            if group >= opened.num_row_groups:
                raise OSError("its archive has no such row group any more")
            columns = _find_columns(opened.schema_arrow, archive, {})
            leaf = f"{columns.image}.bytes" if columns.nested else columns.image
            table = opened.read_row_group(group, columns=[leaf], use_threads=False)
        except pa.lib.ArrowInvalid as error:
            raise OSError(f"its row group {group} is damaged: {_first_line(error)}") from error
    return _part(table, columns.image, "bytes" if columns.nested else None)


@functools.lru_cache(64)
def _open(archive: str, version: str) -> tuple[Blob, Any]:
    """The archive as it is now, and its metadata. version: of the place, so that a changed archive is opened anew."""
    pa, parquet = import_parquet()
    blob = blobs.find_blob(archive)
    with blobs.open_blob(blob, blobs.GLANCE_BYTES) as file:
        try:
            return blob, parquet.ParquetFile(file).metadata
        except pa.lib.ArrowInvalid as error:
            raise OSError(f"its archive is no Parquet file any more: {_first_line(error)}") from error
