"""Owns fitting a logistic head: the loss, its solver, and the path over C. Not the head's form (fitted.py)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
from scipy.optimize import minimize
from threadpoolctl import threadpool_limits

from cache.errors import Unusable
from stages.data.manifest import Row
from stages.heads.fitted import Head, Layer, Layers, softmax
from stages.heads.labelled_rows import rows_in_split, target_columns
from stages.heads.matrix import FeatureMatrix, Scaler
from stages.metrics import classification
from stages.runtime.hardware import cpu_count

PATH = tuple(float(c) for c in np.round(np.logspace(-6, 3, 19), 10))
"""C of the path, ascending: two to a decade, of the scikit-learn kind (it multiplies the sum of losses)."""

FINER = (10**0.25, 10**0.125)
"""Then C is tried at these factors above and below the best, one after the other."""

MOST_WEIGHTS = 4_000_000
"""lbfgs keeps some 24 float64 vectors of the weights: 800 MB."""

_STEPS = 2000
_WORSE = 2
_LANES = 8
_ROWS = 512


class Spec(Protocol):
    """Settings: C, or None to have it chosen on val."""

    C: float | None


@dataclass(frozen=True)
class Model:
    """Weights (dim, outputs) and bias (outputs,) of the standardised features' dtype; two classes have one output."""

    weights: np.ndarray
    bias: np.ndarray
    iterations: int

    def probabilities(self, z: np.ndarray) -> np.ndarray:
        return softmax(z @ self.weights + self.bias)


def fit(spec: Spec, features: FeatureMatrix, rows: Sequence[Row], classes: Sequence[str]) -> Head:
    """Multinomial (or binary) logistic regression, fitted on train, with C chosen on val.

    Features are standardised on the train rows, in place; memory holds the features of train and val once, as float32.
    lbfgs follows C upwards, warm-started, until the val log-loss has been worse than its best twice in a row
    (Kornblith et al. 2019 choose C on a log grid too); then values near the best are tried.
    Raises Unusable where there are too many weights to solve for.
    """
    outputs = 1 if len(classes) == 2 else len(classes)
    if features.dim * outputs > MOST_WEIGHTS:
        raise Unusable(
            f"a logistic head on {features.dim:,} features and {len(classes):,} classes has "
            f"{features.dim * outputs:,} weights; its solver takes up to {MOST_WEIGHTS:,}",
            "use kind: knn, ridge (up to some 5,000 features) or dense, or a tap with fewer features",
        )
    y = target_columns(rows, classes)
    train, val = rows_in_split(rows, "train"), rows_in_split(rows, "val")
    x = features.take(train)
    scaler = Scaler.of(x)
    z, z_val = scaler.apply(x), scaler.apply(features.take(val))
    blocks = list(features.blocks(np.arange(len(val)), outputs))
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(min(_LANES, cpu_count())) as pool:
        problem = Problem(z, y[train], outputs, pool)

        def judge(model: Model) -> float:
            found = [classification.row_losses(y[val[some]], model.probabilities(z_val[some])) for some in blocks]
            return float(np.concatenate(found).mean())

        tried = _follow(problem, PATH if spec.C is None else (spec.C,), judge)
        if tried and spec.C is None:
            _refine(problem, tried, judge)
    if not tried:
        raise Unusable("the logistic head did not converge at any C", "check the features: pipeline run extract -v")
    c = min(tried, key=lambda c: tried[c][1])
    model = tried[c][0]
    assert model is not None
    path = {format(c, ".3g"): round(loss, 6) for c, (_, loss) in sorted(tried.items())}
    chosen = {"C": c, "iterations": model.iterations, "val_log_loss": path}
    layer = Layer(*scaler.fold(model.weights, model.bias))
    return Head("logistic", tuple(classes), Layers([layer]), chosen)


Tried = dict[float, tuple[Model | None, float]]
"""C -> the model, None where it is no longer needed, and its val log-loss."""


def _follow(problem: Problem, grid: Sequence[float], judge: Callable[[Model], float]) -> Tried:
    """Each C in turn, started from the last solution, until one does not converge or val clearly worsens."""
    tried: Tried = {}
    model: Model | None = None
    for c in grid:
        model = problem.solve(c, model)
        if model is None:
            break  # separable data, almost without a penalty
        tried[c] = (model, judge(model))
        losses = [loss for _, loss in tried.values()]
        if min(losses[-_WORSE:]) > min(losses):
            break
        best = losses.index(min(losses))
        for passed in list(tried)[: max(0, best - 1)]:
            tried[passed] = (None, tried[passed][1])
    return tried


