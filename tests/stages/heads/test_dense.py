"""dense.py: what Keras trained, said by numpy; seeded, stopped early, and the tutorial's head among others."""

from __future__ import annotations

import importlib.util
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cache.errors import Diverged
from pipeline.config.head_schema import Dense, Logistic
from stages.heads.fitted import Head, Layer, Layers
from tests.conftest import Pipeline
from tests.support.networks import curve
from tests.support.problems import columns, features, in_train, names, part, problem
from tests.support.process import events, run


def fit(x: np.ndarray, samples: Any, n_classes: int, **settings: Any) -> Head:
    from stages.heads import dense  # here: a TensorFlow room

    spec = Dense(**{"units": [8], "epochs": 5, "lr": 0.01, **settings})
    return dense.fit(spec, features(x), samples, names(n_classes))


@pytest.mark.parametrize(("n_classes", "standardise"), [(2, True), (3, False)])
def test_numpy_says_what_the_network_says(n_classes: int, standardise: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    from stages.heads import dense_network
    from stages.heads.matrix import Scaler

    networks: list[Any] = []
    made = dense_network.make_network
    monkeypatch.setattr(
        dense_network, "make_network", lambda *arguments: networks.append(made(*arguments)) or networks[-1]
    )
    x, samples = problem(n_classes)
    x = (x / 1000).astype(np.float32)
    head = fit(x, samples, n_classes, units=[8, 4], activation="tanh", standardise=standardise)
    z = Scaler.of(x[part(samples, "train")], [12]).apply(x.copy()) if standardise else x
    assert [layer.activation for layer in head.layers] == ["tanh", "tanh", "linear"]
    expected = networks[0].predict([z, np.zeros((len(z), 1 if n_classes == 2 else n_classes))], verbose=0)
    assert np.abs(head.scores(x) - expected).max() < 1e-5 * max(1, np.abs(expected).max())


def test_the_usual_tutorial_s_head_can_be_expressed() -> None:
    """Flattened maps, Dense 256 without activation, dropout 0.5, rmsprop, features as they are."""
    maps = np.random.default_rng(0).random((60, 5, 5, 512), np.float32)
    _, samples = problem(2, n=60)
    maps[columns(samples) == 1, :, :, :9] += 1
    tutorial = {"units": [256], "activation": "linear", "dropout": 0.5, "optimizer": "rmsprop", "lr": 2e-5}
    head = fit(maps, samples, 2, **tutorial, standardise=False, batch=20, patience=None)
    assert [layer.weights.shape for layer in head.layers] == [(12_800, 256), (256, 1)]
    assert [layer.activation for layer in head.layers] == ["linear", "linear"]
    assert len(head.chosen["history"]["loss"]) == 5


def test_the_best_epoch_is_kept_and_patience_ends_it() -> None:
    x, samples = problem(3, signal=0.3)
    head = fit(x, samples, 3, epochs=40, lr=0.05, patience=2, dropout=0, activation="tanh")
    losses = head.chosen["history"]["val_log_loss"]
    best = int(np.argmin(losses))
    assert head.chosen["epoch"] == best + 1 == len(losses) - 2
    val = part(samples, "val")
    right = head.predict(x[val])[np.arange(val.sum()), columns(samples)[val]]
    assert -np.log(right).mean() == pytest.approx(losses[best], abs=1e-4)


def test_each_option_moves_the_weights_and_the_seed_fixes_them() -> None:
    x, samples = problem(2)
    samples = [row for row in samples if row.label == "c0"] + [row for row in samples if row.label == "c1"][:40]
    x = x[: len(samples)]
    options: list[dict[str, Any]] = [
        {}, {"seed": 1}, {"dropout": 0.0}, {"optimizer": "sgd"}, {"optimizer": "rmsprop"}, {"weight_decay": 0.5},
        {"label_smoothing": 0.3}, {"class_weight": "balanced"}, {"activation": "linear"},
    ]  # fmt: skip
    made = [fit(x, samples, 2, **{"epochs": 2, "activation": "tanh", **more}) for more in [*options, {}]]
    found = [head.layers[0].weights.tobytes() for head in made]
    assert found[0] == found[-1]
    assert len(set(found)) == len(options)


@pytest.mark.parametrize("activation", ["relu", "linear"])
@pytest.mark.parametrize("units", [[], [5], [5, 4]])
def test_logits_are_those_of_the_network_and_of_the_logistic_head(activation: Any, units: list[int]) -> None:
    from stages.heads.dense_network import add_linear

    rng = np.random.default_rng(0)
    sizes = [12, *units, 3]
    parts = [(rng.normal(size=shape), rng.normal(size=shape[1])) for shape in pairwise(sizes)]
    layers = [Layer(*part, activation) for part in parts[:-1]] + [Layer(*parts[-1])]
    linear, x = Layer(rng.normal(size=(12, 3)), rng.normal(size=3)), rng.normal(size=(20, 12))
    expected = Layers(layers).scores(x, names(3)) + Layers([linear]).scores(x, names(3))
    assert np.allclose(Layers(add_linear(layers, linear)).scores(x, names(3)), expected)


def test_where_training_gains_nothing_it_is_the_logistic_head() -> None:
    from stages.heads import logistic

    x, samples = problem(2, n=80, signal=0.2)
    head = fit(x, in_train(samples), 2, lr=1e-7)
    assert head.chosen["epoch"] == 0
    alone = logistic.fit(Logistic(), features(x), in_train(samples), names(2))
    assert np.allclose(head.predict(x), alone.predict(x), atol=1e-6)


def test_the_loss_of_class_numbers_is_keras_s_of_one_hot_rows() -> None:
    from stages.heads import dense_network as dense

    rng = np.random.default_rng(0)
    numbers, logits = rng.integers(0, 7, 20), rng.normal(size=(20, 7)).astype(np.float32)
    one_hot, weights = np.eye(7, dtype=np.float32)[numbers], rng.random(20)
    expected = dense.keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1)
    ours = dense._CategoricalLoss(from_logits=True, label_smoothing=0.1)
    for shape in ((20,), (20, 1)):
        assert float(ours(numbers.reshape(shape), logits)) == float(expected(one_hot, logits))
    metrics = dense.keras.metrics.CategoricalCrossentropy(from_logits=True), dense._CategoricalMetric(from_logits=True)
    for metric, truth in zip(metrics, (one_hot, numbers), strict=True):
        metric.update_state(truth, logits, sample_weight=weights)
    assert float(metrics[0].result()) == float(metrics[1].result())


