"""Owns whether one of two classifiers is better on the same rows. Not which rows those are (compare.py)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from stages.metrics import bootstrap, classification


def compare(
    labels: Sequence[str], a: np.ndarray, b: np.ndarray, classes: Sequence[str], groups: Sequence[str | None]
) -> dict[str, Any]:
    """Two models' probabilities (n, classes) on n rows, as JSON.

    a, b: figures with intervals, as intervals.judge has them. difference: of each figure, b minus a, its value and its
    interval by the paired bootstrap, over groups where rows have groups. mcnemar: see there; it takes rows for
    independent, so where there are groups it is surer than it should be.
    """
    figures = [bootstrap.metrics_with_intervals(labels, p, classes, groups) for p in (a, b)]
    between = bootstrap.paired_intervals(labels, a, b, classes, groups)
    truth = classification.label_columns(labels, classes)
    gaps = {
        name: None if figures[0][name] is None else figures[1][name] - figures[0][name] for name in classification.NAMES
    }
    return {
        "a": figures[0],
        "b": figures[1],
        "difference": {
            name: {"value": gap, "ci": None if gap is None else between[name]} for name, gap in gaps.items()
        },
        "mcnemar": mcnemar(a.argmax(axis=1) == truth, b.argmax(axis=1) == truth),
    }


def mcnemar(a: np.ndarray, b: np.ndarray) -> dict[str, float | int]:
    """Exact McNemar test of (n,) hits of two models on the same rows.

    Only rows that one of them has right tell them apart; were both equally good, each would be either's with
    probability 1/2: a two-sided binomial test (McNemar 1947; for classifiers, Dietterich 1998). p_value is 1 where no
    row tells them apart.
    """
    from scipy.stats import binomtest

    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    p_value = float(binomtest(only_a, only_a + only_b, 0.5).pvalue) if only_a + only_b else 1.0
    return {"only_a": only_a, "only_b": only_b, "p_value": p_value}
