"""Owns tests of two classifiers on the same rows. Not the choice of rows (compare.py)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stages.metrics import classification, intervals
from stages.metrics.figures import Difference, Figures


def compare(
    labels: Sequence[str],
    a: np.ndarray,
    b: np.ndarray,
    classes: Sequence[str],
    groups: Sequence[str | None],
    shares: np.ndarray | None = None,
) -> tuple[Figures, Figures, Difference]:
    """Figures with intervals of two models' probabilities (n, classes) on n rows, and those of b minus those of a.

    shares: as in classification.metrics.

    McNemar's test assumes independent rows, so where there are groups its p-value is too low.
    """
    one, two = (intervals.metrics_with_intervals(labels, p, classes, groups, shares=shares) for p in (a, b))
    between = intervals.paired_difference(labels, a, b, classes, groups, shares)
    truth = classification.label_columns(labels, classes)
    return one, two, Difference(between, mcnemar(a.argmax(axis=1) == truth, b.argmax(axis=1) == truth))


def mcnemar(a: np.ndarray, b: np.ndarray) -> dict[str, float | int]:
    """Exact McNemar test of (n,) hits of two models on the same rows.

    A two-sided binomial test on the rows that just one of them has right: with equally good models, each is either's
    with probability 1/2 (McNemar 1947; for classifiers, Dietterich 1998). p_value is 1 where there is no such row.
    """
    from scipy.stats import binomtest

    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    p_value = float(binomtest(only_a, only_a + only_b, 0.5).pvalue) if only_a + only_b else 1.0
    return {"only_a": only_a, "only_b": only_b, "p_value": p_value}
