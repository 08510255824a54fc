"""ridge.py: scikit-learn's Ridge, from sums over blocks, for every penalty and every fold in one pass."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import Ridge as Reference

from cache.errors import Unusable
from cache.hash_index import HashIndex
from cache.store import Cache
from pipeline.config.head_schema import Ridge
from stages.heads import matrix as features_module
from stages.heads import ridge, selection
from stages.heads.matrix import FeatureMatrix
from stages.metrics.classification import softmax
from tests.support.problems import InMemory, columns, features, in_train, names, part, problem, rows, scaled


def signs(y: np.ndarray, n_classes: int) -> np.ndarray:
    return np.where(y[:, None] == (np.arange(n_classes) if n_classes > 2 else 1), 1.0, -1.0)


@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("alpha", [0.01, 1.0, 300.0])
def test_weights_from_sums_are_scikit_learn_s_ridge(n_classes: int, alpha: float) -> None:
    x, samples = problem(n_classes)
    head = ridge.fit(Ridge(alpha=alpha), features(x), samples, names(n_classes))
    train = part(samples, "train")
    z = scaled(x, x[train])
    model = Reference(alpha=alpha).fit(z[train], signs(columns(samples)[train], n_classes))
    expected = model.predict(z).reshape(len(z), -1)
    scale = head.scores(x).std() / expected.std()
    assert scale == pytest.approx(head.chosen["scale"], rel=1e-3)
    assert np.abs(head.scores(x) / scale - expected).max() < 1e-5


@pytest.mark.parametrize("n", [60, 400])
def test_folds_are_judged_by_fits_on_the_others(n: int) -> None:
    """From sums, and where rows are few from themselves: 100 features."""
    rng = np.random.default_rng(0)
    x, samples = problem(3, n=n)
    x = np.hstack([x, rng.normal(size=(n, 88)).astype(np.float32)])
    samples = in_train(samples)
    head = ridge.fit(Ridge(alpha=10.0, folds=4), features(x), samples, names(3))
    assert head.out_of_fold is not None
    unit, y = features(x).unit_rows().take(np.arange(n)), signs(columns(samples), 3)
    for fold in range(4):
        inside = head.out_of_fold.folds == fold
        model = Reference(alpha=10.0).fit(scaled(unit[~inside], unit[~inside]), y[~inside])
        scores = model.predict(scaled(unit[inside], unit[~inside]))
        found = np.log(head.out_of_fold.predictions[inside])
        found -= found.mean(axis=1, keepdims=True)
        scores -= scores.mean(axis=1, keepdims=True)
        factor = (found * scores).sum() / (scores**2).sum()  # chosen by the other folds
        assert np.abs(found - factor * scores).max() < 1e-4 * np.abs(found).max()


def test_val_chooses_the_penalty_and_the_scale() -> None:
    x, samples = problem(3, signal=0.4)
    head = ridge.fit(Ridge(), features(x), samples, names(3))
    losses = head.chosen["val_log_loss"]
    assert len(losses) == 20
    assert min(losses, key=losses.get) == format(head.chosen["alpha"], ".3g")
    val = part(samples, "val")
    right = head.predict(x[val])[np.arange(val.sum()), columns(samples)[val]]
    loss = -np.log(right).mean()
    assert loss == pytest.approx(min(losses.values()), abs=1e-3)
    for factor in (0.8, 1.25):  # another scale is worse
        other = softmax(factor * head.scores(x[val]))[np.arange(val.sum()), columns(samples)[val]]
        assert -np.log(other).mean() > loss


def test_never_are_more_rows_read_at_once_than_a_block_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a store of many shards, of which no block is a whole one; and the head is that of one large block."""
    x, samples = problem(3)
    store = Cache(tmp_path, HashIndex()).features({"of": "a test"})
    ids = [hashlib.sha256(str(i).encode()).hexdigest() for i in range(len(x))]
    for start in range(0, len(x), 64):
        store.put(ids[start : start + 64], x[start : start + 64], {})
    whole = ridge.fit(Ridge(), features(x), samples, names(3))
    monkeypatch.setattr(features_module, "BLOCK_BYTES", 4 * 12 * 50)
    tracked = InMemory(x)
    streamed = ridge.fit(Ridge(), FeatureMatrix([tracked]), samples, names(3))
    assert max(tracked.taken) <= 50
    stored = ridge.fit(Ridge(), FeatureMatrix([store.rows(ids)]), samples, names(3))
    assert np.allclose(streamed.predict(x), whole.predict(x), atol=1e-7)
    assert stored.to_files() == streamed.to_files()


def test_a_large_offset_costs_no_digits() -> None:
    """Squares of 1e6 + noise would leave nothing of the noise in float32, and little in float64."""
    x, samples = problem(2, n=300)
    x = (x / x.std(axis=0, where=np.ones_like(x, bool)).clip(1e-3)).astype(np.float64).round(3)
    far = (x + 2.0**13).astype(np.float32)
    near = (far.astype(np.float64) - 2.0**13).astype(np.float32)
    one, two = (ridge.fit(Ridge(), features(rows), samples, names(2)) for rows in (near, far))
    assert np.allclose(one.predict(near), two.predict(far), atol=1e-6)


def test_ten_thousand_classes_are_a_right_answer() -> None:
    """Eight features say which class it is, one train image each."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(10_000, 8)).astype(np.float32)
    labels = names(10_000)
    samples = rows([*labels, *labels[:20]], [*["train"] * 10_000, *["val"] * 20])
    head = ridge.fit(Ridge(alpha=1.0), features(np.concatenate([x, x[:20]])), samples, labels)
    assert head.predict(x[:20]).shape == (20, 10_000)
    assert np.isfinite(head.scores(x[:20])).all()


def test_of_very_many_scores_evenly_spaced_rows_of_val_choose(monkeypatch: pytest.MonkeyPatch) -> None:
    x, samples = problem(4)
    monkeypatch.setattr(selection, "MOST_CELLS", 4 * 30)
    few = ridge.fit(Ridge(), features(x), samples, names(4))
    val = [i for i, row in enumerate(samples) if row.split == "val"]
    every = -(-len(val) * 4 // 120)
    assert every > 1
    fewer = [row._replace(split="test") if i in set(val) - set(val[::every]) else row for i, row in enumerate(samples)]
    assert few.to_files() == ridge.fit(Ridge(), features(x), fewer, names(4)).to_files()


def test_how_many_penalties_are_judged_at_a_time_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x, samples = problem(4)
    whole = ridge.fit(Ridge(), features(x), samples, names(4))
    monkeypatch.setattr(ridge, "_SOLVED_BYTES", 3 * 8 * 12 * 4)
    assert ridge.fit(Ridge(), features(x), samples, names(4)).to_files() == whole.to_files()


def test_too_many_features_are_refused_before_any_sum() -> None:
    x, samples = problem(2, n=40)
    wide = np.zeros((40, 25_088), np.float32)
    with pytest.raises(Unusable, match=r"25,088 features and 2 classes takes 55\.\d GB") as caught:
        ridge.fit(Ridge(), features(wide), samples, names(2))
    assert "pooling: avg or max" in caught.value.hint
    assert len(x) == 40
