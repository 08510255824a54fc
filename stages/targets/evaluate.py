"""Owns judging predictions of labelled rows, by split. Not how a figure is computed (stages/metrics)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from stages.data.manifest import Row
from stages.metrics.figures import Figures, Judged, Metrics
from stages.targets.target import Target


def evaluate_rows(rows: Sequence[Row], predictions: np.ndarray, target: Target, seed: int) -> Figures:
    """Figures of labelled rows with their predictions (n, columns), with intervals and details."""
    return target.judge(([row.label or "" for row in rows], predictions), [row.group for row in rows], seed)


def evaluate_splits(
    rows: Sequence[Row], predictions: np.ndarray, target: Target, seed: int, folds: np.ndarray | None = None
) -> Metrics:
    """What metrics.json of a head has: figures of val (or folds) and test, and what is calibrated on the former.

    folds: of each row of train, where its predictions are out of fold.
    """
    figures, splits = {}, {}
    for name, split in [("val", "val") if folds is None else ("folds", "train"), ("test", "test")]:
        here = [i for i, row in enumerate(rows) if row.split == split]
        mine, p = [rows[i] for i in here], predictions[here]
        figures[name] = evaluate_rows(mine, p, target, seed)
        splits[name] = [row.label or "" for row in mine], p
    judged: Judged = "val" if folds is None else "crossfit"
    return Metrics(figures, target.calibrate(splits, folds), judged=judged)


def judge_choice(
    metrics: Metrics,
    rows: Sequence[Row],
    predictions: np.ndarray,
    target: Target,
    seed: int,
    folds: np.ndarray,
    judged: Judged,
) -> Metrics:
    """Those of a head that was chosen among others by folds, with the figures of folds that judge the choice.

    rows: those of train; predictions and folds: of each, by what the other folds chose. Temperature and threshold
    stay those of the head's own folds: another fold may be judged by another kind or setting, with logits of another
    size, so what these predictions need is not what the head needs; and one number that is fitted on figures which
    are a little too good hardly profits from it. The figures at a temperature are those of the choice all the same,
    each fold at what is fitted on the others.
    """
    found = evaluate_splits(rows, predictions, target, seed, folds)
    assert metrics.calibration is not None
    assert found.calibration is not None
    at = {**metrics.calibration.splits, "folds": found.calibration.splits["folds"]}
    splits = {**metrics.splits, "folds": found.splits["folds"]}
    return replace(metrics, splits=splits, calibration=replace(metrics.calibration, splits=at), judged=judged)
