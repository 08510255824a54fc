"""kfold.py: every row is judged by a head that saw neither it nor its group, in fitting or choosing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from cache.errors import Unusable
from pipeline.config.head_schema import Logistic
from stages.data.manifest import Row
from stages.heads import logistic
from stages.heads.fitted import Head
from stages.heads.matrix import FeatureMatrix
from stages.metrics import kfold
from stages.targets.classes import Classes


def rows(labels: Sequence[str], groups: Sequence[str | None] | None = None) -> list[Row]:
    return [
        Row(f"{i:064x}", f"{i}.png", label, "test", group)
        for i, (label, group) in enumerate(zip(labels, groups or [None] * len(labels), strict=True))
    ]


class Recorder:
    """A fit that notes what it was given; rows carry their number as their one feature."""

    def __init__(self) -> None:
        self.calls: list[dict[str, set[int]]] = []
        self.judged: list[set[int]] = []

    def __call__(self, features: np.ndarray, given: Sequence[Row]) -> Recorder:
        assert [int(row.id, 16) for row in given] == features[:, 0].tolist()
        self.calls.append({s: {int(row.id, 16) for row in given if row.split == s} for s in ("train", "val", "test")})
        return self

    def predict(self, features: np.ndarray) -> np.ndarray:
        self.judged.append(set(features[:, 0].astype(int)))
        return np.tile([0.5, 0.5], (len(features), 1))


GROUPS = [f"g{i % 23}" for i in range(100)]


@pytest.mark.parametrize("groups", [None, GROUPS, [g if i % 2 else None for i, g in enumerate(GROUPS)]])
def test_no_fold_is_seen_in_fitting_or_choosing(groups: list[str | None] | None) -> None:
    given, fit = rows(["a" if i % 3 else "b" for i in range(100)], groups), Recorder()
    kfold.out_of_fold(fit, np.arange(100.0)[:, None], given, kfold.by_label(given), 5, 0)
    assert sorted(i for judged in fit.judged for i in judged) == list(range(100))
    names = [row.group or row.id for row in given]
    for seen, judged in zip(fit.calls, fit.judged, strict=True):
        assert seen["train"] | seen["val"] | judged == set(range(100))
        assert not seen["test"]
        assert 10 <= len(seen["val"]) <= 24
        parts = [{names[i] for i in part} for part in (seen["train"], seen["val"], judged)]
        assert len(set.union(*parts)) == sum(map(len, parts))


def test_without_val_all_rows_outside_of_a_fold_are_fitted_on_unless_a_class_is_too_small() -> None:
    given, fit = rows(["a" if i % 3 else "b" for i in range(100)]), Recorder()
    kfold.out_of_fold(fit, np.arange(100.0)[:, None], given, kfold.by_label(given), 5, 0, val=False)
    for seen, judged in zip(fit.calls, fit.judged, strict=True):
        assert seen["train"] | judged == set(range(100))
        assert not seen["val"] | seen["test"]
    few, fit = rows(["a"] * 20 + ["b"] * 2), Recorder()
    kfold.out_of_fold(fit, np.arange(22.0)[:, None], few, kfold.by_label(few), 2, 0, val=False)
    assert all(seen["val"] for seen in fit.calls)


def test_folds_are_stratified() -> None:
    labels = ["a"] * 80 + ["b"] * 20
    found = kfold.assign_folds(rows(labels), 5, 0)
    assert Counter(zip(found.tolist(), labels, strict=True)) == {
        (fold, label): n for fold in range(5) for label, n in (("a", 16), ("b", 4))
    }


def test_same_seed_same_folds() -> None:
    given = rows(["a", "b"] * 30)
    assert np.array_equal(kfold.assign_folds(given, 5, 1), kfold.assign_folds(given, 5, 1))
    assert not np.array_equal(kfold.assign_folds(given, 5, 1), kfold.assign_folds(given, 5, 2))


def fit_logistic(features: np.ndarray, given: Sequence[Row]) -> Head:
    return logistic.fit(Logistic(), FeatureMatrix([features]), given, Classes("ab"))


def test_shuffled_labels_give_an_auroc_of_a_half_and_true_ones_do_not() -> None:
    rng = np.random.default_rng(0)
    truth = rng.random(600) < 0.5
    x = (rng.normal(size=(600, 8)) + truth[:, None]).astype(np.float32)
    scores = {}
    for name, labels in (("true", truth), ("shuffled", rng.permutation(truth))):
        given = rows(["b" if positive else "a" for positive in labels])
        found = kfold.out_of_fold(fit_logistic, x, given, kfold.by_label(given), 5, 0)
        scores[name] = roc_auc_score(labels, found[:, 1])
    assert scores["true"] > 0.95
    assert scores["shuffled"] == pytest.approx(0.5, abs=0.05)


def test_a_class_with_two_images_is_fitted_in_every_fold() -> None:
    given, fit = rows(["a"] * 20 + ["b"] * 20 + ["c"] * 2), Recorder()
    kfold.out_of_fold(fit, np.arange(42.0)[:, None], given, kfold.by_label(given), 5, 0)
    assert all(seen["train"] & {40, 41} for seen in fit.calls)


@pytest.mark.parametrize(
    ("labels", "groups", "k", "message"),
    [
        (["a"] * 10 + ["b"] * 10 + ["c"], None, 5, "1 image of class 'c', all in one fold"),
        (["a", "b"] * 10, ["x", "y"] * 10, 5, "2 groups, 10 images of the largest class, are too few for 5 folds"),
        (["a", "b"] * 3, None, 5, "6 images, 3 images of the largest class, are too few for 5 folds"),
        (
            ["a", "b"] * 10,
            [f"g{i}" if i % 2 else "x" for i in range(20)],
            5,
            "10 images of class 'a', all in one fold",
        ),
        ([], None, 2, "0 images"),
        (["a", "b"] * 2, None, 2, None),
    ],
)
def test_what_is_too_little_for_folds_is_said(
    labels: list[str], groups: list[str | None] | None, k: int, message: str | None
) -> None:
    given = rows(labels, groups)
    with pytest.raises(Unusable, match=message or "2 images outside of a fold are too few"):
        kfold.out_of_fold(Recorder(), np.arange(float(len(given)))[:, None], given, kfold.by_label(given), k, 0)
