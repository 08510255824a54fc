"""labels.py: each label has the regression it would have alone, and what is unknown counts nowhere."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cache.errors import Unusable
from pipeline.config.head_schema import Knn, Logistic, Ridge
from stages.data.manifest import Row
from stages.heads import knn, logistic, ridge
from stages.heads.logistic_solver import Problem
from stages.heads.matrix import Moments, Scaler
from stages.metrics.figures import Calibration
from stages.targets.labels import Labels
from tests.support.problems import features, in_train, labels_of, labels_problem, names, part, parts, rows


def target(n: int) -> Labels:
    return Labels(f"l{i}" for i in range(n))


def rows_of(y: np.ndarray, folds: bool = False) -> list[Row]:
    samples = rows(labels_of(y, target(y.shape[1])), parts(len(y)))
    return in_train(samples) if folds else samples


@pytest.mark.parametrize("unknown", [0.0, 0.3])
def test_a_hundred_labels_are_a_hundred_regressions(unknown: float) -> None:
    """Of its known rows; C multiplies a sum of losses, so their number doesn't count."""
    x, y = labels_problem(100, unknown=unknown)
    wide = x.astype(np.float64)
    scaler = Scaler.from_moments(Moments.of(wide, np.zeros(12)), (12,))
    joint = Problem([wide], y, target(100), scaler).solve(0.1, tolerance=1e-9)
    assert joint is not None
    logits = lambda model, of: ((wide - scaler.mean) * scaler.inverse) @ model.weights[:, of] + model.bias[of]  # noqa: E731
    for label in range(0, 100, 1 if unknown else 5):
        known = np.isfinite(y[:, label])
        alone = Problem([wide[known]], y[known, label].astype(np.intp), names(2), scaler).solve(0.1, tolerance=1e-9)
        assert alone is not None
        assert np.abs(logits(joint, label) - logits(alone, 0)).max() < 1e-5


def test_a_head_of_several_labels_is_one_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logistic, "TOLERANCE", 1e-7)
    x, y = labels_problem(100)
    head = logistic.fit(Logistic(C=0.1), features(x), rows_of(y), target(100))
    for label in (0, 7, 99):
        alone = logistic.fit(Logistic(C=0.1), features(x), rows_of(y[:, [label]]), target(1))
        assert np.abs(head.predict(x)[:, [label]] - alone.predict(x)).max() < 1e-4  # what float32 leaves


@pytest.mark.parametrize("folds", [False, True])
def test_c_has_the_least_loss_of_all_labels_together(folds: bool) -> None:
    x, y = labels_problem(5, 300)
    head = logistic.fit(Logistic(), features(x), rows_of(y, folds), target(5))
    losses = head.chosen["fold_log_loss" if folds else "val_log_loss"]
    assert losses[format(head.chosen["C"], ".3g")] <= min(losses.values()) + logistic.TIE / 40
    assert head.chosen["mix"] == {"logistic": 1.0, "centroid": 0.0}
    if not folds:
        val = part(rows_of(y), "val")
        p = head.predict(x[val])
        loss = -np.log(np.where(y[val] == 1, p, 1 - p)).mean()
        assert losses[format(head.chosen["C"], ".3g")] == pytest.approx(loss, abs=1e-5)


def test_what_stands_where_a_label_is_unknown_changes_no_loss_and_no_gradient() -> None:
    _, y = labels_problem(4, 50, unknown=0.4)
    scores = np.random.default_rng(0).normal(size=y.shape)
    loss, gradient = target(4).errors(scores.copy(), y)
    other = np.where(np.isfinite(y), scores, 99.0)
    assert target(4).errors(other.copy(), y)[0] == loss
    assert np.array_equal(target(4).errors(other.copy(), y)[1], gradient)
    assert not gradient[np.isnan(y)].any()
    p = target(4).predict(scores)
    assert np.array_equal(target(4).losses(y, p), target(4).losses(y, np.where(np.isfinite(y), p, 0.123)))


def test_the_gradient_is_that_of_the_loss() -> None:
    _, y = labels_problem(3, 20, unknown=0.3)
    scores, step = np.random.default_rng(0).normal(size=y.shape), 1e-6
    gradient = target(3).errors(scores.copy(), y)[1]
    for at in np.ndindex(*y.shape):
        moved = np.zeros_like(scores)
        moved[at] = step
        up, down = target(3).errors(scores + moved, y)[0], target(3).errors(scores - moved, y)[0]
        assert (up - down) / (2 * step) == pytest.approx(gradient[at], abs=1e-6)


def test_a_row_that_knows_no_label_changes_no_vote() -> None:
    x, y = labels_problem(3, 200)
    samples = rows_of(y)
    blank = samples[0]._replace(id="f" * 64, label=json.dumps(dict.fromkeys(target(3))), split="train")
    far = -x.mean(axis=0, keepdims=True)  # the nearest gives the weight of one more vote
    one = knn.fit(Knn(k=300, temperature=1.0), features(x), samples, target(3)).predict(x)
    two = knn.fit(Knn(k=300, temperature=1.0), features(np.vstack([x, far])), [*samples, blank], target(3)).predict(x)
    assert np.abs(one - two).max() < 1e-6


