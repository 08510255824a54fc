"""stages/heads.py: fitted on train, chosen on val, the same for numpy as for scikit-learn."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from cache.errors import Unusable
from stages import heads
from stages.manifest import Manifest, Row


def rows(labels: list[str], splits: list[str]) -> list[Row]:
    names = [hashlib.sha256(str(i).encode()).hexdigest() for i in range(len(labels))]
    return [Row(name, "", label, split) for name, label, split in zip(names, labels, splits, strict=True)]


def problem(n_classes: int, n: int = 400, signal: float = 1.0) -> tuple[np.ndarray, list[Row]]:
    """Gaussian classes in 12 dimensions of very different scales, one of them constant."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, n_classes, n)
    x = rng.normal(size=(n, 12)) + signal * rng.normal(size=(n_classes, 12))[truth]
    x = x * np.logspace(-3, 3, 12) + np.logspace(3, -3, 12)
    x[:, 5] = 7.0
    parts = [("train", "val", "test")[i] for i in rng.choice(3, n, p=(0.6, 0.2, 0.2))]
    return x.astype(np.float32), rows([f"c{i}" for i in truth], parts)


@pytest.mark.parametrize("n_classes", [2, 4])
def test_folded_logits_are_scikit_learn_s_decision_function(n_classes: int) -> None:
    x, samples = problem(n_classes)
    classes = tuple(f"c{i}" for i in range(n_classes))
    head = heads.fit_logistic(x, samples, classes, seed=0)
    train = np.array([row.split == "train" for row in samples])
    y = np.array([classes.index(row.label or "") for row in samples])
    scaler = StandardScaler().fit(x[train].astype(np.float64))
    z = scaler.transform(x.astype(np.float64)).astype(np.float32)
    model = LogisticRegression(max_iter=2000, warm_start=True)
    for c in heads.PATH:  # the same path, as far as the head went
        model.set_params(C=c).fit(z[train], y[train])
        if c == head.chosen["C"]:
            break
    reference = model.decision_function(z).reshape(len(z), -1)
    scale = np.abs(reference).max()
    assert np.abs(head.logits(x) - reference).max() < 1e-5 * scale
    assert np.abs(head.probabilities(x) - model.predict_proba(z)).max() < 1e-5


def test_c_is_the_best_of_the_path_on_val() -> None:
    x, samples = problem(3, signal=0.4)
    head = heads.fit_logistic(x, samples, ("c0", "c1", "c2"), seed=0)
    path = head.chosen["val_log_loss"]
    assert float(min(path, key=path.get)) == pytest.approx(head.chosen["C"], rel=1e-2)
    assert 3 < len(path) < len(heads.PATH)


def test_val_and_test_rows_do_not_enter_the_fit() -> None:
    """Spoil the test rows, and the head is the same bytes; spoil val, and only the choice of C changes."""
    x, samples = problem(2)
    head = heads.fit_logistic(x, samples, ("c0", "c1"), 0)
    spoiled = x.copy()
    spoiled[[row.split == "test" for row in samples]] = 1e6
    again = heads.fit_logistic(spoiled, samples, ("c0", "c1"), 0)
    assert np.array_equal(head.layers[0].weights, again.layers[0].weights)
    assert head.chosen == again.chosen
    shuffled = x.copy()
    val = [row.split == "val" for row in samples]
    shuffled[val] = np.random.default_rng(0).permutation(x[val])
    other = heads.fit_logistic(shuffled, samples, ("c0", "c1"), 0)
    assert other.chosen["C"] < head.chosen["C"]
    path = [c for c in heads.PATH if c <= other.chosen["C"]]
    train = np.array([row.split == "train" for row in samples])
    scaler = StandardScaler().fit(x[train].astype(np.float64))
    z = scaler.transform(x.astype(np.float64)).astype(np.float32)[train]
    model = LogisticRegression(max_iter=2000, warm_start=True)
    for c in path:
        model.set_params(C=c).fit(z, [row.label for row, here in zip(samples, train, strict=True) if here])
    assert np.allclose(other.layers[0].weights[:, 0] * scaler.scale_, model.coef_[0], rtol=1e-5, atol=1e-7)


