"""Owns a dense head's network in Keras, and its layers as arrays. A TensorFlow room. Not its training (dense.py)."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, Protocol

import keras
import numpy as np
from scipy.linalg import block_diag

from cache.errors import Unusable
from stages.heads.fitted import Activation, Layer, Layers
from stages.targets.target import Target

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
    folds: int
    seed: int


def make_network(spec: Spec, dim: int, target: Target, y: np.ndarray, from_zero: bool) -> Any:
    """The compiled network of (rows (n, dim), scores (n, outputs) that are added); its outputs are scores.

    y: what the rows have. from_zero: its own scores are 0 at first.
    """
    keras.utils.set_random_seed(spec.seed)
    rows, added = keras.Input((dim,)), keras.Input((target.outputs,))
    x = rows
    for units in spec.units:
        x = keras.layers.Dropout(spec.dropout)(keras.layers.Dense(units, spec.activation)(x))
    last = keras.layers.Dense(target.outputs, kernel_initializer="zeros" if from_zero else "glorot_uniform")
    network = keras.Model([rows, added], keras.layers.Add()([last(x), added]))
    options: Mapping[str, Any] = {"learning_rate": spec.lr, "weight_decay": spec.weight_decay or None}
    optimizers = {"adam": keras.optimizers.Adam, "rmsprop": keras.optimizers.RMSprop, "sgd": keras.optimizers.SGD}
    loss, metric = losses_of(target, y, spec.label_smoothing)
    network.compile(optimizers[spec.optimizer](**options), loss, metrics=[metric])
    return network


def losses_of(target: Target, y: np.ndarray, smoothing: float = 0.0) -> tuple[Any, Any]:
    """The loss that a network of the target's scores is trained with, and the metric that is its mean `loss`.

    y: what the rows have. Columns that are not exclusive have a loss each; unknown ones have none.
    """
    if not target.probabilities:
        return keras.losses.MeanSquaredError(), keras.metrics.MeanSquaredError(target.loss)
    if not target.exclusive:
        return KnownLoss(smoothing), keras.metrics.MeanMetricWrapper(KnownLoss().call, target.loss)
    if target.outputs == 1:
        loss: Any = keras.losses.BinaryCrossentropy
        metric: Any = keras.metrics.BinaryCrossentropy
    elif y.ndim == 1:
        loss, metric = _CategoricalLoss, _CategoricalMetric
    else:
        loss, metric = keras.losses.CategoricalCrossentropy, keras.metrics.CategoricalCrossentropy
    return loss(from_logits=True, label_smoothing=smoothing), metric(name=target.loss, from_logits=True)


class KnownLoss(keras.losses.Loss):
    """The mean log-loss of the known labels of a row; unknown ones are NaN."""

    def __init__(self, smoothing: float = 0.0) -> None:
        super().__init__(name="known_log_loss")
        self.smoothing = smoothing

    def call(self, y_true: Any, y_pred: Any) -> Any:
        ops = keras.ops
        known = ops.cast(ops.logical_not(ops.isnan(y_true)), y_pred.dtype)
        truth = ops.where(known > 0, y_true, ops.zeros_like(y_true))
        truth = truth * (1 - self.smoothing) + self.smoothing / 2
        loss = ops.softplus(y_pred) - truth * y_pred
        return ops.sum(loss * known, axis=-1) / ops.maximum(ops.sum(known, axis=-1), 1)


def add_linear(layers: Sequence[Layer], linear: Layer) -> list[Layer]:
    """Layers whose logits are those of `layers` plus those of `linear`, which pass through hidden units of their own.

    Through relu, a logit and its negative each pass a unit of their own. `layers` have no tanh.
    """
    if len(layers) == 1:
        return [Layer(layers[0].weights + linear.weights, layers[0].bias + linear.bias)]
    first, *middle, last = layers
    signs = [1.0, -1.0] if first.activation == "relu" else [1.0]
    weights = np.hstack([first.weights, *(sign * linear.weights for sign in signs)])
    wide = [Layer(weights, np.concatenate([first.bias, *(sign * linear.bias for sign in signs)]), first.activation)]
    passing = len(linear.bias) * len(signs)
    for layer in middle:
        bias = np.concatenate([layer.bias, np.zeros(passing)])
        wide.append(Layer(block_diag(layer.weights, np.eye(passing)), bias, layer.activation))
    through = [sign * np.eye(len(linear.bias)) for sign in signs]
    return [*wide, Layer(np.vstack([last.weights, *through]), last.bias, last.activation)]


def _one_hot(numbers: Any, logits: Any) -> Any:
    """Class numbers (n,) as (n, classes); by batch, since for all rows it may be larger than the features."""
    return keras.ops.one_hot(keras.ops.reshape(numbers, (-1,)), logits.shape[-1])


class _CategoricalLoss(keras.losses.CategoricalCrossentropy):
    def call(self, y_true: Any, y_pred: Any) -> Any:
        return super().call(_one_hot(y_true, y_pred), y_pred)


class _CategoricalMetric(keras.metrics.CategoricalCrossentropy):
    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        return super().update_state(_one_hot(y_true, y_pred), y_pred, sample_weight)


def best_epoch(spec: Spec, target: Target) -> list[Any]:
    """Restore the weights of the best epoch, and stop `patience` epochs after it; None: never."""
    patience = spec.epochs if spec.patience is None else spec.patience
    best = _Best(f"val_{target.loss}", patience=patience, mode="min", restore_best_weights=True)
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
    if y.ndim > 1:
        raise Unusable("class_weight: balanced weighs classes, and images have no one class here", "leave it out")
    counts = np.bincount(y)
    return {i: len(y) / (len(counts) * int(count)) for i, count in enumerate(counts)}


def layers_of(dense: Iterable[Any]) -> Layers:
    """Keras's Dense layers as arrays, float64."""
    found = []
    for layer in dense:
        weights, bias = (array.astype(np.float64) for array in layer.get_weights())
        found.append(Layer(weights, bias, layer.activation.__name__))
    return Layers(found)
