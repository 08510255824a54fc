"""soft.py: shares of 0 and 1 are classes, to the last bit, and others are what the loss is against."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pipeline.config.head_schema import Knn, Logistic, Ridge
from stages.data.cells import Cells
from stages.heads import knn, logistic, ridge
from stages.heads.labelled_rows import encode
from stages.metrics import classification
from stages.targets.classes import Classes
from stages.targets.evaluate import evaluate_splits
from stages.targets.labels import Labels
from stages.targets.soft import Soft
from stages.targets.target import Target
from tests.support.problems import features, hard_shares, in_train, names, part, problem, rows, shares_of

HEADS = {"logistic": (logistic.fit, Logistic()), "ridge": (ridge.fit, Ridge()), "knn": (knn.fit, Knn())}


@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("folds", [False, True], ids=["val", "folds"])
@pytest.mark.parametrize("kind", HEADS)
def test_shares_of_0_and_1_are_classes_to_the_last_bit(kind: str, folds: bool, n_classes: int) -> None:
    x, samples = problem(n_classes, 160, signal=0.5)
    hard = names(n_classes)
    samples = [row._replace(split="train") if folds and row.split == "val" else row for row in samples]
    fit, spec = HEADS[kind]
    one = fit(spec, features(x), samples, hard)
    two = fit(spec, features(x), hard_shares(samples, hard), Soft(hard))
    files, others = one.to_files(), two.to_files()
    assert files["head.npz"] == others["head.npz"]
    text, other = json.loads(files["head.json"]), json.loads(others["head.json"])
    assert other.pop("target") == {"kind": "soft"}
    assert text | {"schema": 0} == other | {"schema": 0}
    p = one.predict(x)
    assert np.array_equal(p, two.predict(x))
    out = None
    if folds:
        assert one.out_of_fold is not None
        assert two.out_of_fold is not None
        assert np.array_equal(one.out_of_fold.predictions, two.out_of_fold.predictions)
        p[part(samples, "train")] = one.out_of_fold.predictions
        out = one.out_of_fold.folds
    metrics = evaluate_splits(samples, p, hard, 0, out).to_json()
    assert evaluate_splits(hard_shares(samples, hard), p, Soft(hard), 0, out).to_json() == metrics


def test_two_models_are_compared_as_of_classes() -> None:
    _, samples = problem(3, 80)
    a, b = np.random.default_rng(0).dirichlet(np.ones(3), (2, 80))
    groups = [str(i // 4) for i in range(80)]

    def compared(target: Classes, some: list[Any]) -> list[Any]:
        found = target.compare([row.label or "" for row in some], a, b, groups)
        return [found[0].to_json(), found[1].to_json(), json.dumps(found[2].to_json(), default=vars)]

    assert compared(names(3), samples) == compared(Soft(names(3)), hard_shares(samples, names(3)))


def test_a_logistic_head_on_shares_is_one_on_rows_of_that_weight() -> None:
    """Two copies of each image, of one class each, are one image with half of both."""
    x, samples = problem(3, 90)
    other = [f"c{(int((row.label or 'c0')[1:]) + i % 2) % 3}" for i, row in enumerate(samples)]
    halves = np.zeros((90, 3))
    for label in ([row.label or "" for row in samples], other):
        halves[np.arange(90), [int(name[1:]) for name in label]] += 0.5
    soft = [row._replace(label=shares_of(share, names(3))) for row, share in zip(samples, halves, strict=True)]
    twice = rows([*(row.label or "" for row in samples), *other], [row.split or "" for row in samples] * 2)
    one = logistic.fit(Logistic(C=0.1), features(x), soft, Soft(names(3)))
    two = logistic.fit(Logistic(C=0.05), features(np.vstack([x, x])), twice, names(3))
    assert np.abs(one.predict(x) - two.predict(x)).max() < 5e-3


def test_the_gradient_is_that_of_the_loss() -> None:
    rng, step = np.random.default_rng(0), 1e-6
    for k in (2, 3):
        target, y = Soft(names(k)), rng.dirichlet(np.ones(k), 6)
        scores = rng.normal(size=(6, target.outputs))
        loss, gradient = target.errors(scores.copy(), y)
        assert loss == pytest.approx(target.losses(y, target.predict(scores)).sum())
        for at in np.ndindex(*scores.shape):
            moved = np.zeros_like(scores)
            moved[at] = step
            up, down = target.errors(scores + moved, y)[0], target.errors(scores - moved, y)[0]
            assert (up - down) / (2 * step) == pytest.approx(gradient[at], abs=1e-6)


def test_a_knn_head_adds_the_shares_of_neighbours() -> None:
    target = Soft(names(2))
    y = np.array([[[0.5, 0.5], [0.2, 0.8]]])
    votes = np.array([1 * 0.5 + 0.5 * 0.2, 1 * 0.5 + 0.5 * 0.8]) + 0.5
    assert target.vote(np.array([[1.0, 0.5]]), y)[0] == pytest.approx(votes / votes.sum())


def test_losses_are_against_shares_and_other_figures_against_the_largest() -> None:
    rng = np.random.default_rng(0)
    shares, p = rng.dirichlet(np.ones(3), (2, 50))
    labels, target = [shares_of(share, names(3)) for share in shares], Soft(names(3))
    found = target.figures((labels, p)).values
    hard = classification.metrics([names(3)[i] for i in shares.argmax(axis=1)], p, names(3)).values
    assert found["log_loss"] == pytest.approx(-(shares * np.log(p)).sum(axis=1).mean())
    assert found["brier"] == pytest.approx(((shares - p) ** 2).sum(axis=1).mean())
    assert {n: v for n, v in found.items() if n not in ("log_loss", "brier")} == {
        n: v for n, v in hard.items() if n not in ("log_loss", "brier")
    }


def test_a_tie_goes_to_the_first_class() -> None:
    for order in (["a", "b"], ["b", "a"]):
        target = Soft(order)
        found = target.judge((['{"a": 0.5, "b": 0.5}'] * 3, np.full((3, 2), 0.5)), [None] * 3, 0)
        assert found.values["accuracy"] == 1
        assert found.details["per_class"][order[0]]["support"] == 3
        assert target.columns(np.full((1, 2), 0.5))["predicted"] == order[:1]


def test_shares_that_nearly_sum_to_1_are_divided_by_their_sum() -> None:
    cells = Cells("soft", ["a", "b", "c"])
    label = cells.label(dict.fromkeys("abc", "0.3333"))
    assert label is not None
    assert Soft("abc").shares([label])[0] == pytest.approx([1 / 3] * 3, abs=1e-15)
    assert Soft("abc").encode([label]).sum() == pytest.approx(1, abs=1e-15)


@given(arrays(np.float64, (4, 3), elements=st.floats(0.01, 1)))
def test_encoding_and_scores_are_inverses(weights: np.ndarray) -> None:
    shares = weights / weights.sum(axis=1, keepdims=True)
    target = Soft(names(3))
    assert np.array_equal(encode(rows([shares_of(s, target) for s in shares], ["train"] * 4), target), shares)
    assert np.allclose(target.predict(target.scores(shares)), shares, atol=1e-12)
    two = Soft(names(2))
    halves = shares[:, :2] / shares[:, :2].sum(axis=1, keepdims=True)
    assert np.allclose(two.predict(two.scores(halves)), halves, atol=1e-12)


@given(st.lists(st.integers(0, 2), min_size=1, max_size=6))
def test_classes_are_encoded_as_columns_and_scores_are_inverses(columns: list[int]) -> None:
    target = names(3)
    assert target.encode([target[i] for i in columns]).tolist() == columns
    assert Soft(target).encode([shares_of(np.eye(3)[i].tolist(), target) for i in columns]).tolist() == columns
    p = np.random.default_rng(0).dirichlet(np.ones(3), 5)
    assert np.allclose(target.predict(target.scores(p)), p, atol=1e-12)


def test_of_folds_too_a_head_learns_from_shares() -> None:
    x, samples = problem(2, 120)
    soft = [
        row._replace(label=shares_of([0.9, 0.1] if row.label == "c0" else [0.2, 0.8], names(2)))
        for row in in_train(samples)
    ]
    for fit, spec in HEADS.values():
        head = fit(spec, features(x), soft, Soft(names(2)))
        assert head.out_of_fold is not None
        p = head.out_of_fold.predictions
        first = np.array([row.label == "c0" for row in samples])
        assert p[first, 0].mean() > 0.5 > p[~first, 0].mean()


def test_shares_of_its_classes_are_known_and_a_class_by_itself_is_not() -> None:
    target = Soft(["a", "b"])
    assert target.knows('{"a": 0.25, "b": 0.75}')
    assert not target.knows('{"a": 0.25, "c": 0.75}')
    assert not target.knows("a")


@pytest.mark.parametrize("target", [Classes(["a", "b"]), Soft(["a", "b"]), Labels(["a", "b"])], ids=lambda t: t.kind)
def test_scores_beyond_all_numbers_have_a_gradient_without_a_warning(target: Target) -> None:
    y = np.array([0, 1]) if target.kind == "classes" else np.array([[1.0, 0.0], [0.0, 1.0]])
    for dtype, far in ((np.float32, 200.0), (np.float64, 2000.0)):
        scores = np.tile(np.array([[-far], [far]], dtype), (1, target.outputs))
        lost, gradient = target.errors(scores.copy(), y)
        assert lost == (far * 2 if target.kind == "labels" else 0)
        expected = [[-1, 0], [1, 0]] if target.kind == "labels" else [[0], [0]]
        assert (gradient.dtype, gradient.tolist()) == (np.dtype(dtype), expected)
