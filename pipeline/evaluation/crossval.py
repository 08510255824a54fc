"""Owns out-of-fold figures of the heads in pipeline.yaml, and which rows count for them. It writes nothing."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.config.head_schema import HeadConfig
from pipeline.project.project import Project
from pipeline.runs import train_heads
from stages.data.manifest import Row
from stages.heads import labelled_rows
from stages.heads.fitted import Head
from stages.heads.matrix import FeatureMatrix
from stages.metrics import bootstrap, classification, kfold

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class OutOfFold:
    """A head on rows that it never saw, k times. `splits` are those the rows came from.

    `metrics` are of all rows together, with intervals, as metrics.json has them; `per_fold` n, accuracy and auroc.
    """

    images: int
    groups: int
    splits: tuple[str, ...]
    metrics: dict[str, Any]
    per_fold: list[dict[str, float | int | None]]

    def to_json(self) -> dict[str, Any]:
        return vars(self)


def crossval(project: Project, spec: HeadConfig, k: int, every: bool) -> OutOfFold:
    """A head of those settings by k-fold on cached rows of train and val, or with `every` of test too.

    Test is left alone by default, so that it stays the one look that nothing was decided by. Folds are stratified and
    keep groups together. AUROC of all rows together ranks across heads that were fitted apart, so it is a little below
    that of the folds; intervals tell of the rows, not of how much a head depends on them. Raises Unusable where labels
    or rows cannot carry it, NotAvailable where a row is missing.
    """
    manifest = project.manifest
    absent = {image for tap in spec.taps for image in project.store(tap).missing(manifest.ids)}
    if project.config.data.on_bad == "skip" and absent:
        log.warning("%d of %d images have no row; it goes without them", len(absent), len(manifest.ids))
        manifest = manifest.without(absent)
    train_heads.check_leaks(project, manifest)
    classes = labelled_rows.check_classes(manifest, project.config.data.classes)
    splits = ("train", "val", "test") if every else ("train", "val")
    rows = list({row.id: row for row in manifest.samples if row.split in splits}.values())
    features = train_heads.feature_matrix(project, spec, [row.id for row in rows]).take(np.arange(len(rows)))

    def fit(features: np.ndarray, rows: Sequence[Row]) -> Head:
        return train_heads.fit_kind(spec, FeatureMatrix([features]), rows, classes)

    p = kfold.out_of_fold(fit, features, rows, classes, k, spec.seed)
    labels, groups = [row.label or "" for row in rows], [row.group for row in rows]
    figures = bootstrap.metrics_with_intervals(labels, p, classes, groups, spec.seed)
    figures |= classification.details(labels, p, classes, groups)
    named = len({group for group in groups if group is not None})
    return OutOfFold(
        len(rows), named, splits, figures, _per_fold(kfold.assign_folds(rows, k, spec.seed), labels, p, classes)
    )


def _per_fold(
    fold: np.ndarray, labels: Sequence[str], p: np.ndarray, classes: Sequence[str]
) -> list[dict[str, float | int | None]]:
    out = []
    for number in range(int(fold.max()) + 1):
        here = fold == number
        mine = [label for label, inside in zip(labels, here, strict=True) if inside]
        figures = classification.metrics(mine, p[here], classes)
        out.append({name: figures[name] for name in ("n", "accuracy", "auroc")})
    return out
