"""Owns which shards of a cache count, and which row is read. Not their layout (shards.py), nor what a key means."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cache import atomic_files, keys, records, shards
from cache.errors import Damaged, NotAvailable, Unkeyable, Unusable
from cache.hash_index import HashIndex
from cache.lazy_rows import LazyRows

log = logging.getLogger(__name__)

FORMAT = 1

USED_S = 3600
"""The last use of a file is recorded in its mtime, at most this often."""


def key_of(components: Mapping[str, Any]) -> str:
    """The extract key: SHA-256, in hex, of everything that determines a row's value."""
    return keys.digest("extract", components)


class Cache:
    """The folder `.features`: feature stores by key, and manifests by digest. Deleting it costs time only."""

    def __init__(self, root: Path, index: HashIndex) -> None:
        """Raises `Unusable` where a newer version wrote the cache. Creates nothing."""
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
        """The rows of the extract key of `components`."""
        return FeatureStore(self, key_of(components), components)

    def stores(self) -> list[FeatureStore]:
        """All feature stores, sorted by key; with components {} where spec.json is damaged."""
        keys_here = sorted(folder.name for folder in self.root.glob("features/*") if keys.is_digest(folder.name))
        return [FeatureStore(self, key, self._spec(key)) for key in keys_here]

    def _spec(self, key: str) -> dict[str, Any]:
        """The components of that key, {} where its spec.json is missing or damaged."""
        spec = records.load(self.root / "features" / key / "spec.json") or {}
        try:
            return spec if key_of(spec) == key else {}
        except Unkeyable:
            return {}

    @property
    def quarantine(self) -> Path:
        """The folder of damaged files."""
        return self.root / "quarantine"

    def put_named(self, folder: str, data: bytes, suffix: str) -> str:
        """Store `data` in `folder` under its SHA-256, and return that."""
        name = hashlib.sha256(data).hexdigest()
        self.prepare()
        path = self.root / folder / f"{name}{suffix}"
        atomic_files.store_content(path, data, name, self.quarantine)
        atomic_files.note_use(path, USED_S)
        return name

    def check_named(self, folder: str, suffix: str) -> list[tuple[str, str]]:
        """Read what `put_named` stored; damaged files, as (path, reason), are moved to quarantine."""
        damaged = []
        for path in sorted((self.root / folder).glob(f"*{suffix}")):
            try:
                if atomic_files.sha256_of(path) != path.stem:
                    damaged.append((str(path), shards.WRONG_DIGEST))
                    atomic_files.quarantine(path, self.quarantine)
            except FileNotFoundError:  # gc has just removed it
                continue
            except OSError as error:
                damaged.append((str(path), f"cannot be read: {error.strerror}"))
        return damaged

    def prepare(self) -> None:
        """Write CACHE.json, and a .gitignore, so that a cache is not committed."""
        marker = records.load(self.root / "CACHE.json")
        if marker is None or marker.get("format") != FORMAT:  # damaged: a newer version was refused
            if not (self.root / ".gitignore").exists():
                atomic_files.publish(self.root / ".gitignore", b"*\n")
            atomic_files.publish(self.root / "CACHE.json", records.dump({"format": FORMAT, "program": "frozenbase"}))


