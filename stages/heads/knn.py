"""Owns fitting a kNN head: which k is best. Not the vote (neighbours.py)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from threadpoolctl import threadpool_limits

from stages.data.manifest import Row
from stages.heads.fitted import Head
from stages.heads.labelled_rows import encode
from stages.heads.matrix import FeatureMatrix
from stages.heads.neighbours import TILE, Neighbours, vote
from stages.heads.selection import Part, Selection
from stages.runtime.parallel import run_in_threads
from stages.targets.target import Target

_BATCH_BYTES = 8 << 20


class Spec(Protocol):
    """Settings: numbers of neighbours to choose from, or the only one, and the temperature of their votes.

    Then the number of folds, and the seed they are drawn with.
    """

    k: int | Sequence[int]
    temperature: float
    folds: int
    seed: int


def fit(spec: Spec, features: FeatureMatrix, rows: Sequence[Row], target: Target) -> Head:
    """Cosine neighbours among the rows fitted, their votes weighted by exp(cosine / temperature) (DINOv2, eval/knn.py).

    Features are not standardised. val or folds choose k; a k above the number of rows means all of them. Memory holds
    the rows that are fitted, as float32 (twice where folds choose), and cosines in batches. A row that is fitted is
    among its own neighbours. Raises Unusable where the rows are too few for folds.
    """
    y, selection = encode(rows, target), Selection.of(spec, rows, target)
    x = features.take(selection.fitted)
    x /= _lengths(x)
    known = y[selection.fitted]
    columns = known.astype(np.int64) if known.ndim == 1 else known
    asked = [spec.k] if isinstance(spec.k, int) else spec.k
    least = min(len(part.fitted) for part in selection.parts)
    candidates = sorted({min(k, least) for k in asked})

    def voters(numbers: np.ndarray, k: int) -> Neighbours:
        """Those of these rows."""
        here = np.searchsorted(selection.fitted, numbers)
        some = (x, columns) if len(here) == len(x) else (x[here], columns[here])
        return Neighbours(*some, k, spec.temperature)

    def batch_of(neighbours: Neighbours) -> int:
        """Rows at a time; where what each neighbour has is several numbers, these of all neighbours are in memory."""
        several = neighbours.k if y.ndim > 1 else 1
        widest = max(features.dim, min(TILE, len(neighbours.rows)), 2 * len(target) * several)
        return max(1, _BATCH_BYTES // (4 * widest))

    def losses(part: Part) -> np.ndarray:
        """Of the rows held, for each k: (n, k)."""
        neighbours = voters(part.fitted, candidates[-1])
        size = batch_of(neighbours)

        def judge(here: np.ndarray) -> np.ndarray:
            cosines, near = neighbours.nearest(features.take(here), candidates[-1])
            votes = (vote(cosines[:, :k], near[:, :k], spec.temperature, target) for k in candidates)
            return np.stack([target.losses(y[here], said) for said in votes], axis=1)

        batches = [part.held[start : start + size] for start in range(0, len(part.held), size)]
        return np.concatenate(run_in_threads(judge, batches))

    def cross_fit(others: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        """Predictions at the k that the judged rows at positions `others` prefer, by votes of these alone."""
        k = candidates[int(found[:, others].mean(axis=(0, 1)).argmin())]
        neighbours = voters(selection.judged[others], k)
        size = batch_of(neighbours) if y.ndim > 1 else len(selection.judged)

        def predict(here: np.ndarray) -> np.ndarray:
            batches = (here[start : start + size] for start in range(0, len(here), size))
            rows = (features.take(selection.judged[batch]) for batch in batches)
            return np.concatenate([target.predict(neighbours.scores(some, target)) for some in rows])

        return predict

    with threadpool_limits(1, "blas"):  # threads take batches; the same to the last bit on any number of cores
        found = selection.gather([losses(part) for part in selection.parts])
        out_of_fold = selection.cross_fit(cross_fit)
    means = dict(zip(candidates, found.mean(axis=(0, 1)).tolist(), strict=True))
    best = min(means, key=lambda k: means[k])
    chosen = {"k": best, f"{selection.name}_{target.loss}": {str(k): round(loss, 6) for k, loss in means.items()}}
    return Head("knn", target, Neighbours(x, columns, best, spec.temperature), chosen, out_of_fold)


def _lengths(x: np.ndarray) -> np.ndarray:
    """The length of each row (n, 1), 1 for a row of zeros, without a copy of all rows."""
    lengths = np.sqrt(np.einsum("ij,ij->i", x, x))[:, None]
    return np.where(lengths > 0, lengths, 1)
