"""Owns where shards lie, which count, and which row is served. Not their layout (shards.py) nor what a key means."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cache import atomic_files, keys, records, shards
from cache.errors import NotAvailable, Unkeyable, Unusable
from cache.hash_index import HashIndex
from cache.lazy_rows import LazyRows

log = logging.getLogger(__name__)

FORMAT = 1

USED_S = 3600
"""The last use of what lies here is noted, in its mtime, once it is so long ago."""


def key_of(components: Mapping[str, Any]) -> str:
    """The extract key: SHA-256, in hex, of all that decides a row's value."""
    return keys.digest("extract", components)


class Cache:
    """The folder `.features`: feature stores by key, and manifests by digest. Deleting it costs time only."""

    def __init__(self, root: Path, index: HashIndex) -> None:
        """Raises `Unusable` where a newer program wrote the cache. Creates nothing."""
        self.root = root
        self.index = index
        marker = records.load(root / "CACHE.json")
        found = (marker or {}).get("format", FORMAT)
        if isinstance(found, int) and found > FORMAT:
            raise Unusable(
                f"{root}: cache format {found}; this version reads format {FORMAT}",
                "use the version that wrote it, or name another folder with cache.dir",
            )

    def features(self, components: Mapping[str, Any]) -> FeatureStore:
        """The store of the extract key that is the digest of `components`."""
        return FeatureStore(self, key_of(components), components)

    def stores(self) -> list[FeatureStore]:
        """All that lie here, by key; the components of one whose spec.json is damaged are {}."""
        keys_here = sorted(folder.name for folder in self.root.glob("features/*") if keys.is_digest(folder.name))
        return [FeatureStore(self, key, self._spec(key)) for key in keys_here]

    def _spec(self, key: str) -> dict[str, Any]:
        spec = records.load(self.root / "features" / key / "spec.json") or {}
        try:
            return spec if key_of(spec) == key else {}
        except Unkeyable:
            return {}

    @property
    def quarantine(self) -> Path:
        """Where files lie that are not what their name says."""
        return self.root / "quarantine"

    def put_named(self, folder: str, data: bytes, suffix: str) -> str:
        """Keep `data` in `folder` under its own SHA-256, and return that."""
        name = hashlib.sha256(data).hexdigest()
        self.prepare()
        path = self.root / folder / f"{name}{suffix}"
        atomic_files.store_content(path, data, name, self.quarantine)
        atomic_files.note_use(path, USED_S)
        return name

    def check_named(self, folder: str, suffix: str) -> list[tuple[str, str]]:
        """Read what `put_named` kept; (path, reason) of what is damaged, which is set aside."""
        found = [
            path
            for path in sorted((self.root / folder).glob(f"*{suffix}"))
            if atomic_files.sha256_of(path) != path.stem
        ]
        for path in found:
            atomic_files.quarantine(path, self.quarantine)
        return [(str(path), "its bytes are not those of its name") for path in found]

    def prepare(self) -> None:
        """Write the marker, and a .gitignore, since a cache is nobody's source."""
        marker = records.load(self.root / "CACHE.json")
        if marker is None or marker.get("format") != FORMAT:  # damaged: a newer one was refused
            if not (self.root / ".gitignore").exists():
                atomic_files.publish(self.root / ".gitignore", b"*\n")
            atomic_files.publish(self.root / "CACHE.json", records.dump({"format": FORMAT, "program": "frozenbase"}))


