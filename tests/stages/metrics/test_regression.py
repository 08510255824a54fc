"""regression.py: figures are scikit-learn's and scipy's, and intervals hold what they say they hold."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

from stages.metrics import bootstrap, regression

Rows = tuple[np.ndarray, np.ndarray]


def sample(n: int, seed: int, several: int = 1, offset: float = 0.0) -> Rows:
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=(n, several))
    return truth + offset, 0.8 * truth + 0.5 * rng.normal(size=(n, several)) + offset


@pytest.mark.parametrize("n", [2, 7, 200])
@pytest.mark.parametrize("several", [1, 3])
@pytest.mark.parametrize(("unit", "offset"), [(1.0, 0.0), (1e-6, 0.0), (1.0, 1e4), (1.0, 1.7e9)])
def test_figures_are_those_of_scikit_learn_and_scipy(n: int, several: int, unit: float, offset: float) -> None:
    truth, said = (unit * of for of in sample(n, 0, several, offset))
    said[: n // 2] = said[: n // 2].round(1)  # ties
    found = regression.metrics(truth, said).values
    assert found["r2"] == pytest.approx(r2_score(truth, said), rel=1e-5)
    ratios = root_mean_squared_error(truth, said, multioutput="raw_values") / truth.std(axis=0)
    assert found["relative_error"] == pytest.approx(ratios.mean(), rel=1e-5)
    ranks = [spearmanr(truth[:, i], said[:, i]).statistic for i in range(several)]
    assert found["spearman"] == pytest.approx(np.mean(ranks), nan_ok=True) or not np.isfinite(ranks).all()
    if several == 1:
        assert found["mae"] == pytest.approx(mean_absolute_error(truth, said))
        assert found["rmse"] == pytest.approx(root_mean_squared_error(truth, said))
    else:
        assert (found["mae"], found["rmse"]) == (None, None)


def test_each_of_several_numbers_has_figures_in_its_own_unit() -> None:
    truth, said = (of * [1, 1000] for of in sample(50, 0, 2))
    found = regression.judge(truth, said, ["a", "b"], [None] * 50, 0).details["per_number"]
    for i, name in enumerate("ab"):
        assert found[name]["n"] == 50
        assert found[name]["mae"] == pytest.approx(mean_absolute_error(truth[:, i], said[:, i]))
        assert found[name]["spearman"] == pytest.approx(spearmanr(truth[:, i], said[:, i]).statistic)


@pytest.mark.parametrize("value", [0.0, 0.1, -12345.678])
def test_a_number_that_is_the_same_in_all_rows_has_mae_and_rmse_alone(value: float) -> None:
    found = regression.metrics(np.full((9, 1), value), np.arange(9.0)[:, None]).values
    assert [name for name, v in found.items() if v is not None] == ["mae", "rmse"]


def test_without_rows_there_are_no_figures() -> None:
    none = np.empty((0, 2))
    found = regression.judge(none, none, ["a", "b"], [], 0)
    assert (found.n, {*found.values.values()}, {*found.ci.values()}) == (0, {None}, {None})
    assert regression.judge(*sample(1, 0), ["a"], [None], 0).ci == dict.fromkeys(regression.FORMS)


@pytest.mark.parametrize("n", [20, 100])
def test_the_interval_of_each_figure_holds_the_truth(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """60 samples; an interval of 95 % has a share below 0.87 once in 100 times."""
    monkeypatch.setattr(bootstrap, "RESAMPLES", 200)
    true, inside = regression.metrics(*sample(100_000, 1)).values, dict.fromkeys(regression.FORMS, 0)
    for seed in range(60):
        found = regression.judge(*sample(n, 100 + seed), ["a"], [None] * n, seed)
        for name, value in found.values.items():
            low, high = found.ci[name] or (np.nan, np.nan)
            assert low <= (value or 0.0) <= high
            inside[name] += low <= (true[name] or 0.0) <= high
    assert min(inside.values()) >= 0.87 * 60, inside


def test_no_interval_reaches_beyond_what_a_figure_can_be() -> None:
    for seed in range(20):
        truth, said = sample(5, seed)
        found = regression.judge(truth, truth + 0.3 * (said - truth), ["a"], [None] * 5, 0).ci
        ends = {name: found[name] or (0, 0) for name in found}
        assert max(ends["r2"]) <= 1
        assert max(map(abs, ends["spearman"])) <= 1
        assert min(min(ends[name]) for name in ("relative_error", "mae", "rmse")) >= 0


def test_groups_widen_intervals() -> None:
    truth, said = (np.repeat(of, 5, axis=0) for of in sample(12, 0))
    alone = regression.judge(truth, said, ["a"], [None] * 60, 0).ci
    grouped = regression.judge(truth, said, ["a"], [str(i // 5) for i in range(60)], 0).ci
    for name in regression.FORMS:
        (low, high), (lower, higher) = alone[name] or (0, 0), grouped[name] or (0, 0)
        assert higher - lower > 1.5 * (high - low)


def test_differences_are_paired() -> None:
    truth, said = sample(40, 0)
    one, two, gap = regression.compare(truth, said, truth + 1.1 * (said - truth), [None] * 40)
    assert gap.figures["mae"].value == pytest.approx((two.values["mae"] or 0) - (one.values["mae"] or 0))
    assert one.values["mae"] is not None
    low, high = gap.figures["mae"].ci or (0, 0)
    assert 0 < low < 0.1 * one.values["mae"] < high
    same = regression.compare(truth, said, said, [None] * 40)[2]
    assert {figure.value for figure in same.figures.values()} == {0.0}


@pytest.mark.parametrize(("n", "rank"), [(19, 19), (20, 20), (39, 38), (40, 39), (99, 95), (100, 96)])
def test_a_half_width_is_the_exact_order_statistic(n: int, rank: int) -> None:
    errors = np.random.default_rng(0).permutation(n).astype(float)[:, None] + 1
    found = regression.calibrate({"val": (np.zeros((n, 1)), errors)}, ["a"], None)
    assert found.half_widths == {"a": rank}
    assert found.splits["val"].values["coverage"] == pytest.approx(rank / n)


def test_fewer_than_19_rows_give_no_half_width() -> None:
    found = regression.calibrate({"val": sample(18, 0), "test": sample(5, 1)}, ["a"], None)
    assert found.half_widths is None
    assert found.notes == ["no prediction interval: 19 images in val are needed; there are 18"]
    assert {split: of.values["coverage"] for split, of in found.splits.items()} == {"val": None, "test": None}


@pytest.mark.parametrize("n", [19, 50])
def test_an_interval_holds_95_percent_of_new_numbers(n: int) -> None:
    """On average over samples, whatever the errors are distributed as; each number for itself."""
    shares = []
    for seed in range(60):
        found = regression.calibrate(
            {"val": sample(n, seed, 2), "test": sample(2000, 1000 + seed, 2)}, ["a", "b"], None
        )
        shares.append(found.splits["test"].values["coverage"] or 0.0)
    exact = np.ceil((n + 1) * 0.95) / (n + 1)
    assert np.mean(shares) == pytest.approx(exact, abs=0.012)


def test_each_fold_is_covered_by_what_the_others_give() -> None:
    truth, said = sample(60, 0)
    folds = np.arange(60) % 3
    said[folds == 0] += 50  # whose own errors would give a width that holds them
    found = regression.calibrate({"folds": (truth, said), "test": sample(9, 1)}, ["a"], folds)
    inside = 0
    for fold in range(3):
        errors = np.abs(said - truth)[folds != fold, 0]
        width = np.sort(errors)[int(np.ceil(0.95 * (len(errors) + 1))) - 1]
        inside += int((np.abs(said - truth)[folds == fold, 0] <= width).sum())
    assert found.splits["folds"].values["coverage"] == pytest.approx(inside / 60)
    assert found.half_widths is not None
    assert found.half_widths["a"] == np.sort(np.abs(said - truth), axis=0)[57, 0]
