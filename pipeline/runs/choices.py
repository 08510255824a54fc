"""Owns judging the choice among a sweep's points, and keeping what was found. Not the points, nor ranking (sweeps.py).

The best figure of many flatters itself. So where folds rank the points, the choice is judged: up to 500 images nested,
that is made again without each fold, else cross-fitted (selection.py). What is found has a folder of its own, named by
the keys of the points: the same point may be the best of several sweeps, and a head without one.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cache import keys, npz, records
from pipeline.config.head_schema import HEAD_KINDS, HeadConfig
from pipeline.project.project import Project
from pipeline.results import predictions, registry
from pipeline.results.predictions import Predictions
from pipeline.runs import train_heads
from pipeline.runs.train_heads import HeadReport
from stages.data.manifest import Manifest, Row
from stages.heads import labelled_rows, selection
from stages.heads.fitted import Head, OutOfFold
from stages.heads.matrix import FeatureMatrix
from stages.heads.selection import Candidate
from stages.metrics.figures import Judged, Metrics
from stages.runtime.hardware import cpu_count
from stages.targets import evaluate
from stages.targets.target import Target

VERSION = 1
"""Of how a choice is judged. Raise it when the same points give other figures of it."""


@dataclass(frozen=True)
class Choice:
    """The choice of a sweep's best point: its key, whether it was judged before, and figures.

    metrics: those of the point, but for the figures of folds, which judge the choice.
    """

    key: str
    hit: bool
    metrics: Metrics


def judge(
    project: Project,
    name: str,
    points: Mapping[str, HeadReport],
    best: HeadReport,
    specs: Mapping[str, HeadConfig],
    manifest: Manifest,
    target: Target,
) -> Choice | None:
    """The choice of `best` among the points, judged and published unless it was before.

    specs: settings by point, and of others. None where val chose, or there are no two points.
    """
    folder = _folder(project, name, points, specs)
    if folder is None:
        return None
    if (known := _read(folder, best)) is not None:
        return known
    started = time.perf_counter()
    settings = {point: specs[point] for point in points}
    metrics, found = _judge(project, points, best, settings, manifest, target)
    about = {
        "schema": 1,
        "points": {point: report.key for point, report in points.items()},
        "best": best.key,
        "created": round(time.time(), 3),
        "seconds": round(time.perf_counter() - started, 3),
    }
    records.publish_folder(folder, {"metrics.json": records.dump(metrics.to_json()), **found.to_files()}, about)
    return Choice(folder.name, False, metrics)


def is_missing(
    project: Project, name: str, points: Mapping[str, HeadReport], best: HeadReport, specs: Mapping[str, HeadConfig]
) -> bool:
    """Whether there is a choice that a run would judge."""
    folder = _folder(project, name, points, specs)
    return folder is not None and _read(folder, best) is None


def _folder(
    project: Project, name: str, points: Mapping[str, HeadReport], specs: Mapping[str, HeadConfig]
) -> Path | None:
    if len(points) < 2 or any(report.metrics.judged == "val" for report in points.values()):
        return None
    first = specs[next(iter(points))]  # folds and seed may be swept: the first point's divide the images
    parts = {"points": sorted(report.key for report in points.values()), "folds": first.folds, "seed": first.seed}
    return registry.choice_folder(project.folder, f"head/{name}", keys.digest("choice", {"version": VERSION, **parts}))


def _read(folder: Path, best: HeadReport) -> Choice | None:
    """The choice in that folder, if it was of that point: points made again elsewhere may be ranked otherwise."""
    record = records.load_folder(folder, fields={"best": str})
    if record is None or record["best"] != best.key:
        return None
    return Choice(folder.name, True, Metrics.from_json(records.read(folder / "metrics.json")))


def _judge(
    project: Project,
    points: Mapping[str, HeadReport],
    best: HeadReport,
    specs: Mapping[str, HeadConfig],
    manifest: Manifest,
    target: Target,
) -> tuple[Metrics, Predictions]:
    """Metrics and predictions of the best point, with those of train from the choice."""
    first, manifest = train_heads.choose_rows(project, next(iter(specs.values())), manifest)
    rows = [manifest.samples[i] for i in predictions.rows_to_keep(manifest.samples, target, folds=True)]
    train = labelled_rows.rows_in_split(rows, "train")
    judged: Judged = "nested"
    found = _nest(project, list(specs.values()), manifest.samples, target)
    if found is None:
        judged, truth = "crossfit", labelled_rows.encode([rows[i] for i in train], target)
        found = selection.cross_choice([_out_of_fold(report, train) for report in points.values()], truth, target)
    folds, said = np.full(len(rows), -1), npz.load(best.path / "predictions.npz")["probabilities"]
    said[train], folds[train] = found.predictions, found.folds
    metrics = evaluate.judge_choice(
        best.metrics, [rows[i] for i in train], found.predictions, target, first.seed, found.folds, judged
    )
    return metrics, Predictions.of(rows, said, target, manifest, folds)


def _out_of_fold(report: HeadReport, train: np.ndarray) -> OutOfFold:
    arrays = npz.load(report.path / "predictions.npz")
    return OutOfFold(arrays["probabilities"][train], arrays["folds"][train])


def _nest(project: Project, specs: Sequence[HeadConfig], rows: Sequence[Row], target: Target) -> OutOfFold | None:
    """The choice among heads of those settings, nested; None where the rows are many, or allow none."""
    ids = [row.id for row in rows]
    features: dict[tuple[str, ...], FeatureMatrix] = {}  # points of the same taps share theirs

    def candidate(spec: HeadConfig) -> Candidate:
        taps = tuple(spec.taps)
        if taps not in features:
            features[taps] = train_heads.feature_matrix(project, spec, ids)
        logs = {"log_dir": None} if "log_dir" in type(spec).model_fields else {}
        settings = spec.model_copy(update={"choose": "folds", **logs})

        def fit(some: FeatureMatrix, outside: Sequence[Row]) -> Head:
            return train_heads.fit_kind(settings, some, outside, target)

        return Candidate(features[taps], fit)

    threads = cpu_count() if HEAD_KINDS[specs[0].kind].parallel else 1
    candidates = [candidate(spec) for spec in specs]
    with project.progress("judging the choice", specs[0].folds * len(specs)) as advance:
        return selection.nest(specs[0], candidates, rows, target, threads, advance)
