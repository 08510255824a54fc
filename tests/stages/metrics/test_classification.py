"""classification.py: the figures are those of scikit-learn, and None where there is nothing to say."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn import metrics as sk

from stages.metrics import classification
from stages.metrics.figures import Figures

LABELS = ["a", "b", "b", "a", "b", "a", "a", "b"]
P = np.array([0.1, 0.9, 0.6, 0.4, 0.3, 0.2, 0.7, 0.8])


def binary() -> Figures:
    return classification.metrics(LABELS, np.stack([1 - P, P], axis=1), ("a", "b"))


def test_binary_figures_are_those_of_scikit_learn() -> None:
    truth = np.array([label == "b" for label in LABELS])
    guess = P > 0.5
    expected = {
        "accuracy": sk.accuracy_score(truth, guess),
        "balanced_accuracy": sk.balanced_accuracy_score(truth, guess),
        "macro_f1": sk.f1_score(truth, guess, average="macro"),
        "auroc": sk.roc_auc_score(truth, P),
        "average_precision": sk.average_precision_score(truth, P),
        "log_loss": sk.log_loss(truth, P),
        "brier": sk.brier_score_loss(truth, P),
    }
    found = binary()
    assert {name: found.values[name] for name in expected} == pytest.approx(expected)


def test_multiclass_figures_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    p = rng.dirichlet((1, 1, 1), 60)
    truth = rng.integers(0, 3, 60)
    found = classification.metrics([("x", "y", "z")[i] for i in truth], p, ("x", "y", "z"))
    assert found.values["auroc"] == pytest.approx(sk.roc_auc_score(truth, p, multi_class="ovr"))
    assert found.values["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(truth, p.argmax(1)))
    assert found.values["log_loss"] == pytest.approx(sk.log_loss(truth, p))


def test_ece_of_a_known_case() -> None:
    """Eight guesses at 0.9 confidence, six right: off by 0.15."""
    p = np.tile([0.1, 0.9], (8, 1))
    found = classification.metrics(["b"] * 6 + ["a"] * 2, p, ("a", "b"))
    assert found.values["ece"] == pytest.approx(0.15)


def test_no_rows_have_no_figures() -> None:
    found = classification.metrics([], np.empty((0, 2)), ("a", "b"))
    assert found.n == 0
    assert set(found.values.values()) == {None}
    assert len(found.values) == 8


def test_a_lacking_class_leaves_ranking_figures_out() -> None:
    found = classification.metrics(["a", "a"], np.array([[0.9, 0.1], [0.2, 0.8]]), ("a", "b"))
    assert (found.values["auroc"], found.values["average_precision"], found.values["accuracy"]) == (None, None, 0.5)


def test_a_certain_mistake_has_a_finite_loss() -> None:
    assert math.isfinite(classification.log_loss(np.array([0]), np.array([[0.0, 1.0]])))


@pytest.mark.parametrize("decimals", [1, 16])
def test_ranking_figures_are_those_of_scikit_learn_with_and_without_ties(decimals: int) -> None:
    rng = np.random.default_rng(0)
    for k in (2, 3):
        p = np.round(rng.dirichlet(np.ones(k), 70), decimals)
        truth = rng.integers(0, k, 70)
        classes = [f"c{i}" for i in range(k)]
        found = classification.metrics([classes[i] for i in truth], p, classes)
        one_hot, columns = (truth, p[:, 1]) if k == 2 else (np.eye(k)[truth], p)
        assert found.values["auroc"] == pytest.approx(sk.roc_auc_score(one_hot, columns))
        assert found.values["average_precision"] == pytest.approx(sk.average_precision_score(one_hot, columns))


def test_details_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    p, truth, classes = rng.dirichlet((1, 1, 1), 60), rng.integers(0, 3, 60), ("x", "y", "z")
    found = classification.details([classes[i] for i in truth], p, classes, [None] * 60)
    guess = p.argmax(axis=1)
    assert found["confusion"] == sk.confusion_matrix(truth, guess).tolist()
    precision, recall, f1, support = sk.precision_recall_fscore_support(truth, guess)
    for c, name in enumerate(classes):
        expected = {
            "precision": precision[c],
            "recall": recall[c],
            "f1": f1[c],
            "support": support[c],
            "auroc": sk.roc_auc_score(truth == c, p[:, c]),
        }
        assert found["per_class"][name] == pytest.approx(expected)
    assert "per_group" not in found


def test_a_class_that_is_neither_there_nor_guessed_has_no_figures_of_its_own() -> None:
    found = classification.details(["a", "b"], np.array([[0.8, 0.2, 0], [0.3, 0.7, 0]]), ("a", "b", "c"), [None] * 2)
    assert found["per_class"]["c"] == {"precision": None, "recall": None, "f1": None, "support": 0, "auroc": None}
    assert found["confusion"] == [[1, 0, 0], [0, 1, 0], [0, 0, 0]]


def test_groups_have_their_own_accuracy() -> None:
    found = classification.details(
        LABELS, np.stack([1 - P, P], axis=1), ("a", "b"), ["g", "g", "h", None, "h", "h", "h", None]
    )
    assert found["per_group"] == {"g": {"n": 2, "accuracy": 1.0}, "h": {"n": 4, "accuracy": 0.5}}


def test_no_rows_have_details_of_nothing() -> None:
    found = classification.details([], np.empty((0, 2)), ("a", "b"), [])
    assert found["confusion"] == [[0, 0], [0, 0]]
    assert {figure for figures in found["per_class"].values() for figure in figures.values()} == {None, 0}


def test_ten_thousand_classes_have_figures_but_no_confusion_matrix_and_no_ranking() -> None:
    k, n = 10_000, 300
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(k), n)
    classes = [f"c{i}" for i in range(k)]
    labels = [classes[i] for i in rng.integers(0, k, n)]
    figures, found = classification.metrics(labels, p, classes), classification.details(labels, p, classes, [None] * n)
    assert figures.values["accuracy"] == 0
    assert figures.values["auroc"] is None
    assert found["confusion"] is None
    assert len(found["per_class"]) == k
