"""intervals.py: an interval holds the true value about 95 times in 100, however few rows or mistakes there are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from scipy.stats import binomtest

from stages.metrics import bootstrap, classification, intervals

CLASSES = tuple(f"c{i}" for i in range(4))
Sample = tuple[list[str], np.ndarray, tuple[str, ...]]


def sample(n: int, seed: int, k: int = 2, alpha: float = 1.0, power: float = 1.0) -> Sample:
    """Labels that are drawn from probabilities of a Dirichlet distribution; with a `power` above 1 they overstate."""
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(k, alpha), n)
    truth = (p.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1).clip(0, k - 1)
    sure = p**power
    return [CLASSES[i] for i in truth], sure / sure.sum(axis=1, keepdims=True), CLASSES[:k]


def blurred(p: np.ndarray, seed: int) -> np.ndarray:
    """A worse model: a part of its probabilities is that of other rows."""
    return np.asarray(0.6 * p + 0.4 * np.random.default_rng(seed).permutation(p))


@pytest.mark.parametrize("n", [5, 20, 100])
@pytest.mark.parametrize(("k", "alpha", "power"), [(2, 0.3, 1.0), (2, 1.0, 2.5), (4, 0.3, 1.0)])
def test_the_interval_of_each_figure_holds_the_truth(
    n: int, k: int, alpha: float, power: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """200 samples each of a good model, of one that is too sure, and of four classes; the truth is of a large sample.

    Chance alone gives an interval of 95% a share below 0.9 once in 500 times.
    """
    monkeypatch.setattr(bootstrap, "RESAMPLES", 200)
    true = classification.metrics(*sample(200_000, 9, k, alpha, power)).values
    inside: dict[str, list[bool]] = {name: [] for name in classification.NAMES}
    for seed in range(100, 300):
        labels, p, classes = sample(n, seed, k, alpha, power)
        found = intervals.metrics_with_intervals(labels, p, classes, [None] * n, seed)
        for name, value in found.values.items():
            if value is not None:
                low, high = found.ci[name] or (np.nan, np.nan)
                assert low <= value <= high
                inside[name].append(low <= (true[name] or 0.0) <= high)
    shares = {name: np.mean(hits) for name, hits in inside.items()}
    assert min(shares.values()) >= 0.9, shares
    assert all(len(hits) > 20 for hits in inside.values())


@pytest.mark.parametrize("n", [5, 20, 100])
def test_the_interval_of_a_difference_holds_the_truth(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "RESAMPLES", 200)
    labels, p, classes = sample(200_000, 9, alpha=0.3)
    one, two = (classification.metrics(labels, given, classes).values for given in (p, blurred(p, 0)))
    inside: dict[str, list[bool]] = {name: [] for name in classification.NAMES if name != "ece"}
    for seed in range(150):
        labels, p, classes = sample(n, seed, alpha=0.3)
        worse = 0.6 * p + 0.4 * sample(n, seed + 1000, alpha=0.3)[1]
        found = intervals.paired_difference(labels, p, worse, classes, [None] * n)
        for name, hits in inside.items():
            low, high = found[name].ci or (np.nan, np.nan)
            if found[name].value is not None:
                hits.append(low <= (two[name] or 0.0) - (one[name] or 0.0) <= high)
    shares = {name: np.mean(hits) for name, hits in inside.items()}
    assert min(shares.values()) >= 0.9, shares


@pytest.mark.parametrize("count", [5, 40])
def test_of_groups_too(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups of five copies: over rows, the interval of accuracy would hold the truth some 60 times in 100."""
    monkeypatch.setattr(bootstrap, "RESAMPLES", 200)
    true, inside = classification.metrics(*sample(200_000, 9)).values, dict.fromkeys(classification.NAMES, 0)
    groups, rows = [str(i) for i in range(count) for _ in range(5)], 0
    for seed in range(150):
        labels, p, classes = sample(count, seed)
        many = [label for label in labels for _ in range(5)], np.repeat(p, 5, axis=0), classes
        found = intervals.metrics_with_intervals(*many, groups, seed)
        for name, value in found.values.items():
            low, high = found.ci[name] or (0.0, 1.0)
            inside[name] += value is None or low <= (true[name] or 0.0) <= high
        low, high = intervals.metrics_with_intervals(*many, [None] * len(groups), seed).ci["accuracy"] or (0, 0)
        rows += low <= (true["accuracy"] or 0.0) <= high
    assert min(inside.values()) >= 0.88 * 150, inside
    assert rows <= 0.75 * 150


@pytest.mark.parametrize(("hits", "n"), [(5, 5), (0, 5), (3, 20), (97, 100)])
def test_accuracy_of_rows_has_wilson_s_interval(hits: int, n: int) -> None:
    labels = ["c1"] * hits + ["c0"] * (n - hits)
    found = intervals.metrics_with_intervals(labels, np.tile([0.2, 0.8], (n, 1)), CLASSES[:2], [None] * n)
    expected = binomtest(hits, n).proportion_ci(method="wilson")
    assert found.ci["accuracy"] == pytest.approx((expected.low, expected.high), abs=1e-6)


