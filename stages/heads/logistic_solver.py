"""Owns the loss of logistic regression, its gradient, and its minimum. Not the choice of C (logistic.py)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from scipy.optimize import minimize

from stages.heads.matrix import Scaler
from stages.targets.target import Target

LANES = 8
TOLERANCE = 1e-4
"""scikit-learn's, of the largest gradient."""

_STEPS = 2000
_ROWS = 512

Spread = Callable[[Callable[[slice], Any], Iterable[slice]], Iterable[Any]]
"""map, or that of a pool of threads."""


@dataclass(frozen=True)
class Model:
    """Weights (dim, outputs) and bias (outputs,) on scaled features, of their dtype; two classes have one output."""

    weights: np.ndarray
    bias: np.ndarray
    iterations: int


class Problem:
    """Mean log-loss of scaled rows plus |weights|^2 / (2 C n), as scikit-learn has it.

    x: arrays of rows (.., dim) float32 (or float64, for comparisons), unscaled, so that several problems share them; y:
    what the rows have, as `target` takes it. Rows are processed in parts that stay in the processor's cache for both
    products, in lanes whose number depends on n alone, so sums are the same to the last bit on any number of cores, if
    BLAS has one thread.
    """

    def __init__(
        self, x: Sequence[np.ndarray], y: np.ndarray, target: Target, scaler: Scaler, spread: Spread = map
    ) -> None:
        self.x, self.y, self.target, self.scaler, self.spread = x, y, target, scaler, spread
        lanes = max(1, min(LANES, len(y) // (2 * _ROWS)))
        self.lanes = [slice(a, b) for a, b in pairwise(np.linspace(0, len(y), lanes + 1).astype(int).tolist())]

    def solve(self, c: float, start: Model | None = None, tolerance: float = TOLERANCE) -> Model | None:
        """The minimum for that C, from `start` (None: zero), where no gradient exceeds `tolerance`.

        None where _STEPS steps don't reach it.
        """
        dtype = self.x[0].dtype
        shape = (len(self.scaler.mean) + 1, self.target.outputs)
        first = np.zeros(shape) if start is None else np.vstack([start.weights, start.bias]).astype(np.float64)
        penalty = 1 / (c * len(self.y))
        found: Any = minimize(
            lambda flat: self.loss(flat.reshape(shape), penalty),
            first.ravel(),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": _STEPS, "maxfun": 2 * _STEPS, "gtol": tolerance, "ftol": 64 * np.finfo(float).eps},
        )
        if found.status == 1:  # out of steps; 2 is a line search that float32 gives no more digits to
            return None
        solved = found.x.reshape(shape).astype(dtype)
        return Model(solved[:-1], solved[-1], int(found.nit))

    def follow(self, values: Sequence[float]) -> Model | None:
        """The minimum for the last of these C, each solved from that before; None where one isn't reached."""
        model: Model | None = None
        for c in values:
            model = self.solve(c, model)
            if model is None:
                return None
        return model

    def loss(self, weights: np.ndarray, penalty: float) -> tuple[float, np.ndarray]:
        """The loss at `weights` (dim + 1, outputs) float64, the bias last, and its gradient, flat float64."""
        folded, bias = self.scaler.fold(weights[:-1], weights[-1])
        dtype = self.x[0].dtype
        small, offset = folded.astype(dtype), bias.astype(dtype)
        parts = list(self.spread(lambda lane: self._lane(lane, small, offset), self.lanes))
        n = len(self.y)
        total = sum(loss for loss, *_ in parts) / n + penalty / 2 * float((weights[:-1] ** 2).sum())
        products = np.sum([part for _, part, _ in parts], axis=0, dtype=np.float64) / n
        errors = np.sum([wrong for *_, wrong in parts], axis=0, dtype=np.float64) / n
        gradient = np.empty_like(weights)
        gradient[:-1] = (products - np.outer(self.scaler.mean, errors)) * self.scaler.inverse[:, None]
        gradient[:-1] += penalty * weights[:-1]
        gradient[-1] = errors
        return total, gradient.ravel()

    def _lane(self, lane: slice, weights: np.ndarray, bias: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """Of the rows in `lane`: the sum of losses, of features times errors, and of errors."""
        total, products, errors = 0.0, np.zeros_like(weights), np.zeros_like(bias)
        for x, y in self._blocks(lane):
            loss, wrong = self.target.errors(x @ weights + bias, y)
            total += loss
            products += x.T @ wrong
            errors += wrong.sum(axis=0)
        return total, products, errors

    def _blocks(self, lane: slice) -> Iterable[tuple[np.ndarray, np.ndarray]]:
        """The rows in `lane` and their y, at most _ROWS at a time, never of two arrays."""
        first = 0
        for x in self.x:
            for start in range(max(lane.start, first), min(lane.stop, first + len(x)), _ROWS):
                end = min(start + _ROWS, lane.stop, first + len(x))
                yield x[start - first : end - first], self.y[start:end]
            first += len(x)


@dataclass(frozen=True)
class Rotation:
    """Scaled rows as coordinates in their own span, where a problem of few rows has the same minimum and is small."""

    scaler: Scaler
    basis: np.ndarray
    """(dim, span), orthonormal columns, float64."""

    @classmethod
    def of(cls, x: np.ndarray, scaler: Scaler) -> Rotation:
        z = (x - scaler.mean) * scaler.inverse
        values, vectors = np.linalg.eigh(z @ z.T)
        kept = values > 1e-10 * max(values[-1], 1e-30)
        return cls(scaler, z.T @ (vectors[:, kept] / np.sqrt(values[kept])))

    def apply(self, x: np.ndarray) -> np.ndarray:
        """Coordinates (n, span) of the rows x (n, dim), of the same dtype."""
        return np.asarray((((x - self.scaler.mean) * self.scaler.inverse) @ self.basis).astype(x.dtype))

    @property
    def neutral(self) -> Scaler:
        """The scaler of the coordinates, which changes nothing."""
        return Scaler(np.zeros(self.basis.shape[1]), np.ones(self.basis.shape[1]))
