"""Owns the search for the most similar others of every row, among all and among its kind. Not what they say of it.

The search is exact, and takes little more than the products of all pairs of blocks, each computed once for the rows of
both: of a product only what is above the least that a row has found so far is looked at. Memory grows by what is found
alone, some 200 bytes a row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from stages.heads.matrix import FeatureMatrix
from stages.heads.neighbours import largest, unit_rows
from stages.runtime.parallel import run_in_threads

BLOCK = 4096
"""Rows of a block at most: two blocks' cosines are 64 MB."""

HELD = 8
"""Blocks that are held while the others are read once for all of them."""

_BLOCK_BYTES = 32 << 20
_PART = 1024
_MANY = 32
"""Entries of a row above its least so far, from which on the largest are picked from all: only of the first blocks."""


@dataclass(frozen=True)
class Nearest:
    """Of n rows, the k most similar of those that they were compared with: cosines (n, k) float32, numbers (n, k) int.

    -inf and -1 where they were compared with fewer.
    """

    cosines: np.ndarray
    numbers: np.ndarray

    @classmethod
    def none(cls, n: int, k: int) -> Nearest:
        return cls(np.full((n, k), -np.inf, np.float32), np.full((n, k), -1, np.int32))

    def add(self, start: int, similar: np.ndarray, first: int) -> None:
        """similar (a, b): the cosines of the rows from `start` on with those from `first` on."""
        k = self.cosines.shape[1]
        least = self.cosines[start : start + len(similar)].min(axis=1)
        above = np.flatnonzero(similar.max(axis=1) > least)
        for rows in (above[at : at + _PART] for at in range(0, len(above), _PART)):
            part = similar[rows]
            hits = part > least[rows, None]
            many = hits.sum(axis=1)
            if many.max() > _MANY:
                columns = largest(part, k)
            else:
                row, column = np.nonzero(hits)
                columns = np.full((len(rows), many.max()), -1)
                columns[row, np.arange(len(row)) - np.repeat(np.cumsum(many) - many, many)] = column
            found = np.where(columns < 0, np.float32(-np.inf), np.take_along_axis(part, columns, axis=1))
            cosines = np.concatenate([self.cosines[start + rows], found], axis=1)
            number = np.where(np.isneginf(found), -1, columns + first).astype(np.int32)
            numbers = np.concatenate([self.numbers[start + rows], number], axis=1)
            kept = largest(cosines, k)
            self.cosines[start + rows] = np.take_along_axis(cosines, kept, axis=1)
            self.numbers[start + rows] = np.take_along_axis(numbers, kept, axis=1)

    def ordered(self, order: np.ndarray) -> Nearest:
        """The nearest first, where row i was number order[i] of those that the answer is about."""
        at = np.argsort(-self.cosines, axis=1, kind="stable")
        cosines, numbers = np.empty_like(self.cosines), np.empty_like(self.numbers)
        cosines[order] = np.take_along_axis(self.cosines, at, axis=1)
        numbers[order] = np.where(np.isneginf(cosines[order]), -1, order[np.take_along_axis(self.numbers, at, axis=1)])
        return Nearest(cosines, numbers)


@dataclass
class Search:
    """The k nearest others of each row, and the k_own nearest of its kind, at most k, by cosine.

    kinds (n,): what each row is; rows are compared in the order of their kinds, so that those of one are together.
    view: what of the others rows are compared with, in place of themselves; done twice, it changes nothing.
    """

    features: FeatureMatrix
    k: int
    kinds: np.ndarray
    k_own: int
    view: Callable[[np.ndarray], np.ndarray] | None = None

    def __post_init__(self) -> None:
        n = len(self.features)
        self._order = np.argsort(self.kinds, kind="stable")
        counts = np.unique(self.kinds, return_counts=True)[1]
        self._ends = np.cumsum(counts)
        self._starts = self._ends - counts
        self._block = max(1, min(BLOCK, _BLOCK_BYTES // (4 * self.features.dim)))
        self._all = Nearest.none(n, min(self.k, n - 1))
        self._own = Nearest.none(n, min(self.k_own, n - 1))

    @property
    def pairs(self) -> int:
        """Of blocks, that are compared."""
        blocks = -(-len(self.features) // self._block)
        return blocks * (blocks + 1) // 2

    def run(self, advance: Callable[[int], object] = lambda n: None) -> tuple[Nearest, Nearest]:
        """Among all rows, and among those of its kind, where -1 stands for none. advance: called for each pair."""
        for start in range(0, len(self.features), HELD * self._block):
            self.compare(start, advance)
        return self.answer()

    def answer(self) -> tuple[Nearest, Nearest]:
        """What was found so far, in the order of the rows: among all, and among their kinds."""
        found = self._all.ordered(self._order)
        if len(self._ends) > 1:
            return found, self._own.ordered(self._order)
        own = self._own.cosines.shape[1]
        return found, Nearest(found.cosines[:, :own], found.numbers[:, :own])

    def compare(self, start: int, advance: Callable[[int], object] = lambda n: None) -> None:
        """The HELD blocks from `start` on with each other and all that follow."""
        n, size = len(self.features), self._block
        held = unit_rows(self.features.take(self._order[start : start + HELD * size]))
        for first in range(start, n, size):
            own = first < start + len(held)
            other = held[first - start :][:size] if own else unit_rows(self.features.take(self._order[first:][:size]))
            other = other if self.view is None else self.view(other)
            for at in range(0, first + 1 - start if own else len(held), size):
                block = held[at : at + size]
                self._take(start + at, block @ other.T, first)
                advance(1)

    def _take(self, start: int, similar: np.ndarray, first: int) -> None:
        """What the rows from `start` on, and those from `first` on, have in common: similar (a, b)."""
        if start == first:
            np.fill_diagonal(similar, -np.inf)
        _add_both(self._all, start, similar, first)
        for low, high in self._spans_within(start, first, similar.shape) if len(self._ends) > 1 else ():
            top, left = max(low, start), max(low, first)
            _add_both(self._own, top, similar[top - start : high - start, left - first : high - first], left)

    def _spans_within(self, start: int, first: int, shape: tuple[int, ...]) -> Iterator[tuple[int, int]]:
        """First row and last, exclusive, of each kind that both blocks have rows of."""
        low = np.searchsorted(self._ends, max(start, first), "right")
        high = np.searchsorted(self._starts, min(start + shape[0], first + shape[1]))
        return zip(self._starts[low:high].tolist(), self._ends[low:high].tolist(), strict=True)


def _add_both(found: Nearest, start: int, similar: np.ndarray, first: int) -> None:
    """To the rows from `start` on, and to those from `first` on, where these are others."""
    if start == first:
        found.add(start, similar, first)
    else:
        run_in_threads(lambda part: found.add(*part), [(start, similar, first), (first, similar.T, start)])
