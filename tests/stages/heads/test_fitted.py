"""fitted.py: what numpy predicts, file forms of today and before, classes, keys; and what holds for all kinds."""

from __future__ import annotations

import importlib
import io
import json
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from cache.errors import Unusable
from pipeline.config.head_schema import HEAD_KINDS
from stages.data.manifest import Manifest, Row
from stages.heads import fitted
from stages.heads.fitted import Head, Layer, Layers
from stages.heads.neighbours import Neighbours
from stages.targets.classes import Classes
from tests.support.problems import columns, features, in_train, names, part, problem, rows

Fit = Callable[..., Head]


DENSE: dict[str, Any] = {"units": [16], "epochs": 10, "lr": 0.02, "folds": 3}
"""A small network: each fold is another one for Keras to compile."""


def fit_of(kind: str) -> Fit:
    settings = DENSE if kind == "dense" else {}

    def fit(*arguments: Any) -> Head:
        row = HEAD_KINDS[kind]
        return importlib.import_module(row.module).fit(row.spec(kind=kind, **settings), *arguments)

    return fit


FORMS = {kind: row.form for kind, row in HEAD_KINDS.items()}
each_kind = pytest.mark.parametrize("fit", [fit_of(kind) for kind in HEAD_KINDS], ids=HEAD_KINDS)


@each_kind
@pytest.mark.parametrize("n_classes", [2, 3])
def test_separable_classes_are_told_apart(fit: Fit, n_classes: int) -> None:
    x, samples = problem(n_classes, signal=30)
    head = fit(features(x), samples, names(n_classes))
    test = part(samples, "test")
    guess = head.predict(x[test]).argmax(axis=1)
    assert (guess == columns(samples)[test]).mean() > 0.97


@each_kind
def test_shuffled_labels_teach_nothing(fit: Fit) -> None:
    scores = []
    for seed in range(3):
        x, samples = problem(2, n=1500)
        labels = np.random.default_rng(seed).permutation([row.label for row in samples])
        samples = [row._replace(label=str(label)) for row, label in zip(samples, labels, strict=True)]
        head = fit(features(x), samples, names(2))
        test = part(samples, "test")
        scores.append(roc_auc_score((labels == "c1")[test], head.scores(x[test])[:, 0]))
    assert np.mean(scores) == pytest.approx(0.5, abs=0.05)


@each_kind
def test_same_rows_same_head_and_test_rows_do_not_enter_it(fit: Fit) -> None:
    x, samples = problem(3)
    spoiled = x.copy()
    spoiled[part(samples, "test")] = 1e6
    one, two = (fit(features(rows), samples, names(3)) for rows in (x, spoiled))
    assert one.to_files() == two.to_files()


@each_kind
def test_file_form_round_trip_without_pickle(fit: Fit) -> None:
    x, samples = problem(3)
    head = fit(features(x), samples, names(3))
    again = Head.from_files(head.to_files(), FORMS)
    assert np.array_equal(again.predict(x), head.predict(x))
    assert (again.classes, again.kind, again.chosen) == (head.classes, head.kind, head.chosen)


@each_kind
def test_a_class_with_one_image_and_a_constant_feature_are_no_trouble(fit: Fit) -> None:
    x, samples = problem(2, n=200)
    first = int(np.flatnonzero(part(samples, "train"))[0])
    samples[first] = samples[first]._replace(label="c2")
    head = fit(features(x), samples, names(3))
    assert np.isfinite(head.predict(x)).all()
    elsewhere = x.copy()
    elsewhere[:, 5] = 1e9  # constant in train
    if head.kind != "knn":
        assert np.array_equal(head.predict(elsewhere), head.predict(x))


@each_kind
def test_several_taps_are_joined_and_maps_flattened(fit: Fit) -> None:
    x, samples = problem(2)
    maps = x[:, 4:].reshape(-1, 2, 2, 2)
    joined = fit(features(x[:, :4], maps), samples, names(2))
    assert joined.to_files() == fit(features(x[:, :4], x[:, 4:]), samples, names(2)).to_files()
    assert joined.predict(x).shape == (len(x), 2)


