"""Owns the target that is a share of each class, as people who disagree give it."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from stages.metrics import calibration, classification, intervals, paired_tests
from stages.metrics.figures import Calibration, Compared, Figures
from stages.metrics.kfold import Strata
from stages.metrics.plots import Format
from stages.targets.classes import Classes
from stages.targets.target import Rows, Target, read


class Soft(Classes):
    """Probabilities of classes. Where all are 0 or 1, everything is as for classes, to the last bit.

    log_loss and brier are against the shares; other figures against the class of the largest share, the first of equal
    ones, which is also the class that is predicted.
    """

    kind: ClassVar[str] = "soft"
    word: ClassVar[str] = "soft class"
    noun: ClassVar[str] = "soft classes"

    def encode(self, labels: Sequence[str]) -> np.ndarray:
        shares = self.shares(labels)
        return shares.argmax(axis=1) if _are_hard(shares) else shares

    @classmethod
    def values(
        cls, labels: Sequence[str | None], columns: Sequence[str] = (), order: Sequence[str] | None = None
    ) -> np.ndarray:
        """(n, classes) float64, as `order`, else sorted by name; NaN without a label."""
        found = [{} if label is None else json.loads(label) for label in labels]
        known = sorted({name for share in found for name in share})
        names = order if order is not None and {*known} <= {*order} else known
        rows = [[share.get(name, 0.0) if share else np.nan for name in names] for share in found]
        return np.array(rows, dtype=np.float64).reshape(len(labels), len(names))

    def shares(self, labels: Sequence[str]) -> np.ndarray:
        """(n, classes) float64, rows sum to 1."""
        return np.array([[share.get(name, 0.0) for name in self] for share in map(json.loads, labels)]).reshape(
            len(labels), len(self)
        )

    def knows(self, label: str) -> bool:
        return Target.knows(self, label)

    @classmethod
    def strata(cls, labels: Sequence[str]) -> Strata:
        shares = (json.loads(label) for label in labels)
        return Strata([(max(share, key=share.__getitem__),) for share in shares])

    def figures(self, rows: Rows) -> Figures:
        return classification.metrics(self._rounded(rows[0]), rows[1], self, self._graded(rows[0]))

    def judge(self, rows: Rows, groups: Sequence[str | None], seed: int) -> Figures:
        labels, p = rows
        rounded = self._rounded(labels)
        found = intervals.metrics_with_intervals(rounded, p, self, groups, seed, self._graded(labels))
        return replace(found, details=classification.details(rounded, p, self, groups))

    def compare(self, labels: Sequence[str], a: np.ndarray, b: np.ndarray, groups: Sequence[str | None]) -> Compared:
        return paired_tests.compare(self._rounded(labels), a, b, self, groups, self._graded(labels))

    def calibrate(self, splits: Mapping[str, Rows], folds: np.ndarray | None) -> Calibration:
        rounded = {split: (self._rounded(labels), p) for split, (labels, p) in splits.items()}
        graded = {split: self.encode(labels) for split, (labels, _) in splits.items()}
        return calibration.fit_calibration(rounded, self, folds, graded)

    def plots(self, splits: Mapping[str, Rows], form: Format) -> Iterator[tuple[str, bytes]]:
        return super().plots({split: (self._rounded(labels), p) for split, (labels, p) in splits.items()}, form)

    def to_json(self) -> dict[str, Any]:
        return Target.to_json(self)

    @classmethod
    def names_in(cls, labels: Collection[str]) -> Collection[str]:
        return {name for label in labels for name in read(cls.kind, label)}

    def _graded(self, labels: Sequence[str]) -> np.ndarray | None:
        """What log_loss and brier are against; None where the classes alone say it."""
        shares = self.shares(labels)
        return None if _are_hard(shares) else shares

    def _rounded(self, labels: Sequence[str]) -> list[str]:
        return [self[i] for i in self.shares(labels).argmax(axis=1)] if len(labels) else []


def _are_hard(shares: np.ndarray) -> bool:
    return bool((shares.max(axis=1, initial=0) == 1).all())
