"""Owns looking after a cache: who needs what of it, what lies there, whether it is whole, and making room."""

from __future__ import annotations

import os
import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cache import files, gc, roots
from cache.errors import PipelineError, Unusable
from cache.gc import Entry
from pipeline import registry
from pipeline.graph import Options, Progress, Project

Needs = Mapping[str, list[str]]
"""Extract key or manifest digest -> who needs it, in words."""


@dataclass(frozen=True)
class Contents:
    """What a cache holds, who needs it, and which models were made of it, by name of the entry."""

    entries: list[Entry]
    needs: Needs
    models: Mapping[str, list[str]]

    def to_json(self) -> dict[str, Any]:
        return {
            "bytes": sum(entry.bytes for entry in self.entries),
            "entries": [
                {
                    **_entry_json(entry),
                    "needed_by": self.needs.get(entry.name, []),
                    "models": self.models.get(entry.name, []),
                }
                for entry in self.entries
            ],
        }


@dataclass
class Verified:
    """What `verify` read, of how many shards, and (path, reason) of what is not as it was written."""

    shards: int = 0
    of: int = 0
    bytes: int = 0
    damaged: list[tuple[str, str]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "damaged": [{"path": path, "reason": reason} for path, reason in self.damaged]}


@dataclass(frozen=True)
class Tidied:
    """What gc took away, or would take away, and what is left, of it needed by somebody."""

    removed: list[Entry]
    left: int
    needed: int
    dry: bool

    def to_json(self) -> dict[str, Any]:
        freed = sum(entry.bytes for entry in self.removed)
        return {**vars(self), "freed": freed, "removed": [_entry_json(entry) for entry in self.removed]}


def register(project: Project, needs: Iterable[str | None]) -> None:
    """Note in the cache that this project uses it, and for which keys and manifest, so that gc keeps those."""
    names = [name for name in needs if name is not None]
    roots.register(project.cache.root, project.path, names, _tags(project.folder) or {})


def note_tags(config: Path, progress: Progress) -> None:
    """Note in the cache what the tagged models of a project need, if it was ever used from there."""
    with suppress(PipelineError):  # no pipeline.yaml, or a tag without its model: as it was noted last
        project = Project(config, Options(offline=True), progress)
        tags = _tags(project.folder)
        for root in roots.registered(project.cache.root):
            if root.here and root.path == project.path and tags is not None:
                roots.register(project.cache.root, project.path, root.needs, tags)


def contents(project: Project) -> Contents:
    """All that lies in the project's cache."""
    models: dict[str, list[str]] = defaultdict(list)
    for root in roots.registered(project.cache.root):
        for model in registry.listing(root.path.parent) if root.here else ():
            for name in _made_of(model.record):
                models[name].append(f"{model} ({', '.join(model.tags)})" if model.tags else str(model))
    return Contents(gc.entries(project.cache), needs(project), models)


def needs(project: Project) -> Needs:
    """Who needs what: pipeline.yaml files that used the cache, tagged models, and running jobs."""
    found: dict[str, list[str]] = defaultdict(list)
    for root in roots.registered(project.cache.root):
        for name, who in _of_root(project, root):
            found[name].append(who)
    for _, names, runs in roots.jobs(project.cache.root, gc.clock(project.cache)):
        for name in names if runs else ():
            found[name].append("a running job")
    return found


def tidy(project: Project, older_than: float | None, max_bytes: int | None, dry: bool) -> Tidied:
    """Take away leftovers, what nobody needs and was not used for `older_than` s, and the rest down to `max_bytes`."""
    cache = project.cache
    found, needed, now = gc.entries(cache), needs(project), gc.clock(cache)
    going = gc.surplus(found, needed.keys(), older_than, max_bytes, now)
    if not dry:
        going = list(gc.remove(going, lambda: needs(project).keys()))
        for path in _dead(project, now):
            files.remove(path)
    left = sum(entry.bytes for entry in found if entry not in going)
    return Tidied(going, left, sum(entry.bytes for entry in found if entry.name in needed), dry)


def verify(project: Project, share: float) -> Verified:
    """Read `share` (0 to 1) of the shards, drawn at random, and all manifests, and set aside what is damaged."""
    stores = project.cache.stores()
    every = [(store, name) for store in stores for name in store.names()]
    drawn = random.sample(every, round(share * len(every)))
    report = Verified(len(drawn), len(every))
    with project.progress("reading shards", len(drawn)) as advance:
        for store, name in sorted(drawn, key=lambda pair: (pair[0].key, pair[1])):
            reason = store.check(name)
            if reason is not None:
                report.damaged.append((str(store.path(name)), reason))
                store.set_aside(name)
            else:
                report.bytes += store.path(name).stat().st_size
            advance(1)
    report.damaged += project.cache.check_named("manifests", ".jsonl")
    damaged = [str(store.folder / "spec.json") for store in stores if not store.components]
    report.damaged += [(path, "its components give another key; the next run writes it anew") for path in damaged]
    return report


def _of_root(project: Project, root: roots.Root) -> Iterator[tuple[str, str]]:
    """(name, who needs it). What cannot be asked any more is taken as it was noted at its last run."""
    tags = root.tags
    if not root.here:
        yield from ((name, f"{root.path} on {root.host}") for name in root.needs)
    elif root.path.exists():
        yield from ((name, str(root.path)) for name in root.needs | _wants(project, root))
        live = _tags(root.path.parent)
        tags = root.tags if live is None else live
    for tag, names in tags.items():
        yield from ((name, f"tag {tag} of {root.path.parent}") for name in names)


def _wants(project: Project, root: roots.Root) -> set[str]:
    """The keys of a pipeline.yaml as it reads today, and the manifest it works from; none where it is unreadable."""
    try:
        other = Project(root.path, Options(offline=True), project.progress)
        if not os.path.samefile(other.cache.root, project.cache.root):
            return set()
        table = other.config.data.table
        return {*other.keys.values(), *([other.at(table).stem] if table is not None else [])}
    except (PipelineError, OSError):
        return set()


def _dead(project: Project, now: float) -> Iterator[Any]:
    """Notes of jobs that run no more, and of projects that are gone and left no tag."""
    yield from (path for path, _, runs in roots.jobs(project.cache.root, now) if not runs)
    for root in roots.registered(project.cache.root):
        if root.here and not root.path.exists() and not root.tags:
            yield root.record


def _tags(folder: Path) -> dict[str, tuple[str, ...]] | None:
    """What the tagged models of a project are made of; None where that of one cannot be told."""
    try:
        return {tag: _made_of(record) for tag, _, record in registry.tagged(folder)}
    except Unusable:
        return None


def _made_of(record: Mapping[str, Any]) -> tuple[str, ...]:
    """The extract keys behind a result, and its manifest."""
    made_of = (str(tap["key"]) for tap in record.get("extract", {}).values())
    return (*made_of, *([str(record["manifest"])] if "manifest" in record else []))


def _entry_json(entry: Entry) -> dict[str, Any]:
    return {**vars(entry), "path": str(entry.path)}
