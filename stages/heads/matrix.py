"""Owns features as one matrix: of one tap or several joined, read in blocks, scaled. Not storage (cache/).

Heads that are stacks of layers scale twice. Each row of a tap is divided by its length, as in SimpleShot (Wang et al.
2019). Then each feature is centred and divided by a deviation that is shrunk towards the mean one (`shrunk_inverse`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

BLOCK_BYTES = 16 << 20
"""Of float32, in a block. Code that streams over rows holds a few of these, whatever the number of rows."""


SHRINK = 0.05
"""Weight of the mean variance in the variance that a feature is divided by; the benchmark's expert takes the same."""

LEAST_WIDTH = 32
"""Features of a tap whose rows are divided by their length, at least: among few, the length tells much."""

_LEAST_SQUARE = 1e-12
"""Rows with a lower sum of squares are divided as if they had this one; Keras's UnitNormalization does so."""


class Source(Protocol):
    """n rows that can be read in parts; cache.lazy_rows.Rows is one."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, where: Any) -> np.ndarray: ...


@dataclass(frozen=True)
class Some:
    """The rows of a source with those numbers, in that order."""

    source: Source
    numbers: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.numbers), *self.source.shape[1:])

    def __getitem__(self, where: Any) -> np.ndarray:
        return self.source[self.numbers[where]]


@dataclass(frozen=True)
class FeatureMatrix:
    """n rows of float32 vectors: those of the sources, maps flattened, concatenated in the order of the sources.

    unit: rows are divided by their length, those of each source of LEAST_WIDTH features or more by its own.
    """

    sources: Sequence[Source]
    unit: bool = False

    def __len__(self) -> int:
        return self.sources[0].shape[0]

    @property
    def widths(self) -> tuple[int, ...]:
        """The number of features of each source."""
        return tuple(int(np.prod(source.shape[1:])) for source in self.sources)

    @property
    def dim(self) -> int:
        return sum(self.widths)

    def unit_rows(self) -> FeatureMatrix:
        """The same rows, divided by their lengths."""
        return replace(self, unit=True)

    def some(self, numbers: np.ndarray) -> FeatureMatrix:
        """The rows of those numbers."""
        return replace(self, sources=[Some(source, numbers) for source in self.sources])

    def take(self, where: np.ndarray) -> np.ndarray:
        """The rows of those numbers, in that order: a new float32 ndarray (len(where), dim)."""
        parts = [source[where].reshape(len(where), -1) for source in self.sources]
        if len(parts) == 1:
            x = parts[0].astype(np.float32, copy=False)
        else:
            x = np.concatenate(parts, axis=1, dtype=np.float32)
        return divide_by_length(x, unit_spans(self.widths)) if self.unit else x

    def blocks(self, where: np.ndarray, outputs: int = 1) -> Iterator[np.ndarray]:
        """`where` in parts, in its order, each of at most BLOCK_BYTES of features or of float64 `outputs`.

        The parts do not depend on shards.
        """
        size = max(1, BLOCK_BYTES // max(4 * self.dim, 8 * outputs))
        return (where[start : start + size] for start in range(0, len(where), size))


@dataclass(frozen=True)
class OnDisk:
    """Rows of a matrix less `centre` (dim,), in the order of `numbers`: float32, read when they are sliced.

    They are what an ndarray of them would be, to the last bit, for code that takes either by `row_parts`.
    """

    features: FeatureMatrix
    numbers: np.ndarray
    centre: np.ndarray

    dtype = np.dtype(np.float32)

    @property
    def shape(self) -> tuple[int, int]:
        return (len(self.numbers), self.features.dim)

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, part: slice) -> np.ndarray:
        x = self.features.take(self.numbers[part])
        x -= self.centre
        return x

    def mean(self) -> np.ndarray:
        """Of all rows, (dim,) float64, added in their order, as `ndarray.mean` does."""
        total = np.zeros((1, self.features.dim))
        for part in row_blocks(self):
            total = np.concatenate([total, part]).sum(axis=0, keepdims=True)
        return np.asarray(total[0] / len(self))


Rows = np.ndarray | OnDisk
"""(n, dim) float32, of which slices are taken."""


@dataclass(frozen=True)
class Moments:
    """Sums over n rows about `shift`, float64: of the features (dim,), and of their squares."""

    n: int
    shift: np.ndarray
    total: np.ndarray
    squares: np.ndarray

    @classmethod
    def of(cls, x: Rows, shift: np.ndarray) -> Moments:
        """Of the rows x (n, dim), float32, without a copy of all of them."""
        total, squares = np.zeros_like(shift), np.zeros_like(shift)
        for part in row_blocks(x):
            moved = part - shift
            total += moved.sum(axis=0)
            squares += np.einsum("ij,ij->j", moved, moved)
        return cls(len(x), shift, total, squares)

    def __add__(self, other: Moments) -> Moments:
        return Moments(self.n + other.n, self.shift, self.total + other.total, self.squares + other.squares)


@dataclass(frozen=True)
class Scaler:
    """z = (x - mean) * inverse: both (dim,), float64. A constant feature has the inverse 0, so it has no effect."""

    mean: np.ndarray
    inverse: np.ndarray

    @classmethod
    def of(cls, x: np.ndarray, widths: Sequence[int]) -> Scaler:
        """That of the rows x (n, dim), float32; the features of each tap, `widths` of them, have their mean variance.

        The first row is subtracted first, so that a large offset costs no digits and constants are recognised.
        """
        return cls.from_moments(Moments.of(x, x[0].astype(np.float64)), widths)

    @classmethod
    def from_moments(cls, sums: Moments, widths: Sequence[int]) -> Scaler:
        mean, squares = sums.total / sums.n, sums.squares / sums.n
        return cls(sums.shift + mean, shrunk_inverse(squares - mean**2, squares, widths))

    def apply(self, x: np.ndarray) -> np.ndarray:
        """Scale the float32 rows x (n, dim) in place, and return them."""
        for part in row_blocks(x):
            part[:] = (part - self.mean) * self.inverse
        return x

    def fold(self, weights: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """z @ weights + bias as weights (dim, outputs) and bias (outputs,) on unscaled features, float64."""
        folded = weights.astype(np.float64) * self.inverse[:, None]
        return folded, bias.astype(np.float64) - self.mean @ folded


def shrunk_inverse(variance: np.ndarray, squares: np.ndarray, widths: Sequence[int]) -> np.ndarray:
    """1 / sqrt((1 - SHRINK) variance + SHRINK mean variance of the tap), (dim,).

    To divide by the deviation alone blows up features that hardly vary among few images. Shrinking variances to their
    mean is Ledoit and Wolf's (2004) for a diagonal matrix. 0 where the variance is no more than the rounding error of
    the mean squares.
    """
    varies = variance > 1e-12 * squares
    inverse = np.zeros_like(variance)
    for tap in tap_slices(widths):
        here = varies[tap]
        if here.any():
            shrunk = (1 - SHRINK) * variance[tap] + SHRINK * variance[tap][here].mean()
            np.divide(1, np.sqrt(np.where(here, shrunk, 1)), where=here, out=inverse[tap])
    return inverse


Spans = Sequence[tuple[int, int]]
"""First and last column, exclusive, of each tap whose rows are divided by their length."""


def unit_spans(widths: Sequence[int]) -> Spans:
    return tuple((tap.start, tap.stop) for tap in tap_slices(widths) if tap.stop - tap.start >= LEAST_WIDTH)


def divide_by_length(x: np.ndarray, spans: Spans) -> np.ndarray:
    """Divide the rows x (n, dim) in place, those of each span by their own length; return them."""
    for part in row_blocks(x):
        for start, stop in spans:
            here = part[:, start:stop]
            squares = np.einsum("ij,ij->i", here, here, dtype=np.float64)
            here /= np.sqrt(np.maximum(squares, _LEAST_SQUARE))[:, None].astype(x.dtype)
    return x


def are_few(n: int, dim: int) -> bool:
    """Whether n rows of `dim` features are solved faster in coordinates of their own span."""
    return 4 * n <= dim


def tap_slices(widths: Sequence[int]) -> list[slice]:
    """The columns of each tap."""
    ends = np.cumsum(widths).tolist()
    return [slice(end - width, end) for end, width in zip(ends, widths, strict=True)]


def row_blocks(x: Rows) -> Iterator[np.ndarray]:
    """Consecutive rows, each time of at most BLOCK_BYTES; views of an ndarray."""
    size = max(1, BLOCK_BYTES // (4 * x.shape[1]))
    return (x[start : start + size] for start in range(0, len(x), size))


def row_parts(x: Rows) -> Iterator[np.ndarray]:
    """All rows of an ndarray, as they are; of rows on the disk, block by block."""
    return iter((x,)) if isinstance(x, np.ndarray) else row_blocks(x)