class FeatureStore:
    """Rows of one extract key, by the SHA-256 of the image they were computed on.

    A row is absent or complete. It needs no lock: shards are immutable, named by their own SHA-256, and count
    only once their record stands beside them. A row that stands in two shards is served from the smaller name.
    """

    def __init__(self, cache: Cache, key: str, components: Mapping[str, Any]) -> None:
        self.cache = cache
        self.key = key
        self.components = components
        self.folder = cache.root / "features" / self.key
        self._layouts: dict[str, shards.ShardLayout] = {}

    def prepare(self) -> None:
        """Make ready to take rows. Raises Unwritable where the cache cannot be written."""
        self.cache.prepare()
        if not self.spec_is_right():
            atomic_files.publish(self.folder / "spec.json", records.dump(self.components))
        with atomic_files.naming_path(self.folder, "written to"):
            if not os.access(self.folder, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    def spec_is_right(self) -> bool:
        """Whether the components lie readable beside the shards."""
        return bool(self.cache._spec(self.key))

    def note_use(self) -> None:
        """Note that the rows are in use, and mend spec.json if it is damaged; a read-only cache stays as it is."""
        if self.names() and not self.spec_is_right():
            with contextlib.suppress(OSError):
                self.prepare()
        atomic_files.note_use(self.folder / "spec.json", USED_S)

    def missing(self, ids: Sequence[str]) -> list[str]:
        """Those of `ids` that have no row, once each, in the order given. Damaged shards are set aside first."""
        present = self._locate()
        return [i for i in dict.fromkeys(ids) if i not in present]

    def put(self, ids: Sequence[str], features: np.ndarray, provenance: Mapping[str, Any]) -> str:
        """Write one shard and its record, and return its name.

        `ids` are n SHA-256 hex strings, `features` an ndarray of shape (n, ...), all finite. `provenance`
        (engine, versions, seconds) is kept in the record and is not part of any key.
        Raises ValueError for rows that cannot be a shard, Unwritable where the disk is full or read-only.
        """
        data = shards.build_shard(self.key, ids, features)
        name = hashlib.sha256(data).hexdigest()
        self.prepare()
        atomic_files.store_content(self.path(name), data, name, self.cache.quarantine)
        try:
            if self._open(name) is not None:
                atomic_files.sync_folder(self.record_path(name).parent)  # another may have published it this moment
                return name
        except shards.BadShard:  # a record that is damaged, or tells of something else
            atomic_files.quarantine(self.record_path(name), self.cache.quarantine)
        facts = self._facts(name, len(data), features.shape, features.dtype)
        atomic_files.publish(self.record_path(name), records.dump({**provenance, **facts}))
        return name

    def read(self, ids: Sequence[str]) -> np.ndarray:
        """The rows of `ids` (at least one), in that order: a fresh ndarray of shape (len(ids), ...), as stored.

        Raises NotAvailable, naming the first, where a row is absent.
        """
        return self.rows(ids)[:]

    def rows(self, ids: Sequence[str]) -> LazyRows:
        """The same, found but not read yet."""
        present = self._locate()
        absent = [i for i in ids if i not in present]
        if absent:
            raise NotAvailable(
                f"{len(absent)} of {len(ids)} rows are not in the cache {self.cache.root}, "
                f"the first is image {absent[0][:12]}",
                "pipeline run extract",
            )
        names = list(dict.fromkeys(present[i][0] for i in ids))
        number = {name: n for n, name in enumerate(names)}
        which = np.array([number[present[i][0]] for i in ids])
        positions = np.array([present[i][1] for i in ids])
        return LazyRows([self._layouts[name] for name in names], which, positions)

    def provenance(self, ids: Sequence[str]) -> list[dict[str, Any]]:
        """The records of the shards that serve `ids`, by name."""
        return self.shard_records(self.serving(ids))

    def serving(self, ids: Sequence[str]) -> list[str]:
        """Names of the shards that serve `ids`, sorted."""
        present = self._locate()
        return sorted({present[i][0] for i in ids if i in present})

    def names(self) -> list[str]:
        """Names of all shards that have a record, sorted."""
        return sorted(path.stem for path in self.folder.glob("shards/[0-9a-f]*.json"))

    def check(self, name: str) -> bool:
        """Read a shard anew, whatever was remembered of it; False where it has no record.

        Raises BadShard where it is not what it should be, OSError where it cannot be read.
        """
        return self._open(name, atomic_files.sha256_of) is not None

    def shard_records(self, names: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """The records of the shards of those names, or of all."""
        names = self.names() if names is None else names
        return [record for name in names if (record := records.load(self.record_path(name))) is not None]

    def _locate(self) -> dict[str, tuple[str, int]]:
        """id -> (shard, position) over all shards that count. The others are set aside, with one warning for all."""
        layouts, bad = {}, []
        for name in self.names():
            try:
                layout = self._layouts.get(name) or self._open(name)
            except shards.BadShard as error:
                bad.append((name, str(error), self.set_aside(name)))
                continue
            if layout is not None:
                layouts[name] = layout
        self._layouts = layouts
        if bad:
            self._warn(bad)
        present: dict[str, tuple[str, int]] = {}
        for name in sorted(layouts, reverse=True):  # the smallest name is written last, and wins
            for position, image in enumerate(layouts[name].ids):
                present[image] = (name, position)
        return present

    def _open(self, name: str, digest: Callable[[Path], str] | None = None) -> shards.ShardLayout | None:
        """The layout of a shard; None where it has no record. Raises BadShard where they are not what they should be.

        The digest is checked before libhdf5 sees a byte: damaged HDF5 can hang or crash it.
        """
        try:
            record = records.read(self.record_path(name))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise shards.BadShard(f"its record is damaged: {error}") from error
        path = self.path(name)
        try:
            if (digest or self.cache.index.digest)(path) != name:
                raise shards.BadShard("its bytes are not those of its name")
            layout = shards.inspect_shard(path, self.key)
            facts = self._facts(name, path.stat().st_size, layout.shape, layout.dtype)
        except FileNotFoundError as error:
            raise shards.BadShard("it is gone") from error
        if any(record.get(field) != value for field, value in facts.items()):
            raise shards.BadShard("its record tells of another shard")
        return layout

    def _facts(self, name: str, size: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> dict[str, Any]:
        """What a record says of its shard, whoever wrote it."""
        return {
            "schema": shards.SCHEMA,
            "key": self.key,
            "sha256": name,
            "rows": shape[0],
            "bytes": size,
            "shape": list(shape[1:]),
            "dtype": dtype.name,
        }

    def set_aside(self, name: str) -> bool:
        """Move a shard that doesn't count, and its record, to quarantine; whether that went well."""
        paths = [path for path in (self.record_path(name), self.path(name)) if path.exists()]
        moved = [atomic_files.quarantine(path, self.cache.quarantine) for path in paths]
        return all(moved)

    def _warn(self, bad: Sequence[tuple[str, str, bool]]) -> None:
        """One warning for all shards that don't count: name, reason, and whether it was moved."""
        name, reason, _ = bad[0]
        log.warning(
            "%s of %s %s damaged or gone (first: %s: %s); %s; %s rows are computed again",
            "1 shard" if len(bad) == 1 else f"{len(bad)} shards",
            self.key[:12],
            "is" if len(bad) == 1 else "are",
            name[:12],
            reason,
            f"moved to {self.cache.quarantine}" if all(moved for *_, moved in bad) else "what stays is passed over",
            "its" if len(bad) == 1 else "their",
        )

    def path(self, name: str) -> Path:
        return self.folder / "shards" / f"{name}.h5"

    def record_path(self, name: str) -> Path:
        return self.folder / "shards" / f"{name}.json"
