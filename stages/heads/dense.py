"""Owns training a dense head, a small network in Keras (imports TensorFlow). Not what it predicts (fitted.py)."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, Protocol

import keras
import numpy as np
import tensorflow as tf

from cache.errors import Diverged
from stages.data.manifest import Row
from stages.heads.fitted import Activation, Head, Layer, Layers
from stages.heads.labelled_rows import rows_in_split, target_columns
from stages.heads.matrix import FeatureMatrix, Scaler

log = logging.getLogger(__name__)


class Spec(Protocol):
    """Settings, as in pipeline.yaml; `log_dir` is an absolute path, or None."""

    units: Sequence[int]
    activation: Activation
    dropout: float
    standardise: bool
    optimizer: Literal["adam", "rmsprop", "sgd"]
    lr: float
    weight_decay: float
    label_smoothing: float
    class_weight: Literal["none", "balanced"]
    batch: int
    epochs: int
    patience: int | None
    log_dir: str | None
    seed: int


def fit(spec: Spec, features: FeatureMatrix, rows: Sequence[Row], classes: Sequence[str]) -> Head:
    """Hidden layers, each with dropout, and an output layer, trained on train until val stops improving.

    The weights are those of the epoch with the least val log-loss (without smoothing). The seed fixes them to the last
    bit on the same machine. Raises Diverged where the loss on val is never finite.
    """
    keras.utils.set_random_seed(spec.seed)
    tf.config.experimental.enable_op_determinism()
    y, outputs = target_columns(rows, classes), 1 if len(classes) == 2 else len(classes)
    train, val = rows_in_split(rows, "train"), rows_in_split(rows, "val")
    x, x_val = features.take(train), features.take(val)
    scaler = (
        Scaler.of(x, features.widths) if spec.standardise else Scaler(np.zeros(features.dim), np.ones(features.dim))
    )
    if spec.standardise:
        x, x_val = scaler.apply(x), scaler.apply(x_val)
    truth = y if outputs > 1 else y[:, None].astype(np.float32)
    network = _network(spec, features.dim, outputs)
    history = network.fit(
        x, truth[train], spec.batch, spec.epochs, validation_data=(x_val, truth[val]), verbose=0,
        callbacks=_callbacks(spec), class_weight=class_weights(spec.class_weight, y[train]),
    ).history  # fmt: skip
    losses = np.array(history["val_log_loss"], dtype=float)
    if not np.isfinite(losses).any():
        raise Diverged(
            "the dense head diverged: its loss on val was never a finite number", f"lower lr (it is {spec.lr:g})"
        )
    chosen = {
        "epoch": int(np.argmin(np.where(np.isfinite(losses), losses, np.inf))) + 1,
        "history": {name: _rounded(history[name]) for name in ("loss", "log_loss", "val_log_loss")},
    }
    return Head("dense", tuple(classes), _layers(network, scaler), chosen)


def _rounded(losses: Sequence[float]) -> list[float | None]:
    """As JSON takes them: None stands for a loss that is not finite."""
    return [round(float(loss), 6) if np.isfinite(loss) else None for loss in losses]


def _network(spec: Spec, dim: int, outputs: int) -> Any:
    """The compiled network; its outputs are logits, one for two classes."""
    layers: list[Any] = [keras.Input((dim,))]
    for units in spec.units:
        layers += [keras.layers.Dense(units, spec.activation), keras.layers.Dropout(spec.dropout)]
    network = keras.Sequential([*layers, keras.layers.Dense(outputs)])
    options: Mapping[str, Any] = {"learning_rate": spec.lr, "weight_decay": spec.weight_decay or None}
    optimizers = {"adam": keras.optimizers.Adam, "rmsprop": keras.optimizers.RMSprop, "sgd": keras.optimizers.SGD}
    loss = keras.losses.BinaryCrossentropy if outputs == 1 else _CategoricalLoss
    metric = keras.metrics.BinaryCrossentropy if outputs == 1 else _CategoricalMetric
    network.compile(
        optimizers[spec.optimizer](**options),
        loss(from_logits=True, label_smoothing=spec.label_smoothing),
        metrics=[metric(name="log_loss", from_logits=True)],
    )
    return network


def _one_hot(numbers: Any, logits: Any) -> Any:
    """Class numbers (n,) as (n, classes); by batch, since for all rows it may be larger than the features."""
    return keras.ops.one_hot(keras.ops.reshape(numbers, (-1,)), logits.shape[-1])


class _CategoricalLoss(keras.losses.CategoricalCrossentropy):
    def call(self, y_true: Any, y_pred: Any) -> Any:
        return super().call(_one_hot(y_true, y_pred), y_pred)


class _CategoricalMetric(keras.metrics.CategoricalCrossentropy):
    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        return super().update_state(_one_hot(y_true, y_pred), y_pred, sample_weight)


def _callbacks(spec: Spec) -> list[Any]:
    """Restore the weights of the best epoch, and stop `patience` epochs after it; None: never."""
    patience = spec.epochs if spec.patience is None else spec.patience
    best = _Best("val_log_loss", patience=patience, mode="min", restore_best_weights=True)
    return [best, *tensorboard_callbacks(spec.log_dir)]


class _Best(keras.callbacks.EarlyStopping):
    """Counts a loss that is not finite as the worst; Keras counts it as the best if it comes first."""

    def get_monitor_value(self, logs: Any) -> float:
        value = super().get_monitor_value(logs)
        return float(value) if np.isfinite(value) else np.inf


def tensorboard_callbacks(log_dir: str | None) -> list[Any]:
    """The callback that writes TensorBoard logs to an absolute path; none without a path or without TensorBoard."""
    if log_dir is None:
        return []
    if importlib.util.find_spec("tensorboard") is None:
        log.warning("log_dir is set, but TensorBoard is not installed, so no logs are written; pip install tensorboard")
        return []
    return [keras.callbacks.TensorBoard(log_dir)]


def class_weights(kind: Literal["none", "balanced"], y: np.ndarray) -> dict[int, float] | None:
    """Class weights for train rows with these columns y (n,); balanced: inverse to the number of rows."""
    if kind == "none":
        return None
    counts = np.bincount(y)
    return {i: len(y) / (len(counts) * int(count)) for i, count in enumerate(counts)}


def _layers(network: Any, scaler: Scaler) -> Layers:
    """The trained layers, with the standardisation folded into the first."""
    first, *others = layers_of(layer for layer in network.layers if layer.weights)
    return Layers([Layer(*scaler.fold(first.weights, first.bias), first.activation), *others])


def layers_of(dense: Iterable[Any]) -> Layers:
    """Keras's Dense layers as arrays, float64."""
    found = []
    for layer in dense:
        weights, bias = (array.astype(np.float64) for array in layer.get_weights())
        found.append(Layer(weights, bias, layer.activation.__name__))
    return Layers(found)