@pytest.mark.parametrize("groups", [[None] * 6, ["a", "a", "b", "b", "c", "c"]])
def test_without_a_mistake_no_interval_is_a_point(groups: Sequence[str | None]) -> None:
    p = np.array([[0.9, 0.1], [0.1, 0.9]] * 3)
    found = intervals.metrics_with_intervals(["c0", "c1"] * 3, p, CLASSES[:2], groups)
    assert found.values["accuracy"] == found.values["auroc"] == 1.0
    for name, interval in found.ci.items():
        low, high = interval or (0.0, 0.0)
        assert high - low > 0.1, name


def test_a_loss_of_nothing_has_an_interval() -> None:
    """As of the nearest neighbour of rows that are all right: a mistake that was not seen would cost a lot."""
    found = intervals.metrics_with_intervals(
        ["c0", "c1"] * 5, np.array([[1.0, 0.0], [0.0, 1.0]] * 5), CLASSES[:2], [None] * 10
    )
    assert found.values["log_loss"] == 0
    low, high = found.ci["log_loss"] or (0, 0)
    assert low == 0
    assert high > 1


def test_same_seed_same_interval() -> None:
    given = (*sample(80, 0, k=3), [None] * 80)
    assert intervals.metrics_with_intervals(*given, seed=1) == intervals.metrics_with_intervals(*given, seed=1)
    assert intervals.metrics_with_intervals(*given, seed=1) != intervals.metrics_with_intervals(*given, seed=2)


@pytest.mark.parametrize(("n", "group"), [(0, None), (1, None), (80, "one")])
def test_no_row_or_a_single_row_or_group_has_no_interval(n: int, group: str | None) -> None:
    found = intervals.metrics_with_intervals(*sample(n, 0), [group] * n)
    assert found.n == n
    assert set(found.ci) == set(classification.NAMES)
    assert set(found.ci.values()) == {None}


def test_a_lacking_class_leaves_ranking_without_figure_and_interval() -> None:
    _, p, classes = sample(20, 0)
    found = intervals.metrics_with_intervals(["c0"] * 20, p, classes, [None] * 20)
    assert (found.values["auroc"], found.ci["auroc"], found.ci["average_precision"]) == (None, None, None)
    assert found.ci["accuracy"] is not None


def test_many_rows_and_classes_stay_within_bounds() -> None:
    """20,000 rows of 1,500 classes: plain figures have intervals, those that sort are left out, classes lack."""
    rng = np.random.default_rng(0)
    k, n = 1500, 20_000
    p = rng.random((n, k), dtype=np.float32).astype(np.float64)
    p /= p.sum(axis=1, keepdims=True)
    classes = [str(i) for i in range(k)]
    found = intervals.metrics_with_intervals([classes[i] for i in rng.integers(0, k, n)], p, classes, [None] * n)
    assert (found.values["auroc"], found.ci["auroc"]) == (None, None)
    low, high = found.ci["macro_f1"] or (0, 0)
    assert low < (found.values["macro_f1"] or 0) < high


def test_figures_that_sort_have_no_interval_where_it_would_take_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "_RANKED", 80 * 4 * 199)
    found = intervals.metrics_with_intervals(*sample(80, 0, k=4), [None] * 80)
    assert found.values["auroc"] is not None
    assert found.ci["auroc"] is None
    assert found.ci["accuracy"] is not None


def test_a_paired_difference_is_narrower_than_two_figures() -> None:
    labels, p, classes = sample(300, 0)
    better = 0.9 * p + 0.1 * np.eye(2)[classification.label_columns(labels, classes)]
    groups: list[str | None] = [None] * 300
    found = intervals.paired_difference(labels, p, better, classes, groups)["log_loss"]
    after, before = (classification.metrics(labels, given, classes).values["log_loss"] for given in (better, p))
    low, high = found.ci or (0, 0)
    assert found.value == (after or 0) - (before or 0)
    assert low < found.value < high < 0
    alone = intervals.metrics_with_intervals(labels, p, classes, groups).ci["log_loss"] or (0, 0)
    assert high - low < (alone[1] - alone[0]) / 2


def test_a_share_of_groups_counts_them_and_not_their_rows() -> None:
    right = np.random.default_rng(0).uniform(size=300) < 0.8
    alone = intervals.share_with_interval(right, [None] * 300)
    low, high = (float(end) for end in intervals.wilson(right.mean(), 300))
    assert alone.value == pytest.approx(right.mean())
    assert alone.ci == pytest.approx([low, high], abs=1e-3)
    groups = [f"{i}" for i in range(300) for _ in range(4)]
    fourfold = intervals.share_with_interval(np.repeat(right, 4), groups)
    assert fourfold.ci == pytest.approx(alone.ci, abs=1e-6)
    every = intervals.share_with_interval(np.ones(40, bool), [f"{i // 4}" for i in range(40)])
    assert every.ci == pytest.approx([float(end) for end in intervals.wilson(1.0, 10)])
    assert intervals.mean_of_groups(np.arange(3.0), ["a"] * 3) == (1.0, np.inf)
