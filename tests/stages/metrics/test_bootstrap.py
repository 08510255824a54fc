"""bootstrap.py: the figures of classification.py, resampled; and an interval that holds the truth 95 times in 100."""

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


def test_copies_in_a_group_do_not_narrow_the_interval() -> None:
    """Ten copies of each of 40 rows tell no more than the 40; taken for 400 rows, they would seem to."""
    labels, p, classes = problem(2, n=40)
    many, copies = [label for label in labels for _ in range(10)], np.repeat(p, 10, axis=0)
    groups = [str(i) for i in range(40) for _ in range(10)]

    def width(*given: object) -> float:
        low, high = bootstrap.metrics_with_intervals(*given).ci["log_loss"]  # type: ignore[arg-type]
        return float(high - low)

    alone = width(labels, p, classes, [None] * 40)
    assert width(many, copies, classes, groups) == pytest.approx(alone, rel=0.1)
    assert width(many, copies, classes, [None] * 400) < alone / 2


def test_the_interval_holds_the_truth_95_times_in_100(monkeypatch: pytest.MonkeyPatch) -> None:
    """300 samples of 200 rows, of a problem whose figures are known from a very large sample."""
    monkeypatch.setattr(bootstrap, "RESAMPLES", 400)
    truth = classification.metrics(*problem(2, n=400_000, seed=9)).values
    inside = dict.fromkeys(("accuracy", "balanced_accuracy", "macro_f1", "auroc", "log_loss", "brier"), 0)
    for seed in range(300):
        labels, p, classes = problem(2, n=200, seed=seed)
        found = bootstrap.metrics_with_intervals(labels, p, classes, [None] * 200).ci
        for name in inside:
            low, high = found[name]
            inside[name] += low <= truth[name] <= high
    assert all(0.91 <= count / 300 <= 0.98 for count in inside.values()), inside


def test_of_groups_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """40 groups of 5 rows that are right or wrong together: over rows the interval would hold it 60 times in 100."""
    monkeypatch.setattr(bootstrap, "RESAMPLES", 400)
    rng, inside = np.random.default_rng(0), {"groups": 0, "rows": 0}
    groups = [str(i) for i in range(40) for _ in range(5)]
    for _ in range(200):
        right = np.repeat(rng.random(40) < 0.7, 5)
        labels = ["b" if hit else "a" for hit in right]
        p = np.tile([0.1, 0.9], (200, 1))
        for name, given in (("groups", groups), ("rows", [None] * 200)):
            low, high = bootstrap.metrics_with_intervals(labels, p, ("a", "b"), given).ci["accuracy"]
            inside[name] += low <= 0.7 <= high
    assert 0.9 <= inside["groups"] / 200 <= 0.99
    assert inside["rows"] / 200 < 0.75


def test_same_seed_same_interval() -> None:
    given = (*problem(3), [None] * 80)
    assert bootstrap.metrics_with_intervals(*given, seed=1) == bootstrap.metrics_with_intervals(*given, seed=1)
    assert bootstrap.metrics_with_intervals(*given, seed=1) != bootstrap.metrics_with_intervals(*given, seed=2)


def test_chunks_do_not_change_the_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = np.concatenate([w for _, w in bootstrap.draw_resamples(np.arange(30), 50, seed=0)], axis=1)
    monkeypatch.setattr(bootstrap, "_CHUNK", 90)
    parts = list(bootstrap.draw_resamples(np.arange(30), 50, seed=0))
    assert [start for start, _ in parts][:3] == [0, 3, 6]
    assert np.array_equal(np.concatenate([w for _, w in parts], axis=1), whole)


@pytest.mark.parametrize("n", [0, 1])
def test_no_row_or_one_has_no_interval(n: int) -> None:
    found = bootstrap.metrics_with_intervals(["a"] * n, np.tile([0.9, 0.1], (n, 1)), ("a", "b"), [None] * n)
    assert found.n == n
    assert set(found.ci) == set(classification.NAMES)
    assert set(found.ci.values()) == {None}


def test_a_single_group_has_no_interval() -> None:
    labels, p, classes = problem(2)
    assert set(bootstrap.metrics_with_intervals(labels, p, classes, ["one"] * 80).ci.values()) == {None}


def test_a_lacking_class_leaves_ranking_without_figure_and_interval() -> None:
    found = bootstrap.metrics_with_intervals(["a"] * 20, problem(2, n=20)[1], ("a", "b"), [None] * 20)
    assert (found.values["auroc"], found.ci["auroc"], found.ci["average_precision"]) == (None, None, None)
    assert found.ci["accuracy"] is not None


def test_a_class_with_one_row_is_left_out_of_resamples_without_it() -> None:
    labels, p, classes = problem(3, n=60)
    labels = ["c2" if i == 0 else "c0" if label == "c2" else label for i, label in enumerate(labels)]
    low, high = bootstrap.metrics_with_intervals(labels, p, classes, [None] * 60).ci["auroc"]
    assert 0 < low < high <= 1


def test_many_rows_and_classes_stay_within_bounds() -> None:
    """20,000 rows of 1,500 classes: plain figures have intervals, those that sort are left out, classes lack."""
    rng = np.random.default_rng(0)
    k, n = 1500, 20_000
    p = rng.random((n, k), dtype=np.float32).astype(np.float64)
    p /= p.sum(axis=1, keepdims=True)
    classes = [str(i) for i in range(k)]
    found = bootstrap.metrics_with_intervals([classes[i] for i in rng.integers(0, k, n)], p, classes, [None] * n)
    assert (found.values["auroc"], found.ci["auroc"]) == (None, None)
    assert found.ci["macro_f1"][0] < found.values["macro_f1"] < found.ci["macro_f1"][1]


def test_figures_that_sort_have_no_interval_where_it_would_take_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "_RANKED", 80 * 4 * 199)
    found = bootstrap.metrics_with_intervals(*problem(4), [None] * 80)
    assert found.values["auroc"] is not None
    assert found.ci["auroc"] is None
    assert found.ci["accuracy"] is not None


def test_a_paired_difference_is_narrower_than_two_figures() -> None:
    labels, p, classes = problem(2, n=300)
    better = 0.9 * p + 0.1 * np.eye(2)[classification.label_columns(labels, classes)]
    groups: list[str | None] = [None] * 300
    low, high = bootstrap.paired_intervals(labels, p, better, classes, groups)["log_loss"] or [0, 0]
    after, before = (classification.metrics(labels, given, classes).values["log_loss"] for given in (better, p))
    gap = after - before
    alone = bootstrap.metrics_with_intervals(labels, p, classes, groups).ci["log_loss"]
    assert low < gap < high < 0
    assert high - low < (alone[1] - alone[0]) / 2
