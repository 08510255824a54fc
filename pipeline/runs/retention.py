"""Owns which keys of a cache are needed: by pipeline.yaml files, tagged models, running jobs. Not removing (gc.py)."""

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
"""Extract key or manifest digest -> descriptions of who needs it."""


def register_project(project: Project, names: Iterable[str], also_before: bool) -> None:
    """Register the project in its cache, with the names it needs; `also_before` keeps those registered earlier."""
    cache, before = project.cache.root, registrations.load_registration(project.cache.root, project.path)
    earlier = before.needs if before is not None and also_before else frozenset()
    registrations.register(
        cache, project.path, {*names, *earlier}, _tags(project.folder, before.tags if before else {})
    )


def register_tags(config: Path, progress: Progress, cache_dir: str | None) -> None:
    """Register what the tagged models of a project need, in its cache and in `cache_dir`, that of the model tagged."""
    with suppress(PipelineError):  # pipeline.yaml cannot be read: the next run registers them
        for overrides in ((), (f"cache.dir={cache_dir}",) if cache_dir else ()):
            project = Project(config, Options(overrides, offline=True), progress)
            if registrations.load_registration(project.cache.root, project.path) is not None:
                register_project(project, (), also_before=True)


def find_needs(project: Project) -> Needs:
    """Who needs what in the project's cache."""
    found: dict[str, list[str]] = defaultdict(list)
    for name in current_names(project):  # it may have moved since it was registered
        found[name].append(str(project.path))
    for registration in registrations.list_registrations(project.cache.root):
        for name, who in _registered_needs(project, registration):
            if who not in found[name]:
                found[name].append(who)
    for name in names_in_use(project.cache):
        found[name].append("a running job")
    return found


def names_in_use(cache: Cache) -> set[str]:
    """What running jobs need."""
    jobs = registrations.list_jobs(cache.root, gc.cache_clock(cache))
    return {name for _, names, runs in jobs if runs for name in names}


def find_expired(cache: Cache) -> Iterator[Path]:
    """Files of jobs that have ended, and of projects that are long gone and have no tag."""
    now = gc.cache_clock(cache)
    yield from (path for path, _, runs in registrations.list_jobs(cache.root, now) if not runs)
    for project in registrations.list_registrations(cache.root):
        if project.gone and now - project.seen > registrations.GONE_S and not project.tags:
            yield project.record


def names_behind(record: Mapping[str, Any]) -> tuple[str, ...]:
    """The extract keys and the manifest that a result was made from."""
    keys = (str(tap["key"]) for tap in record.get("extract", {}).values())
    return (*keys, *([str(record["manifest"])] if "manifest" in record else []))


def _registered_needs(project: Project, registered: Registration) -> Iterator[tuple[str, str]]:
    """(name, who needs it). Unreachable projects keep what they registered at their last run."""
    tags = registered.tags
    if not registered.here:
        yield from ((name, f"{registered.path} on {registered.host}") for name in registered.needs)
    elif not registered.gone:
        current = _names_today(project, registered)
        yield from ((name, str(registered.path)) for name in current)
        yield from ((name, f"the last run of {registered.path}") for name in registered.needs - current)
        tags = _tags(registered.path.parent, registered.tags)
    elif gc.cache_clock(project.cache) - registered.seen < registrations.GONE_S:
        yield from ((name, f"{registered.path}, which is gone") for name in registered.needs)
    for tag, names in tags.items():
        yield from ((name, f"tag {tag} of {registered.path.parent}") for name in names)


def _names_today(project: Project, registered: Registration) -> set[str]:
    """The names that a registered pipeline.yaml needs today; empty if it is unreadable or uses another cache."""
    try:
        other = Project(registered.path, Options(offline=True), project.progress)
        return current_names(other) if os.path.samefile(other.cache.root, project.cache.root) else set()
    except (PipelineError, OSError):
        return set()


def current_names(project: Project) -> set[str]:
    """The keys of the project's settings, and the saved manifest that it uses as its table."""
    table = project.config.data.table
    manifest = {project.at(table).stem} if table is not None else set()
    keys: set[str] = set()
    with suppress(PipelineError):
        keys |= set(project.keys.values())
        tuned = [name for name, spec in project.config.finetune.items() if boundary_rows.is_known(project, spec)]
        keys |= set(boundary_rows.extract_keys(project, tuned))
    return manifest | keys


def _tags(folder: Path, noted: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """The names that tagged models were made from; those in `noted` if models/ or a record cannot be read."""
    try:
        os.listdir(folder / "models" / "tags")  # glob takes an unreadable folder for empty
    except FileNotFoundError:
        return {}
    except OSError:
        return dict(noted)
    live = registry.tagged_records(folder)
    return {tag: names_behind(record) if record is not None else noted.get(tag, ()) for tag, record in live.items()}