@each_kind
@pytest.mark.parametrize("n", [80, 400])
def test_without_val_folds_choose_and_judge(fit: Fit, n: int) -> None:
    """On 80 rows of 40 features each fold's rows are few; a group is never in two folds."""
    x, samples = problem(2, n=n)
    x = np.hstack([x, np.random.default_rng(1).normal(size=(n, 28)).astype(np.float32)])
    samples = [row._replace(group=f"g{i % (n // 2)}") for i, row in enumerate(in_train(samples))]
    head = fit(features(x), samples, names(2))
    assert head.out_of_fold is not None
    groups: dict[str | None, set[int]] = {}
    for row, fold in zip(samples, head.out_of_fold.folds.tolist(), strict=True):
        groups.setdefault(row.group, set()).add(fold)
    assert {len(folds) for folds in groups.values()} == {1}
    assert len(set(head.out_of_fold.folds.tolist())) == (DENSE["folds"] if head.kind == "dense" else 5)
    truth = columns(samples)
    right = [(p.argmax(axis=1) == truth).mean() for p in (head.out_of_fold.predictions, head.predict(x))]
    assert right[1] + 0.05 > right[0] > 0.75
    assert head.to_files() == fit(features(x), samples, names(2)).to_files()


@each_kind
def test_folds_judge_a_class_of_two_images(fit: Fit) -> None:
    """Outside of a fold one of them is left, so that folds of those rows cannot choose; with groups, one group."""
    x, samples = problem(2, n=40)
    rare = np.random.default_rng(5).normal(loc=4, size=(2, x.shape[1])).astype(np.float32)
    more = [Row(id=f"{9 + i:064x}", path="", label="rare", split="train") for i in range(2)]
    for group in (None, "g"):
        rows = [*in_train(samples), more[0]._replace(group=group), more[1]]
        head = fit(features(np.concatenate([x, rare])), rows, Classes([*names(2), "rare"]))
        assert head.out_of_fold is not None
        assert np.isfinite(head.out_of_fold.predictions).all()
        assert head.predict(np.concatenate([x, rare])).shape == (len(rows), 3)


@each_kind
def test_predictions_don_t_depend_on_how_rows_are_batched(fit: Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    x, samples = problem(3)
    head = fit(features(x), samples, names(3))
    whole = head.predict(x)
    monkeypatch.setattr(fitted, "_BATCH_BYTES", 8 * 400 * 7)
    assert np.allclose(head.predict(x), whole, rtol=1e-5 if head.kind == "knn" else 1e-9, atol=0)  # float32, float64
    assert whole.sum(axis=1) == pytest.approx(1)


def test_ten_thousand_classes_are_told_in_batches_that_fit_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitted, "_BATCH_BYTES", 1 << 20)
    layer = Layer(np.random.default_rng(0).normal(size=(2, 10_000)), np.zeros(10_000))
    head, x = Head("ridge", names(10_000), Layers([layer]), {}), np.ones((200, 2), np.float32)
    tracemalloc.start()
    found = head.predict(x)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.sum(axis=1) == pytest.approx(1)
    assert peak < found.nbytes + (8 << 20)


def test_a_head_of_an_older_program_is_read() -> None:
    """As schema 1 wrote it: no schema, no activations."""
    buffer = io.BytesIO()
    np.savez(buffer, layer0_weights=np.ones((3, 1)), layer0_bias=np.zeros(1))
    text = {"kind": "logistic", "classes": ["a", "b"], "layers": 1, "chosen": {"C": 1.0}}
    head = Head.from_files({"head.npz": buffer.getvalue(), "head.json": json.dumps(text).encode()}, FORMS)
    assert head.scores(np.array([[1, 2, 3]]))[0, 0] == 6
    assert head.layers[0].activation == "linear"
    for newer, message in (({"schema": 99}, "schema 99 and kind logistic"), ({"kind": "svm"}, "schema 1 and kind svm")):
        files = {"head.npz": buffer.getvalue(), "head.json": json.dumps({**text, **newer}).encode()}
        with pytest.raises(Unusable, match=f"{message}; this version reads schemas up to 4 and the kinds logistic,"):
            Head.from_files(files, FORMS)


