"""selection.py: a choice among many heads is judged by folds that took no part in it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from cache.errors import Diverged, Unusable
from pipeline.config.head_schema import Auto, Knn, Ridge
from stages.data.manifest import Row
from stages.heads import auto, knn, ridge, selection
from stages.heads.fitted import Head, Layer, Layers, OutOfFold
from stages.heads.matrix import FeatureMatrix
from stages.heads.selection import Candidate
from stages.metrics import kfold
from stages.metrics.classification import softmax
from stages.targets.classes import Classes
from tests.support.problems import features, in_train, names, problem

CLASSES = Classes(("c0", "c1"))


def plain(some: FeatureMatrix, of: Sequence[Row]) -> Head:
    """Least squares, judged on three folds: a head that costs nothing."""
    x, y = some.take(np.arange(len(some))).astype(float), np.array([1.0 if row.label == "c1" else -1.0 for row in of])
    x, folds = x - x.mean(axis=0), kfold.assign_folds(of, 3, 0)

    def solve(here: np.ndarray) -> np.ndarray:
        return np.asarray(np.linalg.solve(x[here].T @ x[here] + np.eye(x.shape[1]), x[here].T @ y[here]))

    scores = np.empty(len(y))
    for fold in range(3):
        scores[folds == fold] = x[folds == fold] @ solve(folds != fold)
    weights = solve(np.ones(len(y), dtype=bool))[:, None]
    return Head("ridge", CLASSES, Layers([Layer(weights, np.zeros(1))]), {}, OutOfFold(softmax(scores[:, None]), folds))


ALONE = selection.prefer_first([None] * 100)


def candidates(*arrays: np.ndarray) -> list[Candidate]:
    return [Candidate(features(x), plain) for x in arrays]


def shuffled(n: int, seed: int) -> tuple[np.ndarray, list[Row], np.ndarray]:
    """Features that know nothing of the labels: rows, and whether each is of the second class."""
    x, samples = problem(2, n=n, seed=seed)
    labels = np.random.default_rng(seed).permutation([str(row.label) for row in samples])
    samples = [row._replace(label=str(label)) for row, label in zip(in_train(samples), labels, strict=True)]
    return x, samples, labels == "c1"


def test_the_best_of_many_settings_seems_to_know_shuffled_labels_and_nested_does_not() -> None:
    """32 points, each of a tap of its own: which is the best is luck."""
    flattered, nested = [], []
    for seed in range(6):
        _, samples, truth = shuffled(60, seed)
        several = candidates(*np.random.default_rng(100 + seed).normal(size=(32, 60, 3)).astype(np.float32))
        figures = []
        for one in several:
            found = plain(one.features, samples).out_of_fold
            assert found is not None
            loss = -np.log(np.where(truth, found.predictions[:, 1], found.predictions[:, 0])).mean()
            figures.append((loss, roc_auc_score(truth, found.predictions[:, 1])))
        flattered.append(min(figures)[1])
        judged = selection.nest(Ridge(), several, samples, CLASSES)
        assert judged is not None
        folds = [judged.folds == fold for fold in range(5)]
        nested.append(np.mean([roc_auc_score(truth[fold], judged.predictions[fold, 1]) for fold in folds]))
    assert np.mean(flattered) > 0.6
    assert np.mean(nested) == pytest.approx(0.5, abs=0.07)


def test_each_fold_is_predicted_by_heads_that_saw_nothing_of_it_nor_of_its_groups() -> None:
    x, samples = problem(2, n=90)
    samples = [row._replace(group=f"g{i % 30}") for i, row in enumerate(in_train(samples))]
    seen: list[set[str]] = []

    def fit(some: FeatureMatrix, of: Sequence[Row]) -> Head:
        assert len(some) == len(of) < 90
        seen.append({row.id for row in of})
        return plain(some, of)

    whole = features(x)
    found = selection.nest(Ridge(), [Candidate(whole, fit)] * 2, samples, CLASSES)
    assert found is not None
    folds_of: dict[str | None, set[int]] = {}
    for row, fold in zip(samples, found.folds.tolist(), strict=True):
        folds_of.setdefault(row.group, set()).add(fold)
    assert {len(folds) for folds in folds_of.values()} == {1}
    outside = [{row.id for row, f in zip(samples, found.folds, strict=True) if f != fold} for fold in range(5)]
    assert seen == [ids for ids in outside for _ in range(2)]


def test_the_folds_are_those_that_a_head_alone_is_judged_on() -> None:
    x, samples = problem(2, n=80)
    found = selection.nest(Ridge(), candidates(x, x), in_train(samples), CLASSES)
    alone = ridge.fit(Ridge(), features(x), in_train(samples), CLASSES).out_of_fold
    assert found is not None
    assert alone is not None
    assert np.array_equal(found.folds, alone.folds)


def test_the_better_candidate_predicts_and_features_of_several_widths_do() -> None:
    x, samples = problem(2, n=100, signal=10)
    noise = np.random.default_rng(1).normal(size=(100, 40)).astype(np.float32)
    good, bad = candidates(x), candidates(noise)
    truth = np.array([row.label == "c1" for row in samples])
    for order in (good + bad, bad + good):
        found = selection.nest(Ridge(), order, in_train(samples), CLASSES)
        assert found is not None
        assert (found.predictions.argmax(axis=1) == truth).mean() > 0.95


@pytest.mark.parametrize("error", [Unusable("no", ""), Diverged("no", "")])
def test_a_candidate_that_rows_do_not_allow_is_left_out_and_without_any_nothing_is_nested(error: Exception) -> None:
    x, samples = problem(2, n=80)

    def refuse(some: FeatureMatrix, of: Sequence[Row]) -> Head:
        raise error

    lost = Candidate(features(x), refuse)
    found = selection.nest(Ridge(), [lost, *candidates(x)], in_train(samples), CLASSES)
    assert found is not None
    assert np.isfinite(found.predictions).all()
    assert selection.nest(Ridge(), [lost, lost], in_train(samples), CLASSES) is None


def test_a_class_of_two_images_is_too_small_to_be_nested() -> None:
    x, samples = problem(2, n=80)
    samples = in_train(samples)
    samples[:2] = [row._replace(label="c2") for row in samples[:2]]
    spec = Auto(choose="folds", kinds=["ridge", "knn"])
    assert auto.fit(spec, features(x), samples, names(3)).out_of_fold is not None
    assert auto.nest(spec, features(x), samples, names(3)) is None


def test_one_candidate_is_no_choice_and_many_rows_are_cross_fitted(monkeypatch: pytest.MonkeyPatch) -> None:
    x, samples = problem(2, n=60)
    samples = in_train(samples)
    assert selection.nest(Ridge(), candidates(x), samples, CLASSES) is None
    monkeypatch.setattr(selection, "MOST_NESTED", 59)
    assert selection.nest(Ridge(), candidates(x, x), samples, CLASSES) is None


def test_rows_of_test_take_no_part_and_threads_change_nothing() -> None:
    x, samples = problem(2, n=150)
    samples = [row._replace(split="train") if row.split == "val" else row for row in samples]
    spoiled = x.copy()
    test = np.array([row.split == "test" for row in samples])
    spoiled[test] = 1e6
    one = selection.nest(Ridge(), candidates(x, x[:, :4], x[:, 4:]), samples, CLASSES)
    two = selection.nest(Ridge(), candidates(spoiled, spoiled[:, :4], spoiled[:, 4:]), samples, CLASSES, threads=4)
    assert one is not None
    assert two is not None
    assert len(one.folds) == (~test).sum()
    assert one.predictions.tobytes() == two.predictions.tobytes()


def test_auto_chooses_among_its_kinds_in_each_fold() -> None:
    x, samples = problem(2, n=120, signal=2)
    samples = in_train(samples)
    found = auto.nest(Auto(choose="folds", kinds=["ridge", "knn"]), features(x), samples, CLASSES)
    assert found is not None
    alone = [
        ridge.fit(Ridge(choose="folds"), features(x), samples, CLASSES),
        knn.fit(Knn(choose="folds"), features(x), samples, CLASSES),
    ]
    assert all(not np.array_equal(head.predict(x), found.predictions) for head in alone)
    truth = np.array([row.label == "c1" for row in samples])
    assert (found.predictions.argmax(axis=1) == truth).mean() > 0.8


def test_the_first_is_preferred_until_another_is_better_by_two_standard_errors_of_the_difference() -> None:
    draw = np.random.default_rng(0)
    first, luck = draw.normal(1, 1, 40), draw.normal(0, 1, 40)
    luck = (luck - luck.mean()) / luck.std(ddof=1) / np.sqrt(40)  # differences with a standard error of 1/40
    for gain, expected in ((-0.1, 0), (0.0, 0), (1.9, 0), (2.1, 1)):
        losses = np.stack([first, first - gain / 40 - luck])
        assert ALONE(losses, np.arange(40)) == expected
        assert selection.least_loss(losses, np.arange(40)) == int(gain > 0)
    assert ALONE(np.stack([first, first - 3 / 40 - luck, first - 0.5]), np.arange(40)) == 2
    assert ALONE(np.array([[1.0], [0.0]]), np.arange(1)) == 0  # of one row nothing is known
    assert ALONE(first[None], np.arange(40)) == 0


def test_rows_of_a_group_count_as_one_where_candidates_are_compared() -> None:
    """Five groups of forty rows, of which one alone is better: 200 rows would seem to tell."""
    groups = [f"g{i // 40}" for i in range(200)]
    losses = np.stack([np.ones(200), np.where(np.arange(200) < 40, 0.5, 1.0)])
    assert selection.prefer_first([None] * 200)(losses, np.arange(200)) == 1
    assert selection.prefer_first(groups)(losses, np.arange(200)) == 0
    assert selection.prefer_first(groups)(losses[:, :40], np.arange(40)) == 0  # one group


def test_auto_keeps_its_first_kind_on_few_rows_and_takes_another_that_is_clearly_better() -> None:
    x, samples = problem(2, n=24, signal=1)
    samples = in_train(samples)
    for kinds in (["ridge", "knn"], ["knn", "ridge"]):
        assert auto.fit(Auto(choose="folds", kinds=kinds), features(x), samples, CLASSES).kind == kinds[0]
    plane = np.random.default_rng(0).normal(size=(400, 2)).astype(np.float32)  # no line parts opposite quadrants
    rows = in_train(problem(2, n=400)[1])
    quadrants = [row._replace(label=f"c{int(a * b > 0)}") for row, (a, b) in zip(rows, plane.tolist(), strict=True)]
    found = auto.fit(Auto(choose="folds", kinds=["ridge", "knn"]), features(plane), quadrants, CLASSES)
    assert found.kind == "knn"
    assert set(found.chosen["fold_log_loss_by_kind"]) == {"ridge", "knn"}
