"""Owns judging predictions of labelled rows. Not how a figure is computed (classification.py)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from stages.data.manifest import Row
from stages.metrics import calibration, classification, intervals
from stages.metrics.figures import Figures, Judged, Metrics


def evaluate_rows(rows: Sequence[Row], probabilities: np.ndarray, classes: Sequence[str], seed: int) -> Figures:
    """Figures of labelled rows with their probabilities (n, classes), with intervals and details."""
    given = [row.label or "" for row in rows], probabilities, classes, [row.group for row in rows]
    return replace(intervals.metrics_with_intervals(*given, seed), details=classification.details(*given))


def evaluate_splits(
    rows: Sequence[Row],
    probabilities: np.ndarray,
    classes: Sequence[str],
    seed: int,
    folds: np.ndarray | None = None,
    judged: Judged = "crossfit",
    own: np.ndarray | None = None,
) -> Metrics:
    """What metrics.json of a head has: figures of val (or folds) and test, and what is calibrated on the former.

    folds: of each row of train, where its probabilities are out of fold; judged: how these came about, where folds
    choose. own: the head's own for these rows, where the former are those of a choice (calibration.py).
    """
    figures, splits = {}, {}
    for name, split in [("val", "val") if folds is None else ("folds", "train"), ("test", "test")]:
        here = [i for i, row in enumerate(rows) if row.split == split]
        mine, p = [rows[i] for i in here], probabilities[here]
        figures[name] = evaluate_rows(mine, p, classes, seed)
        splits[name] = [row.label or "" for row in mine], p
    fitted = calibration.fit_calibration(splits, classes, folds, own)
    return Metrics(figures, fitted, judged="val" if folds is None else judged)
