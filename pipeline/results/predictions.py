"""Owns a model's predictions with paths, labels, splits and groups, as it stores them. Computes none.

A model's folder has ids and predictions in predictions.npz, and the whole table in predictions.csv.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from cache import npz
from cache.errors import Unusable
from pipeline.results import csv_parquet
from pipeline.results.csv_parquet import Columns
from pipeline.results.model import Model
from stages.data.manifest import Manifest, Row
from stages.targets.target import Target

MOST = 10_000_000
"""Probabilities up to which those of train are stored too, and the table as CSV (200 MB)."""

MOST_JUDGED = 250_000_000
"""Probabilities of val and test that a head is evaluated on at most: 2 GB."""


def rows_to_keep(rows: Sequence[Row], target: Target, folds: bool = False) -> np.ndarray:
    """The numbers of the rows whose predictions are stored: all, or above MOST those of val and test.

    folds: train is judged out of fold, so it is stored always. Raises Unusable above MOST_JUDGED.
    """
    if len(rows) * len(target) <= MOST:
        return np.arange(len(rows))
    judged = np.array([i for i, row in enumerate(rows) if folds or row.split != "train"], dtype=np.intp)
    if len(judged) * len(target) > MOST_JUDGED:
        raise Unusable(
            f"{len(judged):,} images that are judged times {len(target):,} {target.noun} are "
            f"{len(judged) * len(target):,} predictions; a head is evaluated on up to {MOST_JUDGED:,}",
            "put fewer images in val and test (data.split), or choose: val",
        )
    return judged


@dataclass(frozen=True)
class Predictions:
    """The rows of rows_to_keep, where copies count once; probabilities (n, columns), of numbers their values, float64.

    folds (n,): where folds chose, those of the rows of train, whose probabilities are out of fold; -1 for others.
    """

    rows: Sequence[Row]
    probabilities: np.ndarray
    target: Target
    folds: np.ndarray | None = None

    @classmethod
    def of(
        cls,
        rows: Sequence[Row],
        probabilities: np.ndarray,
        target: Target,
        manifest: Manifest,
        folds: np.ndarray | None = None,
    ) -> Self:
        """`rows` are some of the manifest's samples, which have no paths; the manifest adds them."""
        paths = {(row.id, row.label, row.split): row.path for row in reversed(manifest.rows)}
        found = [row._replace(path=paths[row.id, row.label, row.split]) for row in rows]
        return cls(found, probabilities, target, folds)

    def to_files(self) -> dict[str, bytes]:
        """The files of a model's folder."""
        arrays = {"ids": np.array([row.id for row in self.rows]), "probabilities": self.probabilities}
        if self.folds is not None:
            arrays["folds"] = self.folds.astype(np.int16)
        table = {"predictions.csv": csv_parquet.as_csv(self.columns())} if self.probabilities.size <= MOST else {}
        return {"predictions.npz": npz.dump(arrays), **table}

    def columns(self) -> Columns:
        """id, path, label, split, group, and the target's own, as `predicted` and `p_CLASS` for each class in order.

        Where folds chose, also `fold`, from 1: these rows were predicted by heads that were not fitted on their fold; 0
        for the others.
        """
        rows = {field: [getattr(row, field) for row in self.rows] for field in Row._fields}
        folds = {} if self.folds is None else {"fold": self.folds + 1}
        return {**rows, **folds, **self.target.columns(self.probabilities)}


def read_predictions(model: Model) -> Predictions:
    """The predictions that its figures are of. Raises Unusable where they are not of its manifest's rows."""
    arrays = npz.load(model.judged_in / "predictions.npz")
    ids, probabilities = arrays["ids"].tolist(), arrays["probabilities"]
    manifest = model.manifest()
    every = len(ids) == len(manifest.samples)
    rows = [row for row in manifest.samples if every or row.split != "train"]
    if ids != [row.id for row in rows]:
        raise Unusable(
            f"{model}: predictions.npz in {model.judged_in} and manifest.jsonl are of different images",
            "restore that folder from a copy, or delete it and run again",
        )
    return Predictions.of(rows, probabilities, model.head.target, manifest, arrays.get("folds"))
