"""Owns k-fold: the fold of each row, and predictions by heads not fitted on it. Not the figures."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from cache.errors import Unusable
from stages.data import stratified
from stages.data.manifest import Row
from stages.data.stratified import Unit
from stages.metrics import bootstrap
from stages.runtime.counted_words import count_of

_INNER = 5
"""A fifth of the rows outside of a fold is the val split of its head."""


@dataclass(frozen=True)
class Strata:
    """What of each row is to be spread evenly over folds: `names` has its class, or its labels.

    needed: whether a head needs rows of each.
    """

    names: Sequence[Sequence[str]]
    needed: bool = True

    def some(self, here: np.ndarray) -> Strata:
        """Of the rows where `here` (n,) bool is true."""
        return Strata([names for names, wanted in zip(self.names, here, strict=True) if wanted], self.needed)

    @cached_property
    def members(self) -> dict[str, list[int]]:
        """The numbers of the rows in each stratum, by name, ascending."""
        found: dict[str, list[int]] = defaultdict(list)
        for number, names in enumerate(self.names):
            for name in names:
                found[name].append(number)
        return dict(sorted(found.items()))

    @property
    def largest(self) -> int:
        """Rows in the largest; of those that no head needs, all."""
        return max(map(len, self.members.values()), default=0) if self.needed else len(self.names)


class Predictor(Protocol):
    def predict(self, features: np.ndarray) -> np.ndarray:
        """features (n, ...) -> (n, columns)."""
        ...


Fit = Callable[[np.ndarray, Sequence[Row]], Predictor]
"""fit(features, rows): fitted on the rows whose split is train, chosen on those in val, or where none is by folds."""


def assign_folds(rows: Sequence[Row], k: int, seed: int, strata: Strata | None = None) -> np.ndarray:
    """The fold of each labelled row, (n,) int below k: stratified, and no group in two folds.

    strata: of each row; None for its label. A row without a group stands for itself. The same rows in the same order
    and the same seed give the same folds. Raises Unusable where they are too few for k folds, or where all of a class
    would be in one.
    """
    drawn, strata = bootstrap.resampling_units([row.group for row in rows]), strata or by_label(rows)
    what = "groups" if any(row.group is not None for row in rows) else "images"
    units = len(set(drawn.tolist()))
    largest = strata.largest
    if min(units, largest) < k:
        of_class = f", {largest} images of the largest class," if strata.needed else ""
        raise Unusable(
            f"{units} {what}{of_class} are too few for {k} folds",
            f"--folds {min(units, largest)}" if min(units, largest) > 1 else "add images",
        )
    folds = _split(drawn, strata, k, seed)
    for label, here in strata.members.items() if strata.needed else ():
        if len(set(folds[here])) == 1:
            raise Unusable(
                f"{count_of(len(here), 'image')} of class {label!r}, all in one fold: none is left to fit on",
                f"add images of it{' in other groups' if what == 'groups' else ''}, or leave that class out",
            )
    return folds


def by_label(rows: Sequence[Row]) -> Strata:
    """Each class is one."""
    return Strata([(row.label or "",) for row in rows])


def find_unfoldable(rows: Sequence[Row], strata: Strata | None = None) -> str | None:
    """A class of the labelled rows that folds cannot judge, since it has one image or group only; None for none."""
    units = bootstrap.resampling_units([row.group for row in rows]).tolist()
    strata = strata or by_label(rows)
    members = strata.members.items() if strata.needed else ()
    return next((label for label, of in members if len({units[i] for i in of}) < 2), None)


def most_folds(rows: Sequence[Row], k: int, strata: Strata | None = None) -> int:
    """k, or fewer where there are fewer groups, or images of the largest class; two at least."""
    units = len(set(bootstrap.resampling_units([row.group for row in rows]).tolist()))
    return max(2, min(k, units, (strata or by_label(rows)).largest))


def out_of_fold(
    fit: Fit, features: np.ndarray, rows: Sequence[Row], strata: Strata, k: int, seed: int, val: bool = True
) -> np.ndarray:
    """Predictions (n, columns) of each row, by a head that was neither fitted nor chosen on its fold.

    `features` (n, ...) and labelled `rows` agree line by line; their splits don't count. For each of the k folds of
    `assign`, `fit` gets the rows outside of it, a fifth of them (stratified, grouped, seeded) as val; without `val` all
    as train, unless a class there is too small for folds. Raises Unusable where the rows are too few.
    """
    folds, out = assign_folds(rows, k, seed, strata), None
    for number in range(k):
        inside = folds == number
        outside = [row._replace(split="train") for row, here in zip(rows, inside, strict=True) if not here]
        theirs = strata.some(~inside)
        if val or find_unfoldable(outside, theirs):
            outside = _with_val(outside, seed, theirs)
        head = fit(features[~inside], outside)
        predicted = head.predict(features[inside])
        out = np.empty((len(rows), predicted.shape[1])) if out is None else out
        out[inside] = predicted
    assert out is not None
    return out


def _with_val(rows: Sequence[Row], seed: int, strata: Strata) -> list[Row]:
    """The rows with a fifth of them in val; but those of a class that train would lack are in train."""
    drawn = bootstrap.resampling_units([row.group for row in rows])
    k = min(_INNER, strata.largest, len(set(drawn.tolist())))
    val = _split(drawn, strata, k, seed) == 0 if k > 1 else np.zeros(len(rows), dtype=bool)
    for here in strata.members.values() if strata.needed else ():
        if val[here].all():
            val[np.isin(drawn, drawn[here])] = False
    if not val.any():
        raise Unusable(f"{len(rows)} images outside of a fold are too few to hold some out of the fit", "add images")
    return [row._replace(split="val" if held else "train") for row, held in zip(rows, val, strict=True)]


def _split(drawn: np.ndarray, strata: Strata, k: int, seed: int) -> np.ndarray:
    """The fold of each row: (n,) units and strata -> (n,) int. scikit-learn would do, but takes longer to import."""
    classes: dict[int, Counter[str]] = {}
    for unit, names in zip(drawn.tolist(), strata.names, strict=True):
        classes.setdefault(unit, Counter()).update(names)
    units = [Unit(str(unit), found) for unit, found in classes.items()]
    folds = stratified.draw(units, {}, {str(fold): 1 / k for fold in range(k)}, seed, strata.needed)
    return np.array([int(folds[str(unit)]) for unit in drawn.tolist()], dtype=np.intp)
