"""Owns a model's predictions as columns, with the paths, labels, splits and groups it was made of. Nothing is computed.

Read from models/ alone: neither images nor a cache is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cache.errors import Unusable
from pipeline.registry import Model
from pipeline.tables import Columns
from stages.manifest import Row


@dataclass(frozen=True)
class Predictions:
    """One row for each labelled image (copies count once, as in the figures); probabilities (n, classes) float64."""

    rows: Sequence[Row]
    probabilities: np.ndarray
    classes: tuple[str, ...]

    def columns(self) -> Columns:
        """id, path, label, split, group, predicted, and `p_CLASS` for each class in the order of the head's."""
        rows = {field: [getattr(row, field) for row in self.rows] for field in Row._fields}
        predicted = [self.classes[i] for i in self.probabilities.argmax(axis=1)]
        columns = {f"p_{name}": self.probabilities[:, i] for i, name in enumerate(self.classes)}
        return {**rows, "predicted": predicted, **columns}


def read(model: Model) -> Predictions:
    """The predictions that lie in a model's folder. Raises Unusable where they are not of the rows it was made of."""
    with np.load(model.folder / "predictions.npz", allow_pickle=False) as arrays:
        ids, probabilities = arrays["ids"].tolist(), arrays["probabilities"]
    manifest = model.manifest()
    paths = {(row.id, row.label, row.split): row.path for row in reversed(manifest.rows)}
    rows = [row._replace(path=paths[row.id, row.label, row.split]) for row in manifest.samples]
    if ids != [row.id for row in rows]:
        raise Unusable(
            f"{model}: predictions.npz and manifest.jsonl in {model.folder} tell of different images",
            f"make it again: pipeline reproduce {model.name}/{model.key[:12]}",
        )
    return Predictions(rows, probabilities, tuple(model.record["classes"]))
