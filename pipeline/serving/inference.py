"""Owns the probabilities that a model gives for cached rows. Not computing rows (extraction.py), nor models."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from cache.store import Cache, FeatureStore
from pipeline.project.project import Project
from pipeline.results.model import Model
from pipeline.runs import boundary_rows, train_heads
from pipeline.serving import restored_project
from stages.finetune.boundary_maps import Cached
from stages.heads.matrix import FeatureMatrix
from stages.runtime.silent_imports import without_banners

if TYPE_CHECKING:
    from stages.finetune.network import Network


class Inference:
    """A model on cached rows. Heads are numpy; the trained blocks of a base import TensorFlow when they are used."""

    def __init__(self, then: Project, model: Model) -> None:
        """`then` is what `restored_project.restore` gives for the model."""
        self._then, self._model = then, model
        self.head = model.head
        self.taps = restored_project.recorded_taps(then, model)

    def stores(self, cache: Cache) -> list[FeatureStore]:
        """Its rows in a cache, tap by tap."""
        return [cache.features(self._then.recipe.components(tap)) for tap in self.taps]

    def probabilities(self, cache: Cache, ids: Sequence[str]) -> np.ndarray:
        """Of the images `ids`: (n, classes) float64. Raises NotAvailable where a row is absent."""
        if not ids:
            return np.empty((0, len(self.head.classes)))
        rows = [store.rows(ids) for store in self.stores(cache)]
        if not restored_project.is_finetuned(self._model):
            return train_heads.predict_blocks(
                self.head.probabilities, FeatureMatrix(rows), np.arange(len(ids)), len(self.head.classes)
            )
        boundary = Cached(rows[0], [], np.empty(0, int))
        return self.head.probabilities(self._network.features(boundary, np.arange(len(ids))))

    @cached_property
    def _network(self) -> Network:
        """The base's last blocks, with their trained weights."""
        with without_banners():
            from stages.finetune.network import Network
        then = self._then
        block = boundary_rows.first_trained_block(then, then.config.finetune[self._model.record["name"]])
        (tap,) = map(then.tap, restored_project.head_settings(then, self._model).taps)
        network = Network(then.recipe, None, block, tap, self.head)
        network.put_tail(self._model.tail)
        return network
