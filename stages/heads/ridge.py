"""Owns fitting a ridge head from sums over the rows: X'X, X'y and the like. Not the head's form (fitted.py).

One pass over the train rows computes the sums of each fold, which all penalties use; leaving a fold out is a
subtraction. Memory never holds all rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import reduce
from itertools import islice
from operator import add
from typing import Any, Protocol

import numpy as np
from threadpoolctl import threadpool_limits

from cache.errors import Unusable
from stages.data.manifest import Row
from stages.heads.fitted import Head, Layer, Layers, softmax
from stages.heads.labelled_rows import rows_in_split, target_columns
from stages.heads.matrix import FeatureMatrix, Scaler, inverse_deviation
from stages.runtime.parallel import run_in_threads

PENALTIES = tuple(float(a) for a in np.round(np.logspace(-2, 7.5, 20), 6))
"""alpha, two to a decade, of the scikit-learn kind: |y - Xw|^2 + alpha |w|^2 on standardised features."""

SCALES = np.logspace(-0.5, 3, 29)
"""Factors from a score to a logit, among which a parabola finds the best."""

MOST_BYTES = 2 << 30
"""Of the sums of all folds."""

_SOLVED_BYTES = 256 << 20
"""Of the weights that are evaluated on val at a time."""

_CELLS = 5_000_000
"""Scores of val that choose penalty and scale; if there are more, those of evenly spaced rows."""

Solved = tuple[np.ndarray, np.ndarray]
"""Weights (dim, outputs) and bias (outputs,)."""


class Spec(Protocol):
    """Settings: alpha, or None to have it chosen on val; the number of folds, and the seed they are drawn with."""

    alpha: float | None
    folds: int
    seed: int


@dataclass(frozen=True)
class Sums:
    """Over n rows, float64, of features about `shift`: x (dim,), xx (dim, dim), y (outputs,), xy, yy (a number)."""

    n: Any
    x: np.ndarray
    xx: np.ndarray
    y: np.ndarray
    xy: np.ndarray
    yy: Any

    @classmethod
    def over(cls, x: np.ndarray, y: np.ndarray) -> Sums:
        return cls(len(x), x.sum(axis=0), x.T @ x, y.sum(axis=0), x.T @ y, float((y * y).sum()))

    def __add__(self, other: Sums) -> Sums:
        return Sums(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def __sub__(self, other: Sums) -> Sums:
        return Sums(*(getattr(self, f.name) - getattr(other, f.name) for f in fields(self)))

    def squared_error(self, weights: np.ndarray, bias: np.ndarray) -> float:
        """|y - x weights - bias|^2 over the rows, from the sums alone."""
        own = np.einsum("ij,ij->", weights, self.xx @ weights) + self.n * bias @ bias + 2 * (self.x @ weights) @ bias
        return float(self.yy - 2 * (np.einsum("ij,ij->", weights, self.xy) + self.y @ bias) + own)


def fit(spec: Spec, features: FeatureMatrix, rows: Sequence[Row], classes: Sequence[str]) -> Head:
    """Least squares on targets of -1 and 1 with an L2 penalty, exact; the intercept is not penalised.

    Features are standardised on train, from the sums. val (above 5 million scores, evenly spaced rows of it) chooses
    alpha by log-loss, and with it the factor from scores to logits: sigmoid, or softmax, of score * scale. Folds of
    train rows go by a hash of (seed, group or id); `chosen` has the mean squared error of each alpha on folds left out.
    Raises Unusable where there are too many features for the memory of their products.
    """
    dim, outputs = features.dim, 1 if len(classes) == 2 else len(classes)
    needed = 8 * dim * (dim + outputs) * (spec.folds + 3)
    if needed > MOST_BYTES:
        raise Unusable(
            f"a ridge head on {dim:,} features and {len(classes):,} classes takes {needed / 1e9:.1f} GB for its sums; "
            f"it may take {MOST_BYTES / 1e9:.1f}",
            "use kind: logistic, knn or dense, or a tap with pooling: avg or max",
        )
    y, penalties = target_columns(rows, classes), PENALTIES if spec.alpha is None else (spec.alpha,)
    shift = features.take(rows_in_split(rows, "train")[:1])[0].astype(np.float64)
    with threadpool_limits(1, "blas"):  # threads take folds; the same to the last bit on any number of cores
        parts = sums(features, _folds(rows, spec.folds, spec.seed), y, outputs, shift)
        whole = reduce(add, parts)
        errors = _fold_errors(whole, parts, penalties)
        val = rows_in_split(rows, "val")
        val = val[:: max(1, -(-len(val) * outputs // _CELLS))]
        losses, scales, best_fit = _evaluate(features, val, y, solve(whole, penalties), shift)
    best = int(losses.argmin())
    weights, bias = (part * scales[best] for part in best_fit)
    names = [format(penalty, ".3g") for penalty in penalties]
    chosen = {
        "alpha": penalties[best],
        "scale": round(float(scales[best]), 4),
        "val_log_loss": dict(zip(names, losses.round(6).tolist(), strict=True)),
        "fold_squared_error": dict(zip(names, errors.round(6).tolist(), strict=True)),
    }
    return Head("ridge", tuple(classes), Layers([Layer(weights, bias - shift @ weights)]), chosen)


def sums(
    features: FeatureMatrix, folds: Sequence[np.ndarray], y: np.ndarray, outputs: int, shift: np.ndarray
) -> list[Sums]:
    """The sums of each fold; a thread goes through the rows of a fold block by block."""

    def add_blocks(fold: np.ndarray) -> Sums:
        blocks = features.blocks(fold, outputs)
        return reduce(add, (Sums.over(features.take(some) - shift, _signs(y[some], outputs)) for some in blocks))

    return run_in_threads(add_blocks, folds)


def solve(total: Sums, penalties: Sequence[float]) -> Iterator[Solved]:
    """(weights (dim, outputs), bias (outputs,)) for each penalty, on features about `shift`, standardised inside.

    One eigendecomposition serves all penalties.
    """
    mean, mean_y = total.x / total.n, total.y / total.n
    squares = np.diag(total.xx) / total.n
    scaler = Scaler(mean, inverse_deviation(squares - mean**2, squares))
    z = (total.xx - total.n * np.outer(mean, mean)) * scaler.inverse * scaler.inverse[:, None]
    values, vectors = np.linalg.eigh(z)
    rotated = vectors.T @ ((total.xy - total.n * np.outer(mean, mean_y)) * scaler.inverse[:, None])
    for penalty in penalties:
        yield scaler.fold(vectors @ (rotated / (values.clip(0) + penalty)[:, None]), mean_y)


def _folds(rows: Sequence[Row], number: int, seed: int) -> list[np.ndarray]:
    """Numbers of the train rows of each fold that has any; a group is in one fold."""
    folds: list[list[int]] = [[] for _ in range(number)]
    for i in rows_in_split(rows, "train"):
        name = f"{seed} {rows[i].group or rows[i].id}".encode()
        folds[int.from_bytes(hashlib.sha256(name).digest()[:8]) % number].append(int(i))
    return [np.array(fold) for fold in folds if fold]


def _fold_errors(whole: Sums, parts: Sequence[Sums], penalties: Sequence[float]) -> np.ndarray:
    """Mean squared error for a row and an output, each fold predicted from the others: (penalties,)."""
    errors = np.zeros(len(penalties))
    for part in parts if len(parts) > 1 else ():
        for i, (weights, bias) in enumerate(solve(whole - part, penalties)):
            errors[i] += part.squared_error(weights, bias)
    return np.asarray(errors / (whole.n * len(whole.y)))


def _evaluate(
    features: FeatureMatrix, val: np.ndarray, y: np.ndarray, solved: Iterator[Solved], shift: np.ndarray
) -> tuple[np.ndarray, np.ndarray, Solved]:
    """Log-loss on val of each penalty, and its best factor, (penalties,) each; and the weights of the best penalty."""
    first = next(solved)
    at_once = max(1, _SOLVED_BYTES // first[0].nbytes)
    losses, scales, best = np.empty(0), np.empty(0), first
    some = [first, *islice(solved, at_once - 1)]
    while some:
        factors, found = _lowest(_val_losses(features, val, y, some, shift))
        if found.min() < losses.min(initial=np.inf):
            best = some[int(found.argmin())]
        losses, scales = np.append(losses, found), np.append(scales, factors)
        some = list(islice(solved, at_once))
    return losses, scales, best


def _val_losses(
    features: FeatureMatrix, val: np.ndarray, y: np.ndarray, solved: Sequence[Solved], shift: np.ndarray
) -> np.ndarray:
    """Mean log-loss on val of each penalty with each factor of SCALES."""

    def sum_losses(block: np.ndarray) -> np.ndarray:
        x = features.take(block) - shift
        here, losses = np.arange(len(block)), np.empty((len(solved), len(SCALES)))
        for i, (weights, bias) in enumerate(solved):
            scores = x @ weights + bias
            for j, scale in enumerate(SCALES):
                right = softmax(scores * scale)[here, y[block]]
                losses[i, j] = -np.log(np.clip(right, 1e-15, None)).sum()
        return losses

    parts = run_in_threads(sum_losses, features.blocks(val, len(solved[0][1])))
    return np.asarray(np.sum(parts, axis=0) / len(val))


def _lowest(losses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each penalty, factor and loss at the vertex of the parabola through the lowest of SCALES."""
    rows, logs = np.arange(len(losses)), np.log(SCALES)
    lowest = losses.argmin(axis=1).clip(1, len(SCALES) - 2)
    left, middle, right = (losses[rows, lowest + step] for step in (-1, 0, 1))
    curve = left - 2 * middle + right
    step = np.where(curve > 0, (left - right) / (2 * np.where(curve > 0, curve, 1)), 0).clip(-1, 1)
    scales = np.exp(logs[lowest] + step * (logs[1] - logs[0]))
    return scales, middle + step * (right - left) / 2 + step**2 * curve / 2


def _signs(y: np.ndarray, outputs: int) -> np.ndarray:
    """Targets (n, outputs): 1 for the true class and -1 else; of two classes, for the second."""
    return np.asarray(np.where(y[:, None] == (np.arange(outputs) if outputs > 1 else 1), 1.0, -1.0))
