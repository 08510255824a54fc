"""Owns what a target must be able to do. Not its kinds (classes.py, soft.py, labels.py, numbers.py)."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np

from cache.errors import Unusable
from stages.metrics.figures import Calibration, Compared, Figures
from stages.metrics.kfold import Strata
from stages.metrics.plots import Format

Rows = tuple[Sequence[str], np.ndarray]
"""Labels of n rows as the manifest has them, and predictions (n, columns) for them."""


def written(label: str) -> Mapping[str, Any] | None:
    """What is in a label that is JSON, by name; None of any other text."""
    try:
        found = json.loads(label)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def describe_label(label: str | None) -> str:
    """A label as people read it: of several labels, numbers or shares, each by its name."""
    parts = None if label is None else written(label)
    if parts is None:
        return label or ""
    return ", ".join(describe_part(name, value) for name, value in parts.items() if value != 0) or "(none)"


def describe_part(name: str, value: float | None) -> str:
    """A label, number or share of a label; None where it is unknown."""
    if value is None:
        return f"{name} ?"
    return name if value == 1 else f"{name} {value:.3g}"


def read(kind: str, label: str) -> Mapping[str, Any]:
    """What is in a label of that kind. Raises Unusable where it isn't JSON, as labels of classes are not."""
    found = written(label)
    if found is not None:
        return found
    raise Unusable(
        f"the label {label!r} is none of data.target.kind: {kind}",
        "name the table and its columns (data.table, data.target.columns), or use kind: classes",
    )


class Labelled(NamedTuple):
    """What a target is found by: labels of all images, and of those not in test; the columns that have them.

    order: of the names, where pipeline.yaml has one. units: of numbers.
    """

    labels: Sequence[str]
    learnt: Sequence[str]
    columns: Sequence[str] = ()
    order: Sequence[str] | None = None
    units: Sequence[str] = ()

    def ordered(self, names: Collection[str]) -> tuple[str, ...]:
        """The names in their order, by default sorted. Raises Unusable where the order has others."""
        if self.order is not None and sorted(self.order) != sorted(names):
            found = f"data.classes is {sorted(self.order)}, but the images have {sorted(names)}"
            raise Unusable(found, "list each class once")
        return tuple(self.order or sorted(names))


