"""Owns heads: fitting one on feature rows, its key, and its file form. Not where rows come from, nor the figures.

A head is arrays and JSON, with the standardisation folded in: numpy predicts, and each layer is a Keras Dense.
"""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cache import keys
from cache.errors import Unusable
from stages.evaluate import log_loss
from stages.manifest import SPLITS, Manifest, Row

VERSION = 1
"""Of the fitting arithmetic. Raise it when the same rows give another head."""

PATH = tuple(float(c) for c in np.round(np.logspace(-6, 3, 19), 10))
"""C of the logistic path, ascending: two to a decade, of the scikit-learn kind (it multiplies the sum of losses)."""

_WORSE = 2


@dataclass(frozen=True)
class Layer:
    """y = x @ weights + bias: weights (inputs, outputs) and bias (outputs,), float64."""

    weights: np.ndarray
    bias: np.ndarray


@dataclass(frozen=True)
class Head:
    """A trained classifier on feature vectors. Two classes: one output, sigmoid; more: softmax."""

    kind: str
    classes: tuple[str, ...]
    layers: tuple[Layer, ...]
    chosen: Mapping[str, Any]

    def logits(self, features: np.ndarray) -> np.ndarray:
        """features (n, dim) -> (n, 1) for two classes, else (n, classes), float64."""
        out = np.asarray(features, dtype=np.float64)
        for layer in self.layers:
            out = out @ layer.weights + layer.bias
        return out

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """features (n, dim) -> (n, classes), rows sum to 1."""
        logits = self.logits(features)
        if logits.shape[1] == 1:
            logits = np.concatenate([-logits / 2, logits / 2], axis=1)
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True))

    def to_files(self) -> dict[str, bytes]:
        buffer = io.BytesIO()
        arrays = {f"layer{i}_{n}": v for i, layer in enumerate(self.layers) for n, v in vars(layer).items()}
        np.savez(buffer, **arrays)
        text = {"kind": self.kind, "classes": self.classes, "layers": len(self.layers), "chosen": self.chosen}
        return {"head.npz": buffer.getvalue(), "head.json": (json.dumps(text, indent=2) + "\n").encode()}

    @classmethod
    def from_files(cls, files: Mapping[str, bytes]) -> Head:
        text = json.loads(files["head.json"])
        with np.load(io.BytesIO(files["head.npz"]), allow_pickle=False) as arrays:
            layers = [Layer(arrays[f"layer{i}_weights"], arrays[f"layer{i}_bias"]) for i in range(text["layers"])]
        return cls(text["kind"], tuple(text["classes"]), tuple(layers), text["chosen"])


def key(spec: Mapping[str, Any], classes: Sequence[str], extract_keys: Sequence[str], manifest: Manifest) -> str:
    """A head's key: its code's version, spec (seed included), class order, extract keys of its taps, labelled rows."""
    parts = {"version": VERSION, "spec": spec, "classes": classes, "taps": extract_keys}
    return keys.digest("head", {**parts, "samples": manifest.samples_digest})


def classes_of(manifest: Manifest, order: Sequence[str] | None) -> tuple[str, ...]:
    """The classes, sorted or in the order given, after checking that a head can be trained on these rows.

    Raises Unusable: no labels, one class, a class never trained on, an empty train or val, one image twice labelled.
    """
    manifest.check_labels()
    counts = manifest.counts()
    if not counts:
        raise Unusable(
            "no image has a label, and a head needs them",
            "put them in one folder per class, or name a table (data.table); features alone: pipeline run extract",
        )
    if len(counts) == 1:
        raise Unusable(
            f"there is one class only, {next(iter(counts))!r}; a head needs two or more",
            "check data.root: it should hold one folder per class",
        )
    for split in ("train", "val"):
        if not any(by_split[split] for by_split in counts.values()):
            raise Unusable(
                f"no labelled image is in {split} ({_split_sizes(counts)}); a head is fitted on train, chosen on val",
                "enlarge data.split.val, or add images",
            )
    for label, by_split in counts.items():
        if not by_split["train"]:
            raise Unusable(
                f"class {label!r} has no image in train ({by_split['val']} in val, {by_split['test']} in test)",
                "add images of it, or change data.split.seed",
            )
    if order is None:
        return tuple(counts)
    if sorted(order) != sorted(counts):
        raise Unusable(f"data.classes is {sorted(order)}, but the images have {sorted(counts)}", "list each class once")
    return tuple(order)


def fit_logistic(features: np.ndarray, rows: Sequence[Row], classes: Sequence[str], seed: int) -> Head:
    """Multinomial (or binary) logistic regression, fitted on train, with C chosen on val.

    features (n, dim) float and `rows` agree line by line. Features are standardised on the train rows; lbfgs follows C
    upwards, warm-started, until the val log-loss has been worse than its best twice running (Kornblith et al. 2019
    choose C on a log grid in the same way).
    """
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    x = np.asarray(features, dtype=np.float32)
    if x.ndim != 2:
        raise Unusable(
            f"a logistic head needs vectors, but its tap gives maps of shape {x.shape[1:]}",
            "use a tap with pooling: avg or max",
        )
    number = {name: i for i, name in enumerate(classes)}
    y = np.array([number[row.label or ""] for row in rows])
    train, val = (np.array([row.split == split for row in rows]) for split in ("train", "val"))
    scaler = StandardScaler().fit(x[train].astype(np.float64))
    z = ((x[train] - scaler.mean_) / scaler.scale_).astype(np.float32)
    with threadpool_limits(1, "blas"):  # twice as fast: lbfgs makes many small products. And the same on any machine
        losses: dict[float, float] = {}
        best: Head | None = None
        for model, c in _path(z, y[train], seed):
            head = _fold(model, scaler, classes, c)
            losses[c] = log_loss(y[val], head.probabilities(x[val]))
            if losses[c] <= min(losses.values()):
                best = head
            elif min(list(losses.values())[-_WORSE:]) > min(losses.values()):
                break
    if best is None:
        raise Unusable("the logistic head did not converge at any C", "check the features: pipeline run extract -v")
    path = {format(c, ".3g"): round(loss, 6) for c, loss in losses.items()}
    return Head(best.kind, best.classes, best.layers, {**best.chosen, "val_log_loss": path})


def _path(z: np.ndarray, y: np.ndarray, seed: int) -> Iterator[tuple[Any, float]]:
    """The model fitted at each C in turn, each from where the last one ended, as long as it converges."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(solver="lbfgs", max_iter=2000, warm_start=True, random_state=seed)
    for c in PATH:
        model.set_params(C=c)
        with warnings.catch_warnings():
            warnings.simplefilter("error", ConvergenceWarning)
            try:
                model.fit(z, y)
            except ConvergenceWarning:
                return  # on the way to separable data without a penalty
        yield model, c


def _fold(model: Any, scaler: Any, classes: Sequence[str], c: float) -> Head:
    """w . (x - mean) / scale + b as one layer on raw features."""
    weights = model.coef_.astype(np.float64).T / scaler.scale_[:, None]
    bias = model.intercept_.astype(np.float64) - scaler.mean_ @ weights
    return Head("logistic", tuple(classes), (Layer(weights, bias),), {"C": c, "iterations": int(model.n_iter_[0])})


def _split_sizes(counts: Mapping[str, Mapping[str, int]]) -> str:
    return ", ".join(f"{split} {sum(c[split] for c in counts.values())}" for split in SPLITS)
