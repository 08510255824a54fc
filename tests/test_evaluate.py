"""stages/evaluate.py: the figures are those of scikit-learn, and None where there is nothing to say."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn import metrics as sk

from stages import evaluate

LABELS = ["a", "b", "b", "a", "b", "a", "a", "b"]
P = np.array([0.1, 0.9, 0.6, 0.4, 0.3, 0.2, 0.7, 0.8])


def binary() -> dict[str, float | int | None]:
    return evaluate.metrics(LABELS, np.stack([1 - P, P], axis=1), ("a", "b"))


def test_binary_figures_are_those_of_scikit_learn() -> None:
    truth = np.array([label == "b" for label in LABELS])
    guess = P > 0.5
    expected = {
        "n": 8,
        "accuracy": sk.accuracy_score(truth, guess),
        "balanced_accuracy": sk.balanced_accuracy_score(truth, guess),
        "macro_f1": sk.f1_score(truth, guess, average="macro"),
        "auroc": sk.roc_auc_score(truth, P),
        "average_precision": sk.average_precision_score(truth, P),
        "log_loss": sk.log_loss(truth, P),
        "brier": sk.brier_score_loss(truth, P),
    }
    found = binary()
    assert {name: found[name] for name in expected} == pytest.approx(expected)


def test_multiclass_figures_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    p = rng.dirichlet((1, 1, 1), 60)
    truth = rng.integers(0, 3, 60)
    found = evaluate.metrics([("x", "y", "z")[i] for i in truth], p, ("x", "y", "z"))
    assert found["auroc"] == pytest.approx(sk.roc_auc_score(truth, p, multi_class="ovr"))
    assert found["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(truth, p.argmax(1)))
    assert found["log_loss"] == pytest.approx(sk.log_loss(truth, p))


def test_ece_of_a_known_case() -> None:
    """Eight guesses at 0.9 confidence, six right: off by 0.15."""
    p = np.tile([0.1, 0.9], (8, 1))
    found = evaluate.metrics(["b"] * 6 + ["a"] * 2, p, ("a", "b"))
    assert found["ece"] == pytest.approx(0.15)


def test_no_rows_have_no_figures() -> None:
    found = evaluate.metrics([], np.empty((0, 2)), ("a", "b"))
    assert found.pop("n") == 0
    assert set(found.values()) == {None}
    assert len(found) == 8


def test_a_lacking_class_leaves_ranking_figures_out() -> None:
    found = evaluate.metrics(["a", "a"], np.array([[0.9, 0.1], [0.2, 0.8]]), ("a", "b"))
    assert (found["auroc"], found["average_precision"], found["accuracy"]) == (None, None, 0.5)


def test_a_certain_mistake_has_a_finite_loss() -> None:
    assert math.isfinite(evaluate.log_loss(np.array([0]), np.array([[0.0, 1.0]])))
