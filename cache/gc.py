"""Owns what a cache holds: listing it, removing what is not needed, merging small shards. Not who needs it."""

import contextlib
import json
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cache import atomic_files, compiled_models, records, shards
from cache.errors import Damaged, NotAvailable
from cache.store import Cache, FeatureStore

LEFTOVER_S = 86_400
"""A temp file, or a shard without its record, may belong to a running process until it is this old."""


@dataclass(frozen=True)
class Entry:
    """What gc can remove: the rows of a key, a manifest, a file in quarantine, a leftover, or a compiled model.

    Compiled models (`converted`) are those of earlier versions, which are not read any more (compiled_models.py).

    `used` is its last use, in s since the epoch by the clock of the cache's file system; `key` the extract key
    that it belongs to, if any; `components` those of the key, {} where they cannot be read.
    """

    kind: Literal["features", "manifest", "converted", "quarantine", "leftover"]
    name: str
    path: Path
    rows: int
    bytes: int
    used: float
    key: str | None = None
    components: Mapping[str, Any] = field(default_factory=dict)


def list_entries(cache: Cache) -> list[Entry]:
    """All that the cache holds, except a few bytes of bookkeeping."""
    found = [entry for store in cache.stores() for entry in _of_store(store)]
    for path in sorted(cache.root.glob("manifests/*.jsonl")):
        size, used = _size_and_age([path, path.with_suffix(".json")], path)
        found.append(Entry("manifest", path.stem, path, 0, size, used))
    for folder in sorted(cache.root.glob("converted/*")):
        size, used = _size_and_age(folder.glob("[!.]*"), folder / records.RECORD)
        found.append(Entry("converted", folder.name, folder, 0, size, used))
    found += [file_entry("quarantine", path) for path in sorted(cache.root.glob("quarantine/*"))]
    temps = sorted({*cache.root.rglob(".*.tmp")} - {*cache.root.glob("features/**/.*.tmp")})
    return found + [file_entry("leftover", path) for path in temps]


def choose_surplus(
    found: Sequence[Entry], needed: Collection[str], older_than: float | None, max_bytes: int | None, now: float
) -> list[Entry]:
    """Those of `found` to remove.

    Old leftovers always. Of what is not `needed`, least recently used first: all that was not used for `older_than` s,
    and as many more as bring the rest down to `max_bytes`.
    """
    leftovers = [entry for entry in found if entry.kind == "leftover"]
    whole = [entry for entry in found if entry.kind != "leftover"]
    left = sum(entry.bytes for entry in whole)
    going = []
    for entry in sorted(whole, key=lambda entry: entry.used):
        too_old = older_than is not None and now - entry.used > older_than
        too_much = max_bytes is not None and left > max_bytes
        if entry.name not in needed and (too_old or too_much):
            going.append(entry)
            left -= entry.bytes
    return [entry for entry in leftovers if now - entry.used > LEFTOVER_S] + going


def remove_entries(going: Iterable[Entry], busy: Callable[[], Collection[str]]) -> Iterator[Entry]:
    """Remove entries, and yield each. Names in `busy()`, called again before each, stay, with their leftovers."""
    for entry in going:
        if not {entry.name, entry.key} & set(busy()):
            _remove(entry)
            yield entry


def cache_clock(cache: Cache) -> float:
    """Now, in s since the epoch, by the clock that dates the cache's files; this host's if the cache is read-only."""
    try:
        return atomic_files.disk_clock(cache.root)
    except OSError:
        return time.time()


def _of_store(store: FeatureStore) -> Iterator[Entry]:
    """The rows of a key, and leftovers in its folder."""
    recorded = set(store.names())
    files = [path for path in store.folder.rglob("*") if path.is_file()]
    rest = [p for p in files if p.name.startswith(".") or (p.suffix == ".h5" and p.stem not in recorded)]
    whole = set(files) - set(rest)
    rows = sum(record.get("rows", 0) for record in store.shard_records())
    size, used = _size_and_age(whole, store.folder / "spec.json")
    yield Entry("features", store.key, store.folder, rows, size, used, store.key, store.components)
    yield from (file_entry("leftover", path, store.key) for path in sorted(rest))


def _remove(entry: Entry) -> None:
    """Records are removed before their shards: a shard without a record does not count, so no row ever lacks its bytes.

    Rows that are added meanwhile stay.
    """
    if entry.kind == "manifest":
        atomic_files.remove(entry.path.with_suffix(".json"), entry.path)
    elif entry.kind == "features":
        gone = list(entry.path.glob("shards/*.json"))
        atomic_files.remove(*gone)
        atomic_files.remove(*(record.with_suffix(".h5") for record in gone))
        if not any(entry.path.glob("shards/*.json")):
            atomic_files.remove(entry.path / "spec.json")
            with contextlib.suppress(OSError):
                atomic_files.remove_folder(entry.path / "shards")
                atomic_files.remove_folder(entry.path)
    elif entry.kind == "converted":
        compiled_models.remove(entry.path)
    elif not entry.path.with_suffix(".json").exists():  # a shard may have got its record since
        atomic_files.remove(entry.path)


def file_entry(kind: Literal["quarantine", "leftover"], path: Path, key: str | None = None) -> Entry:
    return Entry(kind, path.name, path, 0, *_size_and_age([path], path), key)


def _size_and_age(paths: Iterable[Path], dated: Path) -> tuple[int, float]:
    """Bytes of all, and the mtime of `dated` (else the latest of all); files that vanish meanwhile are skipped."""
    size, used = 0, 0.0
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            status = path.stat()
            size += status.st_size
            used = max(used, status.st_mtime)
    with contextlib.suppress(FileNotFoundError):
        used = dated.stat().st_mtime
    return size, used


