"""neighbour_search.py: neighbours are exact whatever the blocks, among all rows and among those of a kind."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.audit import neighbour_search
from stages.audit.neighbour_search import Search
from stages.heads.matrix import FeatureMatrix
from stages.heads.neighbours import unit_rows


def expected(x: np.ndarray, k: int, kinds: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """All cosines, and the k largest of each row."""
    cosines = unit_rows(x) @ unit_rows(x).T
    np.fill_diagonal(cosines, -np.inf)
    if kinds is not None:
        cosines[kinds[:, None] != kinds] = -np.inf
    return cosines, -np.sort(-cosines, axis=1)[:, : min(k, len(x) - 1)]


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(3, 60), k=st.integers(1, 12), block=st.integers(1, 50), held=st.integers(1, 4),
    many=st.integers(1, 12), kinds=st.integers(1, 6), copies=st.booleans(), seed=st.integers(0, 99),
)  # fmt: skip
def test_neighbours_are_those_of_all_cosines(
    n: int, k: int, block: int, held: int, many: int, kinds: int, copies: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    x, which = rng.normal(size=(n, 5)).astype(np.float32), rng.integers(0, kinds, n)
    if copies:
        x = x[rng.integers(0, n // 2 + 1, n)]
    told: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("BLOCK", block), ("HELD", held), ("_MANY", many)):
            patch.setattr(neighbour_search, name, value)
        search = Search(FeatureMatrix([x]), k, which, min(k, 3))
        among_all, among_kind = search.run(told.append)
    cosines, largest = expected(x, k)
    assert among_all.cosines == pytest.approx(largest, abs=1e-5)
    assert np.take_along_axis(cosines, among_all.numbers, axis=1) == pytest.approx(largest, abs=1e-5)
    cosines, largest = expected(x, min(k, 3), which)
    assert among_kind.cosines == pytest.approx(largest, abs=1e-5)
    assert np.array_equal(among_kind.numbers < 0, np.isneginf(largest))
    there = among_kind.numbers >= 0
    assert np.take_along_axis(cosines, among_kind.numbers, axis=1)[there] == pytest.approx(largest[there], abs=1e-5)
    assert sum(told) == search.pairs


def test_rows_are_compared_with_a_view_of_the_others() -> None:
    x = np.random.default_rng(0).normal(size=(30, 6)).astype(np.float32)
    x[20] = x[3, ::-1]
    found, _ = Search(FeatureMatrix([x]), 1, np.zeros(30, int), 1, lambda rows: rows[:, ::-1]).run()
    assert found.numbers[[3, 20], 0].tolist() == [20, 3]
    assert found.cosines[3, 0] == pytest.approx(1, abs=1e-5)
