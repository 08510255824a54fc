"""Owns the loss of logistic regression, its gradient, its minimum, and its rows, in memory or on the disk.

Not the choice of C (logistic.py).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from scipy.optimize import minimize

from stages.heads.matrix import BLOCK_BYTES, FeatureMatrix, OnDisk, Rows, Scaler, are_few, row_blocks, unit_spans
from stages.heads.selection import Selection
from stages.runtime.hardware import memory_bytes
from stages.targets.target import Target

log = logging.getLogger(__name__)

LANES = 8
TOLERANCE = 1e-4
"""scikit-learn's, of the largest gradient."""

_STEPS = 2000
_ROWS = 512

MEMORY_SHARE = 0.25
"""Of this machine's memory, for the rows that are fitted or judged, as float32. More are read anew in each step."""

Spread = Callable[[Callable[[slice], Any], Iterable[slice]], Iterable[Any]]
"""map, or that of a pool of threads."""


class Samples:
    """The rows that are fitted or judged, centred, once; those of a fold lie side by side.

    They are in memory if they take no more than MEMORY_SHARE of it, or are few; else they are read in each step. That
    is slower, and gives the same head: what is added up is added in the same order.
    """

    def __init__(self, features: FeatureMatrix, y: np.ndarray, selection: Selection, target: Target) -> None:
        first = selection.parts[: len(selection.parts) // selection.repeats]
        order = np.concatenate([part.held for part in first])
        if selection.folds is None:
            order = np.concatenate([selection.fitted, order])
        self.y, self.target, self.widths = y[order], target, features.widths
        self.spans = unit_spans(self.widths) if target.exclusive else ()
        fitted = len(selection.fitted) if selection.folds is None else len(order)
        self._order, self._place = order, np.argsort(order)
        needed = 4 * len(order) * features.dim
        if needed <= MEMORY_SHARE * memory_bytes() or are_few(len(order), features.dim):
            x = np.empty((len(order), features.dim), np.float32)
            for here in features.blocks(np.arange(len(order))):  # so that they are not there as float16 too
                x[here] = features.take(order[here])
            self.centre = x[:fitted].mean(axis=0, dtype=np.float64)
            for part in row_blocks(x):
                part -= self.centre
            self.x: Rows = x
        else:
            log.info("%.1f GB of rows are read in each step, %.1f are in memory", needed / 1e9, memory_bytes() / 1e9)
            self.centre = OnDisk(features, order[:fitted], np.zeros(features.dim)).mean()
            self.x = OnDisk(features, order, self.centre)

    def at(self, numbers: np.ndarray) -> np.ndarray:
        """Where the rows of those numbers lie in x."""
        return self._place[np.searchsorted(self._order, numbers, sorter=self._place)]

    def take(self, numbers: np.ndarray) -> Rows:
        """The rows of those numbers, in that order: a view where they lie side by side."""
        places = self.at(numbers)
        if isinstance(self.x, OnDisk):
            return replace(self.x, numbers=numbers)
        alongside = bool((np.diff(places) == 1).all())
        return np.asarray(self.x[places[0] : places[-1] + 1] if alongside else self.x[places])

    def views(self, numbers: np.ndarray) -> tuple[list[Rows], np.ndarray]:
        """The rows of those numbers as views of x, as few as there can be, and their y."""
        places = np.sort(self.at(numbers))
        runs = np.split(places, np.flatnonzero(np.diff(places) > 1) + 1)
        return [self.take(self._order[run]) for run in runs], self.y[places]


@dataclass(frozen=True)
class Model:
    """Weights (dim, outputs) and bias (outputs,) on scaled features, of their dtype; two classes have one output."""

    weights: np.ndarray
    bias: np.ndarray
    iterations: int


class Problem:
    """Mean log-loss of scaled rows plus |weights|^2 / (2 C n), as scikit-learn has it.

    x: rows (.., dim) float32 (or float64, for comparisons), in arrays or on the disk, unscaled, so that several
    problems share them; y: what the rows have, as `target` takes it. Rows are processed in parts that stay in the
    processor's cache for both products, in lanes whose number depends on n alone, so sums are the same to the last bit
    on any number of cores, if BLAS has one thread.
    """

    def __init__(self, x: Sequence[Rows], y: np.ndarray, target: Target, scaler: Scaler, spread: Spread = map) -> None:
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
        first, read = 0, _ROWS * max(1, BLOCK_BYTES // (4 * _ROWS * max(1, self.x[0].shape[1])))
        for x in self.x:
            start, stop = max(lane.start, first), min(lane.stop, first + len(x))
            for a in range(start, stop, read):
                rows, y = x[a - first : min(a + read, stop) - first], self.y[a : min(a + read, stop)]
                yield from ((rows[b : b + _ROWS], y[b : b + _ROWS]) for b in range(0, len(y), _ROWS))
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
