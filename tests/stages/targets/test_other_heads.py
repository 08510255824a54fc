"""Heads that train or choose, on labels, numbers and soft labels: the same target goes through all of them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from pipeline.config.head_schema import Auto, Dense, Logistic, Ridge
from stages.data.manifest import Row
from stages.heads import auto, average, logistic, ridge
from stages.heads.fitted import Head, Layer, Layers
from stages.targets.labels import Labels
from stages.targets.numbers import Numbers
from stages.targets.soft import Soft
from stages.targets.target import Target
from tests.support.problems import (
    features,
    in_train,
    labels_of,
    labels_problem,
    names,
    numbers_of,
    numbers_problem,
    part,
    parts,
    problem,
    rows,
    shares_of,
)

KINDS = ["labels", "number", "soft"]


def given(kind: str, n: int = 200) -> tuple[np.ndarray, list[Row], Target]:
    """Features, rows and their target; of labels some are unknown, numbers are of different units."""
    if kind == "labels":
        x, y = labels_problem(3, n, unknown=0.2)
        target: Target = Labels(["l0", "l1", "l2"])
        return x, rows(labels_of(y, target), parts(n)), target
    if kind == "number":
        x, y = numbers_problem(2, n)
        y = y * [1, 1000] + [50, 0]
        return x, rows(numbers_of(y), parts(n)), Numbers(["a", "b"], y.mean(axis=0).tolist(), y.std(axis=0).tolist())
    x, samples = problem(3, n)
    shares = 0.8 * np.eye(3)[[int((row.label or "c0")[1:]) for row in samples]] + 0.2 / 3
    soft = [row._replace(label=shares_of(of, names(3))) for row, of in zip(samples, shares, strict=True)]
    return x, soft, Soft(names(3))


def loss(head: Head, x: np.ndarray, samples: Sequence[Row], split: str) -> float:
    here = part(samples, split)
    y = head.target.encode([row.label or "" for row in samples])
    return float(head.target.losses(y[here], head.predict(x[here])).mean())


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_is_no_worse_than_the_linear_head_that_it_starts_from(kind: str) -> None:
    from stages.heads import dense  # here: a TensorFlow room

    x, samples, target = given(kind)
    spec = Dense(units=[8], epochs=4, lr=0.003)
    head = dense.fit(spec, features(x), samples, target)
    linear: Any = ridge.fit if kind == "number" else logistic.fit
    start = linear(Ridge() if kind == "number" else Logistic(), features(x), samples, target)
    found = head.chosen["history"][f"val_{target.loss}"]
    assert min(found) == pytest.approx(loss(head, x, samples, "val"), rel=0.02)
    assert loss(head, x, samples, "val") < 1.1 * loss(start, x, samples, "val")
    assert type(Head.from_files(head.to_files(), {"dense": Layers}).target) is type(target)


def test_a_network_s_loss_leaves_unknown_labels_out() -> None:
    from stages.heads import dense_network  # here: a TensorFlow room

    _, y = labels_problem(3, 40, unknown=0.4)
    y[0] = np.nan
    scores = np.random.default_rng(0).normal(size=y.shape).astype(np.float32)
    target = Labels(["l0", "l1", "l2"])
    of_rows = target.losses(y, target.predict(scores))
    computed, metric = dense_network.losses_of(target, y)
    assert float(computed(y.astype(np.float32), scores)) == pytest.approx(of_rows.mean(), rel=1e-5)
    metric.update_state(y.astype(np.float32), scores)
    assert float(metric.result()) == pytest.approx(of_rows.mean(), rel=1e-5)
    assert float(computed(y.astype(np.float32), np.where(np.isnan(y), 7, scores))) == pytest.approx(of_rows.mean())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("folds", [False, True])
def test_the_first_kind_is_chosen_unless_another_has_clearly_less_loss(
    kind: str, folds: bool, caplog: pytest.LogCaptureFixture
) -> None:
    x, samples, target = given(kind)
    samples = in_train(samples) if folds else samples
    with caplog.at_level(logging.WARNING):
        head = auto.fit(Auto(kinds=["logistic", "ridge", "knn"]), features(x), samples, target)
    losses = head.chosen[f"{'fold' if folds else 'val'}_{target.loss}_by_kind"]
    refused = {"labels": "ridge", "number": "logistic"}.get(kind)
    assert {*losses} == {"logistic", "ridge", "knn"} - {refused}
    first, best = next(iter(losses)), min(losses, key=losses.get)
    assert head.chosen["kind"] in (first, best)
    assert (head.chosen["kind"] == best) or losses[first] < 1.2 * losses[best]
    assert [f"kind {refused} is left out" in record.message for record in caplog.records] == [True] * bool(refused)
    if not folds:
        assert losses[head.chosen["kind"]] == pytest.approx(loss(head, x, samples, "val"), abs=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_an_average_says_the_mean_of_its_members(kind: str) -> None:
    *_, target = given(kind, 60)
    rng = np.random.default_rng(0)
    layers = [Layers([Layer(rng.normal(size=(5, target.outputs)), rng.normal(size=target.outputs))]) for _ in range(3)]
    heads = [Head("ridge", target, of, {}) for of in layers]
    x = rng.normal(size=(3, 7, 5))
    head, _ = average.join([(of, {}) for of in heads], {})
    expected = np.mean([of.predict(some) for of, some in zip(heads, x, strict=True)], axis=0)
    for one in (head, Head.from_files(head.to_files(), {average.KIND: average.Average})):
        assert one.predict(np.concatenate(list(x), axis=1)) == pytest.approx(expected, rel=1e-9)
