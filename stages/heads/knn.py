"""Owns fitting a kNN head: which k is best on val. Not the vote (neighbours.py)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from threadpoolctl import threadpool_limits

from stages.data.manifest import Row
from stages.heads.fitted import Head
from stages.heads.labelled_rows import rows_in_split, target_columns
from stages.heads.matrix import FeatureMatrix
from stages.heads.neighbours import TILE, Neighbours, vote
from stages.metrics.classification import log_loss
from stages.runtime.parallel import run_in_threads

_BATCH_BYTES = 8 << 20


class Spec(Protocol):
    """Settings: numbers of neighbours to choose from, or the only one, and the temperature of their votes."""

    k: int | Sequence[int]
    temperature: float


def fit(spec: Spec, features: FeatureMatrix, rows: Sequence[Row], classes: Sequence[str]) -> Head:
    """Cosine neighbours among the train rows, their votes weighted by exp(cosine / temperature) (DINOv2, eval/knn.py).

    Features are not standardised. val chooses k; a k above the number of train rows means all of them. Memory holds
    the train rows, once, as float32, and cosines in batches. A train row is among its own neighbours.
    """
    y, train, val = target_columns(rows, classes), rows_in_split(rows, "train"), rows_in_split(rows, "val")
    x = features.take(train)
    x /= _lengths(x)
    asked = [spec.k] if isinstance(spec.k, int) else spec.k
    candidates = sorted({min(k, len(train)) for k in asked})
    stored = Neighbours(x, y[train].astype(np.int64), candidates[-1], spec.temperature)
    size = max(1, _BATCH_BYTES // (4 * max(features.dim, min(TILE, len(train)), 2 * len(classes))))

    def judge(here: np.ndarray) -> np.ndarray:
        """Summed log-losses of these val rows, for each k."""
        cosines, columns = stored.nearest(features.take(here), candidates[-1])
        shares = (vote(cosines[:, :k], columns[:, :k], spec.temperature, len(classes)) for k in candidates)
        return np.array([log_loss(y[here], shared) * len(here) for shared in shares])

    with threadpool_limits(1, "blas"):  # threads take batches; the same to the last bit on any number of cores
        parts = run_in_threads(judge, [val[start : start + size] for start in range(0, len(val), size)])
    losses = dict(zip(candidates, (np.sum(parts, axis=0) / len(val)).tolist(), strict=True))
    best = min(losses, key=lambda k: losses[k])
    chosen = {"k": best, "val_log_loss": {str(k): round(loss, 6) for k, loss in losses.items()}}
    return Head("knn", tuple(classes), Neighbours(x, stored.columns, best, spec.temperature), chosen)


def _lengths(x: np.ndarray) -> np.ndarray:
    """The length of each row (n, 1), 1 for a row of zeros, without a copy of all rows."""
    lengths = np.sqrt(np.einsum("ij,ij->i", x, x))[:, None]
    return np.where(lengths > 0, lengths, 1)
