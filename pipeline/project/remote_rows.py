"""Owns what a project takes from the team's cache, and gives it. Not when (runs/), nor moving it (stages/remote)."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from cache.errors import Unusable
from cache.transfer import Copied
from pipeline.project.project import Project
from stages.bases import catalogue
from stages.bases.recipe import FeatureSpec, Specs
from stages.buckets.object_store import Denied, ObjectStore, Unreachable
from stages.extract.cluster import Distant
from stages.extract.opened_bases import Job
from stages.extract.shard_task import Receipt
from stages.remote.background import Background
from stages.remote.base_files import push_base
from stages.remote.far_worker import Place, extract_far, find_lack
from stages.remote.pull import Offers
from stages.remote.push import Pushed, Pusher

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


@contextlib.contextmanager
def exchanging(project: Project, specs: Specs, done: Traffic | None) -> Iterator[Exchange | None]:
    """What a run does with the team's cache while it computes; None where there is no `done`, or it is only read from.

    Errors on the way are told in one warning each, and are none of the run: the rows are in the local cache, or stay in
    the team's until the next run.
    """
    if done is None or not _is_shared(project):
        yield None
        return
    exchange = Exchange(project, specs, done)
    try:
        yield exchange
    except KeyboardInterrupt:
        exchange.background.give_up()
        raise
    finally:
        exchange.background.close()
        if lost := done.pushed.lost:
            log.warning("%s; their rows are in the cache here, and `pipeline cache push` sends them", lost)


class Exchange:
    """Takes rows from the team's cache, gives rows to it, and has workers do so that share nothing else.

    distant: whether such workers were equipped. done: what was taken and given.
    """

    def __init__(self, project: Project, specs: Specs, done: Traffic) -> None:
        self.distant, self.done = False, done
        self._project, self._specs = project, specs
        self._remote, self._lost = open_remote(project, to_write=True), False
        self._pusher = Pusher(self._remote, done.pushed)
        self.background = Background()

    def receive(self, receipt: Receipt) -> None:
        """Push the shards of a task, or pull those that a worker has pushed, on a thread of its own.

        Only rows of taps of pipeline.yaml are pushed: the maps of a fine-tuning are far larger, and go by `cache push`.
        """
        for key, name in receipt.shards:
            spec = self._specs.get(key)
            if spec is None:
                continue
            if receipt.remote:
                self.background.offer(partial(self._pull, spec, name))
            elif _is_of_tap(self._project, spec):
                self.background.offer(partial(self._pusher.push_in_background, self._project.rows_of(spec), name))

    def bring(self, missing: Mapping[str, Sequence[str]]) -> None:
        """Copy rows which others have pushed since: extract key -> ids (stages/extract/arrivals.py)."""
        with self._told("what others compute meanwhile is computed here too"):
            for key, ids in {} if self._lost else missing.items():
                if _is_of_tap(self._project, self._specs[key]):
                    _offers(self._project, self._remote, self._specs[key], self.done).pull(ids)

    def equip(self, jobs: Sequence[Job]) -> Distant:
        """Put what workers need that share nothing else: files of the bases, and rows to check engines by.

        Raises Denied or Unreachable.
        """
        self.distant, bases, references = True, {}, {}
        with self._project.progress("sending the base to the team's cache", None):
            for job in jobs:
                base = catalogue.base_of(job.recipe.base)
                bases[job.recipe.weights_sha256] = push_base(self._remote, base, Path(job.weights))
                of_job = [spec for spec in self._specs.values() if spec.recipe == job.recipe]
                for store in map(self._project.rows_of, of_job):
                    references[store.key] = store.serving([image for image, _ in job.references])
                    for name in references[store.key]:
                        self._pusher.push(store, name)
        place = Place(self._remote.url, bases, references)
        return Distant(partial(extract_far, place), partial(find_lack, place))

    def _pull(self, spec: FeatureSpec, name: str) -> None:
        with self._told("rows that workers pushed stay there"):
            if not self._lost:
                _offers(self._project, self._remote, spec, self.done).take([name])

    @contextlib.contextmanager
    def _told(self, consequence: str) -> Iterator[None]:
        """An error of the team's cache within is told, and the last one: nothing more is asked of it."""
        try:
            yield
        except (Denied, Unreachable) as error:
            self._lost = True
            log.warning("%s; %s", error.message, consequence)


def _offers(project: Project, remote: ObjectStore, spec: FeatureSpec, done: Traffic) -> Offers:
    if spec.key not in done.offers:
        done.offers[spec.key] = Offers(remote, project.rows_of(spec), done.pulled)
    return done.offers[spec.key]


def _is_shared(project: Project) -> bool:
    settings = project.config.cache.remote
    return settings is not None and settings.mode == "read-write"


def _is_of_tap(project: Project, spec: FeatureSpec) -> bool:
    """Whether a tap of pipeline.yaml has such rows; by layer and pooling, as a key takes weights to be known."""
    taps = {(tap.layer, tap.pooling) for tap in project.config.extract.taps.values()}
    return spec.recipe.view is None and spec.tap.dtype is None and (spec.tap.layer, spec.tap.pooling) in taps
