"""Owns fitting a ridge head from sums over the rows: X'X, X'y and the like. Not the head's form (fitted.py).

One pass over the rows computes the sums of each fold, which all penalties use; leaving a fold out is a subtraction.
Memory never holds all rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import reduce
from itertools import islice
from operator import add
from typing import Any, Protocol

import numpy as np
from threadpoolctl import threadpool_limits

from cache.errors import Unusable
from stages.data.manifest import Row
from stages.heads.fitted import Head, Layer, Layers
from stages.heads.labelled_rows import encode
from stages.heads.matrix import FeatureMatrix, Moments, Scaler, are_few, shrunk_inverse, unit_spans
from stages.heads.selection import Selection
from stages.runtime.parallel import run_in_threads
from stages.targets.target import Target

PENALTIES = tuple(float(a) for a in np.round(np.logspace(-2, 7.5, 20), 6))
"""alpha, two to a decade, of the scikit-learn kind: |y - Xw|^2 + alpha |w|^2 on standardised features."""

MOST_BYTES = 2 << 30
"""Of the sums of all folds."""

_SOLVED_BYTES = 256 << 20
"""Of the weights that are evaluated on val at a time."""

_LANES = 8
"""Parts of train whose sums are computed side by side: as many on any machine, so that the bits are the same."""

Solved = tuple[np.ndarray, np.ndarray]
"""Weights (dim, outputs) and bias (outputs,)."""


class Spec(Protocol):
    """Settings: alpha, or None to have it chosen; the number of folds, and the seed they are drawn with."""

    alpha: float | None
    folds: int
    seed: int


@dataclass(frozen=True)
class Sums:
    """Over n rows, float64, of features about `shift`: x (dim,), xx (dim, dim), y (outputs,), xy."""

    n: Any
    x: np.ndarray
    xx: np.ndarray
    y: np.ndarray
    xy: np.ndarray

    @classmethod
    def over(cls, x: np.ndarray, y: np.ndarray) -> Sums:
        return cls(len(x), x.sum(axis=0), x.T @ x, y.sum(axis=0), x.T @ y)

    def __add__(self, other: Sums) -> Sums:
        return Sums(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def __sub__(self, other: Sums) -> Sums:
        return Sums(*(getattr(self, f.name) - getattr(other, f.name) for f in fields(self)))


def fit(spec: Spec, features: FeatureMatrix, rows: Sequence[Row], target: Target) -> Head:
    """Least squares with an L2 penalty, exact; the intercept is not penalised. Classes are fitted as -1 and 1.

    Rows are scaled as matrix.py says, features from the sums. val or folds choose alpha by the target's loss, and where
    it has `factors`, also that from least squares' scores to logits: sigmoid, or softmax, of score * scale. Raises
    Unusable where there are too many features for the memory of their products, or too few rows for folds.
    """
    y, selection = encode(rows, target), Selection.of(spec, rows, target)
    dim, outputs, data = features.dim, target.outputs, Data(y, target.regressed(y), target)
    sums_at_once = _LANES if selection.folds is None else len(selection.parts)
    needed = 8 * dim * (dim + outputs) * (sums_at_once + 3)
    if needed > MOST_BYTES:
        raise Unusable(
            f"a ridge head on {dim:,} features and {len(target):,} {target.noun} takes {needed / 1e9:.1f} GB for its "
            f"sums; it may take {MOST_BYTES / 1e9:.1f}",
            "use kind: logistic, knn or dense, or a tap with pooling: avg or max",
        )
    features, penalties = features.unit_rows(), PENALTIES if spec.alpha is None else (spec.alpha,)
    shift = features.take(selection.fitted[:1])[0].astype(np.float64)
    judge = None
    with threadpool_limits(1, "blas"):  # threads take parts; the same to the last bit on any number of cores
        if selection.folds is None:
            whole = reduce(add, sums(features, np.array_split(selection.fitted, _LANES), data.regressed, shift))
            solved = solve(whole, penalties, features.widths)
            losses, scales, best_fit = _choose_on_val(features, selection.judged, data, solved, shift)
        else:
            folds = _Folds(features, selection, data, penalties, shift)
            losses, scales = folds.figures()
            (best_fit,), judge = solve(folds.whole, [penalties[int(losses.argmin())]], features.widths), folds.judge
        out_of_fold = selection.cross_fit(judge) if judge else None
    best = int(losses.argmin())
    weights, bias = (part * scales[best] for part in best_fit)
    chosen = {
        "alpha": penalties[best],
        **({} if target.factors is None else {"scale": round(float(scales[best]), 4)}),
        f"{selection.name}_{target.loss}": {
            format(a, ".3g"): round(float(x), 6) for a, x in zip(penalties, losses, strict=True)
        },
    }
    layers = Layers([Layer(weights, bias - shift @ weights)], unit_spans(features.widths))
    return Head("ridge", target, layers, chosen, out_of_fold)


@dataclass(frozen=True)
class Data:
    """What the rows have, as the target judges it, and (n, outputs) as least squares fits it."""

    y: np.ndarray
    regressed: np.ndarray
    target: Target

    @property
    def factors(self) -> np.ndarray:
        """From least squares' scores to the target's, (factors,)."""
        return np.ones(1) if self.target.factors is None else self.target.factors


class _Folds:
    """Each fold's losses at each penalty and factor, by what is solved on the others."""

    def __init__(
        self,
        features: FeatureMatrix,
        selection: Selection,
        data: Data,
        penalties: Sequence[float],
        shift: np.ndarray,
    ) -> None:
        self.features, self.selection, self.data, self.shift = features, selection, data, shift
        first = len(selection.parts) // selection.repeats
        parts = sums(features, [part.held for part in selection.parts], data.regressed, shift)
        self.whole = reduce(add, parts[:first])
        self.losses = np.empty((len(parts), len(penalties), len(data.factors)))
        few = are_few(len(selection.parts[0].fitted), features.dim)

        def solve_part(number: int) -> list[Solved]:
            fitted = selection.parts[number].fitted
            if few:
                x = features.take(fitted) - shift
                return list(solve_few(x, data.regressed[fitted], penalties, features.widths))
            return list(solve(self.whole - parts[number], penalties, features.widths))

        solved = run_in_threads(solve_part, range(len(parts)))
        for number, part in enumerate(selection.parts):
            self.losses[number] = _sum_losses(features, part.held, data, solved[number], shift)
        self.solved = solved[:first]

    def figures(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean loss of each penalty, and its best factor."""
        summed = self.losses.sum(axis=0) / (self.selection.repeats * len(self.selection.judged))
        scales, losses = _lowest(summed, self.data.factors)
        return losses, scales

    def judge(self, others: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        """For the fold that `others` leave out: predictions at the penalty and factor that they prefer."""
        assert self.selection.folds is not None
        left = np.unique(self.selection.folds[others])
        (own,) = set(range(len(self.solved))) - set(left.tolist())
        scales, losses = _lowest(self.losses[left].sum(axis=0) / len(others), self.data.factors)
        best = int(losses.argmin())
        weights, bias = self.solved[own][best]

        def predict(here: np.ndarray) -> np.ndarray:
            x = self.features.take(self.selection.judged[here]) - self.shift
            return self.data.target.predict((x @ weights + bias) * scales[best])

        return predict


def sums(features: FeatureMatrix, folds: Sequence[np.ndarray], y: np.ndarray, shift: np.ndarray) -> list[Sums]:
    """The sums of each fold, y (n, outputs) float64; a thread goes through the rows of a fold block by block."""

    def add_blocks(fold: np.ndarray) -> Sums:
        blocks = features.blocks(fold, y.shape[1])
        return reduce(add, (Sums.over(features.take(some) - shift, y[some]) for some in blocks))

    return run_in_threads(add_blocks, folds)


def solve(total: Sums, penalties: Sequence[float], widths: Sequence[int]) -> Iterator[Solved]:
    """(weights (dim, outputs), bias (outputs,)) for each penalty, on features about `shift`, scaled inside.

    One eigendecomposition serves all penalties.
    """
    mean, mean_y = total.x / total.n, total.y / total.n
    squares = np.diag(total.xx) / total.n
    scaler = Scaler(mean, shrunk_inverse(squares - mean**2, squares, widths))
    z = (total.xx - total.n * np.outer(mean, mean)) * scaler.inverse * scaler.inverse[:, None]
    values, vectors = np.linalg.eigh(z)
    rotated = vectors.T @ ((total.xy - total.n * np.outer(mean, mean_y)) * scaler.inverse[:, None])
    for penalty in penalties:
        yield scaler.fold(vectors @ (rotated / (values.clip(0) + penalty)[:, None]), mean_y)


def solve_few(x: np.ndarray, y: np.ndarray, penalties: Sequence[float], widths: Sequence[int]) -> Iterator[Solved]:
    """The same from the rows x (n, dim) and targets y (n, outputs), in their own span: faster for n far below dim."""
    scaler, mean_y = Scaler.from_moments(Moments.of(x, np.zeros(x.shape[1])), widths), y.mean(axis=0)
    z = (x - scaler.mean) * scaler.inverse
    values, vectors = np.linalg.eigh(z @ z.T)
    rotated = vectors.T @ (y - mean_y)
    for penalty in penalties:
        yield scaler.fold(z.T @ (vectors @ (rotated / (values.clip(0) + penalty)[:, None])), mean_y)


def _choose_on_val(
    features: FeatureMatrix, val: np.ndarray, data: Data, solved: Iterator[Solved], shift: np.ndarray
) -> tuple[np.ndarray, np.ndarray, Solved]:
    """Loss on val of each penalty, and its best factor, (penalties,) each; and the weights of the best penalty."""
    first = next(solved)
    at_once = max(1, _SOLVED_BYTES // first[0].nbytes)
    losses, scales, best = np.empty(0), np.empty(0), first
    some = [first, *islice(solved, at_once - 1)]
    while some:
        factors, found = _lowest(_sum_losses(features, val, data, some, shift) / len(val), data.factors)
        if found.min() < losses.min(initial=np.inf):
            best = some[int(found.argmin())]
        losses, scales = np.append(losses, found), np.append(scales, factors)
        some = list(islice(solved, at_once))
    return losses, scales, best


def _sum_losses(
    features: FeatureMatrix, held: np.ndarray, data: Data, solved: Sequence[Solved], shift: np.ndarray
) -> np.ndarray:
    """Summed losses of the rows `held` for each penalty with each factor."""

    def sum_losses(block: np.ndarray) -> np.ndarray:
        x = features.take(block) - shift
        losses = np.empty((len(solved), len(data.factors)))
        for i, (weights, bias) in enumerate(solved):
            scores = x @ weights + bias
            for j, factor in enumerate(data.factors):
                losses[i, j] = data.target.score_losses(data.y[block], scores * factor).sum()
        return losses

    parts = run_in_threads(sum_losses, features.blocks(held, len(solved[0][1])))
    return np.asarray(np.sum(parts, axis=0))


def _lowest(losses: np.ndarray, factors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each penalty, factor and loss at the vertex of the parabola through the lowest of the factors."""
    if len(factors) == 1:
        return np.full(len(losses), factors[0]), losses[:, 0]
    rows, logs = np.arange(len(losses)), np.log(factors)
    lowest = losses.argmin(axis=1).clip(1, len(factors) - 2)
    left, middle, right = (losses[rows, lowest + step] for step in (-1, 0, 1))
    curve = left - 2 * middle + right
    step = np.where(curve > 0, (left - right) / (2 * np.where(curve > 0, curve, 1)), 0).clip(-1, 1)
    scales = np.exp(logs[lowest] + step * (logs[1] - logs[0]))
    return scales, middle + step * (right - left) / 2 + step**2 * curve / 2
