"""Owns what sections of a report draw from: a model, its predictions, its images today. Not the sections themselves."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from cache.errors import PipelineError
from pipeline.project.project import Project
from pipeline.results import predictions
from pipeline.results.model import Model
from pipeline.results.predictions import Predictions
from pipeline.serving import recorded_model
from stages.data.manifest import Manifest, Row
from stages.heads import labelled_rows
from stages.heads.matrix import FeatureMatrix
from stages.metrics.figures import Figures
from stages.runtime.counted_words import count_of
from stages.targets.target import Target, describe_label, describe_part


@dataclass(frozen=True)
class Judged:
    """A set of images that the model is judged on: its name, as folds or test, and the numbers of its predictions."""

    name: str
    numbers: np.ndarray
    figures: Figures

    @property
    def words(self) -> str:
        """`393 images of test`."""
        where = "train and val, out of fold" if self.name == "folds" else self.name
        return f"{count_of(len(self.numbers), 'image')} of {where}"


class Material:
    """One model, and what is there of it: predictions of its images, where these are today, and their rows.

    today: the project as it is; then: as it was for the model, on today's images and cache.
    """

    def __init__(self, today: Project, model: Model) -> None:
        self.today, self.model = today, model
        self.target: Target = model.head.target

    @cached_property
    def then(self) -> Project:
        """Raises Unusable where today's code would make other rows than the model's."""
        return recorded_model.restore(self.today, self.model)

    @cached_property
    def predicted(self) -> Predictions:
        return predictions.read_predictions(self.model)

    @cached_property
    def manifest(self) -> Manifest:
        """The model's images, with their labels and splits when it was made."""
        return self.model.manifest()

    @cached_property
    def judged(self) -> list[Judged]:
        """The sets that have images: the one that chose settings, then test."""
        own, splits, found = self.model.figures.chosen_on, self.model.figures.splits, []
        for name, split in ((own, "train" if own == "folds" else own), ("test", "test")):
            numbers = [i for i, row in enumerate(self.predicted.rows) if row.split == split]
            if numbers and name in splits:
                found.append(Judged(name, np.array(numbers), splits[name]))
        return found

    @property
    def shown(self) -> Judged:
        """The set whose mistakes are shown: test, where there is one."""
        return self.judged[-1]

    @cached_property
    def y(self) -> np.ndarray:
        """What is true of each prediction's image."""
        return labelled_rows.encode(self.predicted.rows, self.target)

    @cached_property
    def numbers(self) -> np.ndarray:
        """What is true of each where numbers are predicted, in their units: (n, numbers), NaN where unknown."""
        return self.target.predict(self.y)

    @cached_property
    def classes(self) -> np.ndarray | None:
        """The number of the true class of each, of shares the largest: (n,) int; None where there is no one class."""
        if not self.target.exclusive:
            return None
        return self.y if self.y.ndim == 1 else self.y.argmax(axis=1)

    @cached_property
    def losses(self) -> np.ndarray:
        """Of each prediction: (n,)."""
        return self.target.losses(self.y, self.predicted.probabilities)

    @cached_property
    def wrong(self) -> np.ndarray | None:
        """Whether each prediction is a mistake: (n,) bool; of several labels, in any that is known; None of numbers."""
        p = self.predicted.probabilities
        if self.classes is not None:
            return np.asarray(p.argmax(axis=1) != self.classes)
        if not self.target.probabilities:
            return None
        return np.asarray((((p >= 0.5) != (self.y > 0.5)) & np.isfinite(self.y)).any(axis=1))

    def truth(self, number: int) -> str:
        """What is true of the image of that prediction, in words."""
        return describe_label(self.predicted.rows[number].label)

    @cached_property
    def _said(self) -> Mapping[str, Any]:
        return self.target.columns(self.predicted.probabilities)

    def guess(self, number: int) -> str:
        """What the model says of it, in words."""
        if "predicted" in self._said and self.target.probabilities:
            return str(self._said["predicted"][number]) or "(none)"
        values = zip(self.target, self.predicted.probabilities[number].tolist(), strict=True)
        return ", ".join(describe_part(name, value) for name, value in values)

    @cached_property
    def today_rows(self) -> Mapping[str, Sequence[Row]]:
        """id -> the files of that content, as today's folder or table has them; {} where there is none of these."""
        found: dict[str, list[Row]] = defaultdict(list)
        with contextlib.suppress(PipelineError):
            for row in self.today.found.rows:
                found[row.id].append(row)
        return found

    @cached_property
    def paths(self) -> Mapping[str, Sequence[str]]:
        """id -> places of files of that content, which may have changed since; of images that are here."""
        then = {row.id: [row] for row in reversed(self.manifest.rows)}
        there: dict[str, Sequence[str]] = {}
        with contextlib.suppress(PipelineError):  # of a bucket that does not answer
            source = self.today.source
            for image, rows in then.items():
                named = [row.path for row in self.today_rows.get(image, rows)]
                there[image] = [source.place(name) for name in named if source.has(name)]
        return {image: found for image, found in there.items() if found}

    @cached_property
    def names(self) -> Mapping[str, str]:
        """id -> path, relative to data.root, today's where the image is there."""
        known = {row.id: row.path for row in reversed(self.manifest.rows)}
        return known | {image: rows[0].path for image, rows in self.today_rows.items()}

    @property
    def tap(self) -> str:
        """The first tap of its head; of a fine-tuned model, of the head it started from."""
        return recorded_model.tap_names(self.model)[0]

    @property
    def rows_missing(self) -> Sequence[str]:
        """The images without a cached row of that tap. Raises what `then` does."""
        return self.then.store(self.tap).missing(self.manifest.ids)

    def rows(self, ids: Sequence[str]) -> FeatureMatrix:
        """Cached rows of that tap. Raises NotAvailable where one is missing."""
        return FeatureMatrix([self.then.store(self.tap).rows(ids)])
