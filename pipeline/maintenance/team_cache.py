"""Owns the commands on a team's cache: which rows travel, what is kept. Not how (stages/remote), nor runs."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cache import registrations
from cache.errors import NotAvailable, Unusable
from pipeline.project import remote_rows
from pipeline.project.project import Project
from pipeline.project.remote_rows import Traffic
from pipeline.runs import retention
from stages.buckets.object_store import Absent, ObjectStore
from stages.data.manifest import Manifest
from stages.extract import schedule
from stages.remote import bucket, care, pull
from stages.remote.care import Entry
from stages.remote.push import Pusher

_LEAST_DIGITS = 6


@dataclass(frozen=True)
class Exchanged:
    """What a pull or push of `images` images moved; `missing` are those that have not all rows here, even after it.

    manifest: the file (pulled) or digest (pushed) of the table of images. weights: field -> digest of weights that
    pipeline.yaml names by a word or a path, by which another machine knows the keys.
    """

    traffic: Traffic
    images: int
    missing: int
    config: Path
    manifest: str | None = None
    weights: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "traffic": self.traffic.to_json()}


@dataclass(frozen=True)
class RemoteContents:
    """What the team's cache at `url` holds; with `going`, what gc removed of it, or with `dry` would remove."""

    url: str
    entries: list[Entry]
    going: list[Entry] = field(default_factory=list)
    dry: bool = True

    def to_json(self) -> dict[str, Any]:
        return {
            **vars(self),
            "entries": [entry.to_json() for entry in self.entries],
            "going": [entry.to_json() for entry in self.going],
        }


def list_remote(project: Project) -> RemoteContents:
    remote = remote_rows.open_remote(project)
    return RemoteContents(remote.url, care.list_entries(remote, time.time()))


def collect_remote(project: Project, older_than: float, dry: bool) -> RemoteContents:
    """Remove keys and manifests to which nothing was pushed for `older_than` s, and old parts of shards.

    What projects of the local cache need stays; of other machines nothing is known. Raises Unusable where the remote
    may only be read from, unless `dry`.
    """
    remote, now = remote_rows.open_remote(project, to_write=not dry), time.time()
    found = care.list_entries(remote, now)
    going = care.choose_old(found, retention.find_needs(project).keys(), older_than, now)
    if not dry:
        with project.progress("removing", len(going)) as advance:
            for entry in going:
                care.remove(remote, entry)
                advance(1)
    return RemoteContents(remote.url, found, going, dry)


def pull_rows(project: Project, manifest: str | None) -> Exchanged:
    """Copy the rows that the project's taps lack from the team's cache.

    manifest: first digits of a pushed one; its images are taken, and it is copied, instead of the project's own.
    Raises Unusable where no cache, or no such manifest, is named, Denied or Unreachable where the remote does not
    answer.
    """
    remote, specs = remote_rows.open_remote(project), {spec.key: spec for spec in project.specs.values()}
    file = None if manifest is None else _pull_manifest(remote, project, manifest)
    ids = project.manifest.ids if file is None else Manifest.from_bytes(file.read_bytes()).ids
    done, missing = Traffic(remote.url), schedule.find_missing(project.cache, specs, ids)
    with registrations.running_job(project.cache.root, specs):
        if missing:
            remote_rows.pull_missing(project, specs, missing, done)
            missing = schedule.find_missing(project.cache, specs, ids)
    retention.register_project(project, [*specs, *([file.stem] if file else [])], also_before=True)
    return Exchanged(done, len(ids), len(missing), project.path, str(file) if file else None)


def push_rows(project: Project) -> Exchanged:
    """Copy the rows of the project's images that are here, of all keys that it needs, and its manifest, to the remote.

    What fails is counted. Raises Unusable where it may only be read from.
    """
    remote = remote_rows.open_remote(project, to_write=True)
    specs, manifest = {spec.key: spec for spec in project.specs.values()}, project.manifest
    done, needed = Traffic(remote.url), retention.current_names(project)
    stores = [store for store in project.cache.stores() if store.key in needed and store.components]
    shards = [(store, name) for store in stores for name in store.serving(manifest.ids)]
    pusher = Pusher(remote, done.pushed)
    with (
        registrations.running_job(project.cache.root, needed),
        project.progress(f"pushing {len(shards)} shards", len(shards)) as advance,
    ):
        for store, name in shards:
            pusher.push(store, name)
            advance(1)
    missing = schedule.find_missing(project.cache, specs, manifest.ids)
    complete = manifest.without(missing)
    digest = pusher.push_manifest(complete.to_bytes()) if complete.rows and not done.pushed.lost else None
    return Exchanged(done, len(manifest.ids), len(missing), project.path, digest, _digests(project))


def _pull_manifest(remote: ObjectStore, project: Project, digits: str) -> Path:
    """The file in the cache. Raises Unusable unless those digits name one manifest of the remote."""
    found = bucket.list_manifests(remote)
    fitting = [digest for digest in found if digest.startswith(digits)]
    if len(digits) < _LEAST_DIGITS or len(fitting) != 1:
        raise Unusable(
            f"{remote.url} has {len(fitting)} manifests whose digest begins with {digits!r}; expected one, by "
            f"{_LEAST_DIGITS} digits or more",
            f"the latest are {_latest(found.values())}"
            if found
            else "pipeline cache push stores one, and says its digest",
        )
    try:
        return pull.pull_manifest(remote, project.cache, fitting[0])
    except (Absent, ValueError) as error:
        raise NotAvailable(f"the manifest {fitting[0]} of {remote.url}: {error}", "push it again") from error


def _latest(found: Iterable[Any]) -> str:
    return ", ".join(Path(o.name).stem[:12] for o in sorted(found, key=lambda o: -o.written)[:3])


def _digests(project: Project) -> dict[str, str]:
    names: Sequence[str] = [*project.config.extract.taps]
    fields = {
        "base" if project.config.extract.taps[tap].base is None else f"extract.taps.{tap}.base": project.choice(tap)
        for tap in names
    }
    return {
        f"{name}.weights": f"sha256:{project.weights(choice).sha256}"
        for name, choice in fields.items()
        if not choice.setting.startswith("sha256:")
    }
