"""matrix.py: sums over any parts are numpy's in float64; joined, flattened, scaled in place."""

from __future__ import annotations

import numpy as np
import pytest

from stages.heads import matrix as module
from stages.heads.matrix import Scaler
from tests.support.problems import features


def test_mean_and_deviation_are_numpy_s_for_any_block(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(500, 7)) * np.logspace(-3, 3, 7) + np.logspace(3, -3, 7)).astype(np.float32)
    wide = x.astype(np.float64)
    one, two = wide[:, :3].var(axis=0), wide[:, 3:].var(axis=0)
    shrunk = np.concatenate([0.95 * one + 0.05 * one.mean(), 0.95 * two + 0.05 * two.mean()])
    for rows in (1, 7, 500):
        monkeypatch.setattr(module, "BLOCK_BYTES", 4 * 7 * rows)
        scaler = Scaler.of(x, [3, 4])
        assert np.allclose(scaler.mean, wide.mean(axis=0), rtol=1e-12)
        assert np.allclose(scaler.inverse, 1 / np.sqrt(shrunk), rtol=1e-6)


def test_a_constant_says_nothing_however_large_it_is() -> None:
    x = np.full((10, 3), [0.0, 0.1, 123_456.7], np.float32)
    scaler = Scaler.of(x, [3])
    assert scaler.inverse.tolist() == [0, 0, 0]
    assert scaler.apply(np.full((2, 3), 9, np.float32)).tolist() == [[0, 0, 0], [0, 0, 0]]


def test_folded_weights_are_for_raw_features() -> None:
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(50, 4)) * 3 + 5).astype(np.float32)
    scaler, weights, bias = Scaler.of(x, [4]), rng.normal(size=(4, 2)), rng.normal(size=2)
    folded, shifted = scaler.fold(weights, bias)
    raw = x.astype(np.float64) @ folded + shifted
    assert np.allclose(scaler.apply(x) @ weights + bias, raw, atol=1e-5)


def test_standardising_copies_nothing() -> None:
    x = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    assert Scaler.of(x, [4]).apply(x) is x


def test_a_feature_that_hardly_varies_is_not_blown_up() -> None:
    """Divided by its own deviation it would weigh as much as the others; that is what few images make of chance."""
    x = np.random.default_rng(0).normal(size=(50, 40)).astype(np.float32)
    x[:, 7] *= 1e-3
    deviations = Scaler.of(x, [40]).apply(x).std(axis=0)
    assert deviations[7] < 0.01
    assert deviations[np.arange(40) != 7] == pytest.approx(1, abs=0.2)


def test_rows_of_each_wide_tap_have_length_one() -> None:
    rng = np.random.default_rng(0)
    wide, few, maps = rng.normal(size=(5, 40)), rng.normal(size=(5, 3)), rng.normal(size=(5, 4, 4, 4))
    wide[2] = 0
    joined = features(*(x.astype(np.float32) for x in (wide, few, maps))).unit_rows()
    found = joined.take(np.arange(5))
    assert module.unit_spans(joined.widths) == ((0, 40), (43, 107))
    assert np.linalg.norm(found[:, :40], axis=1) == pytest.approx([1, 1, 0, 1, 1], abs=1e-6)
    assert np.linalg.norm(found[:, 43:], axis=1) == pytest.approx(1, abs=1e-6)
    assert np.allclose(found[:, 40:43], few)


def test_sources_stand_side_by_side_and_maps_are_flattened() -> None:
    a, b = np.arange(6, dtype=np.float16).reshape(3, 2), np.arange(24, dtype=np.float32).reshape(3, 2, 2, 2)
    joined = features(a, b)
    assert (len(joined), joined.dim) == (3, 10)
    rows = joined.take(np.array([2, 0]))
    assert rows.dtype == np.float32
    assert rows.tolist() == [[4, 5, *range(16, 24)], [0, 1, *range(8)]]
