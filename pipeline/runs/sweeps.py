"""Owns a head's sweep: training its points side by side, and ranking them on val. Not one point (train_heads.py)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cache import atomic_files, records
from cache.errors import Diverged, Unusable
from pipeline.config.head_schema import HeadConfig
from pipeline.project.project import Project
from pipeline.results import registry
from pipeline.results.model import without_test
from pipeline.runs import train_heads
from pipeline.runs.train_heads import HeadReport
from stages.data.manifest import Manifest
from stages.runtime.hardware import cpu_count
from stages.runtime.parallel import run_in_threads

log = logging.getLogger(__name__)

DIVERGED = "diverged.json"
"""In the folder of a point that diverged, alone there: no record, so no model. It spares training it again."""

AT_ONCE_BYTES = 1 << 30
"""Of features, in the points that are trained side by side."""


@dataclass(frozen=True)
class DivergedPoint:
    """A point that gave no head: its key, whether that was known already, why, and what to do."""

    key: str
    hit: bool
    message: str
    hint: str

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))


@dataclass(frozen=True)
class SweepReport:
    """The points of a sweep by name, in the order of its grid: one head or more, and those that diverged."""

    points: Mapping[str, HeadReport]
    diverged: Mapping[str, DivergedPoint]

    def ranked(self) -> list[tuple[str, HeadReport]]:
        """Points and their reports, the least val log-loss first; of equals, the earlier of the grid."""
        return sorted(self.points.items(), key=lambda pair: pair[1].metrics["val"]["log_loss"])

    @property
    def winner(self) -> HeadReport:
        return self.ranked()[0][1]

    def to_json(self) -> dict[str, Any]:
        """The winner, and all points by rank; validation stays clean, so test is null but for the winner.

        Points that diverged stand apart: they have no figures.
        """
        (best, winner), *_ = ranked = self.ranked()
        points = []
        for point, report in ranked:
            metrics = report.metrics if point == best else without_test(report.metrics)
            points.append({"point": point, **report.to_json(), "metrics": metrics})
        hit = all([report.hit for report in self.points.values()] + [lost.hit for lost in self.diverged.values()])
        diverged = [{"point": point, **report.to_json()} for point, report in self.diverged.items()]
        return {**winner.to_json(), "hit": hit, "point": best, "points": points, "diverged": diverged}


def run_sweep(project: Project, name: str, manifest: Manifest) -> HeadReport | SweepReport:
    """Train the head of that name, or all points of its sweep, unless they are there.

    Raises Unusable where labels and splits, or the features, cannot carry it; points trained by then are kept.
    A point that diverges is left out of the ranking, and remembered; Diverged is raised where all do.
    """
    from threadpoolctl import threadpool_limits

    classes = train_heads.check_classes(project, manifest)
    spec = project.config.heads[name]
    if spec.sweep is None:
        report = train_heads.run_head(project, name, spec, manifest, classes)
        registry.record_latest(project.folder, f"head/{name}", report.key)
        return report
    points = spec.points()
    keys = [train_heads.head_folder(project, name, point, manifest, classes).name for point in points.values()]
    registry.record_latest(
        project.folder, f"head/{name}", None, keys
    )  # first: what a kill leaves are points all the same

    def train(point: str) -> HeadReport | DivergedPoint:
        folder = train_heads.head_folder(project, name, points[point], manifest, classes)
        if known := _known_to_diverge(folder):
            return known
        try:
            return train_heads.run_head(project, name, points[point], manifest, classes)
        except Diverged as error:
            atomic_files.publish(folder / DIVERGED, records.dump({"message": error.message, "hint": error.hint}))
            return DivergedPoint(folder.name, False, error.message, error.hint)
        except Unusable as error:
            raise Unusable(f"heads.{name} at {point}: {error.message}", error.hint) from error

    with threadpool_limits(1, "blas"):  # around all points: the limit is one of the process, not of a thread
        reports = run_in_threads(train, points, _at_once(project, spec, manifest))
    swept = _told_apart(dict(zip(points, reports, strict=True)))
    for point, lost in swept.diverged.items():
        log.warning("heads.%s at %s is left out: %s; %s", name, point, lost.message, lost.hint)
    if not swept.points:
        lost = next(iter(swept.diverged.values()))
        raise Diverged(f"heads.{name}: all {len(points)} points diverged; the first: {lost.message}", lost.hint)
    registry.record_latest(project.folder, f"head/{name}", swept.winner.key, keys)
    return swept


def find_result(
    project: Project, name: str, manifest: Manifest, classes: tuple[str, ...]
) -> HeadReport | SweepReport | None:
    """What `run` would return, if all of it is there; nothing is trained, and nothing noted as the last run's."""
    head = project.config.heads[name]
    if head.sweep is None:
        return train_heads.find_head(project, name, head, manifest, classes)
    reports: dict[str, HeadReport | DivergedPoint] = {}
    for point, spec in head.points().items():
        folder = train_heads.head_folder(project, name, spec, manifest, classes)
        report = train_heads.find_head(project, name, spec, manifest, classes) or _known_to_diverge(folder)
        if report is None:
            return None
        reports[point] = report
    swept = _told_apart(reports)
    return swept if swept.points else None


def missing_points(project: Project, name: str, manifest: Manifest, classes: tuple[str, ...]) -> dict[str, Path]:
    """The points of the head of that name that are not there (without a sweep, ''), and where each would lie."""
    points = project.config.heads[name].points().items()
    folders = {point: train_heads.head_folder(project, name, spec, manifest, classes) for point, spec in points}
    return {point: folder for point, folder in folders.items() if records.load_folder(folder) is None}


def diverged_points(project: Project, name: str, absent: Mapping[str, Path]) -> set[str]:
    """Those of the `absent` points that a sweep found to diverge; a head without a sweep is tried each time."""
    if project.config.heads[name].sweep is None:
        return set()
    return {point for point, folder in absent.items() if _known_to_diverge(folder)}


def _known_to_diverge(folder: Path) -> DivergedPoint | None:
    """What a sweep found of the point of that folder; None where it never diverged, or gave a head all the same."""
    note = None if (folder / records.RECORD).exists() else records.load(folder / DIVERGED)
    return None if note is None else DivergedPoint(folder.name, True, note["message"], note["hint"])


def _told_apart(reports: Mapping[str, HeadReport | DivergedPoint]) -> SweepReport:
    return SweepReport(
        {point: report for point, report in reports.items() if isinstance(report, HeadReport)},
        {point: report for point, report in reports.items() if isinstance(report, DivergedPoint)},
    )


def _at_once(project: Project, spec: HeadConfig, manifest: Manifest) -> int:
    """How many points may be trained side by side: one a core, as far as their features fit in AT_ONCE_BYTES.

    Dense ones go one after the other: Keras has one seed for the process, and uses all cores by itself.
    """
    if spec.kind == "dense":
        return 1
    ids = [row.id for row in manifest.samples]
    widest = max(train_heads.feature_matrix(project, point, ids).dim for point in spec.points().values())
    return max(1, min(cpu_count(), AT_ONCE_BYTES // (4 * widest * len(ids))))
