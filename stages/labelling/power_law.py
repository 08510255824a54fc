"""Owns the forecast of a figure at more images, by a power law, and its interval. Not what was measured (subsets.py).

error(n) = a n^-b + c (Figueroa et al. 2012, Predicting sample size required for classification performance; Hestness et
al. 2017; Viering and Loog 2022, The shape of learning curves, who find it the law that most curves follow).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from stages.metrics import intervals

LEVEL = 0.9
"""Of the intervals: how often the figure of a head of so many images is inside; benchmarks/curve.py replays it."""

_Z = 1.644854
_EXPONENTS = np.geomspace(0.1, 2, 16)
_USUAL, _SPREAD = 0.5, 0.6
"""The exponent is some 0.5 of heads on frozen features: before a curve is seen, its logarithm is normal with this
spread. A curve of few images tells little of it."""

_NOISE = 0.1
"""Of the mean variance, that is added to each: the resamples give covariances of few degrees of freedom."""

_OWN = 0.1
"""Of the variance of a forecast, that a head of its own has beside: another draw of as many images makes another head.
Chosen on replays of kNN heads, as were the laws; those of logistic heads in docs/benchmarks.md took no part."""

SHARES = ("accuracy", "auroc", "macro_ap", "macro_f1")
LOSSES = ("log_loss", "relative_error", "mae")
"""Figures that are errors themselves; of others the error is 1 less the figure."""


class Law(NamedTuple):
    """error(n) = a n^-b + c, the most probable of those that were tried."""

    a: float
    b: float
    c: float


class Ends(NamedTuple):
    """A value, and the ends of its interval."""

    value: float
    low: float
    high: float


class Curve(NamedTuple):
    """Errors by the law at m numbers of images (m,), those of resamples (resamples, m), and the variance (m,) between
    laws."""

    errors: np.ndarray
    resampled: np.ndarray
    between: np.ndarray
    law: Law

    def variance(self, place: int) -> float:
        """Of the error of one head of so many images."""
        return float((self.resampled[:, place].var() + self.between[place]) * (1 + _OWN))


def follow(sizes: Sequence[int], errors: np.ndarray, resampled: np.ndarray, at: Sequence[int]) -> Curve:
    """The law through errors (s,) of heads of `sizes` images, at other numbers of images.

    resampled: the errors again on resamples of images and subsets, (resamples, s). Their covariance weighs the fit:
    sizes are judged on the same images, so what these have in common tells nothing of the slope. a and c are not
    negative. Laws of all exponents, with and without c, which are as probable before, are averaged by how probable they
    are (Hoeting et al. 1999, Bayesian model averaging): a few images do not tell whether errors end above 0.
    """
    n, top = np.array(sizes, dtype=float), float(sizes[-1])
    everything = np.vstack([errors, resampled])
    white = _whitening(resampled)
    seen, fits = everything @ white.T, []
    for exponent in _EXPONENTS:
        basis = white @ np.stack([(n / top) ** -exponent, np.ones(len(n))], axis=1)
        for weights in _positive(basis, seen):
            misfit = ((seen - weights @ basis.T) ** 2).sum(axis=1)
            fits.append((misfit + (np.log(exponent / _USUAL) / _SPREAD) ** 2, weights))
    badness, weights = np.array([bad for bad, _ in fits]), np.array([found for _, found in fits])
    probable = np.exp((badness.min(axis=0) - badness) / 2)
    probable /= probable.sum(axis=0)
    exponents = np.repeat(_EXPONENTS, 2)
    powers = (np.array(at, dtype=float) / top) ** -exponents[:, None]
    curves = weights[:, :, :1] * powers[:, None] + weights[:, :, 1:]
    averaged = (probable[:, :, None] * curves).sum(axis=0)
    between = (probable[:, :1] * (curves[:, 0] - averaged[0]) ** 2).sum(axis=0)
    best = int(probable[:, 0].argmax())
    (a, c), b = weights[best, 0], float(exponents[best])
    return Curve(averaged[0], averaged[1:], between, Law(float(a) * top**b, b, float(c)))


def interval(name: str, error: float, variance: float, count: int) -> Ends:
    """The figure of that name with this error, and the ends of its interval, from `count` independent judges.

    Shares have Wilson's interval (1927) at the size that has this variance, as elsewhere; others one on the log scale.
    """
    if name not in SHARES:
        factor = float(np.exp(_Z * np.sqrt(variance) / error)) if error > 0 else 1.0
        low, high = error / factor, error * factor
    else:
        error = min(error, 1.0)
        size = min(count, max(error * (1 - error), 0.25 / count) / variance) if variance > 0 else count
        low, high = (float(end) for end in intervals.wilson(error, size, _Z))
    return Ends(error, low, high) if name in LOSSES else Ends(1 - error, 1 - high, 1 - low)


def gain(name: str, curve: Curve, before: int, after: int) -> Ends:
    """By how much the figure changes from one head to another, judged on the same images, and the ends of its interval.

    Figures that are errors fall where heads get better.
    """
    moved = float(curve.errors[after] - curve.errors[before]) * (1 if name in LOSSES else -1)
    spread = (curve.resampled[:, after] - curve.resampled[:, before]).var() + 2 * _OWN * curve.variance(after)
    half = _Z * float(np.sqrt(spread + abs(curve.between[after] - curve.between[before])))
    return Ends(moved, moved - half, moved + half)


def _whitening(resampled: np.ndarray) -> np.ndarray:
    """What makes the noise of errors independent and of variance 1: (s, s)."""
    covariance = np.atleast_2d(np.cov(resampled.T))
    floor = _NOISE * np.trace(covariance) / len(covariance) + 1e-9
    inverse = np.linalg.inv(covariance + floor * np.eye(len(covariance)))
    return np.asarray(np.linalg.cholesky(inverse).T)


def _positive(basis: np.ndarray, seen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least squares of `seen` (m, s) by basis (s, 2): weights (m, 2), none negative; and those without the second."""
    products, right = basis.T @ basis, seen @ basis
    both = np.linalg.solve(products, right.T).T
    alone = np.maximum(right / np.diag(products), 0)
    first, second = alone * (1, 0), alone * (0, 1)
    both = np.where(both[:, 1:] < 0, first, both)
    return np.where(both[:, :1] < 0, second, both), first
