"""odd_ones.py: what is unlike its kind comes first, and what is all the same is not odd."""

from __future__ import annotations

import numpy as np
import pytest

from stages.audit import odd_ones
from stages.audit.neighbour_search import Search
from stages.heads.matrix import FeatureMatrix


def scores_of(x: np.ndarray, kinds: np.ndarray) -> np.ndarray:
    own = Search(FeatureMatrix([x.astype(np.float32)]), odd_ones.NEIGHBOURS, kinds, odd_ones.NEIGHBOURS).run()[1]
    return odd_ones.find_odd(own.cosines, kinds)


def test_the_odd_one_of_a_kind_comes_first_and_small_kinds_have_none() -> None:
    rng = np.random.default_rng(0)
    kinds = np.array([0] * 50 + [1] * 50 + [2] * (odd_ones.LEAST - 1))
    x = np.eye(3, 20)[kinds] * 5 + rng.normal(size=(len(kinds), 20))
    x[7] = np.eye(20)[10] * 5
    scores = scores_of(x, kinds)
    assert np.isnan(scores[100:]).all()
    assert np.nanargmax(scores) == 7
    assert scores[7] > odd_ones.ODD
    assert np.nanmedian(scores[:50]) == pytest.approx(0, abs=0.1)
    assert (scores[:100] > odd_ones.ODD).sum() <= 3


def test_rows_that_are_all_the_same_are_not_odd() -> None:
    assert np.abs(scores_of(np.ones((20, 4)), np.zeros(20, int))).max() < odd_ones.ODD
