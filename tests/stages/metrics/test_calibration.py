"""calibration.py: fitted on val only, no guess changed, and never worse there."""

from __future__ import annotations

import re

import numpy as np
import pytest
from sklearn import metrics as sk

from stages.metrics import calibration, classification


def logits(k: int, n: int, heat: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(truth, probabilities) of a model that is `heat` times too sure of itself."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, k)) * 2
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    truth = (rng.random((n, 1)) > p.cumsum(axis=1)).sum(axis=1)
    return np.minimum(truth, k - 1), calibration.apply_temperature(p, 1 / heat)


@pytest.mark.parametrize("k", [2, 5])
@pytest.mark.parametrize("heat", [0.5, 1.0, 3.0])
def test_the_temperature_is_found_again(k: int, heat: float) -> None:
    truth, p = logits(k, 4000, heat)
    assert calibration.fit_temperature(truth, p) == pytest.approx(heat, rel=0.1)


@pytest.mark.parametrize("seed", range(10))
def test_it_never_raises_the_log_loss_of_val_and_changes_no_guess_nor_order(seed: int) -> None:
    truth, p = logits(2, 40, 1.0 + seed / 5, seed)
    after = calibration.apply_temperature(p, calibration.fit_temperature(truth, p))
    assert classification.log_loss(truth, after) <= classification.log_loss(truth, p)
    assert np.array_equal(after.argmax(axis=1), p.argmax(axis=1))
    assert sk.roc_auc_score(truth, after[:, 1]) == sk.roc_auc_score(truth, p[:, 1])


def test_no_temperature_beats_it() -> None:
    truth, p = logits(3, 200, 2.0)
    best = classification.log_loss(truth, calibration.apply_temperature(p, calibration.fit_temperature(truth, p)))
    assert all(
        classification.log_loss(truth, calibration.apply_temperature(p, t)) >= best - 1e-9
        for t in np.linspace(0.1, 10, 300)
    )


def test_a_model_without_a_mistake_stays_within_bounds() -> None:
    p = np.tile([0.8, 0.2], (20, 1))
    assert calibration.fit_temperature(np.zeros(20, int), p) == pytest.approx(0.1, rel=1e-3)


def test_certain_predictions_stay_finite() -> None:
    after = calibration.apply_temperature(np.array([[1.0, 0.0], [0.0, 1.0]]), 2.0)
    assert np.isfinite(after).all()
    assert np.allclose(after.sum(axis=1), 1)


def test_no_threshold_has_a_better_balanced_accuracy() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        scores = np.round(rng.random(30), 1)
        positive = rng.random(30) < scores
        positive[:2] = (True, False)
        found = calibration.fit_threshold(positive, scores)
        assert found is not None
        every = [sk.balanced_accuracy_score(positive, scores >= t) for t in np.linspace(0, 1.01, 102)]
        assert sk.balanced_accuracy_score(positive, scores >= found) == pytest.approx(max(every))


def test_of_equally_good_thresholds_the_one_nearest_to_a_half_is_taken() -> None:
    scores, positive = np.array([0.1, 0.3, 0.6, 0.9]), np.array([False, False, True, True])
    assert calibration.fit_threshold(positive, scores) == pytest.approx(0.45)


def test_neighbouring_scores_can_be_told_apart() -> None:
    scores = np.array([0.3, np.nextafter(0.3, 1)])
    found = calibration.fit_threshold(np.array([False, True]), scores)
    assert (scores >= found).tolist() == [False, True]


def test_one_class_has_no_threshold() -> None:
    assert calibration.fit_threshold(np.array([True, True]), np.array([0.2, 0.8])) is None


def given(k: int = 2) -> dict[str, calibration.Rows]:
    splits = {}
    for split, n, seed in (("val", 60, 0), ("test", 80, 1)):
        truth, p = logits(k, n, 3.0, seed)
        splits[split] = ([f"c{i}" for i in truth], p)
    return splits


def test_test_rows_decide_nothing() -> None:
    """Spoil the labels of test, and temperature and threshold are the same; spoil those of val, and they are not."""
    plain = calibration.fit_calibration(given(), ("c0", "c1"))
    for split, same in (("test", True), ("val", False)):
        splits = given()
        labels, p = splits[split]
        splits[split] = (labels[::-1], p)
        spoiled = calibration.fit_calibration(splits, ("c0", "c1"))
        assert (spoiled.temperature == plain.temperature) is same
        assert (spoiled.threshold == plain.threshold) is same


def test_figures_after_it_are_those_of_scikit_learn() -> None:
    splits = given()
    found = calibration.fit_calibration(splits, ("c0", "c1"))
    labels, p = splits["test"]
    truth, after = np.array(labels) == "c1", calibration.apply_temperature(p, found.temperature)
    guess = p[:, 1] >= found.threshold
    assert found.splits["test"].n == 80
    assert found.splits["test"].values["log_loss"] == pytest.approx(sk.log_loss(truth, after[:, 1]))
    assert found.splits["test"].values["brier"] == pytest.approx(sk.brier_score_loss(truth, after[:, 1]))
    assert found.splits["test"].details["at_threshold"] == pytest.approx(
        {
            "accuracy": sk.accuracy_score(truth, guess),
            "balanced_accuracy": sk.balanced_accuracy_score(truth, guess),
            "f1": sk.f1_score(truth, guess),
        }
    )


def test_more_classes_have_a_temperature_and_no_threshold() -> None:
    found = calibration.fit_calibration(given(4), ("c0", "c1", "c2", "c3"))
    assert found.temperature > 1.5
    assert (found.threshold, found.splits["val"].details["at_threshold"]) == (None, None)


@pytest.mark.parametrize(
    ("n", "positive", "notes"),
    [
        (49, 24, ["no temperature: 50 images in val are needed; there are 49"]),
        (60, 19, ["no threshold: 20 images of each class in val are needed; there are 41 of c0, 19 of c1"]),
        (2, 1, ["no temperature: 50 .* are 2", "no threshold: .* there are 1 of c0, 1 of c1"]),
        (60, 20, []),
    ],
)
def test_too_few_images_in_val_fit_nothing_and_say_how_many_are_needed(n: int, positive: int, notes: list[str]) -> None:
    labels = ["c1"] * positive + ["c0"] * (n - positive)
    p = np.random.default_rng(0).dirichlet([2, 2], n)
    found = calibration.fit_calibration({"val": (labels, p), "test": (labels, p)}, ("c0", "c1"))
    assert found.notes is not None
    assert len(found.notes) == len(notes)
    assert all(re.fullmatch(expected, note) for expected, note in zip(notes, found.notes, strict=True))
    assert (found.temperature is None) == (n < 50)
    assert (found.threshold is None) == (positive < 20)


def test_a_fit_at_a_limit_is_described() -> None:
    labels, right = ["c0", "c1"] * 30, np.array([[0.9, 0.1], [0.1, 0.9]] * 30)
    found = calibration.fit_calibration({"val": (labels, right)}, ("c0", "c1"))
    assert calibration.describe_limits(found) == ["the temperature is at its limit, 0.1: confidence means little"]
    found = calibration.fit_calibration({"val": (labels, right[::-1])}, ("c0", "c1"))
    assert [text.split(":")[0] for text in calibration.describe_limits(found)] == [
        "the temperature is at its limit, 10",
        "the threshold is at its limit, 0",
    ]


@pytest.mark.parametrize("empty", ["val", "test"])
def test_an_empty_split_has_no_figures(empty: str) -> None:
    splits = given()
    splits[empty] = ([], np.empty((0, 2)))
    found = calibration.fit_calibration(splits, ("c0", "c1"))
    assert (found.temperature is None) is (empty == "val")
    assert found.splits[empty].values["log_loss"] is None
    assert found.splits[empty].n == 0


def test_many_probabilities_are_fitted_on_some_rows_and_judged_on_all(monkeypatch: pytest.MonkeyPatch) -> None:
    truth, p = logits(3, 3000, 2.0)
    labels = [f"c{i}" for i in truth]
    whole = calibration.fit_calibration({"val": (labels, p)}, ("c0", "c1", "c2"))
    monkeypatch.setattr(calibration, "_CELLS", 3001)
    some = calibration.fit_calibration({"val": (labels, p)}, ("c0", "c1", "c2"))
    assert some.temperature != whole.temperature
    assert some.temperature == pytest.approx(whole.temperature, rel=0.1)
    after = classification.metrics(labels, calibration.apply_temperature(p, some.temperature), ("c0", "c1", "c2"))
    assert some.splits["val"].n == after.n
    assert some.splits["val"].values == pytest.approx({name: after.values[name] for name in some.splits["val"].values})
