"""numbers.py: what heads make of numbers is scikit-learn's ridge, in any unit and far from 0."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.linear_model import Ridge as Reference

from cache.errors import Unusable
from pipeline.config.head_schema import Knn, Logistic, Ridge
from stages.heads import knn, logistic, ridge
from stages.heads.fitted import Head
from stages.heads.labelled_rows import encode
from stages.metrics.figures import Calibration
from stages.targets.numbers import Numbers
from tests.support.problems import features, in_train, numbers_of, numbers_problem, part, parts, rows, scaled

UNITS = [(1.0, 0.0), (1e-9, 0.0), (1e6, 0.0), (1.0, 1e5), (1e-3, -1e4)]


def fitted(y: np.ndarray) -> Numbers:
    names = list("abcdefgh"[: y.shape[1]])
    return Numbers(names, y.mean(axis=0).tolist(), y.std(axis=0).tolist())


def of_ridge(x: np.ndarray, y: np.ndarray, spec: Ridge, folds: bool = False) -> Head:
    samples = rows(numbers_of(y), parts(len(y)))
    return ridge.fit(spec, features(x), in_train(samples) if folds else samples, fitted(y))


@pytest.mark.parametrize("several", [1, 3])
@pytest.mark.parametrize("alpha", [0.01, 1.0, 300.0])
@pytest.mark.parametrize(("unit", "offset"), UNITS)
def test_predictions_are_those_of_scikit_learn_s_ridge(several: int, alpha: float, unit: float, offset: float) -> None:
    x, y = numbers_problem(several)
    y = unit * (y * np.arange(1, several + 1) ** 3 + offset)  # numbers of other units side by side
    train = part(rows(numbers_of(y), parts(len(y))), "train")
    unit_rows = features(x).unit_rows().take(np.arange(len(x)))
    z = scaled(unit_rows, unit_rows[train])
    expected = Reference(alpha=alpha).fit(z[train], y[train]).predict(z).reshape(y.shape)
    found = of_ridge(x, y, Ridge(alpha=alpha)).predict(x)
    assert (np.abs(found - expected) / y.std(axis=0)).max() < 1e-6


def test_out_of_fold_numbers_are_those_of_scikit_learn_s_ridge_on_the_other_folds() -> None:
    x, y = numbers_problem(2)
    head = of_ridge(x, y, Ridge(alpha=3.0, folds=4), folds=True)
    assert head.out_of_fold is not None
    unit_rows = features(x).unit_rows().take(np.arange(len(x)))
    for fold in range(4):
        inside = head.out_of_fold.folds == fold
        model = Reference(alpha=3.0).fit(scaled(unit_rows[~inside], unit_rows[~inside]), y[~inside])
        expected = model.predict(scaled(unit_rows[inside], unit_rows[~inside]))
        assert np.abs(head.out_of_fold.predictions[inside] - expected).max() < 1e-5


@pytest.mark.parametrize("folds", [False, True])
def test_the_unit_moves_neither_the_penalty_nor_the_losses(folds: bool) -> None:
    x, y = numbers_problem(2)
    one, other = (of_ridge(x, of, Ridge(), folds) for of in (y, y * [1e3, 1e-3] + [7, -7]))
    assert one.chosen["alpha"] == other.chosen["alpha"]
    name = "fold_squared_error" if folds else "val_squared_error"
    assert list(one.chosen[name].values()) == pytest.approx(list(other.chosen[name].values()), abs=2e-6)
    assert np.allclose(one.predict(x) * [1e3, 1e-3] + [7, -7], other.predict(x), rtol=1e-6)


def test_the_penalty_is_the_one_of_the_least_squared_error_on_val() -> None:
    x, y = numbers_problem(2)
    samples, target = rows(numbers_of(y), parts(len(y))), fitted(y)
    head = ridge.fit(Ridge(), features(x), samples, target)
    losses, val = head.chosen["val_squared_error"], part(samples, "val")
    assert min(losses, key=losses.get) == format(head.chosen["alpha"], ".3g")
    wrong = (head.predict(x[val]) - y[val]) / y.std(axis=0)
    assert min(losses.values()) == pytest.approx((wrong**2).mean(), abs=1e-5)
    assert "scale" not in head.chosen


def test_neighbours_give_the_weighted_mean_of_their_numbers() -> None:
    x, y = numbers_problem(2, 60)
    y = y * [1, 1000] + [0, 1e6]
    head = knn.fit(
        Knn(k=5, temperature=0.5), features(x), rows(numbers_of(y), ["train"] * 50 + ["val"] * 10), fitted(y)
    )
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    cosines = (unit[50:] @ unit[:50].T).astype(np.float64)
    for row, cosine in zip(head.predict(x[50:]), cosines, strict=True):
        near = np.argsort(-cosine)[:5]
        assert row == pytest.approx(np.average(y[near], axis=0, weights=np.exp(cosine[near] / 0.5)), rel=1e-5)


def test_a_logistic_head_is_refused_and_names_those_that_can() -> None:
    x, y = numbers_problem(1, 60)
    with pytest.raises(Unusable, match="gives probabilities, and a is a number") as caught:
        logistic.fit(Logistic(C=1.0), features(x), rows(numbers_of(y), parts(60)), fitted(y))
    assert "ridge, knn" in caught.value.hint


WIDE = st.floats(-1e6, 1e6)


@given(arrays(np.float64, (4, 2), elements=WIDE), st.tuples(WIDE, WIDE), st.tuples(*[st.floats(1e-3, 1e6)] * 2))
def test_encoding_predicting_and_scores_are_inverses(
    y: np.ndarray, centre: tuple[float, ...], scale: tuple[float, ...]
) -> None:
    target = Numbers(["a", "b"], centre, scale)
    near = 1e-9 * (np.abs(y) + np.abs(centre) + scale)
    assert (np.abs(target.predict(target.encode(numbers_of(y))) - y) <= near).all()
    assert (np.abs(target.predict(target.scores(y)) - y) <= near).all()
    assert np.array_equal(target.numbers(numbers_of(y)), y)
    assert target.losses(target.encode(numbers_of(y)), y).max() == 0


def test_a_table_says_each_number_by_name_and_its_interval_where_it_is_fitted() -> None:
    said = np.array([[1.0, 10.0], [2.0, 20.0]])
    assert list(Numbers(["a"]).columns(said[:, :1])) == ["predicted"]
    found = Numbers(["a", "b"]).columns(said, Calibration(half_widths={"a": 0.5, "b": 3.0}))
    assert list(found) == ["predicted_a", "low_a", "high_a", "predicted_b", "low_b", "high_b"]
    assert (found["low_a"].tolist(), found["high_b"].tolist()) == ([0.5, 1.5], [13.0, 23.0])


def test_strata_are_fifths_and_equal_numbers_are_together() -> None:
    names = Numbers.strata([json.dumps({"a": float(i // 2)}) for i in range(100)]).names
    members = Numbers.strata([json.dumps({"a": float(i // 2)}) for i in range(100)]).members
    assert [len(of) for of in members.values()] == pytest.approx([20] * 5, abs=2)
    assert all(names[i] == names[i + 1] for i in range(0, 100, 2))
    assert set(Numbers.strata(['{"n": 7.0}'] * 9).members) == {"0"}


def test_y_of_rows_are_numbers_of_mean_0_and_deviation_1() -> None:
    _, y = numbers_problem(3)
    found = encode(rows(numbers_of(y * 100 + 5), parts(len(y))), fitted(y * 100 + 5))
    assert found.mean(axis=0) == pytest.approx(0, abs=1e-12)
    assert found.std(axis=0) == pytest.approx(1)
