"""bootstrap.py: the figures of classification.py, of resampled rows."""

from __future__ import annotations

import numpy as np
import pytest

from stages.metrics import bootstrap, classification

Problem = tuple[list[str], np.ndarray, tuple[str, ...]]


def problem(k: int, n: int = 80, seed: int = 0, decimals: int = 16) -> Problem:
    """Labels that the probabilities know something of; few `decimals` make many equal scores."""
    rng = np.random.default_rng(seed)
    classes = tuple(f"c{i}" for i in range(k))
    p = np.round(rng.dirichlet(np.ones(k), n), decimals)
    p[:, 0] = 1 - p[:, 1:].sum(axis=1)
    truth = [classes[rng.choice(k, p=np.abs(row) / np.abs(row).sum())] for row in p]
    return truth, p, classes


def weighted(given: Problem, weights: np.ndarray) -> dict[str, float]:
    labels, p, classes = given
    found = bootstrap.Weighted(classification.label_columns(labels, classes), p).figures(weights[:, None])
    return {name: float(values[0]) for name, values in found.items()}


@pytest.mark.parametrize(("k", "decimals"), [(2, 16), (2, 1), (4, 16), (4, 1)])
def test_rows_that_count_once_have_the_plain_figures(k: int, decimals: int) -> None:
    given = problem(k, decimals=decimals)
    assert weighted(given, np.ones(80)) == pytest.approx(classification.metrics(*given).values, abs=1e-12)


@pytest.mark.parametrize(("k", "decimals"), [(2, 16), (2, 1), (4, 1)])
def test_a_row_that_counts_thrice_is_three_rows(k: int, decimals: int) -> None:
    """A naive loop over resampled rows gives the same figures for each of twenty resamples."""
    labels, p, classes = given = problem(k, decimals=decimals)
    for _, weights in bootstrap.draw_resamples(np.arange(80), 20, seed=3):
        for column in weights.T:
            rows = np.repeat(np.arange(80), column.astype(int))
            naive = classification.metrics([labels[i] for i in rows], p[rows], classes)
            assert naive.n == 80
            assert weighted(given, column) == pytest.approx(naive.values, abs=1e-12)


def test_a_group_is_drawn_whole() -> None:
    units = bootstrap.resampling_units(["a", "b", "a", None, None, "b"])
    assert len(set(units)) == 4
    for _, weights in bootstrap.draw_resamples(units, 50, seed=0):
        assert np.array_equal(weights[0], weights[2])
        assert np.array_equal(weights[1], weights[5])
        assert (weights[[0, 1, 3, 4]].sum(axis=0) == 4).all()


def test_chunks_do_not_change_the_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = np.concatenate([w for _, w in bootstrap.draw_resamples(np.arange(30), 50, seed=0)], axis=1)
    monkeypatch.setattr(bootstrap, "CHUNK", 90)
    parts = list(bootstrap.draw_resamples(np.arange(30), 50, seed=0))
    assert [start for start, _ in parts][:3] == [0, 3, 6]
    assert np.array_equal(np.concatenate([w for _, w in parts], axis=1), whole)
