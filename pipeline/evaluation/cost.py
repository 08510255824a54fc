"""Owns what other rows of the same images cost a head: heads on either, out of fold, and their paired difference.

Not how the rows came about (quantise.py).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.config.head_schema import Logistic
from pipeline.evaluation import shortlist
from pipeline.runs import train_heads
from stages.data.manifest import Manifest, Row
from stages.heads import labelled_rows
from stages.heads.matrix import FeatureMatrix
from stages.metrics import kfold, paired_tests
from stages.metrics.figures import Difference, Figures

LOSS = 0.005
"""Of accuracy, that the interval of the difference must exclude."""

LEAST_JUDGED = math.ceil(1.96 * math.sqrt(2) / LOSS - 2)
"""Images (or groups) below which no interval is narrow enough, even where both heads say the same of each
(intervals.paired_difference)."""

_MOST_JUDGED = 5_000
FOLDS, TIMES = 5, 5
"""The folds are drawn anew each time, since what a draw says differs more than the rows do."""


@dataclass(frozen=True)
class Judged:
    """Logistic heads of one C on rows of either arithmetic, out of fold, folds drawn several times; on so many images.

    shown: whether the interval of the difference in accuracy excludes LOSS.
    """

    images: int
    figures: Mapping[str, Figures]
    difference: Difference
    shown: bool

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "difference": self.difference.figures}


def choose_rows(manifest: Manifest) -> tuple[tuple[Row, ...], tuple[str, ...]]:
    """The labelled images of train and val that heads are judged on, as train, and their classes; () where they can't.

    Classes of one image, which folds cannot judge, are left out.
    """
    if not any(row.label is not None and row.split != "test" for row in manifest.rows):
        return (), ()
    found = shortlist.choose_images(manifest, _MOST_JUDGED)
    found.check_labels()
    rows = found.samples
    while alone := kfold.find_unfoldable(rows):
        rows = tuple(row for row in rows if row.label != alone)
    classes = {row.label for row in rows}
    return (rows, labelled_rows.check_classes(Manifest(rows), None)) if len(classes) > 1 else ((), ())


class Judge:
    """A head on rows in float32, out of fold, and the same on others; its C is chosen once, so it is no difference."""

    def __init__(self, rows: Sequence[Row], classes: Sequence[str], exact: np.ndarray) -> None:
        self._rows, self._classes = rows, classes
        first = train_heads.fit_kind(Logistic(choose="folds"), FeatureMatrix([exact]), rows, classes)
        self._spec = Logistic(choose="folds", C=first.chosen["C"])
        self._exact = self._out_of_fold(exact)

    def compare(self, rows: np.ndarray) -> Judged:
        labels, units = [row.label or "" for row in self._rows], [row.group or row.id for row in self._rows]
        one, two, gap = paired_tests.compare(
            labels * TIMES, self._exact, self._out_of_fold(rows), self._classes, units * TIMES
        )
        low = (gap.figures["accuracy"].ci or [-1.0])[0]
        figures = {"f32": _plain(one, len(labels)), "int8": _plain(two, len(labels))}
        return Judged(len(labels), figures, Difference(gap.figures, {}), low > -LOSS)

    def _out_of_fold(self, features: np.ndarray) -> np.ndarray:
        """Probabilities (TIMES * n, classes), folds drawn anew each time."""

        def fit(some: np.ndarray, of: Sequence[Row]) -> Any:
            return train_heads.fit_kind(self._spec, FeatureMatrix([some]), of, self._classes)

        found = [
            kfold.out_of_fold(fit, features, self._rows, self._classes, FOLDS, seed, val=False) for seed in range(TIMES)
        ]
        return np.concatenate(found)


def _plain(figures: Figures, n: int) -> Figures:
    return Figures(n, figures.values, figures.ci)