def test_balanced_weights_count_every_class_alike() -> None:
    from stages.heads import dense_network as dense

    weights = dense.class_weights("balanced", np.array([0, 0, 0, 1]))
    assert weights == {0: 4 / 6, 1: 2}
    assert dense.class_weights("none", np.array([0, 1])) is None


def test_tensorboard_reads_the_curves(tmp_path: Path) -> None:
    x, samples = problem(2)
    fit(x, samples, 2, log_dir=str(tmp_path))
    assert len(curve(tmp_path / "train", "epoch_loss")) == 5
    assert len(curve(tmp_path / "validation", "epoch_log_loss")) == 5


def test_without_tensorboard_a_warning_says_how_to_have_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n, *a: None if n == "tensorboard" else find(n, *a))
    x, samples = problem(2)
    fit(x, samples, 2, log_dir=str(tmp_path / "logs"))
    assert "pip install tensorboard" in caplog.text
    assert not (tmp_path / "logs").exists()


def test_a_dense_head_is_run_and_reproduced_bitwise_in_other_processes(project: Path, tmp_path: Path) -> None:
    project.write_text(project.read_text() + "heads: {d: {kind: dense, units: [4], epochs: 3, folds: 2}}\n")
    run("run", "-c", project)
    shown = json.loads(run("reproduce", "d", "-c", project, "--json")[0])["reproduce"]
    assert (shown["reproduced"], shown["differences"]) == (True, {})
    run("run", "head", "-c", project, WATCH=str(tmp_path / "log"))
    assert events(tmp_path / "log")[-1] == ["imported"]  # it is there: nothing to train


