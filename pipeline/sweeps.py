"""Owns a head's sweep: training its points side by side, and ranking them on val. Not one point (models.py)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cache import records
from cache.errors import Unusable
from pipeline import models, registry
from pipeline.head_config import HeadConfig
from pipeline.models import HeadReport
from pipeline.project import Project
from pipeline.result import without_test
from stages.manifest import Manifest
from stages.threads import side_by_side

AT_ONCE_BYTES = 1 << 30
"""Of features, in the points that are trained side by side."""


@dataclass(frozen=True)
class SweepReport:
    """The points of a sweep by name, in the order of its grid."""

    points: Mapping[str, HeadReport]

    def ranked(self) -> list[tuple[str, HeadReport]]:
        """Points and their reports, the least val log-loss first; of equals, the earlier of the grid."""
        return sorted(self.points.items(), key=lambda pair: pair[1].metrics["val"]["log_loss"])

    @property
    def winner(self) -> HeadReport:
        return self.ranked()[0][1]

    def to_json(self) -> dict[str, Any]:
        """The winner, and all points by rank; validation stays clean, so test is null but for the winner."""
        (best, winner), *_ = ranked = self.ranked()
        points = []
        for point, report in ranked:
            metrics = report.metrics if point == best else without_test(report.metrics)
            points.append({"point": point, **report.to_json(), "metrics": metrics})
        hit = all(report.hit for report in self.points.values())
        return {**winner.to_json(), "hit": hit, "point": best, "points": points}


def run(project: Project, name: str, manifest: Manifest) -> HeadReport | SweepReport:
    """Train the head of that name, or all points of its sweep, unless they are there.

    Raises Unusable where labels and splits, or the features, cannot carry it; points trained by then are kept.
    """
    from threadpoolctl import threadpool_limits

    classes = models.classes_for(project, manifest)
    spec = project.config.heads[name]
    if spec.sweep is None:
        report = models.run_head(project, name, spec, manifest, classes)
        registry.note_last(project.folder, f"head/{name}", report.key)
        return report
    points = spec.points()
    keys = [models.folder_of(project, name, point, manifest, classes).name for point in points.values()]
    registry.note_last(project.folder, f"head/{name}", None, keys)  # first: what a kill leaves are points all the same

    def train(point: str) -> HeadReport:
        try:
            return models.run_head(project, name, points[point], manifest, classes)
        except Unusable as error:
            raise Unusable(f"heads.{name} at {point}: {error.message}", error.hint) from error

    with threadpool_limits(1, "blas"):  # around all points: the limit is one of the process, not of a thread
        reports = side_by_side(train, points, _at_once(project, spec, manifest))
    swept = SweepReport(dict(zip(points, reports, strict=True)))
    registry.note_last(project.folder, f"head/{name}", swept.winner.key, keys)
    return swept


def found(project: Project, name: str, manifest: Manifest, classes: tuple[str, ...]) -> HeadReport | SweepReport | None:
    """What `run` would return, if all of it is there; nothing is trained, and nothing noted as the last run's."""
    reports = {}
    for point, spec in project.config.heads[name].points().items():
        report = models.found(project, name, spec, manifest, classes)
        if report is None:
            return None
        reports[point] = report
    return reports[""] if project.config.heads[name].sweep is None else SweepReport(reports)


def absent(project: Project, name: str, manifest: Manifest, classes: tuple[str, ...]) -> dict[str, Path]:
    """The points of the head of that name that are not there (without a sweep, ''), and where each would lie."""
    points = project.config.heads[name].points().items()
    folders = {point: models.folder_of(project, name, spec, manifest, classes) for point, spec in points}
    return {point: folder for point, folder in folders.items() if records.load_folder(folder) is None}


def _at_once(project: Project, spec: HeadConfig, manifest: Manifest) -> int:
    """How many points may be trained side by side: one a core, as far as their features fit in AT_ONCE_BYTES.

    Dense ones go one after the other: Keras has one seed for the process, and uses all cores by itself.
    """
    if spec.kind == "dense":
        return 1
    ids = [row.id for row in manifest.samples]
    widest = max(models.features_of(project, point, ids).dim for point in spec.points().values())
    return max(1, min(os.cpu_count() or 1, AT_ONCE_BYTES // (4 * widest * len(ids))))
