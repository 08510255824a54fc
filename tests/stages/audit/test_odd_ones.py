"""odd_ones.py: neighbours are exact whatever the blocks, and what is unlike its kind comes first."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.audit import odd_ones
from stages.heads import neighbours
from stages.heads.matrix import FeatureMatrix


@settings(max_examples=30, deadline=None)
@given(
    n=st.integers(3, 40), k=st.integers(1, 12), tile=st.integers(1, 50), own=st.integers(1, 50), seed=st.integers(0, 99)
)
def test_neighbours_are_those_of_all_cosines(n: int, k: int, tile: int, own: int, seed: int) -> None:
    x = np.random.default_rng(seed).normal(size=(n, 5)).astype(np.float32)
    unit = neighbours.unit_rows(x)
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, -2)
    expected = -np.sort(-cosines, axis=1)[:, : min(k, n - 1)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(odd_ones, "TILE", tile)
        patch.setattr(odd_ones, "AT_ONCE", own)
        found, numbers = odd_ones.find_nearest(FeatureMatrix([x]), k)
    assert found == pytest.approx(expected, abs=1e-5)
    assert np.take_along_axis(cosines, numbers, axis=1) == pytest.approx(expected, abs=1e-5)
    assert all(i not in row for i, row in enumerate(numbers.tolist()))


def test_the_odd_one_of_a_kind_comes_first_and_small_kinds_have_none() -> None:
    rng = np.random.default_rng(0)
    kinds = np.array([0] * 50 + [1] * 50 + [2] * (odd_ones.LEAST - 1))
    x = np.eye(3, 20)[kinds] * 5 + rng.normal(size=(len(kinds), 20))
    x[7] = np.eye(20)[10] * 5
    scores = odd_ones.find_odd(FeatureMatrix([x.astype(np.float32)]), kinds)
    assert np.isnan(scores[100:]).all()
    assert np.nanargmax(scores) == 7
    assert scores[7] > odd_ones.ODD
    assert np.nanmedian(scores[:50]) == pytest.approx(0, abs=0.1)
    assert (scores[:100] > odd_ones.ODD).sum() <= 3


def test_rows_that_are_all_the_same_are_not_odd() -> None:
    scores = odd_ones.find_odd(FeatureMatrix([np.ones((20, 4), np.float32)]), np.zeros(20, int))
    assert np.abs(scores).max() < odd_ones.ODD
