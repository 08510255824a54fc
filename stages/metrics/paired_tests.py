"""Owns tests of two classifiers on the same rows. Not the choice of rows (compare.py)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stages.metrics import bootstrap, classification
from stages.metrics.figures import Difference, Figure, Figures


def compare(
    labels: Sequence[str], a: np.ndarray, b: np.ndarray, classes: Sequence[str], groups: Sequence[str | None]
) -> tuple[Figures, Figures, Difference]:
    """Figures with intervals of two models' probabilities (n, classes) on n rows, and those of b minus those of a.

    Intervals of the difference are by the paired bootstrap, over groups where rows have groups. McNemar's test assumes
    independent rows, so where there are groups its p-value is too low.
    """
    one, two = (bootstrap.metrics_with_intervals(labels, p, classes, groups) for p in (a, b))
    between = bootstrap.paired_intervals(labels, a, b, classes, groups)
    truth = classification.label_columns(labels, classes)
    gaps = {}
    for name in classification.NAMES:
        before, after = one.values[name], two.values[name]
        gap = None if before is None or after is None else after - before
        gaps[name] = Figure(gap, None if gap is None else between[name])
    return one, two, Difference(gaps, mcnemar(a.argmax(axis=1) == truth, b.argmax(axis=1) == truth))


def mcnemar(a: np.ndarray, b: np.ndarray) -> dict[str, float | int]:
    """Exact McNemar test of (n,) hits of two models on the same rows.

    A two-sided binomial test on the rows that just one of them has right: with equally good models, each is either's
    with probability 1/2 (McNemar 1947; for classifiers, Dietterich 1998). p_value is 1 where there is no such row.
    """
    from scipy.stats import binomtest

    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    p_value = float(binomtest(only_a, only_a + only_b, 0.5).pvalue) if only_a + only_b else 1.0
    return {"only_a": only_a, "only_b": only_b, "p_value": p_value}
