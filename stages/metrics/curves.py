"""Owns the points of curves: ROC, precision and recall, reliability. Not drawing them (plots.py; pipeline/report)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from stages.metrics import classification, intervals


class Curve(NamedTuple):
    """Points x and y, (n,) each, as the threshold falls, and the area below. Between two points there are steps."""

    x: np.ndarray
    y: np.ndarray
    area: float


Points = Callable[[np.ndarray, np.ndarray], Curve]
"""Of (n,) bool and float, some of either."""


def roc(positive: np.ndarray, scores: np.ndarray) -> Curve:
    """Receiver operating characteristic: true against false positive rate; the area is AUROC."""
    from sklearn.metrics import roc_curve

    false, true, _ = roc_curve(positive, scores)
    return Curve(false, true, classification.ranking(positive, scores)[0])


def precision_recall(positive: np.ndarray, scores: np.ndarray) -> Curve:
    """Precision against recall; the area below the steps is the average precision."""
    from sklearn.metrics import precision_recall_curve

    precision, recall, _ = (values[::-1] for values in precision_recall_curve(positive, scores))
    rises = np.flatnonzero(np.diff(recall)) + 1  # elsewhere precision falls without a hit, which has no area
    x, y = np.append(0, recall[rises]), np.append(precision[rises[0]], precision[rises])
    return Curve(x, y, classification.ranking(positive, scores)[1])


def column_curves(truth: np.ndarray, scores: np.ndarray, points: Points) -> Iterator[tuple[int, Curve]]:
    """The number and the curve of each column that has rows of both kinds.

    truth (n, columns): more than one half is positive, NaN is unknown and left out.
    """
    for column in range(truth.shape[1]):
        known = np.isfinite(truth[:, column])
        positive = truth[known, column] > 0.5
        if positive.any() and not positive.all():
            yield column, points(positive, scores[known, column])


class Reliability(NamedTuple):
    """Of each bin that has guesses, its number, their number, their mean probability, the share of them that is right,
    and its 95 % Wilson interval: (bins,) each."""

    bin: np.ndarray
    n: np.ndarray
    confidence: np.ndarray
    right: np.ndarray
    low: np.ndarray
    high: np.ndarray


def reliability(right: np.ndarray, confidence: np.ndarray) -> Reliability:
    """By bins of the top probability: (n,) hits and top probabilities."""
    which = classification.confidence_bins(confidence)
    n = np.bincount(which, minlength=classification.BINS)
    here = np.flatnonzero(n)
    mean, share = (np.bincount(which, values, classification.BINS)[here] / n[here] for values in (confidence, right))
    low, high = intervals.wilson(share, n[here])
    return Reliability(here, n[here], mean, share, low, high)
