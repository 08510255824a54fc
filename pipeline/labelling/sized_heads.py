"""Owns fitting heads of one kind on subsets of rows. Not which subsets (stages/labelling), nor what comes of it."""

from collections.abc import Sequence

import numpy as np

from pipeline.config.head_schema import HeadConfig
from pipeline.runs import train_heads
from stages.data.manifest import Row
from stages.heads.fitted import Head
from stages.heads.matrix import FeatureMatrix
from stages.targets.target import Target


class SizedHeads:
    """Heads of one kind on subsets of rows, line by line with the features.

    The first head of a step chooses C, alpha, k or the kind, as a run does; the others of that step, which have as many
    images, take what it chose.
    """

    def __init__(self, spec: HeadConfig, features: FeatureMatrix, rows: Sequence[Row], target: Target) -> None:
        self._spec, self._features, self._rows, self._target = spec, features, rows, target
        self._settled: dict[int, HeadConfig] = {}

    def fit(self, numbers: np.ndarray, step: int) -> Head:
        """On the rows of those numbers, ascending. Raises Unusable where they are too few."""
        spec = self._settled.get(step, self._spec)
        rows = [self._rows[i] for i in numbers]
        head = train_heads.fit_kind(spec, self._features.some(numbers), rows, self._target)
        self._settled.setdefault(step, self._spec.settled(head.chosen))
        return head

    def predict(self, fitted: np.ndarray, judged: np.ndarray, step: int) -> np.ndarray:
        """What a head of that step, fitted on some rows, predicts of others: (len(judged), columns)."""
        head = self.fit(fitted, step)
        return train_heads.predict_blocks(head.predict, self._features, judged, len(self._target))
