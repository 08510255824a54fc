"""paired_tests.py: the difference of two models on the same rows, and whether chance would make it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from stages.metrics import classification, paired_tests
from stages.metrics.figures import Figure

CLASSES = ("a", "b")


@pytest.mark.parametrize(("only_a", "only_b"), [(1, 0), (3, 9), (9, 3), (20, 20), (0, 12)])
def test_mcnemar_is_the_binomial_test_of_scipy(only_a: int, only_b: int) -> None:
    a = np.array([True] * only_a + [False] * only_b + [True] * 30 + [False] * 7)
    b = np.array([False] * only_a + [True] * only_b + [True] * 30 + [False] * 7)
    found = paired_tests.mcnemar(a, b)
    assert (found["only_a"], found["only_b"]) == (only_a, only_b)
    assert found["p_value"] == binomtest(only_a, only_a + only_b).pvalue


def test_models_that_agree_on_every_row_have_p_one() -> None:
    right = np.array([True, False])
    assert paired_tests.mcnemar(right, right) == {"only_a": 0, "only_b": 0, "p_value": 1.0}


def models(n: int, flips: int, seed: int = 0) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Labels, and two models of which b has `flips` of a's mistakes right."""
    rng = np.random.default_rng(seed)
    positive = rng.random(n) < 0.5
    sure = np.where(rng.random(n) < 0.7, 0.8, 0.4)
    better = sure.copy()
    better[np.flatnonzero(sure < 0.5)[:flips]] = 0.8
    a, b = (np.where(positive, p, 1 - p) for p in (sure, better))
    labels = ["b" if one else "a" for one in positive]
    return labels, np.stack([1 - a, a], axis=1), np.stack([1 - b, b], axis=1)


def test_the_difference_is_that_of_the_figures_and_lies_in_its_interval() -> None:
    labels, a, b = models(200, 20)
    before, after, found = paired_tests.compare(labels, a, b, CLASSES, [None] * 200)
    for name in classification.NAMES:
        assert found.figures[name].value == after.values[name] - before.values[name]
    low, high = found.figures["accuracy"].ci
    assert 0 < low < 0.1 < high < 0.2
    assert found.mcnemar == {"only_a": 0, "only_b": 20, "p_value": binomtest(0, 20).pvalue}


def test_the_same_model_twice_differs_by_nothing() -> None:
    labels, a, _ = models(50, 0)
    _, _, found = paired_tests.compare(labels, a, a, CLASSES, [None] * 50)
    assert {difference.value for difference in found.figures.values()} == {0}
    assert [difference.ci for difference in found.figures.values()] == [[0, 0]] * 8


def test_groups_widen_the_interval_of_a_difference() -> None:
    """The twenty rows in which they differ are two groups, not twenty."""
    labels, a, b = models(200, 20)
    differ = (a != b).any(axis=1)
    alone = paired_tests.compare(labels, a, b, CLASSES, [None] * 200)[2].figures["accuracy"].ci
    numbers = np.where(differ, np.cumsum(differ) % 2, 2 + np.arange(200) // 10)
    grouped = paired_tests.compare(labels, a, b, CLASSES, [str(i) for i in numbers])[2].figures["accuracy"].ci
    assert grouped[1] - grouped[0] > 1.5 * (alone[1] - alone[0])


def test_a_lacking_class_has_no_difference_in_auroc() -> None:
    _, a, b = models(30, 3)
    _, _, found = paired_tests.compare(["a"] * 30, a, b, CLASSES, [None] * 30)
    assert found.figures["auroc"] == Figure(None, None)
