"""Owns features as one matrix: of one tap or several joined, read in blocks, standardised. Not storage (cache/)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

BLOCK_BYTES = 16 << 20
"""Of float32, in a block. Code that streams over rows holds a few of these, whatever the number of rows."""


class Source(Protocol):
    """n rows that can be read in parts; cache.lazy_rows.Rows is one."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, where: Any) -> np.ndarray: ...


@dataclass(frozen=True)
class FeatureMatrix:
    """n rows of float32 vectors: those of the sources, maps flattened, concatenated in the order of the sources."""

    sources: Sequence[Source]

    def __len__(self) -> int:
        return self.sources[0].shape[0]

    @property
    def dim(self) -> int:
        return sum(int(np.prod(source.shape[1:])) for source in self.sources)

    def take(self, where: np.ndarray) -> np.ndarray:
        """The rows of those numbers, in that order: a new float32 ndarray (len(where), dim)."""
        parts = [source[where].reshape(len(where), -1) for source in self.sources]
        if len(parts) == 1:
            return parts[0].astype(np.float32, copy=False)
        return np.concatenate(parts, axis=1, dtype=np.float32)

    def blocks(self, where: np.ndarray, outputs: int = 1) -> Iterator[np.ndarray]:
        """`where` in parts, in its order, each of at most BLOCK_BYTES of features or of float64 `outputs`.

        The parts do not depend on shards.
        """
        size = max(1, BLOCK_BYTES // max(4 * self.dim, 8 * outputs))
        return (where[start : start + size] for start in range(0, len(where), size))


@dataclass(frozen=True)
class Scaler:
    """z = (x - mean) * inverse: both (dim,), float64. A constant feature has the inverse 0, so it has no effect."""

    mean: np.ndarray
    inverse: np.ndarray

    @classmethod
    def of(cls, x: np.ndarray) -> Scaler:
        """Mean and standard deviation of the rows x (n, dim), float32, in float64, without a copy of all of them.

        The first row is subtracted first, so that a large offset costs no digits and constants are recognised.
        """
        shift = x[0].astype(np.float64)
        total, squares = np.zeros_like(shift), np.zeros_like(shift)
        for part in row_blocks(x):
            moved = part - shift
            total += moved.sum(axis=0)
            squares += np.einsum("ij,ij->j", moved, moved)
        mean = total / len(x)
        return cls(shift + mean, inverse_deviation(squares / len(x) - mean**2, squares / len(x)))

    def apply(self, x: np.ndarray) -> np.ndarray:
        """Standardise the float32 rows x (n, dim) in place, and return them."""
        for part in row_blocks(x):
            part[:] = (part - self.mean) * self.inverse
        return x

    def fold(self, weights: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """z @ weights + bias as weights (dim, outputs) and bias (outputs,) on raw features, float64."""
        folded = weights.astype(np.float64) * self.inverse[:, None]
        return folded, bias.astype(np.float64) - self.mean @ folded


def inverse_deviation(variance: np.ndarray, squares: np.ndarray) -> np.ndarray:
    """1 / standard deviation; 0 where the variance is no more than the rounding error of the mean squares."""
    varies = variance > 1e-12 * squares
    return np.asarray(np.divide(1, np.sqrt(np.where(varies, variance, 1)), where=varies, out=np.zeros_like(variance)))


def row_blocks(x: np.ndarray) -> Iterator[np.ndarray]:
    """Views of consecutive rows, each of at most BLOCK_BYTES."""
    size = max(1, BLOCK_BYTES // (4 * x.shape[1]))
    return (x[start : start + size] for start in range(0, len(x), size))
