"""Owns what a kNN head consists of: stored train rows, and the votes of the nearest. Not choosing k (knn.py)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

TILE = 8192
"""Stored rows that others are compared with at a time: few enough to be fast, whatever their number."""


@dataclass(frozen=True)
class Neighbours:
    """Train rows (n, dim) float32, each of length 1, and their classes' columns (n,) int64; k of them vote."""

    rows: np.ndarray
    columns: np.ndarray
    k: int
    temperature: float

    def logits(self, x: np.ndarray, classes: int) -> np.ndarray:
        shares = np.log(vote(*self.nearest(x, self.k), self.temperature, classes))
        return np.asarray(shares[:, 1:] - shares[:, :1] if classes == 2 else shares)

    def width(self, classes: int) -> int:
        return max(2 * min(TILE, len(self.rows)), classes)

    def arrays(self) -> dict[str, np.ndarray]:
        return {"neighbours_rows": self.rows, "neighbours_columns": self.columns}

    def to_json(self) -> dict[str, Any]:
        return {"layers": 0, "activations": [], "neighbours": {"k": self.k, "temperature": self.temperature}}

    @classmethod
    def load(cls, text: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Self:
        return cls(arrays["neighbours_rows"], arrays["neighbours_columns"], **text["neighbours"])

    def nearest(self, features: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The k most similar rows of each of features (n, dim): cosines and columns, both (n, k), the nearest first."""
        x = _unit_rows(features)
        cosines: np.ndarray = np.empty((len(x), 0), np.float32)
        numbers: np.ndarray = np.empty((len(x), 0), np.int64)
        for start in range(0, len(self.rows), TILE):
            similar = x @ self.rows[start : start + TILE].T
            found = _largest(similar, k)
            cosines = np.concatenate([cosines, np.take_along_axis(similar, found, axis=1)], axis=1)
            numbers = np.concatenate([numbers, found + start], axis=1)
            if start:
                kept = _largest(cosines, k)
                cosines, numbers = (np.take_along_axis(both, kept, axis=1) for both in (cosines, numbers))
        order = np.argsort(-cosines, axis=1, kind="stable")
        return np.take_along_axis(cosines, order, axis=1), self.columns[np.take_along_axis(numbers, order, axis=1)]


def vote(cosines: np.ndarray, columns: np.ndarray, temperature: float, classes: int) -> np.ndarray:
    """Shares (n, classes) of the votes of neighbours (n, k), each with the weight exp(cosine / temperature) (DINOv2).

    One more vote, with the weight of the nearest, is divided evenly among classes: none is impossible, and their order
    stays.
    """
    weights = np.exp((cosines - cosines[:, :1]) / temperature, dtype=np.float64)
    shares = np.full((len(cosines), classes), 1 / classes)
    np.add.at(shares, (np.arange(len(cosines))[:, None], columns), weights)
    return np.asarray(shares / shares.sum(axis=1, keepdims=True))


def _unit_rows(features: np.ndarray) -> np.ndarray:
    """features (n, dim) as float32, each row of length 1; a row of zeros stays, equally similar to all."""
    x = np.asarray(features, dtype=np.float32)
    lengths = np.linalg.norm(x, axis=1, keepdims=True)
    return np.asarray(x / np.where(lengths > 0, lengths, 1))


def _largest(values: np.ndarray, k: int) -> np.ndarray:
    """Where the k largest values of each row (n, m) are, in no order: (n, min(k, m)) int."""
    k = min(k, values.shape[1])
    return np.argpartition(values, -k, axis=1)[:, -k:]
