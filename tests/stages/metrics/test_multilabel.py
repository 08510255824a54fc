"""multilabel.py: figures are scikit-learn's on what is known, and thresholds are the best on what others say."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, brier_score_loss, f1_score, log_loss, roc_auc_score

from stages.metrics import bootstrap, multilabel

NAMES = [f"l{i}" for i in range(4)]
Rows = tuple[np.ndarray, np.ndarray]


def sample(n: int, seed: int, unknown: float = 0.0, labels: int = 4) -> Rows:
    """Labels that are drawn from the probabilities, which have ties."""
    rng = np.random.default_rng(seed)
    p = (rng.beta(0.6, 0.9, (n, labels)) * 0.98 + 0.01).round(2)
    truth = (rng.random(p.shape) < p).astype(np.float64)
    return np.where(rng.random(p.shape) < unknown, np.nan, truth), p


def test_figures_are_those_of_scikit_learn() -> None:
    truth, p = sample(150, 0)
    found = multilabel.metrics(truth, p).values
    assert found["macro_ap"] == pytest.approx(average_precision_score(truth, p, average="macro"))
    assert found["micro_ap"] == pytest.approx(average_precision_score(truth, p, average="micro"))
    assert found["macro_auroc"] == pytest.approx(roc_auc_score(truth, p, average="macro"))
    assert found["macro_f1"] == pytest.approx(f1_score(truth, p >= 0.5, average="macro"))
    assert found["micro_f1"] == pytest.approx(f1_score(truth, p >= 0.5, average="micro"))
    assert found["exact_match"] == pytest.approx((truth == (p >= 0.5)).all(axis=1).mean())
    assert found["log_loss"] == pytest.approx(np.mean([log_loss(truth[:, i], p[:, i]) for i in range(4)]))
    assert found["brier"] == pytest.approx(np.mean([brier_score_loss(truth[:, i], p[:, i]) for i in range(4)]))


def test_they_are_of_known_labels_alone() -> None:
    truth, p = sample(150, 1, unknown=0.4)
    known, found = np.isfinite(truth), multilabel.metrics(truth, p).values
    each = [(truth[known[:, i], i], p[known[:, i], i]) for i in range(4)]
    assert found["macro_ap"] == pytest.approx(np.mean([average_precision_score(*pair) for pair in each]))
    assert found["macro_auroc"] == pytest.approx(np.mean([roc_auc_score(*pair) for pair in each]))
    assert found["macro_f1"] == pytest.approx(np.mean([f1_score(t, q >= 0.5) for t, q in each]))
    assert found["micro_ap"] == pytest.approx(average_precision_score(truth[known], p[known]))
    assert found["micro_f1"] == pytest.approx(f1_score(truth[known], p[known] >= 0.5))
    assert found["exact_match"] == pytest.approx(((truth == (p >= 0.5)) | ~known).all(axis=1).mean())
    for name, (t, q) in zip(NAMES, each, strict=True):
        of = multilabel.judge(truth, p, NAMES, [None] * 150, 0).details["per_label"][name]
        assert (of["known"], of["support"]) == (len(t), int(t.sum()))
        assert of["ap"] == pytest.approx(average_precision_score(t, q))
        assert of["f1"] == pytest.approx(f1_score(t, q >= 0.5))


def test_labels_that_none_or_all_have_are_left_out_of_what_they_leave_undefined() -> None:
    truth, p = sample(60, 2)
    truth[:, 0], truth[:, 1] = 0, 1
    found = multilabel.metrics(truth, p).values
    assert found["macro_ap"] == pytest.approx(average_precision_score(truth[:, 2:], p[:, 2:]))
    assert found["macro_auroc"] == pytest.approx(roc_auc_score(truth[:, 2:], p[:, 2:]))
    assert found["macro_f1"] == pytest.approx(f1_score(truth[:, 1:], p[:, 1:] >= 0.5, average="macro"))
    nothing = multilabel.metrics(np.zeros((9, 2)), np.full((9, 2), 0.1)).values
    assert [name for name, value in nothing.items() if value is None] == [
        "macro_ap", "micro_ap", "macro_auroc", "macro_f1", "micro_f1",
    ]  # fmt: skip


@pytest.mark.parametrize("truth", [np.empty((0, 2)), np.full((3, 2), np.nan)])
def test_without_anything_known_nothing_is_said(truth: np.ndarray) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = multilabel.judge(truth, np.full(truth.shape, 0.5), NAMES[:2], [None] * len(truth), 0)
        multilabel.calibrate({"val": (truth, np.full(truth.shape, 0.5))}, NAMES[:2], None)
    assert {found.values[name] for name in ("macro_ap", "micro_ap", "macro_auroc", "macro_f1", "micro_f1")} == {None}


@pytest.mark.parametrize("n", [20, 100])
def test_the_interval_of_each_figure_holds_the_truth(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """60 samples; an interval of 95 % has a share below 0.87 once in 100 times."""
    monkeypatch.setattr(bootstrap, "RESAMPLES", 200)
    true, inside = multilabel.metrics(*sample(40_000, 1)).values, {name: [] for name in multilabel.FORMS}
    for seed in range(60):
        found = multilabel.judge(*sample(n, 100 + seed), NAMES, [None] * n, seed)
        for name, value in found.values.items():
            if value is not None:
                low, high = found.ci[name] or (np.nan, np.nan)
                assert low <= value <= high
                inside[name].append(low <= (true[name] or 0.0) <= high)
    shares = {name: np.mean(hits) for name, hits in inside.items()}
    assert min(shares.values()) >= 0.87, shares
    assert all(len(hits) == 60 for hits in inside.values())


def test_differences_are_paired() -> None:
    truth, p = sample(80, 0, unknown=0.2)
    worse = 0.5 * p + 0.25
    one, two, gap = multilabel.compare(truth, p, worse, [None] * 80)
    assert gap.figures["log_loss"].value == pytest.approx((two.values["log_loss"] or 0) - (one.values["log_loss"] or 0))
    low, high = gap.figures["log_loss"].ci or (0, 0)
    assert 0 < low < high
    assert gap.figures["macro_ap"].value == pytest.approx(0, abs=1e-12)  # the order is the same
    assert gap.mcnemar == {}


@pytest.mark.parametrize("seed", range(8))
def test_thresholds_have_the_best_f1_there_is(seed: int) -> None:
    truth, p = sample(40, seed, unknown=0.3)
    for i, limit in enumerate(multilabel.fit_thresholds(truth, p)):
        known = np.isfinite(truth[:, i])
        t, q = truth[known, i], p[known, i]
        best = max(f1_score(t, q >= cut) for cut in q)
        assert f1_score(t, q >= limit) == pytest.approx(best)
        assert 0 < limit < 1


def test_a_cut_between_neighbouring_floats_keeps_the_upper_one() -> None:
    low = 0.3
    p = np.array([np.nextafter(low, 1)] * 6 + [low] * 6)[:, None]
    truth = np.array([1.0] * 6 + [0.0] * 6)[:, None]
    (limit,) = multilabel.fit_thresholds(truth, p)
    assert f1_score(truth, p >= limit) == 1


def test_rare_labels_are_cut_at_one_half() -> None:
    truth, p = sample(40, 0)
    truth[:, 0] = np.arange(40) < multilabel.LEAST_OF_LABEL - 1
    truth[:, 1] = np.arange(40) >= multilabel.LEAST_OF_LABEL - 1
    truth[:, 2] = np.arange(40) < multilabel.LEAST_OF_LABEL
    limits = multilabel.fit_thresholds(truth, p)
    assert limits[:2].tolist() == [0.5, 0.5]
    assert limits[2] != 0.5


def test_figures_at_thresholds_are_those_of_val_and_of_test() -> None:
    val, test = sample(60, 0), sample(30, 1)
    found = multilabel.calibrate({"val": val, "test": test}, NAMES, None)
    limits = multilabel.fit_thresholds(*val)
    assert found.thresholds == dict(zip(NAMES, limits, strict=True))
    for split, (truth, p) in (("val", val), ("test", test)):
        at = found.splits[split].details["at_threshold"]
        assert at["macro_f1"] == pytest.approx(f1_score(truth, p >= limits, average="macro"))
        assert at["micro_f1"] == pytest.approx(f1_score(truth, p >= limits, average="micro"))
        assert at["exact_match"] == pytest.approx((truth == (p >= limits)).all(axis=1).mean())


def test_each_fold_is_judged_at_the_thresholds_of_the_others() -> None:
    truth, p = sample(60, 0)
    folds = np.arange(60) % 3
    guess = np.empty(truth.shape, bool)
    for fold in range(3):
        others = folds != fold
        guess[~others] = p[~others] >= multilabel.fit_thresholds(truth[others], p[others])
    found = multilabel.calibrate({"folds": (truth, p)}, NAMES, folds).splits["folds"].details["at_threshold"]
    assert found["macro_f1"] == pytest.approx(f1_score(truth, guess, average="macro"))
    assert found["exact_match"] == pytest.approx((truth == guess).all(axis=1).mean())
