"""Owns the target that is one class of several."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Self

import numpy as np

from cache.errors import Unusable
from stages.metrics import calibration, classification, intervals, paired_tests, plots
from stages.metrics.figures import Calibration, Compared, Figures
from stages.metrics.kfold import Strata
from stages.metrics.plots import Format
from stages.targets.target import Labelled, Rows, Target

SCALES = np.logspace(-0.5, 3, 29)
"""Factors from a score of least squares to a logit, among which a parabola finds the best."""


class Classes(Target):
    """The class of an image. Two classes: one score, its sigmoid is the second's; more: softmax."""

    kind: ClassVar[str] = "classes"
    word: ClassVar[str] = "class"
    noun: ClassVar[str] = "classes"
    answers: ClassVar[str] = (
        "for each class, in the order of `classes`, its probability after the temperature; they sum to 1"
    )
    exclusive: ClassVar[bool] = True
    factors: ClassVar[np.ndarray | None] = SCALES

    @classmethod
    def find(cls, images: Labelled) -> Self:
        names = images.ordered(cls.names_in({*images.labels}))
        if len(names) == 1:
            raise Unusable(
                f"there is one class only, {names[0]!r}; a head needs two or more",
                "check data.root: it should hold one folder per class",
            )
        return cls(names)

    @property
    def outputs(self) -> int:
        return 1 if len(self) == 2 else len(self)

    def encode(self, labels: Sequence[str]) -> np.ndarray:
        return classification.label_columns(labels, self)

    def predict(self, scores: np.ndarray) -> np.ndarray:
        return classification.softmax(scores)

    def scores(self, predictions: np.ndarray) -> np.ndarray:
        logs = np.log(np.maximum(predictions, np.finfo(np.float64).tiny))
        return np.asarray(logs[:, 1:] - logs[:, :1] if len(self) == 2 else logs)

    def knows(self, label: str) -> bool:
        return label in self

    @classmethod
    def strata(cls, labels: Sequence[str]) -> Strata:
        return Strata([(label,) for label in labels])

    def losses(self, y: np.ndarray, predictions: np.ndarray) -> np.ndarray:
        return classification.row_losses(y, predictions)

    def errors(self, scores: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
        """Log-losses; the gradient is what is predicted less what is true."""
        if scores.shape[1] == 1:
            s, truth = scores[:, 0], y if y.ndim == 1 else y[:, 1]
            loss = np.logaddexp(0, s) - truth * s
            with np.errstate(over="ignore"):  # of a step too far: 1 / inf is 0
                wrong = 1 / (1 + np.exp(-s)) - truth
            return float(loss.sum(dtype=np.float64)), wrong.astype(scores.dtype)[:, None]
        here = np.arange(len(y))
        scores -= scores.max(axis=1, keepdims=True)
        right = scores[here, y] if y.ndim == 1 else np.einsum("ij,ij->i", scores, y.astype(scores.dtype))
        powers = np.exp(scores, out=scores)
        sums = powers.sum(axis=1)
        loss = np.log(sums) - right
        powers /= sums[:, None]
        if y.ndim == 1:
            powers[here, y] -= 1
        else:
            powers -= y.astype(powers.dtype)
        return float(loss.sum(dtype=np.float64)), powers

    def regressed(self, y: np.ndarray) -> np.ndarray:
        """1 for the true class and -1 else; of two classes, for the second."""
        if y.ndim == 1:
            return np.asarray(np.where(y[:, None] == (np.arange(self.outputs) if self.outputs > 1 else 1), 1.0, -1.0))
        return 2 * (y if self.outputs > 1 else y[:, 1:]) - 1

    def vote(self, weights: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Shares of the votes. One more, with the weight of the nearest, is divided evenly among classes: none is
        impossible, and their order stays."""
        shares = np.full((len(weights), len(self)), 1 / len(self))
        if y.ndim == 2:
            np.add.at(shares, (np.arange(len(weights))[:, None], y), weights)
        else:
            shares += np.einsum("nk,nkc->nc", weights, y)
        return np.asarray(shares / shares.sum(axis=1, keepdims=True))

    def figures(self, rows: Rows) -> Figures:
        return classification.metrics(*rows, self)

    def judge(self, rows: Rows, groups: Sequence[str | None], seed: int) -> Figures:
        labels, p = rows
        found = intervals.metrics_with_intervals(labels, p, self, groups, seed)
        return replace(found, details=classification.details(labels, p, self, groups))

    def compare(self, labels: Sequence[str], a: np.ndarray, b: np.ndarray, groups: Sequence[str | None]) -> Compared:
        return paired_tests.compare(labels, a, b, self, groups)

    def calibrate(self, splits: Mapping[str, Rows], folds: np.ndarray | None) -> Calibration:
        return calibration.fit_calibration(splits, self, folds)

    def columns(self, predictions: np.ndarray, fitted: Calibration | None = None) -> dict[str, Any]:
        """Calibrated, also `at_threshold`, of two classes, and `confidence`, of the class that is predicted."""
        found: dict[str, Any] = {"predicted": [self[i] for i in predictions.argmax(axis=1)]}
        if fitted is not None and fitted.threshold is not None:
            found["at_threshold"] = [self[i] for i in (predictions[:, 1] >= fitted.threshold).astype(int)]
        if fitted is not None:
            found["confidence"] = self.at_temperature(predictions, fitted.temperature or 1.0).max(axis=1)
        return found | {f"p_{name}": predictions[:, i] for i, name in enumerate(self)}

    def at_temperature(self, predictions: np.ndarray, temperature: float) -> np.ndarray:
        return calibration.apply_temperature(predictions, temperature)

    def plots(self, splits: Mapping[str, Rows], form: Format) -> Iterator[tuple[str, bytes]]:
        columns = {split: (classification.label_columns(labels, self), p) for split, (labels, p) in splits.items()}
        return plots.draw_plots(columns, self, form)

    @classmethod
    def names_in(cls, labels: Collection[str]) -> Collection[str]:
        return labels

    def to_json(self) -> dict[str, Any]:
        return {}