Piece = Sequence[tuple[str, np.ndarray]]
"""The rows of a new shard: names of shards, and the positions (int64) in each."""


@dataclass(frozen=True)
class Merge:
    """Shards of a key, `sources`, whose rows go into a shard for each of `pieces`. records: of the sources, by name."""

    store: FeatureStore
    sources: frozenset[str]
    pieces: Sequence[Piece]
    records: Mapping[str, Mapping[str, Any]]

    @property
    def rows(self) -> int:
        return sum(len(positions) for piece in self.pieces for _, positions in piece)

    @property
    def bytes(self) -> int:
        return sum(self.records[name]["bytes"] for name in self.sources)


def plan_merge(store: FeatureStore, most_bytes: int) -> Merge | None:
    """How the small shards of a key, with less than half of `most_bytes` of features, become fewer; None if they don't.

    Rows of other makers (engine, device, versions) stay apart. Shards that share a row with a small one come along, so
    that of each row the copy that is served now is the one that is left.
    """
    layouts = store.layouts()
    found = {record["sha256"]: record for record in store.shard_records(sorted(layouts))}
    layouts = {name: layout for name, layout in layouts.items() if name in found}
    small = {name for name, layout in layouts.items() if 2 * layout.shape[0] * layout.row_bytes < most_bytes}
    linked = _link({name: layout.ids for name, layout in layouts.items()})
    sources = _reach(small, linked)
    groups: dict[str, list[str]] = defaultdict(list)
    for name in sorted(
        sources, key=lambda name: (_mtime(store.record_path(name)), name)
    ):  # nearly the manifest's order
        groups[_maker(found[name])].append(name)
    for maker, names in list(groups.items()):
        if len(names) == 1 and not linked.get(names[0]):
            sources -= {*groups.pop(maker)}
    served = {image: name for name in sorted(sources, reverse=True) for image in layouts[name].ids}
    pieces: list[Piece] = []
    for names in groups.values():
        most = max(1, most_bytes // max(1, layouts[names[0]].row_bytes))
        rows = [(name, i) for name in names for i, image in enumerate(layouts[name].ids) if served[image] == name]
        pieces += [_by_shard(rows[start : start + most]) for start in range(0, len(rows), most)]
    return Merge(store, frozenset(sources), pieces, found) if len(pieces) < len(sources) else None


def merge_shards(merge: Merge) -> list[str]:
    """Write the new shards, then remove the records of the old ones; the names of the new.

    A kill leaves rows twice, never none. The old shards stay as leftovers for a day, for those who have found rows in
    them and are still to read these. Raises Unwritable; Damaged or NotAvailable where a shard can't be read: then none
    is removed.
    """
    made = [_write_piece(merge, piece) for piece in merge.pieces]
    old = sorted(merge.sources.difference(made), reverse=True)  # of a row's copies, the one that is served goes last
    for name in old:
        atomic_files.note_use(merge.store.path(name))
    atomic_files.remove(*map(merge.store.record_path, old))
    return made


def _write_piece(merge: Merge, piece: Piece) -> str:
    ids: list[str] = []
    rows = []
    for name, positions in piece:
        try:
            layout = merge.store.check(name)  # by its bytes: a damaged row must not get a digest of its own
            if layout is None:
                raise FileNotFoundError(name)
            rows.append(shards.read_rows(layout, positions))
        except shards.BadShard as error:
            raise Damaged(f"{merge.store.path(name)}: {error}", "pipeline cache verify, then compact again") from error
        except FileNotFoundError as error:
            raise NotAvailable(f"{merge.store.path(name)} was removed meanwhile", "compact again") from error
        ids += [layout.ids[i] for i in positions.tolist()]
    return merge.store.put(ids, np.concatenate(rows), _joint_facts(merge, piece))


def _joint_facts(merge: Merge, piece: Piece) -> dict[str, Any]:
    """What the record of a new shard says of who made it: its rows' share of the seconds, and the latest time."""
    own = [(merge.records[name], len(positions)) for name, positions in piece]
    facts = dict(own[0][0])
    if seconds := [rows * record["seconds"] / record["rows"] for record, rows in own if record.get("seconds")]:
        facts["seconds"] = round(sum(seconds), 3)
    if times := [record["written"] for record, _ in own if isinstance(record.get("written"), int)]:
        facts["written"] = max(times)
    return facts


def _by_shard(rows: Sequence[tuple[str, int]]) -> Piece:
    of: dict[str, list[int]] = defaultdict(list)
    for name, position in rows:
        of[name].append(position)
    return [(name, np.array(positions)) for name, positions in of.items()]


def _maker(record: Mapping[str, Any]) -> str:
    """What the record of a shard says of who computed it."""
    of_a_shard = {"sha256", "rows", "bytes", "seconds", "written"}
    return json.dumps({name: value for name, value in record.items() if name not in of_a_shard}, sort_keys=True)


def _link(ids: Mapping[str, Sequence[str]]) -> Mapping[str, set[str]]:
    """Of shards that share a row with others: those others, or one by which they are reached."""
    first: dict[str, str] = {}
    linked: dict[str, set[str]] = defaultdict(set)
    for name, images in ids.items():
        for image in images:
            other = first.setdefault(image, name)
            if other != name:
                linked[other].add(name)
                linked[name].add(other)
    return linked


def _reach(start: Collection[str], linked: Mapping[str, set[str]]) -> set[str]:
    """`start`, and all that is reached from there."""
    found: set[str] = set()
    waiting = list(start)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += linked.get(name, ())
    return found


def _mtime(path: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_mtime_ns
    return 0