class FeatureStore:
    """Rows of one extract key, by the SHA-256 of the image they were computed on.

    A row is absent or complete. There are no locks: shards are immutable, named by their own SHA-256, and count
    only once they have a record. A row that is in two shards is read from the one with the smaller name.
    """

    def __init__(self, cache: Cache, key: str, components: Mapping[str, Any]) -> None:
        self.cache = cache
        self.key = key
        self.components = components
        self.folder = cache.root / "features" / self.key
        self._layouts: dict[str, shards.ShardLayout] = {}

    def prepare(self) -> None:
        """Create the store's folder and spec.json. Raises Unwritable where the cache cannot be written."""
        self.cache.prepare()
        if not self.cache._spec(self.key):
            atomic_files.publish(self.folder / "spec.json", records.dump(self.components))
        with atomic_files.naming_path(self.folder, "written to"):
            if not os.access(self.folder, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    def note_use(self) -> None:
        """Record that the rows are used, and rewrite spec.json if it is damaged; no error in a read-only cache."""
        if self.names() and not self.cache._spec(self.key):
            with contextlib.suppress(OSError):
                self.prepare()
        atomic_files.note_use(self.folder / "spec.json", USED_S)

    def missing(self, ids: Sequence[str]) -> list[str]:
        """Those of `ids` without a row, once each, in the order given. Damaged shards go to quarantine first."""
        present = self._locate()
        return [i for i in dict.fromkeys(ids) if i not in present]

    def put(self, ids: Sequence[str], features: np.ndarray, provenance: Mapping[str, Any]) -> str:
        """Write one shard and its record, and return its name.

        `ids` are n SHA-256 hex strings, `features` an ndarray of shape (n, ...), all finite. `provenance`
        (engine, versions, seconds) goes into the record and is part of no key.
        Raises ValueError for invalid rows, Unwritable where the disk is full or read-only.
        """
        data = shards.build_shard(self.key, ids, features)
        name = hashlib.sha256(data).hexdigest()
        self.prepare()
        atomic_files.store_content(self.path(name), data, name, self.cache.quarantine)
        try:
            if self._open(name) is not None:
                atomic_files.sync_folder(self.record_path(name).parent)  # another may have just published it
                return name
        except shards.BadShard:  # its record is damaged, or of another shard
            atomic_files.quarantine(self.record_path(name), self.cache.quarantine)
        facts = shards.record_facts(self.key, name, len(data), features.shape, features.dtype)
        atomic_files.publish(self.record_path(name), records.dump({**provenance, **facts}))
        return name

    def read(self, ids: Sequence[str]) -> np.ndarray:
        """The rows of `ids` (at least one), in that order: a new ndarray of shape (len(ids), ...), as stored.

        Raises NotAvailable, naming the first, where a row is absent.
        """
        return self.rows(ids)[:]

    def rows(self, ids: Sequence[str]) -> LazyRows:
        """The same, read when sliced."""
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

    def serving(self, ids: Sequence[str]) -> list[str]:
        """Names of the shards that hold `ids`, sorted."""
        present = self._locate()
        return sorted({present[i][0] for i in ids if i in present})

    def ids(self, names: Collection[str]) -> list[str]:
        """The images whose rows are served from the shards of those names."""
        return [image for image, (name, _) in self._locate().items() if name in names]

    def rewrite_record(self, record: Mapping[str, Any]) -> None:
        """Replace the record of a shard, which it names by `sha256`."""
        atomic_files.publish(self.record_path(record["sha256"]), records.dump(record))

    def names(self) -> list[str]:
        """Names of all shards that have a record, sorted."""
        return sorted(path.stem for path in self.folder.glob("shards/[0-9a-f]*.json"))

    def check(self, name: str) -> shards.ShardLayout | None:
        """Read and verify a shard, without the stat index: its layout, None where it has no record.

        Raises BadShard where it is damaged, OSError where it cannot be read.
        """
        return self._open(name, atomic_files.sha256_of)

    def shard_records(self, names: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """The records of the shards of those names, or of all."""
        names = self.names() if names is None else names
        found = [r for name in names if (r := records.load(self.record_path(name), shards.RECORD_FIELDS)) is not None]
        return [{**r, "versions": {k: str(v) for k, v in (r.get("versions") or {}).items()}} for r in found]

    def layouts(self) -> dict[str, shards.ShardLayout]:
        """All shards that count, by name. Damaged ones go to quarantine first."""
        self._locate()
        return dict(self._layouts)

    def row_kind(self) -> tuple[tuple[int, ...], str] | None:
        """(shape, dtype) of a row; None where there is none yet."""
        self._locate()
        return next(((layout.shape[1:], layout.dtype.name) for layout in self._layouts.values()), None)

    def _locate(self) -> dict[str, tuple[str, int]]:
        """id -> (shard, position) over all shards. Damaged ones go to quarantine, with one warning for all."""
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
        kinds = {f"{layout.dtype} {layout.shape[1:]}" for layout in layouts.values()}
        if len(kinds) > 1:
            what = f"{self.folder} has rows of {' and '.join(sorted(kinds))}, which one key cannot have"
            raise Damaged(what, "somebody else wrote to it: remove that folder, and its rows are computed again")
        present: dict[str, tuple[str, int]] = {}
        for name in sorted(layouts, reverse=True):  # the smallest name is last, and wins
            present |= {image: (name, position) for position, image in enumerate(layouts[name].ids)}
        return present

    def _open(self, name: str, digest: Callable[[Path], str] | None = None) -> shards.ShardLayout | None:
        """The layout of a shard; None where it has no record. Raises BadShard where either is damaged.

        The digest is checked before libhdf5 reads a byte: damaged HDF5 can hang or crash it.
        """
        try:
            record = records.read(self.record_path(name), shards.RECORD_FIELDS)
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise shards.BadShard(f"its record is damaged: {error}") from error
        path = self.path(name)
        try:
            if (digest or self.cache.index.digest)(path) != name:
                raise shards.BadShard(shards.WRONG_DIGEST)
            layout = shards.inspect_shard(path, self.key)
            facts = shards.record_facts(self.key, name, path.stat().st_size, layout.shape, layout.dtype)
        except FileNotFoundError as error:
            raise shards.BadShard("it is missing") from error
        if any(record.get(field) != value for field, value in facts.items()):
            raise shards.BadShard("its record is of another shard")
        return layout

    def set_aside(self, name: str) -> bool:
        """Move a damaged shard and its record to quarantine; whether both were moved."""
        paths = [path for path in (self.record_path(name), self.path(name)) if path.exists()]
        moved = [atomic_files.quarantine(path, self.cache.quarantine) for path in paths]
        return all(moved)

    def _warn(self, bad: Sequence[tuple[str, str, bool]]) -> None:
        """One warning for all damaged shards: name, reason, and whether it was moved."""
        name, reason, _ = bad[0]
        moved = all(moved for *_, moved in bad)
        log.warning(
            "%s of %s damaged or missing (first: %s: %s); %s; their rows are computed again",
            "1 shard" if len(bad) == 1 else f"{len(bad)} shards",
            self.key[:12],
            name[:12],
            reason,
            f"moved to {self.cache.quarantine}" if moved else "not all could be moved to quarantine, and are ignored",
        )

    def path(self, name: str) -> Path:
        return self.folder / "shards" / f"{name}.h5"

    def record_path(self, name: str) -> Path:
        return self.folder / "shards" / f"{name}.json"
