"""Owns what a project takes from the team's cache, and gives it. Not when (runs/), nor moving it (stages/remote)."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cache.errors import Unusable
from cache.transfer import Copied
from pipeline.project.project import Project
from stages.bases.recipe import FeatureSpec, Specs
from stages.buckets.object_store import Denied, ObjectStore, Unreachable
from stages.extract.arrivals import Bring
from stages.extract.shard_task import Receipt
from stages.remote.pull import Offers
from stages.remote.push import BackgroundPusher, Pushed, Pusher

log = logging.getLogger(__name__)

_HEAL = "pipeline cache push from a machine that has these rows restores them"


@dataclass
class Traffic:
    """What went to and from the team's cache at `url`."""

    url: str
    pulled: Copied = field(default_factory=Copied)
    pushed: Pushed = field(default_factory=Pushed)
    offers: dict[str, Offers] = field(default_factory=dict)
    """What is known of each key there, so that a second look reads only what is new."""

    def to_json(self) -> dict[str, Any]:
        refused = [{"object": name, "reason": reason} for name, reason in self.pulled.refused]
        damaged = [{"path": path, "reason": reason} for path, reason in self.pushed.damaged]
        pulled = {**vars(self.pulled), "refused": refused}
        error = None if self.pushed.error is None else self.pushed.error.message
        return {"url": self.url, "pulled": pulled, "pushed": {**vars(self.pushed), "error": error, "damaged": damaged}}


def begin(project: Project) -> Traffic | None:
    """To count what goes to and from the team's cache; None where pipeline.yaml names none, or with --offline."""
    settings = project.config.cache.remote
    return None if settings is None or project.options.offline else Traffic(settings.url)


def open_remote(project: Project, to_write: bool = False) -> ObjectStore:
    """The team's cache. Raises Unusable where pipeline.yaml names none, or only to read from, or without obstore."""
    settings = project.config.cache.remote
    if settings is None:
        raise Unusable(f"{project.path} names no team's cache", "set cache.remote.url, for example s3://bucket/prefix")
    writes = settings.mode == "read-write"
    if to_write and not writes:
        raise Unusable(
            f"cache.remote.mode is {settings.mode}, so {settings.url} is only read from",
            "set cache.remote.mode: read-write, if you may write there",
        )
    return ObjectStore(settings.url, make_folder=writes)


def pull_missing(project: Project, specs: Specs, missing: Mapping[str, Sequence[str]], done: Traffic) -> None:
    """Copy those of the `missing` rows, image -> keys, that the team's cache has. Raises Denied or Unreachable.

    What there is but cannot be used is told in one warning; these rows are still missing.
    """
    remote, before = open_remote(project), len(done.pulled.refused)
    with project.progress("pulling shards", None) as advance:
        for key, spec in specs.items():
            if ids := [image for image, keys in missing.items() if key in keys]:
                _offers(project, remote, spec, done).pull(ids, advance)
    if refused := done.pulled.refused[before:]:
        name, reason = refused[0]
        many = f"{len(refused)} objects of {remote.url} are" if len(refused) > 1 else f"an object of {remote.url} is"
        log.warning("%s of no use, and the rows count as missing (first: %s: %s); %s", many, name, reason, _HEAL)


def bringing(project: Project, specs: Specs, done: Traffic | None) -> Bring | None:
    """Copies rows which others have pushed since; None where the team's cache is not written to.

    That it does not answer any more is told in one warning, and is no error: the rows are computed here then.
    """
    if done is None or not _is_shared(project):
        return None
    remote, lost = open_remote(project), False

    def bring(missing: Mapping[str, Sequence[str]]) -> None:
        nonlocal lost
        try:
            for key, ids in {} if lost else missing.items():
                if _is_of_tap(project, specs[key]):
                    _offers(project, remote, specs[key], done).pull(ids)
        except (Denied, Unreachable) as error:
            lost = True
            log.warning("%s; what others compute meanwhile is computed here too", error.message)

    return bring


def _offers(project: Project, remote: ObjectStore, spec: FeatureSpec, done: Traffic) -> Offers:
    if spec.key not in done.offers:
        done.offers[spec.key] = Offers(remote, project.rows_of(spec), done.pulled)
    return done.offers[spec.key]


@contextlib.contextmanager
def pushing(project: Project, specs: Specs, done: Traffic | None) -> Iterator[Callable[[Receipt], object]]:
    """While this lasts, push the shards of receipts that are handed over, on a thread of its own.

    Only rows of taps of pipeline.yaml: the maps of a fine-tuning are far larger, and go by `cache push` alone. Without
    effect where there is no `done`, or a team's cache that is only read from.

    A push that fails is told in one warning, and is no error: the rows are in the local cache.
    """
    if done is None or not _is_shared(project):
        yield lambda receipt: None
        return
    pusher = BackgroundPusher(Pusher(open_remote(project, to_write=True), done.pushed))

    def offer(receipt: Receipt) -> None:
        for key, name in receipt.shards:
            if _is_of_tap(project, specs[key]):
                pusher.offer(project.rows_of(specs[key]), name)

    try:
        yield offer
    except KeyboardInterrupt:
        pusher.give_up()
        raise
    finally:
        pusher.close()
        if lost := done.pushed.lost:
            log.warning("%s; their rows are in the cache here, and `pipeline cache push` sends them", lost)


def _is_shared(project: Project) -> bool:
    settings = project.config.cache.remote
    return settings is not None and settings.mode == "read-write"


def _is_of_tap(project: Project, spec: FeatureSpec) -> bool:
    """Whether a tap of pipeline.yaml has such rows; by layer and pooling, as a key takes weights to be known."""
    taps = {(tap.layer, tap.pooling) for tap in project.config.extract.taps.values()}
    return spec.recipe.view is None and spec.tap.dtype is None and (spec.tap.layer, spec.tap.pooling) in taps