def test_a_neighbour_s_vote_is_the_one_of_dinov2() -> None:
    """exp(cosine / temperature), summed by class; and one more vote that is shared evenly."""
    stored = np.array([[1, 0], [0.8, 0.6], [0, 1]], np.float32)
    head = Head("knn", Classes("ab"), Neighbours(stored, np.array([0, 1, 1]), 2, 0.1), {})
    weights = np.exp(np.array([1, 0.8]) / 0.1)
    extra = weights.max() / 2
    expected = (weights + extra) / (weights.sum() + 2 * extra)
    assert head.predict(np.array([[5.0, 0]]))[0] == pytest.approx(expected)


@pytest.mark.parametrize("activation", fitted.ACTIVATIONS)
def test_layers_are_keras_dense(activation: fitted.Activation) -> None:
    import keras

    rng = np.random.default_rng(0)
    layers = (
        Layer(rng.normal(size=(5, 7)), rng.normal(size=7), activation),
        Layer(rng.normal(size=(7, 3)), np.ones(3)),
    )
    x = rng.normal(size=(10, 5)).astype(np.float32)
    network = keras.Sequential([keras.layers.Dense(len(a.bias), a.activation) for a in layers])
    network.build((None, 5))
    for dense, layer in zip(network.layers, layers, strict=True):
        dense.set_weights([layer.weights, layer.bias])
    assert np.allclose(network.predict(x, verbose=0), Head("dense", names(3), Layers(layers), {}).scores(x), atol=1e-5)


def manifest(*parts: tuple[str, str]) -> Manifest:
    return Manifest(tuple(rows([label for label, _ in parts], [split for _, split in parts])))


GOOD = (("a", "train"), ("b", "train"), ("a", "val"), ("b", "test"))


def test_key_sees_all_it_should() -> None:
    table = manifest(*GOOD)
    base = fitted.head_key({"kind": "logistic", "seed": 0}, Classes("ab"), ["k"], table)
    others = [
        fitted.head_key({"kind": "logistic", "seed": 1}, Classes("ab"), ["k"], table),
        fitted.head_key({"kind": "logistic", "seed": 0}, Classes("ba"), ["k"], table),
        fitted.head_key({"kind": "logistic", "seed": 0}, Classes("ab"), ["l"], table),
        fitted.head_key({"kind": "logistic", "seed": 0}, Classes("ab"), ["k"], manifest(*GOOD[:3], ("b", "train"))),
    ]
    assert len({base, *others}) == 5


@pytest.mark.parametrize(("n_classes", "width"), [(2, 12), (3, 12), (2, 40), (4, 40)])
def test_parts_of_scores_and_the_bias_are_the_scores_of_the_mean(n_classes: int, width: int) -> None:
    """With 32 features or more, rows are divided by their length."""
    rng = np.random.default_rng(0)
    maps = rng.normal(size=(6, 3, 5, width)).astype(np.float32)
    target = names(n_classes)
    layer = Layer(rng.normal(size=(width, target.outputs)), rng.normal(size=target.outputs))
    head = Head("logistic", target, Layers([layer], [(0, width)] if width >= 32 else ()), {})
    parts, bias = fitted.score_maps(head, maps)
    assert parts.shape == (6, 3, 5, target.outputs)
    assert np.abs(parts.mean(axis=(1, 2)) + bias - head.scores(maps.mean(axis=(1, 2)))).max() < 1e-5
    assert (fitted.score_maps(head, 0 * maps)[0] == 0).all()


def test_only_a_linear_head_on_means_has_parts_of_scores() -> None:
    two, three = Layer(np.ones((4, 3)), np.zeros(3), "relu"), Layer(np.ones((3, 1)), np.zeros(1))
    deep = Head("dense", names(2), Layers([two, three]), {})
    with pytest.raises(Unusable, match="a dense head is not linear"):
        fitted.score_maps(deep, np.zeros((1, 2, 2, 4)))
    linear = Head("ridge", names(2), Layers([three]), {})
    with pytest.raises(Unusable, match="not the means of maps"):
        fitted.score_maps(linear, np.zeros((1, 2, 2, 4)))
    with pytest.raises(Unusable, match="not the means of maps"):
        fitted.score_maps(linear, np.zeros((1, 3)))
