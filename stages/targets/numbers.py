"""Owns the target that is a number, or several."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np

from cache.errors import Unusable
from stages.metrics import number_plots, regression
from stages.metrics.figures import Calibration, Compared, Figures
from stages.metrics.kfold import Strata
from stages.metrics.plots import Format
from stages.targets.target import Labelled, Rows, Target, read, written

QUANTILES = 5
"""Strata of splits and folds, at most."""

LEAST_OF_STRATUM = 10
"""Images in each stratum: of two, as many would be in train as in val."""


class Numbers(Target):
    """Numbers, which heads fit less their `centre` and divided by their `scale`, those of the labelled rows.

    Several count equally, whatever their units.
    """

    kind: ClassVar[str] = "number"
    word: ClassVar[str] = "number"
    noun: ClassVar[str] = "numbers"
    answers: ClassVar[str] = "for each number, in the order of `classes`, its value in its unit"
    each: ClassVar[bool] = False
    probabilities: ClassVar[bool] = False
    linear: ClassVar[str] = "ridge"
    loss: ClassVar[str] = "squared_error"

    centre: tuple[float, ...]
    scale: tuple[float, ...]
    units: tuple[str, ...]

    def __new__(
        cls, names: Sequence[str], centre: Sequence[float] = (), scale: Sequence[float] = (), units: Sequence[str] = ()
    ) -> Self:
        made = super().__new__(cls, names)
        made.centre, made.scale = tuple(centre) or (0.0,) * len(made), tuple(scale) or (1.0,) * len(made)
        made.units = tuple(units) or ("",) * len(made)
        return made

    @classmethod
    def find(cls, images: Labelled) -> Self:
        """Centre and scale are those of images not in test."""
        target = cls(images.columns)
        if wrong := [label for label in images.learnt if not target.knows(label)]:
            raise Unusable(
                f"the label {wrong[0]!r} has no number {' and '.join(target)}",
                "name a table with data.table, and its column with data.columns.label or data.target.columns",
            )
        values = target.numbers(images.learnt)
        for name, of in zip(target, values.T, strict=True):
            if (of == of[0]).all():
                raise Unusable(f"{name} is {of[0]:g} for all images, so there is nothing to learn", "check that column")
        return cls(images.columns, values.mean(axis=0).tolist(), values.std(axis=0).tolist(), images.units)

    @property
    def outputs(self) -> int:
        return len(self)

    def numbers(self, labels: Sequence[str]) -> np.ndarray:
        """(n, numbers) float64, in their units."""
        found = (json.loads(text) for text in labels)
        rows = [[numbers[name] for name in self] for numbers in found]
        return np.array(rows, dtype=np.float64).reshape(len(labels), len(self))

    def encode(self, labels: Sequence[str]) -> np.ndarray:
        """Less their centre and divided by their scale."""
        return self.scores(self.numbers(labels))

    @classmethod
    def values(
        cls, labels: Sequence[str | None], columns: Sequence[str] = (), order: Sequence[str] | None = None
    ) -> np.ndarray:
        """(n,) float64, of several numbers (n, numbers), as `columns`, else sorted by name; NaN without a label."""
        found = [{} if label is None else json.loads(label) for label in labels]
        sets = {name for numbers in found for name in numbers}
        names = columns if columns and sets <= {*columns} else sorted(sets) or [""]
        rows = np.array([[numbers.get(name, np.nan) for name in names] for numbers in found], dtype=np.float64)
        return rows.reshape(len(labels)) if len(names) == 1 else rows.reshape(len(labels), len(names))

    def predict(self, scores: np.ndarray) -> np.ndarray:
        return np.asarray(scores * np.array(self.scale) + np.array(self.centre))

    def scores(self, predictions: np.ndarray) -> np.ndarray:
        return np.asarray((predictions - np.array(self.centre)) / np.array(self.scale))

    @classmethod
    def strata(cls, labels: Sequence[str]) -> Strata:
        """A fifth of the images each, or fewer strata of few images, by the number that is the first by name."""
        first = np.array([next(iter(json.loads(label).values())) for label in labels], dtype=np.float64)
        strata = min(QUANTILES, max(1, len(first) // LEAST_OF_STRATUM))
        edges = np.unique(np.quantile(first, np.linspace(0, 1, strata + 1)[1:-1])) if len(first) else first
        return Strata([(f"{place}",) for place in np.searchsorted(edges, first)], needed=cls.each)

    def knows(self, label: str) -> bool:
        found = written(label)
        return found is not None and {*found} == {*self}

    @classmethod
    def counted(cls, label: str) -> Sequence[str]:
        return tuple(read(cls.kind, label))

    def losses(self, y: np.ndarray, predictions: np.ndarray) -> np.ndarray:
        """The squared error in units of `scale`, its mean over the numbers."""
        return np.asarray(((self.scores(predictions) - y) ** 2).mean(axis=1))

    def errors(self, scores: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
        raise Unusable(
            f"a logistic head gives probabilities, and {', '.join(self)} is a number",
            "use kind: ridge, knn, dense or auto",
        )

    def regressed(self, y: np.ndarray) -> np.ndarray:
        return y

    def vote(self, weights: np.ndarray, y: np.ndarray) -> np.ndarray:
        """The weighted mean."""
        return self.predict(np.einsum("nk,nkt->nt", weights, y) / weights.sum(axis=1, keepdims=True))

    def figures(self, rows: Rows) -> Figures:
        return regression.metrics(self.numbers(rows[0]), rows[1])

    def judge(self, rows: Rows, groups: Sequence[str | None], seed: int) -> Figures:
        return regression.judge(self.numbers(rows[0]), rows[1], self, groups, seed)

    def compare(self, labels: Sequence[str], a: np.ndarray, b: np.ndarray, groups: Sequence[str | None]) -> Compared:
        return regression.compare(self.numbers(labels), a, b, groups)

    def calibrate(self, splits: Mapping[str, Rows], folds: np.ndarray | None) -> Calibration:
        return regression.calibrate({s: (self.numbers(labels), p) for s, (labels, p) in splits.items()}, self, folds)

    def columns(self, predictions: np.ndarray, fitted: Calibration | None = None) -> dict[str, Any]:
        """predicted; of several numbers, `predicted_NAME` for each. Calibrated, also the ends of an interval, `low` and
        `high`, that holds 95 % of images like those it was fitted on."""
        found: dict[str, Any] = {}
        for i, name in enumerate(self):
            of = "" if len(self) == 1 else f"_{name}"
            found[f"predicted{of}"] = predictions[:, i]
            if fitted is not None and fitted.half_widths is not None:
                half = fitted.half_widths[name]
                found |= {f"low{of}": predictions[:, i] - half, f"high{of}": predictions[:, i] + half}
        return found

    def plots(self, splits: Mapping[str, Rows], form: Format) -> Iterator[tuple[str, bytes]]:
        numbers = {split: (self.numbers(labels), said) for split, (labels, said) in splits.items()}
        return number_plots.draw_plots(numbers, self, self.units, form)

    def settings(self) -> dict[str, Any]:
        units = {"units": self.units} if any(self.units) else {}
        return {"centre": self.centre, "scale": self.scale, **units}
