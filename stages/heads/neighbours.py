"""Owns what a kNN head consists of: stored train rows, and the votes of the nearest. Not choosing k (knn.py)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from stages.heads.matrix import FeatureMatrix
from stages.targets.target import Target

TILE = 8192
"""Stored rows that others are compared with at a time: few enough to be fast, whatever their number."""


@dataclass(frozen=True)
class Neighbours:
    """Train rows (n, dim) float32, each of length 1, and what they have; k of them vote.

    columns: (n,) int64 of their classes, or (n, columns) float64 as the target encodes them.
    """

    rows: np.ndarray
    columns: np.ndarray
    k: int
    temperature: float

    def scores(self, x: np.ndarray, target: Target) -> np.ndarray:
        return target.scores(vote(*self.nearest(x, self.k), self.temperature, target))

    def width(self, target: Target) -> int:
        return max(2 * min(TILE, len(self.rows)), self.k * len(target) if self.columns.ndim > 1 else len(target))

    def arrays(self) -> dict[str, np.ndarray]:
        return {"neighbours_rows": self.rows, "neighbours_columns": self.columns}

    def to_json(self) -> dict[str, Any]:
        return {"layers": 0, "activations": [], "neighbours": {"k": self.k, "temperature": self.temperature}}

    @classmethod
    def load(cls, text: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Self:
        return cls(arrays["neighbours_rows"], arrays["neighbours_columns"], **text["neighbours"])

    def nearest(self, features: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The k most similar rows of each of features (n, dim), the nearest first: cosines (n, k), what they have."""
        parts = ((start, self.rows[start : start + TILE]) for start in range(0, len(self.rows), TILE))
        cosines, numbers = nearest(unit_rows(features), parts, k)
        return cosines, self.columns[numbers]


def nearest(
    x: np.ndarray, parts: Iterable[tuple[int, np.ndarray]], k: int, own: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Of each of x (n, dim), the k most similar stored rows, the nearest first: cosines and numbers, (n, k) each.

    parts: of the stored rows, the number of the first and the rows. All rows have length 1. own (n,): the number under
    which each of x is stored itself, which is left out. The search is exact.
    """
    cosines: np.ndarray = np.empty((len(x), 0), np.float32)
    numbers: np.ndarray = np.empty((len(x), 0), np.int64)
    for start, rows in parts:
        similar = x @ rows.T
        if own is not None:
            here = np.flatnonzero((own >= start) & (own < start + len(rows)))
            similar[here, own[here] - start] = -np.inf
        found = largest(similar, k)
        cosines = np.concatenate([cosines, np.take_along_axis(similar, found, axis=1)], axis=1)
        numbers = np.concatenate([numbers, found + start], axis=1)
        if cosines.shape[1] > k:
            kept = largest(cosines, k)
            cosines, numbers = (np.take_along_axis(both, kept, axis=1) for both in (cosines, numbers))
    order = np.argsort(-cosines, axis=1, kind="stable")
    return np.take_along_axis(cosines, order, axis=1), np.take_along_axis(numbers, order, axis=1)


def nearest_rows(
    x: np.ndarray, stored: FeatureMatrix, k: int, own: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """`nearest` among the rows of a matrix, which are read TILE at a time; x (n, dim) has rows of length 1."""
    blocks = (np.arange(start, min(start + TILE, len(stored))) for start in range(0, len(stored), TILE))
    return nearest(x, ((int(block[0]), unit_rows(stored.take(block))) for block in blocks), k, own)


def vote(cosines: np.ndarray, y: np.ndarray, temperature: float, target: Target) -> np.ndarray:
    """Predictions by what neighbours have, (n, k, ...), each with the weight exp(cosine / temperature) (DINOv2)."""
    return target.vote(np.exp((cosines - cosines[:, :1]) / temperature, dtype=np.float64), y)


def unit_rows(features: np.ndarray) -> np.ndarray:
    """features (n, dim) as float32, each row of length 1; a row of zeros stays, equally similar to all."""
    x = np.asarray(features, dtype=np.float32)
    lengths = np.linalg.norm(x, axis=1, keepdims=True)
    return np.asarray(x / np.where(lengths > 0, lengths, 1))


def largest(values: np.ndarray, k: int) -> np.ndarray:
    """Where the k largest values of each row (n, m) are, in no order: (n, min(k, m)) int."""
    k = min(k, values.shape[1])
    return np.argpartition(values, -k, axis=1)[:, -k:]
