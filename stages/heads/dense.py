"""Owns training a dense head, a small network in Keras (imports TensorFlow). Not what it predicts (fitted.py)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from cache.errors import Diverged
from stages.data.manifest import Row
from stages.heads import dense_network, logistic, ridge
from stages.heads.dense_network import Spec
from stages.heads.fitted import Head, Layer, Layers, OutOfFold
from stages.heads.labelled_rows import encode, find_unfoldable, rows_in_split
from stages.heads.matrix import FeatureMatrix, Scaler, unit_spans
from stages.heads.selection import Selection
from stages.targets.target import Target

LEAST_GAIN = 1.0
"""Nats, of all judged rows together, that an epoch must gain over epoch 0: less is chance (compare Akaike 1974)."""


@dataclass
class _Start:
    """Settings of the head that training starts from: those of the linear head that its target takes."""

    folds: int
    seed: int
    C: float | None = None
    alpha: float | None = None


@dataclass(frozen=True)
class _Data:
    """Scaled rows (n, dim), scores they start from (n, outputs), both float32, and what they have."""

    x: np.ndarray
    start: np.ndarray
    y: np.ndarray

    @property
    def inputs(self) -> list[np.ndarray]:
        return [self.x, self.start]

    @property
    def truth(self) -> np.ndarray:
        """As the network's loss takes it."""
        if self.start.shape[1] > 1:
            return self.y if self.y.ndim == 1 else self.y.astype(np.float32)
        return (self.y[:, None] if self.y.ndim == 1 else self.y[:, -1:]).astype(np.float32)


def fit(spec: Spec, features: FeatureMatrix, rows: Sequence[Row], target: Target) -> Head:
    """Hidden layers, each with dropout, and an output layer, whose scores are added to those of a logistic head.

    Of numbers, to those of a ridge head. The output layer starts at 0, so that epoch 0 is that head: from random
    weights a network is worse on few images. (Not with `standardise: false`, nor with tanh, through which no logits
    pass.) The epoch is that of the least log-loss (without smoothing) on val, or on folds: all networks are trained in
    step, and then one on all rows for as many epochs. The seed fixes the weights to the last bit on the same machine.
    Raises Diverged where no loss is finite.
    """
    tf.config.experimental.enable_op_determinism()
    trainer = _Trainer(spec, features, rows, target)
    if trainer.selection.folds is None:
        return trainer.fit_on_val()
    return trainer.fit_on_folds()