def test_neighbours_that_do_not_know_a_label_do_not_vote_on_it() -> None:
    weights = np.array([[1.0, 0.5, 0.25]])
    y = np.array([[[1.0, np.nan], [0.0, 1.0], [np.nan, np.nan]]])
    expected = [(1.0 + 0.5) / (1.5 + 1), (0.5 + 0.5) / (0.5 + 1)]
    assert target(2).vote(weights, y)[0] == pytest.approx(expected)
    assert target(2).vote(weights, np.full((1, 3, 2), np.nan))[0].tolist() == [0.5, 0.5]


@pytest.mark.parametrize("folds", [False, True])
def test_a_knn_head_gives_shares_of_yes(folds: bool) -> None:
    x, y = labels_problem(3, 90, unknown=0.3)
    head = knn.fit(Knn(k=7, temperature=0.5), features(x), rows_of(y, folds), target(3))
    known = part(rows_of(y, folds), "train")
    unit = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float64)
    cosines = unit[:10] @ unit[known].T
    for row, cosine in zip(head.predict(x[:10]), cosines, strict=True):
        near = np.argsort(-cosine)[:7]
        weights, have = np.exp((cosine[near] - cosine.max()) / 0.5), y[known][near]
        there = np.isfinite(have)
        yes = (weights[:, None] * np.where(there, have, 0)).sum(axis=0) + 0.5
        assert row == pytest.approx(yes / ((weights[:, None] * there).sum(axis=0) + 1), abs=1e-5)


def test_figures_are_those_of_known_labels_alone() -> None:
    _, y = labels_problem(4, 120, unknown=0.3)
    labels = labels_of(y, target(4))
    p = np.random.default_rng(0).random(y.shape)
    one, two = (
        target(4).judge((labels, of), [None] * 120, 0).to_json() for of in (p, np.where(np.isfinite(y), p, 0.987))
    )
    assert one == two
    both = [{"val": (labels, of)} for of in (p, np.where(np.isfinite(y), p, 0.987))]
    assert target(4).calibrate(both[0], None).to_json() == target(4).calibrate(both[1], None).to_json()


def test_a_ridge_head_needs_all_labels() -> None:
    x, y = labels_problem(2, 100, unknown=0.1)
    n = int(np.isnan(y).any(axis=1).sum())
    with pytest.raises(Unusable, match=f"{n} images have labels that are unknown; a ridge head") as caught:
        ridge.fit(Ridge(), features(x), rows_of(y), target(2))
    assert "logistic or knn" in caught.value.hint


def test_a_ridge_head_ranks_as_one_of_each_label_does() -> None:
    """The factor from scores to logits is that of all labels together, so only the order is that of one label."""
    x, y = labels_problem(3)
    head = ridge.fit(Ridge(alpha=1.0), features(x), rows_of(y), target(3))
    for label in range(3):
        alone = ridge.fit(Ridge(alpha=1.0), features(x), rows_of(y[:, [label]]), target(1))
        one, two = head.scores(x)[:, label], alone.scores(x)[:, 0]
        assert np.allclose(one / head.chosen["scale"], two / alone.chosen["scale"], rtol=1e-3, atol=1e-3)


MARKS = st.sampled_from([0.0, 1.0, np.nan])


@given(arrays(np.float64, (5, 3), elements=MARKS), arrays(np.float64, (5, 3), elements=st.floats(-30, 30)))
def test_encoding_and_scores_are_inverses(y: np.ndarray, scores: np.ndarray) -> None:
    assert np.array_equal(target(3).encode(labels_of(y, target(3))), y, equal_nan=True)
    assert np.allclose(
        target(3).scores(target(3).predict(scores)), scores, atol=1e-2 * (np.abs(scores).max() > 20) + 1e-5
    )
    assert np.allclose(target(3).predict(target(3).scores(target(3).predict(scores))), target(3).predict(scores))


def test_probabilities_of_0_and_1_have_scores() -> None:
    assert np.isfinite(target(2).scores(np.array([[0.0, 1.0]]))).all()
    assert np.isfinite(target(2).predict(np.array([[-1e9, 1e9]]))).all()


def test_a_label_of_another_table_is_not_known() -> None:
    assert target(2).knows('{"l0": 1}')
    assert target(2).knows("{}")
    assert not target(2).knows('{"l0": 1, "other": 1}')


def test_a_table_says_the_labels_of_at_least_one_half_and_of_their_threshold() -> None:
    p = np.array([[0.5, 0.6], [0.2, 0.4]])
    assert target(2).columns(p)["predicted"] == ["l0;l1", ""]
    found = target(2).columns(p, Calibration(thresholds={"l0": 0.2, "l1": 0.61}))
    assert found["at_threshold"] == ["l0", "l0"]
    assert list(found) == ["predicted", "at_threshold", "p_l0", "p_l1"]