def test_separable_classes_are_told_apart() -> None:
    x, samples = problem(2, signal=30)
    head = heads.fit_logistic(x, samples, ("c0", "c1"), 0)
    test = [row.split == "test" for row in samples]
    guess = head.probabilities(x[test]).argmax(axis=1)
    assert [f"c{i}" for i in guess] == [row.label for row, here in zip(samples, test, strict=True) if here]


def test_shuffled_labels_teach_nothing() -> None:
    rng = np.random.default_rng(1)
    scores = []
    for _ in range(5):
        x, samples = problem(2, n=1500)
        labels = rng.permutation([row.label for row in samples])
        samples = [row._replace(label=str(label)) for row, label in zip(samples, labels, strict=True)]
        head = heads.fit_logistic(x, samples, ("c0", "c1"), 0)
        test = np.array([row.split == "test" for row in samples])
        truth = np.array([row.label == "c1" for row in samples])[test]
        scores.append(roc_auc_score(truth, head.logits(x[test])[:, 0]))
    assert np.mean(scores) == pytest.approx(0.5, abs=0.05)


def test_same_rows_same_head() -> None:
    x, samples = problem(3)
    one, two = (heads.fit_logistic(x, samples, ("c0", "c1", "c2"), 0) for _ in range(2))
    assert np.array_equal(one.layers[0].weights, two.layers[0].weights)


def test_file_form_round_trip_without_pickle() -> None:
    x, samples = problem(3)
    head = heads.fit_logistic(x, samples, ("c0", "c1", "c2"), 0)
    files = head.to_files()
    again = heads.Head.from_files(files)
    assert np.array_equal(again.probabilities(x), head.probabilities(x))
    assert (again.classes, again.kind, again.chosen) == (head.classes, head.kind, head.chosen)


def test_maps_are_refused() -> None:
    x, samples = problem(2)
    with pytest.raises(Unusable, match=r"needs vectors, but its tap gives maps of shape \(2, 6\)"):
        heads.fit_logistic(x.reshape(-1, 2, 6), samples, ("c0", "c1"), 0)


def manifest(*parts: tuple[str, str]) -> Manifest:
    return Manifest(tuple(rows([label for label, _ in parts], [split for _, split in parts])))


GOOD = (("a", "train"), ("b", "train"), ("a", "val"), ("b", "test"))


def test_classes_are_sorted_or_as_told() -> None:
    assert heads.classes_of(manifest(*GOOD), None) == ("a", "b")
    assert heads.classes_of(manifest(*GOOD), ["b", "a"]) == ("b", "a")


@pytest.mark.parametrize(
    ("table", "order", "message"),
    [
        (Manifest((Row("a" * 64, "1.png"),)), None, "no image has a label"),
        (manifest(("a", "train"), ("a", "val")), None, "there is one class only, 'a'"),
        (manifest(("a", "train"), ("b", "train")), None, r"in val \(train 2, val 0, test 0\)"),
        (manifest(("a", "val"), ("b", "test")), None, r"in train \(train 0, val 1, test 1\)"),
        (manifest(*GOOD, ("c", "test")), None, r"class 'c' has no image in train \(0 in val, 1 in test\)"),
        (manifest(*GOOD), ["a", "c"], r"data\.classes is \['a', 'c'\], but the images have \['a', 'b'\]"),
    ],
)
def test_what_cannot_carry_a_head_is_said(table: Manifest, order: list[str] | None, message: str) -> None:
    with pytest.raises(Unusable, match=message):
        heads.classes_of(table, order)


def test_key_sees_all_it_should() -> None:
    table = manifest(*GOOD)
    base = heads.key({"kind": "logistic", "seed": 0}, ("a", "b"), ["k"], table)
    others = [
        heads.key({"kind": "logistic", "seed": 1}, ("a", "b"), ["k"], table),
        heads.key({"kind": "logistic", "seed": 0}, ("b", "a"), ["k"], table),
        heads.key({"kind": "logistic", "seed": 0}, ("a", "b"), ["l"], table),
        heads.key({"kind": "logistic", "seed": 0}, ("a", "b"), ["k"], manifest(*GOOD[:3], ("b", "train"))),
    ]
    assert len({base, *others}) == 5