def _refine(problem: Problem, tried: Tried, judge: Callable[[Model], float]) -> None:
    """Add values of C near the best to `tried`, each started from the best so far."""
    for factor in FINER:
        best = min(tried, key=lambda c: tried[c][1])
        for c in (best / factor, best * factor):
            start = tried[best][0]
            model = problem.solve(c, start)
            if model is not None:
                tried[c] = (model, judge(model))


class Problem:
    """Mean log-loss of standardised rows plus |weights|^2 / (2 C n), as scikit-learn has it.

    z (n, dim) float32 (or float64, for comparisons), y (n,) int. Rows are processed in parts that stay in the
    processor's cache for both products, in lanes whose number depends on n alone, so sums are the same to the last bit
    on any number of cores, if BLAS has one thread.
    """

    def __init__(self, z: np.ndarray, y: np.ndarray, outputs: int, pool: ThreadPoolExecutor) -> None:
        self.z, self.y, self.outputs, self.pool = z, y, outputs, pool
        lanes = max(1, min(_LANES, len(z) // (2 * _ROWS)))
        bounds = np.linspace(0, len(z), lanes + 1).astype(int)
        self.lanes = [slice(a, b) for a, b in pairwise(bounds)]

    def solve(self, c: float, start: Model | None, tolerance: float = 1e-4) -> Model | None:
        """The minimum for that C, from `start` (None: zero), where no gradient exceeds `tolerance` (scikit-learn's).

        None where _STEPS steps don't reach it.
        """
        shape = (self.z.shape[1] + 1, self.outputs)
        first = np.zeros(shape) if start is None else np.vstack([start.weights, start.bias]).astype(np.float64)
        penalty = 1 / (c * len(self.z))
        found: Any = minimize(
            lambda flat: self.loss(flat.reshape(shape), penalty),
            first.ravel(),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": _STEPS, "maxfun": 2 * _STEPS, "gtol": tolerance, "ftol": 64 * np.finfo(float).eps},
        )
        if found.status == 1:  # out of steps; 2 is a line search that float32 gives no more digits to
            return None
        solved = found.x.reshape(shape).astype(self.z.dtype)
        return Model(solved[:-1], solved[-1], int(found.nit))

    def loss(self, weights: np.ndarray, penalty: float) -> tuple[float, np.ndarray]:
        """The loss at `weights` (dim + 1, outputs) float64, the bias last, and its gradient, flat float64."""
        small = weights.astype(self.z.dtype)
        parts = list(self.pool.map(lambda lane: self._lane(lane, small), self.lanes))
        n = len(self.z)
        total = sum(loss for loss, _ in parts) / n + penalty / 2 * float((weights[:-1] ** 2).sum())
        gradient = parts[0][1].astype(np.float64)
        for _, part in parts[1:]:
            gradient += part
        gradient /= n
        gradient[:-1] += penalty * weights[:-1]
        return total, gradient.ravel()

    def _lane(self, lane: slice, weights: np.ndarray) -> tuple[float, np.ndarray]:
        total, gradient = 0.0, np.zeros_like(weights)
        for start in range(lane.start, lane.stop, _ROWS):
            rows = slice(start, min(start + _ROWS, lane.stop))
            z, y = self.z[rows], self.y[rows]
            loss, wrong = _errors(z @ weights[:-1] + weights[-1], y)
            total += loss
            gradient[:-1] += z.T @ wrong
            gradient[-1] += wrong.sum(axis=0)
        return total, gradient


def _errors(logits: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
    """Sum of the log-losses of logits (n, outputs), and their gradient: what is predicted less what is true."""
    if logits.shape[1] == 1:
        s = logits[:, 0]
        loss = np.logaddexp(0, s) - y * s
        return float(loss.sum(dtype=np.float64)), (1 / (1 + np.exp(-s)) - y).astype(logits.dtype)[:, None]
    here = np.arange(len(y))
    logits -= logits.max(axis=1, keepdims=True)
    right = logits[here, y]
    powers = np.exp(logits, out=logits)
    sums = powers.sum(axis=1)
    loss = np.log(sums) - right
    powers /= sums[:, None]
    powers[here, y] -= 1
    return float(loss.sum(dtype=np.float64)), powers
