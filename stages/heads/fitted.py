"""Owns a head's form: its arrays, what numpy predicts with them, its files and its key. Not how one is fitted.

A head is arrays and JSON, with the standardisation folded in. Most kinds are layers, each the same as a Keras Dense.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, Self

import numpy as np

from cache import keys, npz
from cache.errors import Unusable
from stages.data.manifest import Manifest
from stages.heads.matrix import Spans, divide_by_length
from stages.targets import kinds
from stages.targets.target import Target

VERSION = 6
"""Of the fitting arithmetic. Raise it when the same rows give another head."""

SCHEMA = 4
"""Of head.json. Schema 1 had neither this field nor activations; schema 2 no `unit`; 3 no `target`."""

_OF_CLASSES = 3
"""Heads of classes are written as they were before there were other targets."""

Activation = Literal["linear", "relu", "tanh"]
ACTIVATIONS: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "linear": lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "tanh": np.tanh,
}
_BATCH_BYTES = 32 << 20


class Form(Protocol):
    """What a head consists of: arrays that turn features into logits."""

    def scores(self, x: np.ndarray, target: Target) -> np.ndarray:
        """x (n, dim) -> the target's scores (n, outputs), float64."""

    def width(self, target: Target) -> int:
        """The most numbers that `scores` holds for a row, its features aside."""

    def arrays(self) -> dict[str, np.ndarray]:
        """All that was learnt, by name."""

    def to_json(self) -> dict[str, Any]:
        """What head.json holds of it."""

    @classmethod
    def load(cls, text: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Self:
        """The form that gave this head.json and these arrays."""


@dataclass(frozen=True)
class Layer:
    """y = activation(x @ weights + bias): weights (inputs, outputs) and bias (outputs,), float64."""

    weights: np.ndarray
    bias: np.ndarray
    activation: Activation = "linear"


class Layers(tuple[Layer, ...]):
    """A stack of layers, each applied to the output of the one before.

    unit: the spans of columns, one for a tap, that are first divided by their length in each row.
    """

    unit: Spans

    def __new__(cls, layers: Iterable[Layer] = (), unit: Spans = ()) -> Self:
        made = super().__new__(cls, layers)
        made.unit = tuple((start, stop) for start, stop in unit)
        return made

    def scores(self, x: np.ndarray, target: Target) -> np.ndarray:
        out = x.astype(np.float64)
        if self.unit:
            out = divide_by_length(out, self.unit)
        for layer in self:
            out = ACTIVATIONS[layer.activation](out @ layer.weights + layer.bias)
        return out

    def width(self, target: Target) -> int:
        return max(len(layer.bias) for layer in self)

    def arrays(self) -> dict[str, np.ndarray]:
        return {f"layer{i}_{n}": getattr(layer, n) for i, layer in enumerate(self) for n in ("weights", "bias")}

    def to_json(self) -> dict[str, Any]:
        unit = {"unit": self.unit} if self.unit else {}
        return {"layers": len(self), "activations": [layer.activation for layer in self], **unit}

    @classmethod
    def load(cls, text: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Self:
        activations = text.get("activations", ["linear"] * text["layers"])
        layers = (Layer(arrays[f"layer{i}_weights"], arrays[f"layer{i}_bias"], a) for i, a in enumerate(activations))
        return cls(layers, text.get("unit", ()))


@dataclass(frozen=True)
class OutOfFold:
    """Predictions (n, columns) of the rows of train, each by a head that was neither fitted nor chosen on its fold.

    folds: (n,) int, the fold of each row.
    """

    predictions: np.ndarray
    folds: np.ndarray


@dataclass(frozen=True, repr=False)
class Head:
    """What predicts a target from feature vectors.

    out_of_fold: where folds chose its settings; not in its files.
    """

    kind: str
    target: Target
    form: Form
    chosen: Mapping[str, Any]
    out_of_fold: OutOfFold | None = field(default=None, compare=False)

    def __repr__(self) -> str:
        return f"<Head {self.kind}, {len(self.target)} {self.target.noun}>"

    @property
    def layers(self) -> Layers:
        """Its layers; none where its form is another."""
        return self.form if isinstance(self.form, Layers) else Layers()

    @property
    def classes(self) -> Target:
        """The names of the columns that it predicts."""
        return self.target

    def scores(self, features: np.ndarray) -> np.ndarray:
        """features (n, ...) -> the target's scores (n, outputs), float64. Maps are flattened."""
        return self._batches(features, self.target.outputs, lambda scores: scores)

    def predict(self, features: np.ndarray) -> np.ndarray:
        """features (n, ...) -> (n, columns) float64: of classes, probabilities."""
        return self._batches(features, len(self.target), self.target.predict)

    def _batches(self, features: np.ndarray, columns: int, last: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """last(scores), computed for some rows at a time: (n, columns)."""
        flat = np.asarray(features).reshape(len(features), -1)
        size = max(1, _BATCH_BYTES // (8 * max(flat.shape[1], self.form.width(self.target))))
        out = np.empty((len(flat), columns))
        for start in range(0, len(flat), size):
            out[start : start + size] = last(self.form.scores(flat[start : start + size], self.target))
        return out

    def arrays(self) -> dict[str, np.ndarray]:
        """All that was learnt, by name."""
        return self.form.arrays()

    def to_files(self) -> dict[str, bytes]:
        """head.npz with the arrays, and head.json with the rest."""
        target = self.target.to_json()
        text = {"schema": SCHEMA if target else _OF_CLASSES, "kind": self.kind, "classes": self.target, **target}
        text |= self.form.to_json()
        text["chosen"] = self.chosen
        return {"head.npz": npz.dump(self.arrays()), "head.json": (json.dumps(text, indent=2) + "\n").encode()}

    @classmethod
    def from_files(cls, files: Mapping[str, bytes], forms: Mapping[str, type[Form]]) -> Head:
        """The head of those files, in the form of its kind. Raises Unusable where a newer version wrote them."""
        text = json.loads(files["head.json"])
        if text.get("schema", 1) > SCHEMA or text["kind"] not in forms:
            raise Unusable(
                f"head.json has schema {text.get('schema', 1)} and kind {text['kind']}; this version reads schemas up "
                f"to {SCHEMA} and the kinds {', '.join(forms)}",
                "use the version that wrote it (see record.json)",
            )
        form = forms[text["kind"]].load(text, npz.load(io.BytesIO(files["head.npz"])))
        return cls(text["kind"], kinds.load_target(text["classes"], text.get("target")), form, text["chosen"])


def score_maps(head: Head, maps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The part of each position in the scores, (n, h, w, outputs), and the bias, (outputs,), float64.

    maps (n, h, w, channels): what the head's rows are the means of, over h and w. Class activation maps (Zhou et al.
    2016), weights times maps; and exact: the mean of the parts plus the bias is `head.scores` of the mean of the maps.
    A length that rows are divided by is that of the mean, one number for an image, so it changes nothing of this.
    Raises Unusable where the head isn't one layer, or its rows aren't means of such maps.
    """
    if len(head.layers) != 1 or head.layers[0].activation != "linear":
        raise Unusable(f"a {head.kind} head is not linear in its features")
    (layer,) = head.layers
    channels = len(layer.weights)
    if maps.ndim != 4 or maps.shape[-1] != channels:
        raise Unusable(f"its {channels:,} features are not the means of maps of the shape {maps.shape[1:]}")
    wide = maps.astype(np.float64)
    mean = wide.mean(axis=(1, 2))
    for start, stop in head.layers.unit:
        length = np.linalg.norm(mean[:, start:stop], axis=1)
        wide[..., start:stop] /= np.where(length > 0, length, 1)[:, None, None, None]
    return wide @ layer.weights, np.asarray(layer.bias, np.float64)


def head_key(
    spec: Mapping[str, Any],
    target: Target,
    extract_keys: Sequence[str],
    manifest: Manifest,
    choosing: int | None = None,
) -> str:
    """A head's key: version of the code, spec (with seed), order of classes, extract keys of taps, labelled rows.

    Of another target than classes also its kind; the rest of it follows from the labelled rows.

    choosing: version of what its kind alone goes by.
    """
    written = target.to_json()  # nothing of classes, which older keys don't name
    kind = written["target"]["kind"] if written else None
    parts = {"version": VERSION, "spec": spec, "classes": list(target), "target": kind, "taps": extract_keys}
    parts["choosing"] = choosing
    return keys.digest("head", {**parts, "samples": manifest.samples_digest})
