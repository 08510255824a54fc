"""Owns k-fold: the fold of each row, and predictions by heads not fitted on it. Not the figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from cache.errors import Unusable
from stages.data import stratified
from stages.data.manifest import Row
from stages.data.stratified import Unit
from stages.metrics import bootstrap

_INNER = 5
"""A fifth of the rows outside of a fold is the val split of its head."""


class Predictor(Protocol):
    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """features (n, ...) -> (n, classes)."""
        ...


Fit = Callable[[np.ndarray, Sequence[Row]], Predictor]
"""fit(features, rows): fitted on the rows whose split is train, chosen on those in val, or where none is by folds."""


def assign_folds(rows: Sequence[Row], k: int, seed: int) -> np.ndarray:
    """The fold of each labelled row, (n,) int below k: stratified by label, and no group in two folds.

    A row without a group stands for itself. The same rows in the same order and the same seed give the same folds.
    Raises Unusable where they are too few for k folds, or where all of a class would be in one.
    """
    drawn, labels = bootstrap.resampling_units([row.group for row in rows]), np.array([row.label for row in rows])
    what = "groups" if any(row.group is not None for row in rows) else "images"
    units = len(set(drawn.tolist()))
    largest = max(Counter(labels.tolist()).values(), default=0)
    if min(units, largest) < k:
        raise Unusable(
            f"{units} {what}, {largest} images of the largest class, are too few for {k} folds",
            f"--folds {min(units, largest)}" if min(units, largest) > 1 else "add images",
        )
    folds = _split(drawn, labels, k, seed)
    for label in np.unique(labels):
        if len(set(folds[labels == label])) == 1:
            raise Unusable(
                f"all {(labels == label).sum()} images of class {str(label)!r} are in one fold; none is left to fit on",
                f"add images of it{' in other groups' if what == 'groups' else ''}, or leave that class out",
            )
    return folds


def find_unfoldable(rows: Sequence[Row]) -> str | None:
    """A class of the labelled rows that folds cannot judge, since it has one image or group only; None for none."""
    units = bootstrap.resampling_units([row.group for row in rows]).tolist()
    found: dict[str, set[int]] = {}
    for row, unit in zip(rows, units, strict=True):
        found.setdefault(row.label or "", set()).add(unit)
    return next((label for label, of in sorted(found.items()) if len(of) < 2), None)


def most_folds(rows: Sequence[Row], k: int) -> int:
    """k, or fewer where there are fewer groups, or images of the largest class; two at least."""
    units = len(set(bootstrap.resampling_units([row.group for row in rows]).tolist()))
    largest = max(Counter(row.label for row in rows).values(), default=0)
    return max(2, min(k, units, largest))


def out_of_fold(
    fit: Fit, features: np.ndarray, rows: Sequence[Row], classes: Sequence[str], k: int, seed: int, val: bool = True
) -> np.ndarray:
    """Probabilities (n, classes) of each row, by a head that was neither fitted nor chosen on its fold.

    `features` (n, ...) and labelled `rows` agree line by line; their splits don't count. For each of the k folds of
    `assign`, `fit` gets the rows outside of it, a fifth of them (stratified, grouped, seeded) as val; without `val` all
    as train, unless a class there is too small for folds. Raises Unusable where the rows are too few.
    """
    folds, out = assign_folds(rows, k, seed), np.empty((len(rows), len(classes)))
    for number in range(k):
        inside = folds == number
        outside = [row._replace(split="train") for row, here in zip(rows, inside, strict=True) if not here]
        if val or find_unfoldable(outside):
            outside = _with_val(outside, seed)
        head = fit(features[~inside], outside)
        out[inside] = head.probabilities(features[inside])
    return out


def _with_val(rows: Sequence[Row], seed: int) -> list[Row]:
    """The rows with a fifth of them in val; but those of a class that train would lack are in train."""
    drawn, labels = bootstrap.resampling_units([row.group for row in rows]), np.array([row.label for row in rows])
    k = min(_INNER, max(Counter(labels.tolist()).values()), len(set(drawn.tolist())))
    val = _split(drawn, labels, k, seed) == 0 if k > 1 else np.zeros(len(rows), dtype=bool)
    for label in np.unique(labels):
        if val[labels == label].all():
            val[np.isin(drawn, drawn[labels == label])] = False
    if not val.any():
        raise Unusable(f"{len(rows)} images outside of a fold are too few to hold some out of the fit", "add images")
    return [row._replace(split="val" if held else "train") for row, held in zip(rows, val, strict=True)]


def _split(drawn: np.ndarray, labels: np.ndarray, k: int, seed: int) -> np.ndarray:
    """The fold of each row: (n,) units and labels -> (n,) int. scikit-learn would do, but takes longer to import."""
    classes: dict[int, Counter[str]] = {}
    for unit, label in zip(drawn.tolist(), labels.tolist(), strict=True):
        classes.setdefault(unit, Counter())[label] += 1
    units = [Unit(str(unit), found) for unit, found in classes.items()]
    folds = stratified.draw(units, {}, {str(fold): 1 / k for fold in range(k)}, seed)
    return np.array([int(folds[str(unit)]) for unit in drawn.tolist()], dtype=np.intp)
