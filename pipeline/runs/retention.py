"""Owns who needs what of a cache: pipeline.yaml files, tagged models, running jobs. Not what becomes of the rest."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from cache import gc, registrations
from cache.errors import PipelineError
from cache.registrations import Registration
from cache.store import Cache
from pipeline.project.project import Options, Progress, Project
from pipeline.results import registry
from pipeline.runs import boundary_rows

Needs = Mapping[str, list[str]]
"""Extract key or manifest digest -> who needs it, in words."""


def register_project(project: Project, names: Iterable[str], also_before: bool) -> None:
    """Note in the cache that this project uses it, and for which keys and manifest; `also_before` adds to the noted."""
    cache, before = project.cache.root, registrations.load_registration(project.cache.root, project.path)
    earlier = before.needs if before is not None and also_before else frozenset()
    registrations.register(
        cache, project.path, {*names, *earlier}, _tags(project.folder, before.tags if before else {})
    )


def register_tags(config: Path, progress: Progress, cache_dir: str | None) -> None:
    """Note what the tagged models of a project need, in its cache and in `cache_dir`, that of the model just tagged."""
    with suppress(PipelineError):  # there is no pipeline.yaml that can be read: it is noted by the next run
        for overrides in ((), (f"cache.dir={cache_dir}",) if cache_dir else ()):
            project = Project(config, Options(overrides, offline=True), progress)
            if registrations.load_registration(project.cache.root, project.path) is not None:
                register_project(project, (), also_before=True)


def find_needs(project: Project) -> Needs:
    """Who needs what in the project's cache."""
    found: dict[str, list[str]] = defaultdict(list)
    for name in asked_names(project):  # it may have moved since it was registered
        found[name].append(str(project.path))
    for root in registrations.list_registrations(project.cache.root):
        for name, who in _of_root(project, root):
            if who not in found[name]:
                found[name].append(who)
    for name in names_in_use(project.cache):
        found[name].append("a running job")
    return found


def names_in_use(cache: Cache) -> set[str]:
    """What running jobs need."""
    return {
        name for _, names, runs in registrations.list_jobs(cache.root, gc.cache_clock(cache)) if runs for name in names
    }


def find_expired(cache: Cache) -> Iterator[Path]:
    """Notes that count no more: of jobs that are over, and of projects that are long gone and left no tag."""
    now = gc.cache_clock(cache)
    yield from (path for path, _, runs in registrations.list_jobs(cache.root, now) if not runs)
    for root in registrations.list_registrations(cache.root):
        if root.gone and now - root.seen > registrations.GONE_S and not root.tags:
            yield root.record


def names_behind(record: Mapping[str, Any]) -> tuple[str, ...]:
    """The extract keys behind a result, and its manifest."""
    keys = (str(tap["key"]) for tap in record.get("extract", {}).values())
    return (*keys, *([str(record["manifest"])] if "manifest" in record else []))


def _of_root(project: Project, root: Registration) -> Iterator[tuple[str, str]]:
    """(name, who needs it). What cannot be asked is taken as it was noted at its last run."""
    tags = root.tags
    if not root.here:
        yield from ((name, f"{root.path} on {root.host}") for name in root.needs)
    elif not root.gone:
        wants = _wants(project, root)
        yield from ((name, str(root.path)) for name in wants)
        yield from ((name, f"the last run of {root.path}") for name in root.needs - wants)
        tags = _tags(root.path.parent, root.tags)
    elif gc.cache_clock(project.cache) - root.seen < registrations.GONE_S:
        yield from ((name, f"{root.path}, which is gone") for name in root.needs)
    for tag, names in tags.items():
        yield from ((name, f"tag {tag} of {root.path.parent}") for name in names)


def _wants(project: Project, root: Registration) -> set[str]:
    """The keys of a pipeline.yaml as it reads today, and the manifest it works from; none where it is unreadable."""
    try:
        other = Project(root.path, Options(offline=True), project.progress)
        return asked_names(other) if os.path.samefile(other.cache.root, project.cache.root) else set()
    except (PipelineError, OSError):
        return set()


def asked_names(project: Project) -> set[str]:
    """The keys of its settings, and the manifest that it works from."""
    table = project.config.data.table
    manifest = {project.at(table).stem} if table is not None else set()
    keys: set[str] = set()
    with suppress(PipelineError):
        keys |= set(project.keys.values())
        keys |= set(boundary_rows.extract_keys(project, project.config.finetune))
    return manifest | keys


def _tags(folder: Path, noted: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """What the tagged models of a project are made of; as `noted` where that of one cannot be told."""
    try:
        os.listdir(folder / "models" / "tags")  # glob would take what may not be read for empty
    except FileNotFoundError:
        return {}
    except OSError:
        return dict(noted)
    live = registry.tagged_records(folder)
    return {tag: names_behind(record) if record is not None else noted.get(tag, ()) for tag, record in live.items()}
