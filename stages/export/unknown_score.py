"""Owns how far a row is from those of train, as Keras layers. Not fitting it (stages/unknown). A TensorFlow room."""

from collections.abc import Mapping
from typing import Any

from keras import layers, ops

from stages.keras_models import trace
from stages.unknown.distance import LEAST_SQUARE, Unknown

NAME = "unknown_score"
"""Of the output."""


def unknown_score(rows: Mapping[str, Any], unknown: Unknown) -> Any:
    """Of rows (n, dim), named 0, 1 and so on: (n,), as `Unknown.scores`."""
    distance = unknown.distance
    joined = ops.concatenate([rows[str(number)] for number in range(len(rows))], axis=1)
    centred = trace.divide_by_length(joined, distance.unit) - distance.mean
    lengths, along = ops.sum(centred * centred, axis=1), None
    if distance.gains.size:
        along = _product(centred, distance.directions, "directions")
    squares = lengths if along is None else lengths + ops.sum(along * along * distance.gains, axis=1)
    near = ops.max(_product(centred, distance.prototypes, "prototypes"), axis=1)
    found = 1 - near / ops.sqrt(ops.maximum(squares, LEAST_SQUARE))
    if (by := distance.by_class) is not None:
        first, second, third = (float(weight) for weight in by.weights)
        squares = lengths if along is None else lengths + ops.sum(along * along * by.gains, axis=1)
        to_means = squares + ops.min(_product(centred, by.means, "means") + by.offsets, axis=1)
        answers = ops.max(_product(centred, by.answers, "answers") + by.bias, axis=1)
        found = first * found + (second / float(by.rest)) * to_means + third * (1 - answers)
    return layers.Activation("linear", name=NAME)(found / unknown.threshold)


def _product(x: Any, matrix: Any, name: str) -> Any:
    dense = layers.Dense(matrix.shape[1], use_bias=False, name=f"unknown_{name}")
    said = dense(x)
    dense.set_weights([matrix])
    return said
