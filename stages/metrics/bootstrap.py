"""Owns the bootstrap: figures of resampled rows. Not the intervals made of them (intervals.py).

A resample is a count for each row: how often it was drawn. Figures are computed here from weighted sums, for many
resamples at once; a test compares them with those of classification.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from stages.metrics import classification

RESAMPLES = 2000
"""For small data; for larger data as many as the limits below allow, but at least FEWEST."""

FEWEST = 200
"""With fewer resamples there is no interval: AUROC and average precision of many rows and classes have none."""

_DRAWN = 4e7
"""Rows times resamples: about 2 s."""

_RANKED = 2e8
"""Rows times resamples times classes, of the figures that sort: about 2 s."""

CHUNK = 500_000
"""Rows times resamples at once: a few MB, which fit the processor's cache."""


class Prepared(Protocol):
    """A model's predictions, of which figures under weights are quickly computed."""

    @property
    def sorts(self) -> int:
        """Orders of the rows, or columns of pairs, that a resample goes through: many make resampling slow."""

    def figures(self, weights: np.ndarray, ranking: bool) -> dict[str, np.ndarray]:
        """weights (n, r) -> each figure (r,), NaN where undefined; those that rank, where not `ranking`, too."""


def resampling_units(groups: Sequence[str | None]) -> np.ndarray:
    """What is drawn, as a number for each row (n,): its group, or itself where it has none."""
    names = [f"row {i}" if group is None else f"group {group}" for i, group in enumerate(groups)]
    return np.unique(np.array(names, dtype=object), return_inverse=True)[1] if names else np.empty(0, dtype=np.intp)


def resample(prepared: Sequence[Prepared], drawn: np.ndarray, seed: int) -> list[dict[str, np.ndarray]]:
    """For each model the figures of each resample, the same resamples for all; NaN where undefined.

    `drawn` (n,) has the unit of each row. A resample without some class counts for AUROC by the classes it has (Efron
    and Tibshirani 1993, ch. 13).
    """
    from threadpoolctl import threadpool_limits

    n = len(drawn)
    total = int(np.clip(_DRAWN / n, FEWEST, RESAMPLES))
    ranked = min(total, int(_RANKED / (n * max(1, prepared[0].sorts))))
    parts: list[list[dict[str, np.ndarray]]] = [[] for _ in prepared]
    with threadpool_limits(1, "blas"):  # the same to the last bit on any number of cores
        for start, weights in draw_resamples(drawn, total, seed):
            for model, found in zip(prepared, parts, strict=True):
                found.append(model.figures(weights, ranking=ranked >= FEWEST and start < ranked))
    return [{name: np.concatenate([part[name] for part in found]) for name in found[0]} for found in parts]


