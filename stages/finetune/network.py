"""Owns the network that fine-tuning trains: a base's last blocks, then a head. A TensorFlow room. Not the training."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from cache.errors import Unusable
from stages.bases.blocks import AnyBlock
from stages.bases.recipe import Recipe, Tap
from stages.finetune.boundary_maps import Boundary
from stages.heads.average import Member
from stages.heads.dense_network import layers_of
from stages.heads.fitted import Head, Layers
from stages.keras_models import build, tails, trace

_AT_ONCE = 64


class Network:
    """The blocks from `block` on and a head's layers, as one Keras model: boundary maps -> scores.

    BatchNormalization stays in inference mode, and is not trained (keras.io, Transfer learning). state: the variables
    that training changes. Dropout draws from seeds, which `seed_layers` sets.
    """

    def __init__(self, recipe: Recipe, weights: Path | None, block: AnyBlock, tap: Tap, head: Head) -> None:
        """weights: None where `put_tail` brings them; a user's model needs its file. tap: the head's input."""
        part = tails.open_tail(recipe, weights, block.boundary, tap.layer)
        self.tail, self._layers = part.model, part.layers
        parts = [each for layer in part.layers.values() for each in layer._flatten_layers()]
        norms = [layer for layer in parts if isinstance(layer, keras.layers.BatchNormalization)]
        maps = keras.Input(self.tail.input.shape[1:])
        layers = keras.layers  # without pooling, maps are flattened in numpy's order
        pooled = layers.Flatten()(trace.pool(self.tail(maps), tap))
        self.dense = [keras.layers.Dense(layer.bias.size, layer.activation) for layer in head.layers]
        self.unit = head.layers.unit
        scores = trace.divide_by_length(pooled, self.unit)
        for dense in self.dense:
            scores = dense(scores)
        self.model = keras.Model(maps, scores)
        self._pooled = keras.Model(maps, pooled)
        self.kind, self.target = head.kind, head.target
        for dense, layer in zip(self.dense, head.layers, strict=True):
            dense.set_weights([layer.weights.astype(np.float32), layer.bias.astype(np.float32)])
        known, kept = ({id(w) for of in each for w in of.weights} for each in ([self.model], norms))
        self._seeds = [variable for variable in self.model.variables if id(variable) not in known]
        others = [weight for weight in self.model.non_trainable_weights if id(weight) not in kept]
        self.state = [*self.model.trainable_variables, *others]
        self._start = [variable.numpy() for variable in self.state]

    def seed_layers(self, seed: int, epoch: int) -> None:
        """Let layers that draw, as dropout does, draw what they draw in that epoch."""
        for number, variable in enumerate(self._seeds):
            variable.assign([np.random.default_rng((seed, epoch, number)).integers(2**31), 0])

    def reset(self) -> None:
        """Restore the weights from before training."""
        for variable, value in zip(self.state, self._start, strict=True):
            variable.assign(value)

    def tail_arrays(self) -> dict[str, np.ndarray]:
        """All weights of the blocks: arrays by layer and number among its weights, as `head_conv/0`."""
        return {
            f"{name}/{number}": variable.numpy()
            for name, layer in self._layers.items()
            for number, variable in enumerate(layer.weights)
        }

    def put_tail(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Assign what `tail_arrays` returned: all weights of the blocks. Raises Unusable where one is missing."""
        if lacking := sorted(self.tail_arrays().keys() - arrays.keys()):
            raise Unusable(
                f"tail.npz has no {lacking[0]}: an earlier version stored only a part of the weights",
                "remove the model's folder, and train it again: pipeline run finetune",
            )
        build.assign_arrays(self._layers.__getitem__, arrays, self.tail.name)

    def head(self, chosen: Mapping[str, Any]) -> Head:
        """The head with its layers as they are now, float64; it takes what `features` returns."""
        return Head(self.kind, self.target, Layers(layers_of(self.dense), self.unit), chosen)

    def features(self, boundary: Boundary, where: np.ndarray, view: int = 0) -> np.ndarray:
        """Inputs of the head for the samples `where` in that view: float32 (n, dim), maps flattened."""
        pooled = np.concatenate(list(_forward(self._pooled, boundary, where, view)))
        return pooled.reshape(len(pooled), -1)

    def mean_predictions(
        self, members: Sequence[Member], boundary: Boundary, where: np.ndarray, views: int
    ) -> np.ndarray:
        """(n, columns) of the samples `where`: the mean over members and the first `views` views, each equally.

        The network is left with the blocks of the last member.
        """
        total = np.zeros((len(where), len(self.target)))  # not a list of all, which many classes make large
        for head, tail in members:
            self.put_tail(tail)
            for view in range(views):
                total += head.predict(self.features(boundary, where, view))
        return total / (len(members) * views)

    def predict(self, boundary: Boundary, where: np.ndarray) -> np.ndarray:
        """(n, columns) of the samples `where` in the plain view."""
        scores = np.concatenate(list(_forward(self.model, boundary, where, 0))).astype(np.float64)
        return self.target.predict(scores)


def _forward(model: keras.Model, boundary: Boundary, where: np.ndarray, view: int) -> Iterator[np.ndarray]:
    """In batches of one shape, the last one padded, so that a row's value doesn't depend on their number."""
    for start in range(0, len(where), _AT_ONCE):
        part = where[start : start + _AT_ONCE]
        maps = boundary.take(part, np.full(len(part), view))
        padded = np.concatenate([maps, np.zeros((_AT_ONCE - len(part), *maps.shape[1:]), np.float32)])
        yield np.asarray(model.predict_on_batch(padded))[: len(part)]
