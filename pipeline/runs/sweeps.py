"""Owns a head's sweep: training its points in parallel, and ranking them. Not one point, nor judging the choice.

Those are train_heads.py and choices.py.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cache import atomic_files, records
from cache.errors import Diverged, Unusable
from pipeline.config.head_schema import HEAD_KINDS, HeadConfig
from pipeline.project.project import Project
from pipeline.results import registry
from pipeline.runs import choices, train_heads
from pipeline.runs.choices import Choice
from pipeline.runs.train_heads import HeadReport
from stages.data.manifest import Manifest
from stages.metrics import calibration
from stages.metrics.figures import Metrics
from stages.runtime.hardware import cpu_count
from stages.runtime.parallel import run_in_threads
from stages.targets.target import Target

log = logging.getLogger(__name__)

DIVERGED = "diverged.json"
"""The only file in the folder of a point that diverged, so that it is not trained again. No record, so no model."""

AT_ONCE_BYTES = 1 << 30
"""Of features, in the points that are trained at the same time."""


@dataclass(frozen=True)
class DivergedPoint:
    """A point without a head: its key, whether an earlier run found it diverging, why, and what to do."""

    key: str
    hit: bool
    message: str
    hint: str


@dataclass(frozen=True)
class SweepReport:
    """The points of a sweep by name, in the order of its grid: heads, diverged ones, and folders of missing ones.

    choice: None where there is none by folds. unjudged: whether there is one that was not judged yet.
    """

    points: Mapping[str, HeadReport]
    diverged: Mapping[str, DivergedPoint]
    missing: Mapping[str, Path] = field(default_factory=dict)
    choice: Choice | None = None
    unjudged: bool = False

    def ranked(self) -> list[tuple[str, HeadReport]]:
        """Points and their reports by val log-loss, ascending; of equals, the earlier of the grid."""
        return sorted(self.points.items(), key=lambda pair: pair[1].metrics.rank)

    @property
    def winner(self) -> HeadReport:
        return self.ranked()[0][1]

    @property
    def path(self) -> Path:
        return self.winner.path

    @property
    def metrics(self) -> Metrics:
        """Of the winner: its figures of folds are those of the choice, not those by which it won."""
        return self.winner.metrics if self.choice is None else self.choice.metrics

    def to_json(self) -> dict[str, Any]:
        """The winner, all points by rank, and those that diverged. Metrics of test are null but for the winner.

        `metrics` and `choice` have the figures of the choice; each of `points` those that it is ranked by.
        """
        (best, winner), *_ = ranked = self.ranked()
        choice = {} if self.choice is None else {"choice": self.choice.metrics.splits["folds"]}
        points = []
        for point, report in ranked:
            metrics = report.metrics if point == best else report.metrics.without_test()
            points.append({"point": point, **report.to_json(), "metrics": metrics})
        judged = [] if self.choice is None else [self.choice.hit]
        trained = [report.hit for report in self.points.values()] + [lost.hit for lost in self.diverged.values()]
        diverged = [{"point": point, **vars(lost)} for point, lost in self.diverged.items()]
        own = {**winner.to_json(), "metrics": self.metrics, "hit": all(trained + judged)}
        return {**own, "point": best, "points": points, "diverged": diverged, **choice}


def run_sweep(project: Project, name: str, manifest: Manifest, as_start: bool = False) -> HeadReport | SweepReport:
    """Train the head of that name, or all points of its sweep, unless they are cached.

    as_start: what a fine-tuning starts from, on other images; the name goes on meaning the head that it means.

    Raises Unusable where labels, splits or features do not allow it; points trained by then are kept. A point that
    diverges is left out of the ranking, and not trained again; Diverged is raised where all do.
    """
    from threadpoolctl import threadpool_limits

    target = train_heads.check_target(project, manifest)
    spec, trial = project.config.heads[name], as_start or project.is_trial("head", name)
    if spec.sweep is None:
        report = train_heads.run_head(project, name, spec, manifest, target)
        registry.record_latest(project.folder, f"head/{name}", report.key, trial=trial)
        _warn_of_limits(name, report)
        return report
    points, folders = _points(project, name, manifest, target)
    keys = [folder.name for folder in folders.values()]
    registry.record_latest(project.folder, f"head/{name}", None, keys, trial)  # first: a killed run's points

    def train(point: str) -> HeadReport | DivergedPoint:
        folder = folders[point]
        if known := _read_diverged(folder):
            return known
        try:
            return train_heads.run_head(project, name, points[point], manifest, target)
        except Diverged as error:
            atomic_files.publish(folder / DIVERGED, records.dump({"message": error.message, "hint": error.hint}))
            return DivergedPoint(folder.name, False, error.message, error.hint)
        except Unusable as error:
            raise Unusable(f"heads.{name} at {point}: {error.message}", error.hint) from error

    with threadpool_limits(1, "blas"):  # around all points: the limit is one of the process, not of a thread
        reports = dict(zip(points, run_in_threads(train, points, _at_once(project, spec, manifest)), strict=True))
    diverged = {point: report for point, report in reports.items() if isinstance(report, DivergedPoint)}
    heads = {p: report for p, report in reports.items() if isinstance(report, HeadReport)}
    swept = SweepReport(heads, diverged)
    for point, lost in diverged.items():
        log.warning("heads.%s at %s is left out: %s; %s", name, point, lost.message, lost.hint)
    if not swept.points:
        lost = next(iter(diverged.values()))
        raise Diverged(f"heads.{name}: all {len(points)} points diverged; the first: {lost.message}", lost.hint)
    if not as_start:
        judged = choices.judge(project, name, swept.points, swept.winner, points, manifest, target)
        swept = replace(swept, choice=judged)
    chosen = None if swept.choice is None else swept.choice.key
    registry.record_latest(project.folder, f"head/{name}", swept.winner.key, keys, trial, chosen)
    _warn_of_limits(name, swept.winner)
    return swept


def find_points(project: Project, name: str, manifest: Manifest, target: Target) -> SweepReport:
    """The cached points of the head of that name (without a sweep, ''), and those a run would train. Changes nothing.

    A head without a sweep that diverged is missing: it is tried each time.
    """
    specs, folders = _points(project, name, manifest, target)
    points: dict[str, HeadReport] = {}
    diverged: dict[str, DivergedPoint] = {}
    missing: dict[str, Path] = {}
    for point, folder in folders.items():
        if report := train_heads.find_head(project, name, specs[point], manifest, target):
            points[point] = report
        elif project.config.heads[name].sweep is not None and (lost := _read_diverged(folder)):
            diverged[point] = lost
        else:
            missing[point] = folder
    found = SweepReport(points, diverged, missing)
    if missing or not points:
        return found
    return replace(found, unjudged=choices.is_missing(project, name, points, found.winner, specs))


def _points(
    project: Project, name: str, manifest: Manifest, target: Target
) -> tuple[dict[str, HeadConfig], dict[str, Path]]:
    """The points of the head of that name, and their folders; of points with the same key (taps of two names), one."""
    specs = project.config.heads[name].points()
    folders: dict[str, Path] = {}
    for point, spec in specs.items():
        folder = train_heads.head_folder(project, name, spec, manifest, target)
        if folder not in folders.values():
            folders[point] = folder
    return {point: specs[point] for point in folders}, folders


def _read_diverged(folder: Path) -> DivergedPoint | None:
    """The point of that folder, if a sweep found it diverging and it gave no head since."""
    trained = (folder / records.RECORD).exists()
    note = None if trained else records.load(folder / DIVERGED, {"message": str, "hint": str})
    return None if note is None else DivergedPoint(folder.name, True, note["message"], note["hint"])


def _warn_of_limits(name: str, report: HeadReport) -> None:
    for text in [] if report.hit else calibration.describe_limits(report.metrics.calibration):
        log.warning("heads.%s: %s", name, text)


def _at_once(project: Project, spec: HeadConfig, manifest: Manifest) -> int:
    """How many points may be trained at the same time: one a core, as far as their features fit in AT_ONCE_BYTES."""
    if not HEAD_KINDS[spec.kind].parallel:
        return 1
    ids = [row.id for row in manifest.samples]
    widest = max(train_heads.feature_matrix(project, point, ids).dim for point in spec.points().values())
    return max(1, min(cpu_count(), AT_ONCE_BYTES // (4 * widest * len(ids))))