def draw_resamples(drawn: np.ndarray, resamples: int, seed: int) -> Iterator[tuple[int, np.ndarray]]:
    """(number of the first, how often each row is in each resample: (n, some) float64), chunk by chunk.

    `drawn` (n,) numbers the unit of each row from 0; as many units are drawn, with replacement, as there are.
    """
    random, count = np.random.default_rng(seed), int(drawn.max()) + 1
    step = max(1, CHUNK // len(drawn))
    for start in range(0, resamples, step):
        some = min(step, resamples - start)
        chosen = random.integers(0, count, (some, count), dtype=np.int64)
        cells = chosen * some + np.arange(some)[:, None]
        counts = np.bincount(cells.ravel(), minlength=count * some).reshape(count, some)
        yield start, counts.astype(np.float64)[drawn]


class Weighted:
    """A model's predictions, prepared so that the figures of weighted rows are a few products.

    truth: (n,) int; p: (n, classes) float64; shares: as in classification.metrics.
    """

    def __init__(self, truth: np.ndarray, p: np.ndarray, shares: np.ndarray | None = None) -> None:
        p = np.asarray(p, dtype=np.float64)
        graded = truth if shares is None else shares
        guess, confidence = p.argmax(axis=1), p.max(axis=1)
        right = guess == truth
        gaps = np.zeros((classification.BINS, len(truth)))
        gaps[classification.confidence_bins(confidence), np.arange(len(truth))] = right - confidence
        self.sums = np.concatenate(
            [[right, classification.row_losses(graded, p), classification.brier(graded, p)], gaps]
        )
        classes = np.unique(truth)
        self.support = _one_hot(truth, classes)
        self.hits = _one_hot(np.where(right, truth, -1), classes)
        self.guesses = _one_hot(guess, classes)
        k = p.shape[1]
        columns = [] if len(classes) < 2 or k > classification.MOST_RANKED else [1] if k == 2 else classes
        self.rankings = [Ranking(truth == c, p[:, c]) for c in columns]

    @property
    def sorts(self) -> int:
        return len(self.rankings)

    def figures(self, weights: np.ndarray, ranking: bool = True) -> dict[str, np.ndarray]:
        """weights (n, r) -> each figure of evaluate.metrics, (r,), NaN where undefined or not asked for."""
        right, loss, brier, *gaps = (self.sums @ weights) / weights.sum(axis=0)
        support, hits, guesses = self.support @ weights, self.hits @ weights, self.guesses @ weights
        present = support > 0
        recalls = np.divide(hits, support, out=np.zeros_like(hits), where=present)
        f1 = np.divide(2 * hits, support + guesses, out=np.zeros_like(hits), where=present)
        undefined = np.full((1, weights.shape[1]), np.nan)
        pairs = [ranked.figures(weights) for ranked in self.rankings] if ranking else []
        return {
            "accuracy": right,
            "balanced_accuracy": recalls.sum(axis=0) / present.sum(axis=0),
            "macro_f1": f1.sum(axis=0) / present.sum(axis=0),
            "auroc": mean_of_defined(np.array([auroc for auroc, _ in pairs] or undefined)),
            "average_precision": mean_of_defined(np.array([precision for _, precision in pairs] or undefined)),
            "log_loss": loss,
            "brier": brier,
            "ece": np.abs(gaps).sum(axis=0),
        }


class Ranking:
    """Rows in falling order of a score, for AUROC and average precision under weights.

    positive: (n,) bool; scores: (n,) float64. Equal scores are one threshold.
    """

    def __init__(self, positive: np.ndarray, scores: np.ndarray) -> None:
        self.order = np.argsort(-scores, kind="stable")
        falling, positive = scores[self.order], positive[self.order]
        self.positives = np.flatnonzero(positive)
        edges = np.concatenate([[0], np.flatnonzero(np.diff(falling)) + 1, [len(scores)]])
        tie = np.searchsorted(edges, self.positives, side="right")
        hits = np.concatenate([[0], np.cumsum(positive)])
        self.first, self.last = edges[tie - 1], edges[tie]
        self.hits_first, self.hits_last = hits[self.first], hits[self.last]

    def figures(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """weights (n, r) -> AUROC and average precision, (r,) each; NaN without a positive, or without a negative."""
        ordered = weights[self.order]
        new = ordered[self.positives]
        rows, hits = _cumulated(ordered), _cumulated(new)
        hits_last, rows_last = hits[self.hits_last], rows[self.last]
        misses = rows[self.first] - hits[self.hits_first] + rows_last - hits_last
        positive, negative = hits[-1], rows[-1] - hits[-1]
        undefined = (positive == 0) | (negative == 0)
        with np.errstate(invalid="ignore", divide="ignore"):
            auroc = (new * (negative - misses / 2)).sum(axis=0) / (positive * negative)
            precision = np.where(new > 0, new * hits_last / rows_last, 0).sum(axis=0) / positive
        return np.where(undefined, np.nan, auroc), np.where(undefined, np.nan, precision)


def _cumulated(values: np.ndarray) -> np.ndarray:
    """(n, r) -> (n + 1, r): the sums of the first 0, 1, ... n rows."""
    out = np.zeros((len(values) + 1, values.shape[1]))
    np.cumsum(values, axis=0, out=out[1:])
    return out


def _one_hot(numbers: np.ndarray, classes: np.ndarray) -> Any:
    """Sparse (classes, n): 1 where a row's number is that class; sorted `classes` need not have them all."""
    from scipy.sparse import csr_array

    place = np.minimum(np.searchsorted(classes, numbers), len(classes) - 1)
    here = np.flatnonzero(classes[place] == numbers)
    return csr_array((np.ones(len(here)), (place[here], here)), shape=(len(classes), len(numbers)))


def mean_of_defined(values: np.ndarray) -> np.ndarray:
    """(m, r) -> (r,): the mean of what is no NaN, NaN where all are."""
    defined = ~np.isnan(values)
    count = defined.sum(axis=0)
    total = np.where(defined, values, 0).sum(axis=0)
    out = np.full(len(total), np.nan)
    np.divide(total, count, out=out, where=count > 0)
    return out
