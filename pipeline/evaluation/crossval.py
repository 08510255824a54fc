"""Owns out-of-fold figures of the heads in pipeline.yaml. Not the folds (kfold.py)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline.config.head_schema import HeadConfig
from pipeline.project.project import Project
from pipeline.results.csv_parquet import Columns
from pipeline.results.predictions import Predictions
from pipeline.runs import train_heads
from pipeline.serving import dataset
from stages.data.manifest import Row
from stages.heads.fitted import Head
from stages.heads.matrix import FeatureMatrix
from stages.metrics import kfold
from stages.metrics.figures import Figures
from stages.targets import evaluate


@dataclass(frozen=True)
class OutOfFold:
    """Figures of a head by k-fold, on rows of `splits`: `metrics` of all together, `per_fold` accuracy and auroc.

    `predictions` has a row for each image, as `pipeline predictions` has it, and its fold.
    """

    images: int
    groups: int
    splits: tuple[str, ...]
    metrics: Figures
    per_fold: list[Figures]
    predictions: Columns = field(repr=False)

    def to_json(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "predictions"}


def crossval(project: Project, spec: HeadConfig, k: int, every: bool) -> OutOfFold:
    """A head of those settings by k-fold on cached rows of train and val, or with `every` of test too.

    Outside of each fold it is chosen as a run would choose it, by folds or val.
    Folds are stratified and keep groups together. AUROC of all rows together ranks rows of several heads, so it is a
    little below that of the folds; intervals cover the choice of the evaluated rows, not of the training rows. Raises
    Unusable where there are too few rows, NotAvailable where a row is missing.
    """
    manifest = dataset.images_with_rows(project, spec.taps)
    train_heads.check_leaks(project, manifest)
    target = project.find_target(manifest)
    splits = ("train", "val", "test") if every else ("train", "val")
    rows = list({row.id: row for row in manifest.samples if row.split in splits}.values())
    features = train_heads.feature_matrix(project, spec, [row.id for row in rows]).take(np.arange(len(rows)))

    def fit(features: np.ndarray, rows: Sequence[Row]) -> Head:
        choose = "val" if any(row.split == "val" for row in rows) else "folds"
        settings = spec.model_copy(update={"choose": choose})
        return train_heads.fit_kind(settings, FeatureMatrix([features]), rows, target)

    strata = project.strata(rows)
    as_run, _ = train_heads.choose_rows(project, spec, manifest)
    p = kfold.out_of_fold(fit, features, rows, strata, k, spec.seed, val=as_run.choose == "val")
    folds, per_fold = kfold.assign_folds(rows, k, spec.seed, strata), []
    for number in range(k):
        here = np.flatnonzero(folds == number)
        found = target.figures(([rows[i].label or "" for i in here], p[here]))
        per_fold.append(Figures(found.n, {name: found.values[name] for name in found.headline[1:]}))
    groups = len({row.group for row in rows if row.group is not None})
    figures = evaluate.evaluate_rows(rows, p, target, spec.seed)
    columns = {**Predictions.of(rows, p, target, manifest).columns(), "fold": folds + 1}
    return OutOfFold(len(rows), groups, splits, figures, per_fold, columns)


def join_predictions(heads: Mapping[str, Columns]) -> Columns:
    """The predictions of several heads below each other, with the name of each row's head first."""
    columns: dict[str, Any] = {"head": [name for name, found in heads.items() for _ in found["id"]]}
    for name in next(iter(heads.values())):
        parts = [found[name] for found in heads.values()]
        whole = isinstance(parts[0], np.ndarray)
        columns[name] = (
            np.concatenate([np.asarray(part) for part in parts])
            if whole
            else [value for part in parts for value in part]
        )
    return columns
