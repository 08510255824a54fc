"""Owns a head's form: its arrays, what numpy predicts with them, its files and its key. Not how one is fitted.

A head is arrays and JSON, with the standardisation folded in. Unless it is a kNN head it is a stack of layers, each of
which is a Keras Dense. Each kind is fitted in a module of its own: fit(spec, features, rows, classes) -> Head.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from cache import keys, npz
from cache.errors import Unusable
from stages.data.manifest import SPLITS, Manifest, Row

VERSION = 3
"""Of the fitting arithmetic. Raise it when the same rows give another head."""

SCHEMA = 2
"""Of head.json. Schema 1 had neither this field nor activations."""

Activation = Literal["linear", "relu", "tanh"]
ACTIVATIONS: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "linear": lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "tanh": np.tanh,
}
_BATCH_BYTES = 32 << 20

TILE = 8192
"""Stored rows that others are compared with at a time: few enough to be fast, whatever their number."""


@dataclass(frozen=True)
class Layer:
    """y = activation(x @ weights + bias): weights (inputs, outputs) and bias (outputs,), float64."""

    weights: np.ndarray
    bias: np.ndarray
    activation: Activation = "linear"


@dataclass(frozen=True)
class Neighbours:
    """Train rows of a kNN head: rows (n, dim) float32, each of length 1, and their classes' columns (n,) int64."""

    rows: np.ndarray
    columns: np.ndarray
    k: int
    temperature: float

    def nearest(self, features: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The k most similar rows of each of features (n, dim): cosines and columns, both (n, k), the nearest first."""
        x = unit_rows(features)
        cosines: np.ndarray = np.empty((len(x), 0), np.float32)
        numbers: np.ndarray = np.empty((len(x), 0), np.int64)
        for start in range(0, len(self.rows), TILE):
            similar = x @ self.rows[start : start + TILE].T
            found = _largest(similar, k)
            cosines = np.concatenate([cosines, np.take_along_axis(similar, found, axis=1)], axis=1)
            numbers = np.concatenate([numbers, found + start], axis=1)
            if start:
                kept = _largest(cosines, k)
                cosines, numbers = (np.take_along_axis(both, kept, axis=1) for both in (cosines, numbers))
        order = np.argsort(-cosines, axis=1, kind="stable")
        return np.take_along_axis(cosines, order, axis=1), self.columns[np.take_along_axis(numbers, order, axis=1)]


@dataclass(frozen=True)
class Head:
    """A trained classifier on feature vectors. Two classes: one output, sigmoid; more: softmax."""

    kind: str
    classes: tuple[str, ...]
    layers: tuple[Layer, ...]
    chosen: Mapping[str, Any]
    neighbours: Neighbours | None = None

    def logits(self, features: np.ndarray) -> np.ndarray:
        """features (n, ...) -> (n, 1) for two classes, else (n, classes), float64. Maps are flattened."""
        return self._batches(features, 1 if len(self.classes) == 2 else len(self.classes), lambda logits: logits)

    def _batch(self, x: np.ndarray) -> np.ndarray:
        if self.neighbours is not None:
            near = self.neighbours.nearest(x, self.neighbours.k)
            shares = np.log(vote(*near, self.neighbours.temperature, len(self.classes)))
            return np.asarray(shares[:, 1:] - shares[:, :1] if len(self.classes) == 2 else shares)
        out = x.astype(np.float64)
        for layer in self.layers:
            out = ACTIVATIONS[layer.activation](out @ layer.weights + layer.bias)
        return out

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """features (n, ...) -> (n, classes), rows sum to 1."""
        return self._batches(features, len(self.classes), softmax)

    def _batches(self, features: np.ndarray, columns: int, last: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """last(logits) of some rows at a time: (n, columns)."""
        flat = np.asarray(features).reshape(len(features), -1)
        stored = [len(layer.bias) for layer in self.layers]
        stored += [] if self.neighbours is None else [2 * min(TILE, len(self.neighbours.rows)), len(self.classes)]
        size = max(1, _BATCH_BYTES // (8 * max(flat.shape[1], *stored)))
        out = np.empty((len(flat), columns))
        for start in range(0, len(flat), size):
            out[start : start + size] = last(self._batch(flat[start : start + size]))
        return out

    def arrays(self) -> dict[str, np.ndarray]:
        """All that was learnt, by name."""
        named = {f"layer{i}_{n}": getattr(x, n) for i, x in enumerate(self.layers) for n in ("weights", "bias")}
        if self.neighbours is not None:
            named |= {"neighbours_rows": self.neighbours.rows, "neighbours_columns": self.neighbours.columns}
        return named

    def to_files(self) -> dict[str, bytes]:
        """head.npz with the arrays, and head.json with the rest."""
        text: dict[str, Any] = {"schema": SCHEMA, "kind": self.kind, "classes": self.classes}
        text |= {"layers": len(self.layers), "activations": [layer.activation for layer in self.layers]}
        if self.neighbours is not None:
            text["neighbours"] = {"k": self.neighbours.k, "temperature": self.neighbours.temperature}
        text["chosen"] = self.chosen
        return {"head.npz": npz.dump(self.arrays()), "head.json": (json.dumps(text, indent=2) + "\n").encode()}

    @classmethod
    def from_files(cls, files: Mapping[str, bytes]) -> Head:
        """The head of those files. Raises Unusable where a newer program wrote them."""
        text = json.loads(files["head.json"])
        if text.get("schema", 1) > SCHEMA:
            raise Unusable(
                f"head.json has schema {text['schema']}; this version reads up to {SCHEMA}",
                "use the version that wrote it (its record.json tells)",
            )
        activations = text.get("activations", ["linear"] * text["layers"])
        arrays = npz.load(io.BytesIO(files["head.npz"]))
        layers = [Layer(arrays[f"layer{i}_weights"], arrays[f"layer{i}_bias"], a) for i, a in enumerate(activations)]
        near = text.get("neighbours")
        stored = near and Neighbours(arrays["neighbours_rows"], arrays["neighbours_columns"], **near)
        return cls(text["kind"], tuple(text["classes"]), tuple(layers), text["chosen"], stored)


def softmax(logits: np.ndarray) -> np.ndarray:
    """logits (n, 1) of two classes, or (n, classes) -> (n, classes), rows sum to 1."""
    if logits.shape[1] == 1:
        logits = np.concatenate([-logits / 2, logits / 2], axis=1)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def unit_rows(features: np.ndarray) -> np.ndarray:
    """features (n, dim) as float32, each row of length 1; a row of zeros stays one, as similar to all as to none."""
    x = np.asarray(features, dtype=np.float32)
    lengths = np.linalg.norm(x, axis=1, keepdims=True)
    return np.asarray(x / np.where(lengths > 0, lengths, 1))


def _largest(values: np.ndarray, k: int) -> np.ndarray:
    """Where the k largest values of each row (n, m) are, in no order: (n, min(k, m)) int."""
    k = min(k, values.shape[1])
    return np.argpartition(values, -k, axis=1)[:, -k:]


def vote(cosines: np.ndarray, columns: np.ndarray, temperature: float, classes: int) -> np.ndarray:
    """Shares (n, classes) of the votes of neighbours (n, k), each weighing exp(cosine / temperature) (DINOv2).

    One more vote, as heavy as the nearest one's, is shared evenly: no class is impossible, and none gains on another.
    """
    weights = np.exp((cosines - cosines[:, :1]) / temperature, dtype=np.float64)
    shares = np.full((len(cosines), classes), 1 / classes)
    np.add.at(shares, (np.arange(len(cosines))[:, None], columns), weights)
    return np.asarray(shares / shares.sum(axis=1, keepdims=True))


def target_columns(rows: Sequence[Row], classes: Sequence[str]) -> np.ndarray:
    """The column of each row's label: (n,) int."""
    column = {name: i for i, name in enumerate(classes)}
    return np.array([column[row.label or ""] for row in rows])


def rows_in_split(rows: Sequence[Row], split: str) -> np.ndarray:
    """The numbers of the rows of a split, ascending."""
    return np.flatnonzero([row.split == split for row in rows])


def head_key(spec: Mapping[str, Any], classes: Sequence[str], extract_keys: Sequence[str], manifest: Manifest) -> str:
    """A head's key: its code's version, spec (seed included), class order, extract keys of its taps, labelled rows."""
    parts = {"version": VERSION, "spec": spec, "classes": classes, "taps": extract_keys}
    return keys.digest("head", {**parts, "samples": manifest.samples_digest})


def check_classes(manifest: Manifest, order: Sequence[str] | None) -> tuple[str, ...]:
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
                "add images of it to train; where data.split draws the splits, another data.split.seed may do",
            )
    if order is None:
        return tuple(counts)
    if sorted(order) != sorted(counts):
        raise Unusable(f"data.classes is {sorted(order)}, but the images have {sorted(counts)}", "list each class once")
    return tuple(order)


def _split_sizes(counts: Mapping[str, Mapping[str, int]]) -> str:
    return ", ".join(f"{split} {sum(c[split] for c in counts.values())}" for split in SPLITS)
