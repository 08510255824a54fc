"""Owns what other rows of the same images cost a head: heads on either, out of fold, and their paired difference.

Not how the rows came about (quantise.py).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import stdtrit

from pipeline.config.head_schema import Logistic
from pipeline.evaluation import shortlist
from pipeline.runs import train_heads
from stages.data.manifest import Manifest, Row
from stages.heads.matrix import FeatureMatrix
from stages.metrics import bootstrap, classification, kfold
from stages.metrics.figures import Figure, Figures
from stages.targets.classes import Classes
from stages.targets.target import Target

LOSS = 0.005
"""Of accuracy, that the interval of the difference must exclude."""

LEAST_JUDGED = math.ceil(1.96 * math.sqrt(2) / LOSS - 2)
"""Images (or groups) below which no interval is narrow enough, even where both heads say the same of each
(intervals.paired_difference)."""

_MOST_JUDGED = 5_000
OTHERS = ("auroc", "log_loss")
"""Figures whose difference is told without an interval."""

FOLDS, TIMES = 5, 5
"""The folds are drawn anew each time, since what a draw says differs more than the rows do."""


@dataclass(frozen=True)
class Judged:
    """Logistic heads of one C on rows of either arithmetic, out of fold, folds drawn several times; on so many images.

    shown: whether the interval of the difference in accuracy excludes LOSS.
    """

    images: int
    figures: Mapping[str, Figures]
    difference: Mapping[str, Figure]
    shown: bool

    def to_json(self) -> dict[str, Any]:
        return vars(self)


def choose_rows(manifest: Manifest, target: type[Target]) -> tuple[tuple[Row, ...], Classes]:
    """The labelled images of train and val that heads are judged on, as train, and their classes; () where they can't.

    Of soft labels, the class of the largest share; of several labels and of numbers there are none. Classes of one
    image, which folds cannot judge, are left out.
    """
    if not target.exclusive or not any(row.label is not None and row.split != "test" for row in manifest.rows):
        return (), Classes()
    found = shortlist.choose_images(manifest, _MOST_JUDGED, lambda rows: target.strata([r.label or "" for r in rows]))
    found.check_labels()
    rows = tuple(row._replace(label=target.counted(row.label or "")[0]) for row in found.samples)
    while alone := kfold.find_unfoldable(rows):
        rows = tuple(row for row in rows if row.label != alone)
    classes = Classes(sorted({row.label or "" for row in rows}))
    return (rows, classes) if len(classes) > 1 else ((), Classes())


class Judge:
    """A head on rows in float32, out of fold, and the same on others; its C is chosen once, so it is no difference."""

    def __init__(self, rows: Sequence[Row], classes: Classes, exact: np.ndarray) -> None:
        self._rows, self._classes = rows, classes
        first = train_heads.fit_kind(Logistic(choose="folds"), FeatureMatrix([exact]), rows, classes)
        self._spec = Logistic(choose="folds", C=first.chosen["C"])
        self._exact = self._out_of_fold(exact)

    def compare(self, rows: np.ndarray) -> Judged:
        labels, found = [row.label or "" for row in self._rows] * TIMES, self._out_of_fold(rows)
        truth = classification.label_columns(labels, self._classes)
        right = [(p.argmax(axis=1) == truth).reshape(TIMES, -1).mean(axis=0) for p in (self._exact, found)]
        accuracy = difference_of_means(right[1] - right[0], [row.group for row in self._rows])
        one, two = (classification.metrics(labels, p, self._classes).values for p in (self._exact, found))
        gaps = {name: _subtract(two[name], one[name]) for name in OTHERS}
        figures = {name: Figures(len(self._rows), values) for name, values in (("f32", one), ("int8", two))}
        low = (accuracy.ci or [-1.0])[0]
        return Judged(len(self._rows), figures, {"accuracy": accuracy, **gaps}, low > -LOSS)

    def _out_of_fold(self, features: np.ndarray) -> np.ndarray:
        """Probabilities (TIMES * n, classes), folds drawn anew each time."""

        def fit(some: np.ndarray, of: Sequence[Row]) -> Any:
            return train_heads.fit_kind(self._spec, FeatureMatrix([some]), of, self._classes)

        strata = kfold.by_label(self._rows)
        found = [kfold.out_of_fold(fit, features, self._rows, strata, FOLDS, seed, val=False) for seed in range(TIMES)]
        return np.concatenate(found)


def _subtract(value: float | None, other: float | None) -> Figure:
    return Figure(None if value is None or other is None else value - other, None)


def difference_of_means(change: np.ndarray, groups: Sequence[str | None]) -> Figure:
    """The mean of a change (n,) of rows, and its interval as `intervals.paired_difference` has it.

    The variance is computed, not drawn: that of a bootstrap over units takes minutes for many rows and classes.
    """
    units = bootstrap.resampling_units(groups)
    count, mean = int(units.max(initial=0)) + 1, float(change.mean())
    if count < 2:
        return Figure(mean, None)
    off = np.bincount(units, change - mean) / len(change)  # of a ratio, since groups differ in size
    unseen = 2 / (count + 2) ** 2 if change.any() else 0.0
    half = float(stdtrit(count - 1, 0.975)) * math.sqrt(float((off**2).sum()) * count / (count - 1) + unseen)
    return Figure(mean, [mean - half, mean + half])