def test_training_that_diverges_at_once_is_refused() -> None:
    x, samples = problem(2)
    with pytest.raises(Diverged, match="the dense head diverged") as refused:
        fit(x, samples, 2, optimizer="sgd", lr=1e30, activation="linear", standardise=False)
    assert "1e+30" in refused.value.hint


def test_a_point_that_diverges_is_left_out_of_its_sweep_and_never_trained_again(
    pipeline: Pipeline, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wild = "optimizer: sgd, activation: linear, standardise: false"
    head = f"{{kind: dense, units: [4], epochs: 2, {wild}, sweep: {{lr: [0.01, 1.0e+30]}}}}"
    project.write_text(project.read_text() + f"heads: {{d: {head}}}\n")
    ran = pipeline("run", "-c", project)
    assert ran.code == 0, ran.err
    assert "heads.d at lr=1e+30 is left out: the dense head diverged" in ran.err
    assert [line.split()[1] for line in ran.out.splitlines() if line.startswith("lr=")] == ["trained", "diverged"]
    monkeypatch.setattr("stages.heads.dense.fit", None)  # nothing is trained from here on
    d = pipeline("run", "-c", project, "--json").json["heads"]["d"]
    assert (d["point"], d["hit"], [p["point"] for p in d["points"]]) == ("lr=0.01", True, ["lr=0.01"])
    (lost,) = d["diverged"]
    assert (lost["point"], lost["hit"], lost["hint"]) == ("lr=1e+30", True, "lower lr (it is 1e+30)")
    status = pipeline("status", "--hash", "-c", project, "--json").json["status"]["stages"]
    (stage,) = [s for s in status if s["name"] == "d"]
    assert (stage["state"], stage["reason"]) == ("HIT", "1 of 2 points are there, 1 diverged")
    assert [m["key"] for m in pipeline("models", "-c", project, "--json").json["models"]] == [d["key"]]
    assert pipeline("show", lost["key"], "-c", project).code == 2


def test_a_sweep_of_which_all_points_diverge_is_refused_and_so_is_a_head_that_diverges(
    pipeline: Pipeline, project: Path
) -> None:
    wild = "optimizer: sgd, activation: linear, standardise: false, lr: 1.0e+30"
    head = f"{{kind: dense, units: [4], epochs: 1, {wild}, sweep: {{seed: [0, 1]}}}}"
    project.write_text(project.read_text() + f"heads: {{d: {head}}}\n")
    ran = pipeline("run", "-c", project)
    assert (ran.code, "heads.d: all 2 points diverged" in ran.err) == (2, True)
    status = pipeline("status", "--hash", "-c", project, "--json").json["status"]["stages"]
    (stage,) = [s for s in status if s["name"] == "d"]
    assert (stage["state"], stage["reason"]) == ("BLOCKED", "all 2 points diverged")
    ran = pipeline("run", "-c", project, "--set", "heads.d.sweep=null")
    assert (ran.code, "Error: the dense head diverged" in ran.err) == (2, True)


def test_a_loss_that_is_no_number_is_never_the_best() -> None:
    from stages.heads import dense_network

    spec = Dense(epochs=4)
    network = dense_network.make_network(spec, 3, names(2), np.zeros(0, int), True)
    kernel, *_ = network.weights
    best, *_ = dense_network.best_epoch(spec, names(2))
    best.set_model(network)
    best.on_train_begin()
    for epoch, loss in enumerate([np.nan, 0.7, np.inf, 0.9]):
        kernel.assign(np.full(kernel.shape, epoch))
        best.on_epoch_end(epoch, {"val_log_loss": loss})
    best.on_train_end()
    assert (np.asarray(kernel) == 1).all()


def test_an_epoch_s_gain_counts_over_the_rows_that_judge_it() -> None:
    """A cross-fitted figure's epoch is judged by four folds of five: the same mean gain is of fewer rows there."""
    from stages.heads import dense

    x, samples = problem(2, n=60)
    trainer = dense._Trainer(Dense(), features(x), in_train(samples), names(2))
    losses = np.array([0.5, 0.5 - 1.1 * dense.LEAST_GAIN / 60])
    assert (trainer._best(losses, 60), trainer._best(losses, 48)) == (1, 0)
