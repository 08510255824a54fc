"""logistic.py: scikit-learn's own minimum, folded, along a path over C that val ends and refines."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from cache.errors import Unusable
from pipeline.config.head_schema import Logistic
from stages.data.manifest import Row
from stages.heads import logistic, logistic_solver, matrix
from stages.heads.fitted import Head
from stages.heads.logistic_solver import TOLERANCE, Model, Problem
from stages.heads.matrix import FeatureMatrix, OnDisk, Scaler
from stages.metrics.classification import softmax
from stages.targets.soft import Soft
from tests.support.problems import (
    InMemory,
    columns,
    features,
    hard_shares,
    in_train,
    names,
    part,
    problem,
    rows,
    scaled,
)


@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("c", [1e-3, 1.0])
def test_folded_logits_are_scikit_learn_s_decision_function(n_classes: int, c: float) -> None:
    """Both followed to where the gradient vanishes, in float64, on 5,000 rows, so that lanes are many."""
    x, samples = problem(n_classes, n=5000)
    y = columns(samples)
    z, scaler, wide = scaled(x, x), Scaler.of(x, [12]), x.astype(np.float64)
    reference = LogisticRegression(C=c, tol=1e-10, max_iter=10_000).fit(z, y)
    with ThreadPoolExecutor(2) as pool:
        parts = [wide[:1234], wide[1234:]]
        problem_ = Problem(parts, y, names(n_classes), scaler, pool.map)
        found = problem_.solve(c, None, tolerance=1e-9)
    assert len(problem_.lanes) > 1
    assert found is not None
    weights, bias = scaler.fold(found.weights, found.bias)
    expected = reference.decision_function(z).reshape(len(z), -1)
    assert np.abs(x.astype(np.float64) @ weights + bias - expected).max() < 1e-5 * max(1, np.abs(expected).max())


def test_float32_comes_to_the_same_loss() -> None:
    x, samples = problem(4, n=5000)
    y, z = columns(samples), scaled(x, x[:-1])
    reference = LogisticRegression(C=0.1).fit(z, y)
    head = logistic.fit(
        Logistic(C=0.1),
        features(x),
        [row._replace(split="train") for row in samples[:-1]] + [samples[-1]._replace(split="val")],
        names(4),
    )
    assert np.abs(head.predict(x) - reference.predict_proba(z)).max() < 1e-3


def test_one_c_is_not_followed_by_others() -> None:
    x, samples = problem(2)
    head = logistic.fit(Logistic(C=0.25), features(x), samples, names(2))
    assert (head.chosen["C"], list(head.chosen["val_log_loss"])) == (0.25, ["0.25"])


def test_c_is_the_best_on_val_and_the_path_goes_closer_to_it() -> None:
    x, samples = problem(3, signal=0.4)
    head = logistic.fit(Logistic(), features(x), samples, names(3))
    path = {float(c): loss for c, loss in head.chosen["val_log_loss"].items()}
    best = min(path, key=lambda c: path[c])
    assert best == pytest.approx(head.chosen["C"], rel=1e-2)
    coarse = [c for c in path if any(np.isclose(c, grid, rtol=1e-2) for grid in logistic.PATH)]
    assert 3 < len(coarse) < len(logistic.PATH)
    assert len(path) == len(coarse) + 2 * len(logistic.FINER)
    assert min(abs(np.log10(c / best)) for c in path if c != best) == pytest.approx(0.125, abs=0.01)


def test_the_path_ends_when_val_was_worse_twice_running() -> None:
    x, samples = problem(3, signal=0.4)
    head = logistic.fit(Logistic(), features(x), samples, names(3))
    path = {float(c): loss for c, loss in head.chosen["val_log_loss"].items()}
    coarse = [loss for c, loss in path.items() if any(np.isclose(c, grid, rtol=1e-2) for grid in logistic.PATH)]
    assert np.argmin(coarse) == len(coarse) - 3


def test_val_chooses_c_and_nothing_else() -> None:
    """With val rows shuffled another C is best, and the head is what train alone gives at that C."""
    x, samples = problem(2)
    val = part(samples, "val")
    shuffled = x.copy()
    shuffled[val] = np.random.default_rng(0).permutation(x[val])
    head, other = (logistic.fit(Logistic(), features(rows), samples, names(2)) for rows in (x, shuffled))
    assert other.chosen["C"] < head.chosen["C"]
    alone = logistic.fit(Logistic(C=other.chosen["C"]), features(x), samples, names(2))
    assert np.allclose(other.predict(x), alone.predict(x), atol=2e-3)


def test_the_sums_are_the_same_on_any_number_of_threads() -> None:
    x, samples = problem(3, n=5000)
    scaler, found = Scaler.of(x, [12]), []
    for threads in (1, 4):
        with ThreadPoolExecutor(threads) as pool:
            model = Problem([x], columns(samples), names(3), scaler, pool.map).solve(0.1, None)
            assert model is not None
            found.append(model.weights.tobytes())
    assert found[0] == found[1]


def test_too_many_weights_are_refused_before_anything_is_fitted() -> None:
    labels = names(10_000)
    samples = rows([*labels, "c0"], [*["train"] * 10_000, "val"])
    x = np.zeros((10_001, 1280), np.float16)
    with pytest.raises(Unusable, match=r"1,280 features and 10,000 classes has 12,800,000 weights") as caught:
        logistic.fit(Logistic(), features(x), samples, labels)
    assert "kind: knn, ridge" in caught.value.hint


@pytest.mark.parametrize("dim", [12, 400])
def test_where_val_chooses_the_problem_is_set_up_once(dim: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scaling and rotation cost as much as a few solutions; with 400 features the rows are few, and rotated."""
    made: list[int] = []

    class Counted(logistic.Problem):
        def __init__(self, *arguments: Any) -> None:
            made.append(0)
            super().__init__(*arguments)

    monkeypatch.setattr(logistic, "Problem", Counted)
    x, samples = problem(2, n=120)
    x = np.hstack([x, np.random.default_rng(0).normal(size=(120, dim - 12)).astype(np.float32)])
    head = logistic.fit(Logistic(), features(x), samples, names(2))
    assert len(made) == 1
    assert (head.predict(x).argmax(axis=1) == columns(samples)).mean() > 0.7


