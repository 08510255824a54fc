"""Owns the target that is several labels at once, each of which an image has or not."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from sys import intern
from typing import Any, ClassVar, Self

import numpy as np

from cache.errors import Unusable
from stages.metrics import multilabel, plots
from stages.metrics.figures import Calibration, Compared, Figures
from stages.metrics.kfold import Strata
from stages.metrics.plots import Format
from stages.targets.classes import SCALES
from stages.targets.target import Labelled, Rows, Target, read


class Labels(Target):
    """Independent labels: a score for each, its sigmoid the probability. Unknown ones are in no loss and no figure."""

    kind: ClassVar[str] = "labels"
    word: ClassVar[str] = "label"
    noun: ClassVar[str] = "labels"
    answers: ClassVar[str] = "for each label, in the order of `classes`, its probability"
    each: ClassVar[bool] = False
    factors: ClassVar[np.ndarray | None] = SCALES[::2]

    @classmethod
    def find(cls, images: Labelled) -> Self:
        has, unknown = Counter[str](), Counter[str]()
        for label, n in Counter(images.labels).items():
            for name, mark in read(cls.kind, label).items():
                has[name] += n if mark else 0
                unknown[name] += n if mark is None else 0
        names = images.ordered({*has, *(images.columns if len(images.columns) > 1 else ())})
        for name in names:
            if has[name] in (0, len(images.labels) - unknown[name]):
                raise Unusable(
                    f"{'every' if has[name] else 'no'} image has the label {name!r}, so there is nothing to learn",
                    "leave that label out of the table, or of data.target.columns",
                )
        return cls(names)

    @property
    def outputs(self) -> int:
        return len(self)

    def encode(self, labels: Sequence[str]) -> np.ndarray:
        """1 for a label that the image has, 0 for one it hasn't, NaN where that is unknown."""
        found = (json.loads(text) for text in labels)
        out = np.empty((len(labels), len(self)))  # a list of lists would be as large again
        for row, has in zip(out, found, strict=True):
            row[:] = [np.nan if has.get(name, 0) is None else has.get(name, 0) for name in self]
        return out

    @classmethod
    def values(cls, labels: Sequence[str | None]) -> np.ndarray:
        """(n,) objects: a tuple of the labels that each image has, None without any known."""
        out = np.empty(len(labels), dtype=object)
        for i, label in enumerate(labels):
            out[i] = None if label is None else tuple(name for name, has in json.loads(label).items() if has)
        return out

    def predict(self, scores: np.ndarray) -> np.ndarray:
        return np.asarray(1 / (1 + np.exp(-np.clip(scores, -700, 700))))

    def scores(self, predictions: np.ndarray) -> np.ndarray:
        p = np.clip(predictions, 1e-300, 1 - 1e-16)
        return np.asarray(np.log(p) - np.log1p(-p))

    @classmethod
    def strata(cls, labels: Sequence[str]) -> Strata:
        """The labels of each image, so that each is spread evenly; images without any are one more.

        A unit goes where what it has is furthest below its share, rare labels first: iterative stratification
        (Sechidis, Tsoumakas and Vlahavas 2011; stages/data/stratified.py).
        """
        # each name is kept once, not for each image
        names = [tuple(intern(name) for name, has in json.loads(label).items() if has) or ("",) for label in labels]
        return Strata(names, needed=cls.each)

    @classmethod
    def counted(cls, label: str) -> Sequence[str]:
        return [name or "(none)" for name in super().counted(label)]

    def losses(self, y: np.ndarray, predictions: np.ndarray) -> np.ndarray:
        return multilabel.losses(y, predictions)

    def score_losses(self, y: np.ndarray, scores: np.ndarray) -> np.ndarray:
        known = np.isfinite(y)
        every = bool(known.all())
        truth = y if every else np.where(known, y, 0)
        lost = np.maximum(scores, 0) - truth * scores + np.log1p(np.exp(-np.abs(scores)))  # faster than by predictions
        return np.asarray(lost.mean(axis=1) if every else (lost * known).sum(axis=1) / np.maximum(known.sum(axis=1), 1))

    def errors(self, scores: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
        """Log-losses of all known labels, summed over labels, so that each has the minimum it would have alone."""
        known = np.isfinite(y)
        truth = np.where(known, y, 0).astype(scores.dtype)
        loss = np.where(known, np.logaddexp(0, scores) - truth * scores, 0)
        wrong = np.where(known, 1 / (1 + np.exp(-scores)) - truth, 0)
        return float(loss.sum(dtype=np.float64)), wrong.astype(scores.dtype)

    def regressed(self, y: np.ndarray) -> np.ndarray:
        if np.isnan(y).any():
            raise Unusable(
                f"{int(np.isnan(y).any(axis=1).sum()):,} images have labels that are unknown; a ridge head solves for "
                "all labels at once, and needs each",
                "use kind: logistic or knn, which leave unknown labels out",
            )
        return 2 * y - 1

    def vote(self, weights: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Shares of yes in the votes of neighbours that know, and of one more, half yes, that weighs as the nearest."""
        known = np.isfinite(y)
        yes = np.einsum("nk,nkl->nl", weights, np.where(known, y, 0))
        return np.asarray((yes + 0.5) / (np.einsum("nk,nkl->nl", weights, known.astype(np.float64)) + 1))

    def figures(self, rows: Rows) -> Figures:
        return multilabel.metrics(self.encode(rows[0]), rows[1])

    def judge(self, rows: Rows, groups: Sequence[str | None], seed: int) -> Figures:
        return multilabel.judge(self.encode(rows[0]), rows[1], self, groups, seed)

    def compare(self, labels: Sequence[str], a: np.ndarray, b: np.ndarray, groups: Sequence[str | None]) -> Compared:
        return multilabel.compare(self.encode(labels), a, b, groups)

    def calibrate(self, splits: Mapping[str, Rows], folds: np.ndarray | None) -> Calibration:
        return multilabel.calibrate({s: (self.encode(labels), p) for s, (labels, p) in splits.items()}, self, folds)

    def columns(self, predictions: np.ndarray, fitted: Calibration | None = None) -> dict[str, Any]:
        """predicted: the labels of at least one half, separated by semicolons; calibrated, also those of at least their
        threshold, as `at_threshold`."""
        found: dict[str, Any] = {"predicted": self._above(predictions, np.full(len(self), 0.5))}
        if fitted is not None and fitted.thresholds is not None:
            limits = np.array([fitted.thresholds.get(name, 0.5) for name in self])
            found["at_threshold"] = self._above(predictions, limits)
        return found | {f"p_{name}": predictions[:, i] for i, name in enumerate(self)}

    def plots(self, splits: Mapping[str, Rows], form: Format) -> Iterator[tuple[str, bytes]]:
        return plots.draw_label_plots({s: (self.encode(labels), p) for s, (labels, p) in splits.items()}, self, form)

    def _above(self, predictions: np.ndarray, limits: np.ndarray) -> list[str]:
        return [";".join(name for name, said in zip(self, row, strict=True) if said) for row in predictions >= limits]
