"""knn.py: scikit-learn's neighbours, weighted votes, and the k that val likes best."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from pipeline.config.head_schema import Knn
from stages.heads import knn, neighbours
from stages.heads.neighbours import Neighbours
from tests.support.problems import columns, features, names, part, problem


@pytest.mark.parametrize("k", [1, 7])
@pytest.mark.parametrize("n_classes", [2, 4])
def test_votes_are_scikit_learn_s_with_the_same_weights(k: int, n_classes: int) -> None:
    x, samples = problem(n_classes)
    head = knn.fit(Knn(k=k), features(x), samples, names(n_classes))
    train = part(samples, "train")
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    model = KNeighborsClassifier(k, metric="cosine", algorithm="brute", weights=lambda d: np.exp((1 - d) / 0.07))
    expected = model.fit(unit[train], columns(samples)[train]).predict_proba(unit)
    found = head.predict(x)
    nearest = np.exp((1 - model.kneighbors(unit)[0]) / 0.07)
    votes, extra = nearest.sum(axis=1, keepdims=True), nearest[:, :1]
    assert np.abs(found - (expected * votes + extra / n_classes) / (votes + extra)).max() < 1e-4


def test_val_chooses_k_of_those_asked() -> None:
    x, samples = problem(3)
    head = knn.fit(Knn(k=[1, 5, 20, 10_000]), features(x), samples, names(3))
    losses = head.chosen["val_log_loss"]
    n = int(part(samples, "train").sum())
    assert list(losses) == ["1", "5", "20", str(n)]  # more than there are: all of them
    assert isinstance(head.form, Neighbours)
    assert head.form.k == head.chosen["k"] == int(min(losses, key=losses.get))
    for k in (1, 20):
        alone = knn.fit(Knn(k=k), features(x), samples, names(3))
        assert alone.chosen["val_log_loss"] == {str(k): losses[str(k)]}


def test_batches_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x, samples = problem(3)
    whole = knn.fit(Knn(), features(x), samples, names(3))
    monkeypatch.setattr(knn, "_BATCH_BYTES", 4 * 400 * 3)
    assert knn.fit(Knn(), features(x), samples, names(3)).chosen == whole.chosen


def test_stored_rows_are_gone_through_tile_by_tile_and_none_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    x, samples = problem(3)
    head = knn.fit(Knn(k=20), features(x), samples, names(3))
    assert isinstance(head.form, Neighbours)
    cosines, columns = head.form.nearest(x, 20)
    whole = head.predict(x)
    for tile in (7, 50):  # fewer and more than k
        monkeypatch.setattr(neighbours, "TILE", tile)
        found = head.form.nearest(x, 20)
        assert np.abs(found[0] - cosines).max() < 1e-6
        assert (found[1] == columns).mean() > 0.999  # but for ties
        assert np.abs(head.predict(x) - whole).max() < 1e-5


def test_a_row_of_zeros_is_no_trouble() -> None:
    x, samples = problem(2)
    x[:3] = 0
    head = knn.fit(Knn(), features(x), samples, names(2))
    assert np.isfinite(head.scores(x)).all()