class _Trainer:
    """The networks of one head: for val, for each fold, and for all rows."""

    def __init__(self, spec: Spec, features: FeatureMatrix, rows: Sequence[Row], target: Target) -> None:
        self.spec, self.rows, self.target = spec, rows, target
        self.features = features.unit_rows() if spec.standardise else features
        self.y, self.outputs = encode(rows, target), target.outputs
        self.selection = Selection.of(spec, rows, target, repeats=1)
        self.starts = spec.standardise and (spec.activation != "tanh" or not spec.units)

    def fit_on_val(self) -> Head:
        """Trained on train until val stops improving, with the weights of the best epoch."""
        train, val = self.selection.fitted, rows_in_split(self.rows, "val")
        start = self._start(np.concatenate([train, val]))
        data, scaler = self._data(train, None, start)
        held, _ = self._data(val, scaler, start)
        network = self._network()
        before, first = network.get_weights(), self._loss(held)
        history = self._train(
            network, data, self.spec.epochs, validation_data=(held.inputs, held.truth),
            callbacks=dense_network.best_epoch(self.spec, self.target),
        ).history  # fmt: skip
        losses = np.array([first if self.starts else np.inf, *history[f"val_{self.target.loss}"]], dtype=float)
        epoch = self._best(losses, len(self.selection.judged))
        if epoch == 0:
            network.set_weights(before)
        name = self.target.loss
        kept = {curve: _rounded(history[curve]) for curve in ("loss", name)}
        kept[f"val_{name}"] = _rounded(losses[0 if self.starts else 1 :].tolist())
        return self._head(network, scaler, start, {"epoch": epoch, "history": kept}, None)

    def fit_on_folds(self) -> Head:
        """Trained on all rows, for as many epochs as are best on folds."""
        losses, predictions = self._follow_folds()
        means = losses.mean(axis=1)
        epoch = self._best(means, len(self.selection.judged))

        def judge(others: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
            best = self._best(losses[:, others].mean(axis=1), len(others))
            return lambda here: np.asarray(predictions[best][here])

        start, network = self._start(self.selection.fitted), self._network()
        data, scaler = self._data(self.selection.fitted, None, start)
        history: dict[str, Sequence[float]] = {f"fold_{self.target.loss}": means.tolist()}
        if epoch:
            logs = dense_network.tensorboard_callbacks(self.spec.log_dir)
            found = self._train(network, data, epoch, callbacks=logs).history
            history = {**{curve: found[curve] for curve in ("loss", self.target.loss)}, **history}
        chosen = {"epoch": epoch, "history": {name: _rounded(losses) for name, losses in history.items()}}
        return self._head(network, scaler, start, chosen, self.selection.cross_fit(judge))

    def _follow_folds(self) -> tuple[np.ndarray, list[np.ndarray]]:
        """By epoch, 0 first: the loss of each judged row, (epochs, n), and predictions (n, columns).

        The networks of all folds are trained an epoch at a time, until `patience` epochs after the best.
        """
        networks, data, held = [], [], []
        for part in self.selection.parts:
            start = self._start(part.fitted)
            fitted, scaler = self._data(part.fitted, None, start)
            data.append(fitted)
            held.append(self._data(part.held, scaler, start)[0])
            networks.append(self._network())
        truth, patience = self.y[self.selection.judged], self.spec.patience or self.spec.epochs
        losses: list[np.ndarray] = []
        predictions: list[np.ndarray] = []
        for epoch in range(self.spec.epochs + 1):
            for network, fitted in zip(networks, data, strict=True) if epoch else ():
                self._train(network, fitted, 1)
            scores = [np.asarray(n(part.inputs, training=False)) for n, part in zip(networks, held, strict=True)]
            predictions.append(self.target.predict(self.selection.gather(scores)[0].astype(np.float64)))
            losses.append(self.target.losses(truth, predictions[-1]))
            if epoch == 0 and not self.starts:
                losses[0] = np.full(len(truth), np.inf)  # random weights are no candidate
            means = np.array([found.mean() for found in losses])
            if epoch - int(np.argmin(np.where(np.isfinite(means), means, np.inf))) >= patience:
                break
        return np.stack(losses), predictions

    def _start(self, numbers: np.ndarray) -> Layer:
        """A linear head fitted on rows of those numbers, and chosen by folds of them, or by the val among them."""
        if not self.starts:
            return Layer(np.zeros((self.features.dim, self.outputs)), np.zeros(self.outputs))
        (here, rows), settings = self._foldable(numbers), _Start(self.spec.folds, self.spec.seed)
        linear = {"logistic": logistic, "ridge": ridge}[self.target.linear]
        head = linear.fit(settings, self.features.some(here), rows, self.target)
        first: Layer = head.layers[0]
        return first

    def _foldable(self, numbers: np.ndarray) -> tuple[np.ndarray, list[Row]]:
        """The numbers, ascending, and their rows. A class with one image or group here, as folds of folds may leave it,
        is there twice, and without groups."""
        here = np.sort(numbers)
        rows = [self.rows[i] for i in here]
        while self.selection.folds is not None and (alone := find_unfoldable(rows, self.target)):
            of = self.target.strata([row.label or "" for row in rows]).members[alone]
            for i in of:
                rows[i] = rows[i]._replace(group=None)
            order = np.argsort(np.concatenate([here, here[of]]), kind="stable")
            here, rows = np.concatenate([here, here[of]])[order], [[*rows, *(rows[i] for i in of)][i] for i in order]
        return here, rows

    def _loss(self, data: _Data) -> float:
        """Of the scores that they start from."""
        return float(self.target.losses(data.y, self.target.predict(data.start)).mean())

    def _data(self, numbers: np.ndarray, scaler: Scaler | None, start: Layer) -> tuple[_Data, Scaler]:
        """The rows of those numbers, scaled; without a scaler, by their own."""
        x, dim = self.features.take(numbers), self.features.dim
        logits = (x @ start.weights + start.bias).astype(np.float32)
        if not self.spec.standardise:
            return _Data(x, logits, self.y[numbers]), Scaler(np.zeros(dim), np.ones(dim))
        scaler = scaler or Scaler.of(x, self.features.widths)
        return _Data(scaler.apply(x), logits, self.y[numbers]), scaler

    def _network(self) -> Any:
        return dense_network.make_network(self.spec, self.features.dim, self.target, self.y, self.starts)

    def _train(self, network: Any, data: _Data, epochs: int, **options: Any) -> Any:
        weights = dense_network.class_weights(self.spec.class_weight, data.y)
        return network.fit(data.inputs, data.truth, self.spec.batch, epochs, verbose=0, class_weight=weights, **options)

    def _best(self, losses: np.ndarray, judged: int) -> int:
        """The epoch of the least loss, a mean over that many judged rows. Raises Diverged where none is finite."""
        finite = np.isfinite(losses)
        if not finite.any():
            where = "val" if self.selection.folds is None else "folds"
            raise Diverged(
                f"the dense head diverged: its loss on {where} was never a finite number",
                f"lower lr (it is {self.spec.lr:g})",
            )
        best = int(np.argmin(np.where(finite, losses, np.inf)))
        gain = (losses[0] - losses[best]) * judged
        return 0 if self.starts and gain < LEAST_GAIN else best

    def _head(
        self, network: Any, scaler: Scaler, start: Layer, chosen: Mapping[str, Any], found: OutOfFold | None
    ) -> Head:
        first, *others = dense_network.layers_of(layer for layer in network.layers if layer.weights)
        layers = [Layer(*scaler.fold(first.weights, first.bias), first.activation), *others]
        if self.starts:
            layers = dense_network.add_linear(layers, start)
        unit = unit_spans(self.features.widths) if self.spec.standardise else ()
        return Head("dense", self.target, Layers(layers, unit), chosen, found)


def _rounded(losses: Sequence[float]) -> list[float | None]:
    """As JSON takes them: None stands for a loss that is not finite."""
    return [round(float(loss), 6) if np.isfinite(loss) else None for loss in losses]