def test_the_head_comes_about_by_the_steps_that_folds_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    """On separable rows a solution is near enough long before the minimum, so where it starts decides which it is."""
    steps: list[tuple[Problem, float, bool]] = []
    solve = Problem.solve

    def noted(self: Problem, c: float, start: Model | None = None, tolerance: float = TOLERANCE) -> Model | None:
        steps.append((self, c, start is None))
        return solve(self, c, start, tolerance)

    monkeypatch.setattr(Problem, "solve", noted)
    x, samples = problem(3, n=120, signal=8.0)
    head = logistic.fit(Logistic(choose="folds"), features(x), in_train(samples), names(3))
    of_head = [(c, fresh) for of, c, fresh in steps if of is steps[-1][0]]
    of_fold = [(c, fresh) for of, c, fresh in steps if of is steps[0][0]]
    assert [fresh for _, fresh in of_head] == [True] + [False] * (len(of_head) - 1)
    assert of_head[-1][0] == head.chosen["C"]
    assert len(of_head) > 3
    assert {*of_head} <= {*of_fold}


def wide(n_classes: int, n: int) -> tuple[np.ndarray, list[Row]]:
    """40 features, so that the lengths of rows and the nearest centroid count, as float16."""
    x, samples = problem(n_classes, n)
    noise = np.random.default_rng(1).normal(size=(n, 28))
    return np.hstack([x, noise]).astype(np.float16), samples


def both_ways(
    monkeypatch: pytest.MonkeyPatch, spec: Logistic, x: np.ndarray, samples: Sequence[Row], target: Any
) -> tuple[Head, Head, int]:
    """The head from rows in memory, the head from rows on the disk, and the most rows that were read at once for it."""
    monkeypatch.setattr(matrix, "BLOCK_BYTES", 4 * x.shape[1] * 700)
    monkeypatch.setattr(logistic_solver, "BLOCK_BYTES", 4 * x.shape[1] * 700)
    loaded = logistic.fit(spec, features(x), samples, target)
    monkeypatch.setattr(logistic_solver, "MEMORY_SHARE", 0)
    source = InMemory(x)
    return loaded, logistic.fit(spec, FeatureMatrix([source]), samples, target), max(source.taken)


@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("choose", ["val", "folds"])
def test_rows_on_the_disk_give_the_same_head_to_the_last_bit(
    monkeypatch: pytest.MonkeyPatch, n_classes: int, choose: str
) -> None:
    """Else a key would stand for two heads, by the memory of the machine that fitted one."""
    x, samples = wide(n_classes, 5000)
    samples = in_train(samples) if choose == "folds" else samples
    spec = Logistic(choose=choose)
    loaded, streamed, most = both_ways(monkeypatch, spec, x, samples, names(n_classes))
    assert most == 700
    assert streamed.to_files() == loaded.to_files()
    if choose == "folds":
        assert streamed.out_of_fold.predictions.tobytes() == loaded.out_of_fold.predictions.tobytes()


def test_shares_of_classes_on_the_disk_give_the_same_probabilities(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums of shares are products of matrices, whose last bits depend on how many rows there are."""
    x, samples = wide(3, 3000)
    target = Soft(names(3))
    loaded, streamed, most = both_ways(monkeypatch, Logistic(), x, hard_shares(samples, names(3)), target)
    assert most == 700
    assert np.abs(streamed.predict(x) - loaded.predict(x)).max() < 1e-6


def test_the_minimum_over_rows_on_the_disk_is_scikit_learn_s(monkeypatch: pytest.MonkeyPatch) -> None:
    """Followed to where float32 gives no more digits."""
    x, samples = problem(4, n=5000)
    y, z, scaler = columns(samples), scaled(x, x), Scaler.of(x, [12])
    monkeypatch.setattr(logistic_solver, "BLOCK_BYTES", 4 * 12 * 700)
    rows = OnDisk(features(x), np.arange(len(x)), np.zeros(12))
    found, alike = (Problem([part], y, names(4), scaler).solve(0.1, None, 1e-7) for part in (rows, x))
    assert found is not None
    assert alike is not None
    assert found.weights.tobytes() == alike.weights.tobytes()
    weights, bias = scaler.fold(found.weights, found.bias)
    p = LogisticRegression(C=0.1, tol=1e-10, max_iter=10_000).fit(z, y).predict_proba(z)
    assert np.abs(softmax(x.astype(np.float64) @ weights + bias) - p).max() < 1e-3


def test_few_rows_are_in_memory_however_little_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 20 rows with 80 features, the heads of folds are fitted to coordinates of their span."""
    x, samples = problem(2, n=24)
    x = np.hstack([x, np.random.default_rng(0).normal(size=(24, 84)).astype(np.float32)])
    loaded, streamed, _ = both_ways(monkeypatch, Logistic(choose="folds"), x, in_train(samples), names(2))
    assert streamed.to_files() == loaded.to_files()
