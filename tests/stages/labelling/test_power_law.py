"""power_law.py: a law that made the errors is found again, and intervals hold as often as they say."""

from __future__ import annotations

import numpy as np
import pytest

from stages.labelling import power_law

SIZES = [50, 100, 200, 400, 800]


def noisy(a: float, b: float, c: float, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Shares of errors of n images, the same for all sizes, by the law; and those of resamples."""
    random = np.random.default_rng(seed)
    hard, luck = random.random(n), random.random((n, len(SIZES)))
    wrong = (0.7 * hard[:, None] + 0.3 * luck) < np.quantile(
        0.7 * np.random.default_rng(9).random(20_000) + 0.3 * np.random.default_rng(8).random(20_000),
        a * np.array(SIZES, dtype=float) ** -b + c,
    )
    drawn = random.integers(0, n, (100, n))
    return wrong.mean(axis=0), np.array([wrong[some].mean(axis=0) for some in drawn])


@pytest.mark.parametrize("b", [0.25, 0.5, 1.0])
def test_a_law_without_noise_is_found_again(b: float) -> None:
    errors = 2 * np.array(SIZES, dtype=float) ** -b + 0.05
    spread = 1e-4 * np.random.default_rng(0).normal(size=(100, 5))
    found = power_law.follow(SIZES, errors, errors + spread, [1600, 3200])
    assert found.errors == pytest.approx([2 * 1600**-b + 0.05, 2 * 3200**-b + 0.05], abs=0.01)
    assert found.law.b == pytest.approx(b, rel=0.3)


def test_the_interval_holds_nine_in_ten() -> None:
    """As often as a binomial of 200 trials may have it: 0.9 - 3 deviations."""
    truth = 0.8 * 1600.0**-0.4 + 0.1
    held = 0
    for seed in range(200):
        errors, resampled = noisy(0.8, 0.4, 0.1, 400, seed)
        curve = power_law.follow(SIZES, errors, resampled, [1600])
        ends = power_law.interval("accuracy", float(curve.errors[0]), curve.variance(0), 400)
        held += ends.low <= 1 - truth <= ends.high
    assert 0.836 < held / 200 <= 0.99


def test_errors_that_rise_are_a_flat_line_with_a_width() -> None:
    errors = np.array([0.2, 0.2, 0.21, 0.22, 0.22])
    resampled = errors + 0.01 * np.random.default_rng(0).normal(size=(100, 5))
    curve = power_law.follow(SIZES, errors, resampled, [1000, 2000])
    assert curve.errors[0] == pytest.approx(curve.errors[1], abs=1e-6)
    ends = power_law.gain("accuracy", curve, 0, 1)
    assert ends.value == pytest.approx(0, abs=1e-6)
    assert ends.low < 0 < ends.high


def test_figures_that_are_errors_fall_and_others_rise() -> None:
    errors = np.array([0.4, 0.3, 0.22, 0.17, 0.13])
    resampled = errors + 0.01 * np.random.default_rng(0).normal(size=(100, 5))
    curve = power_law.follow(SIZES, errors, resampled, [1000, 2000])
    assert power_law.gain("accuracy", curve, 0, 1).value > 0 > power_law.gain("log_loss", curve, 0, 1).value
    loss = power_law.interval("log_loss", float(curve.errors[1]), curve.variance(1), 100)
    right = power_law.interval("accuracy", float(curve.errors[1]), curve.variance(1), 100)
    assert loss.low < loss.value == pytest.approx(1 - right.value)
    assert right.low < right.value < right.high <= 1


def test_without_a_mistake_the_interval_still_has_a_width() -> None:
    none = np.zeros(5)
    curve = power_law.follow(SIZES, none, np.zeros((100, 5)), [1600])
    ends = power_law.interval("accuracy", float(curve.errors[0]), curve.variance(0), 100)
    assert (ends.value, ends.high) == (1, 1)
    assert 0.9 < ends.low < 0.99
