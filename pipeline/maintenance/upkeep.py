"""Owns listing a cache, verifying it, and removing what is not needed. Not who needs what (runs/retention.py)."""

import math
import random
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cache import atomic_files, gc, registrations
from cache.errors import Unusable
from cache.gc import Entry
from cache.shards import BadShard
from pipeline.maintenance.recompute import Recomputed
from pipeline.project.project import Project
from pipeline.results import registry
from pipeline.runs import retention
from pipeline.runs.finetuning import CHECKPOINT
from pipeline.runs.retention import Needs

ABANDONED_S = 30 * 86_400
"""A checkpoint that has not changed for so long is removed."""


@dataclass(frozen=True)
class Contents:
    """What the cache in `root` holds; who needs each entry and which models were made of it, by the entry's name."""

    root: Path
    entries: list[Entry]
    needs: Needs
    models: Mapping[str, list[str]]

    def to_json(self) -> dict[str, Any]:
        return {
            "root": self.root,
            "bytes": sum(entry.bytes for entry in self.entries),
            "entries": [
                vars(entry) | {"needed_by": self.needs.get(entry.name, []), "models": self.models.get(entry.name, [])}
                for entry in self.entries
            ],
        }


@dataclass
class Verified:
    """Shards read, of how many, their bytes, and (path, reason) of damaged files; rows that were computed again."""

    shards: int = 0
    of: int = 0
    bytes: int = 0
    damaged: list[tuple[str, str]] = field(default_factory=list)
    recomputed: Recomputed | None = None

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "damaged": [{"path": path, "reason": reason} for path, reason in self.damaged]}


@dataclass(frozen=True)
class Tidied:
    """What gc removed, or with `dry` would remove; bytes that are left, and of these the needed ones."""

    removed: list[Entry]
    left: int
    needed: int
    dry: bool

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "freed": sum(entry.bytes for entry in self.removed)}


def check_cache_exists(project: Project) -> None:
    """Raises Unusable where the project has no cache, or names a folder that is something else."""
    root = project.cache.root
    if not (root / "CACHE.json").is_file():
        what = "is not a cache: it has no CACHE.json" if root.exists() else "does not exist yet"
        raise Unusable(f"{root} {what}", "pipeline run extract creates one; or name another with cache.dir")


def list_contents(project: Project) -> Contents:
    models: dict[str, list[str]] = defaultdict(list)
    here = {root.path.parent for root in registrations.list_registrations(project.cache.root) if root.here}
    for model in (model for folder in sorted(here) for model in registry.list_models(folder)):
        for name in retention.names_behind(model.record):
            models[name].append(f"{model} ({', '.join(model.tags)})" if model.tags else str(model))
    return Contents(project.cache.root, gc.list_entries(project.cache), retention.find_needs(project), models)


def collect_garbage(project: Project, older_than: float | None, max_bytes: int | None, dry: bool) -> Tidied:
    """Remove leftovers; of what is not needed, what was not used for `older_than` s, and more down to `max_bytes`."""
    cache, now = project.cache, gc.cache_clock(project.cache)
    found = [*gc.list_entries(cache), *_left_by_trainings(project.folder, now)]
    needed = retention.find_needs(project).keys()
    going = gc.choose_surplus(found, needed, older_than, max_bytes, now)
    if not dry:
        going = list(gc.remove_entries(going, lambda: retention.names_in_use(cache)))
        atomic_files.remove(*retention.find_expired(cache))
        cache.index.prune()
    left = sum(entry.bytes for entry in found) - sum(entry.bytes for entry in going)
    return Tidied(going, left, sum(entry.bytes for entry in found if entry.name in needed), dry)


def _left_by_trainings(folder: Path, now: float) -> list[Entry]:
    """Temp files below models/, and checkpoints that have not changed for 30 days."""
    checkpoints = [gc.file_entry("leftover", path) for path in folder.glob(f"models/finetune/*/*/{CHECKPOINT}")]
    abandoned = [entry for entry in checkpoints if now - entry.used > ABANDONED_S]
    return [*abandoned, *(gc.file_entry("leftover", path) for path in folder.glob("models/**/.*.tmp"))]


def verify_cache(project: Project, share: float) -> Verified:
    """Read a random `share` (0 to 1) of the shards, and all other files; damaged ones go to quarantine.

    Files that cannot be read are reported, and stay: that may be the disk's fault.
    """
    stores = project.cache.stores()
    every = [(store, name) for store in stores for name in store.names()]
    drawn = random.sample(every, math.ceil(share * len(every)))
    report = Verified(len(drawn), len(every))
    with project.progress("reading shards", len(drawn)) as advance:
        for store, name in sorted(drawn, key=lambda pair: (pair[0].key, pair[1])):
            try:
                if store.check(name):
                    report.bytes += store.path(name).stat().st_size
            except BadShard as error:
                report.damaged.append((str(store.path(name)), str(error)))
                store.set_aside(name)
            except OSError as error:
                report.damaged.append((str(store.path(name)), f"cannot be read: {error.strerror}"))
            advance(1)
    for folder, suffix in (("manifests", ".jsonl"), *((name, ".json") for name in ("weights", "parts", "blocks"))):
        report.damaged += project.cache.check_named(folder, suffix)
    damaged = [str(store.folder / "spec.json") for store in stores if not store.components]
    report.damaged += [(path, "its components do not match its key; the next run rewrites it") for path in damaged]
    return report