class Target(tuple[str, ...], ABC):
    """What a head predicts: the names of the columns of its predictions, in order, and what their numbers are.

    y is what the rows have, as arrays; scores are what a head's layers give, (n, outputs); predictions are made of
    scores, (n, columns), float64.
    """

    kind: ClassVar[str]
    word: ClassVar[str]
    noun: ClassVar[str]
    """What a column is, in the singular and in the plural."""
    answers: ClassVar[str]
    """What the output of an exported network is, in words."""
    probabilities: ClassVar[bool] = True
    """Whether predictions are probabilities."""
    linear: ClassVar[str] = "logistic"
    """The kind of linear head that is fitted to it, where none is asked for."""
    exclusive: ClassVar[bool] = False
    """Whether an image has one of the columns, or shares of them that sum to 1."""
    each: ClassVar[bool] = True
    """Whether a head needs images of each stratum, as of each class."""
    loss: ClassVar[str] = "log_loss"
    """What `losses` are called, their mean."""
    factors: ClassVar[np.ndarray | None] = None
    """What least squares' scores may be multiplied by to become scores; None: they are scores as they are."""

    @classmethod
    @abstractmethod
    def find(cls, images: Labelled) -> Self:
        """The target of these images. Raises Unusable where no head can be trained on them, as with one class only."""

    @classmethod
    def names_in(cls, labels: Collection[str]) -> Collection[str]:
        """The classes that these labels name; none of other targets, which columns of a table name."""
        return ()

    @property
    @abstractmethod
    def outputs(self) -> int:
        """The number of scores."""

    @abstractmethod
    def encode(self, labels: Sequence[str]) -> np.ndarray:
        """y of n labels: (n,) int, the column of each; or (n, columns) float64, NaN where unknown."""

    @classmethod
    def values(
        cls, labels: Sequence[str | None], columns: Sequence[str] = (), order: Sequence[str] | None = None
    ) -> np.ndarray:
        """What images have, for users: (n,) objects, the names of classes, None without a label.

        columns, order: as in Labelled; what has columns of its own has them as predictions do.
        """
        return np.array(labels, dtype=object)

    @abstractmethod
    def predict(self, scores: np.ndarray) -> np.ndarray:
        """scores (n, outputs) -> predictions."""

    @abstractmethod
    def scores(self, predictions: np.ndarray) -> np.ndarray:
        """Scores that give these predictions."""

    def knows(self, label: str) -> bool:
        """Whether it can judge an image of that label, which may be of another kind."""
        found = written(label)
        return found is not None and {*found} <= {*self}

    @classmethod
    @abstractmethod
    def strata(cls, labels: Sequence[str]) -> Strata:
        """What of each row is to be spread evenly over splits and folds."""

    @classmethod
    def counted(cls, label: str) -> Sequence[str]:
        """What an image of that label is counted as, in tables of images by split."""
        return cls.strata([label]).names[0]

    @abstractmethod
    def losses(self, y: np.ndarray, predictions: np.ndarray) -> np.ndarray:
        """What heads and their settings are chosen by: the loss of each row, (n,)."""

    def score_losses(self, y: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """`losses` of the predictions that scores make."""
        return self.losses(y, self.predict(scores))

    @abstractmethod
    def errors(self, scores: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
        """The sum of the losses of scores (n, outputs), which may be overwritten, and its gradient by them."""

    @abstractmethod
    def regressed(self, y: np.ndarray) -> np.ndarray:
        """What least squares fits: (n, outputs) float64. Raises Unusable where y has gaps."""

    @abstractmethod
    def vote(self, weights: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Predictions by neighbours' y (n, k) or (n, k, columns), each with its weight (n, k), the nearest first."""

    @abstractmethod
    def figures(self, rows: Rows) -> Figures:
        """Figures without intervals."""

    @abstractmethod
    def judge(self, rows: Rows, groups: Sequence[str | None], seed: int) -> Figures:
        """Figures with intervals and details. groups: of each row, whose rows are not independent."""

    @abstractmethod
    def compare(self, labels: Sequence[str], a: np.ndarray, b: np.ndarray, groups: Sequence[str | None]) -> Compared:
        """Figures of two models' predictions on the same rows, and those of b less those of a."""

    @abstractmethod
    def calibrate(self, splits: Mapping[str, Rows], folds: np.ndarray | None) -> Calibration:
        """What is fitted to predictions of splits["val"], or "folds", and the figures of every split with it.

        folds (n,): of the rows of splits["folds"], which are judged by what is fitted on the others.
        """

    @abstractmethod
    def columns(self, predictions: np.ndarray, fitted: Calibration | None = None) -> dict[str, Any]:
        """Of a table of predictions, by name: `predicted`, then what calibration adds, then the numbers behind it."""

    def at_temperature(self, predictions: np.ndarray, temperature: float) -> np.ndarray:
        """Predictions of scores divided by a temperature, if one is fitted for this target."""
        return predictions

    @abstractmethod
    def plots(self, splits: Mapping[str, Rows], form: Format) -> Iterator[tuple[str, bytes]]:
        """(name, file) of each plot of predictions. Raises NotAvailable without matplotlib."""

    def settings(self) -> dict[str, Any]:
        """What beside the names makes it, as JSON."""
        return {}

    def to_json(self) -> dict[str, Any]:
        """What a head's file says of it beside `classes`, its names; nothing of classes, as in earlier versions."""
        return {"target": {"kind": self.kind, **self.settings()}}

    @classmethod
    def load(cls, names: Sequence[str], settings: Mapping[str, Any]) -> Self:
        """The target of those names and what `settings` gave."""
        return cls(names, **settings)
