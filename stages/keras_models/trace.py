"""Owns a base as a graph, uint8 in and taps out, and what it is made of in Keras. Not running it. A TensorFlow room."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from cache.errors import Unusable
from stages.bases import catalogue
from stages.bases.catalogue import Preprocess
from stages.bases.recipe import Recipe, Tap
from stages.keras_models import build, fold_batchnorm, user_model

_HELD_BYTES = 100_000
"""Larger arrays stay outside the graph, or TensorFlow would hold each several times; small ones it optimises with."""


def graph_def(recipe: Recipe, taps: Mapping[str, Tap], weights: Path, batch: int) -> tuple[bytes, dict[str, str]]:
    """The same function as a GraphDef that holds all weights, serialised, and the name of each tap's tensor in it."""
    graph = trace_graph(recipe, taps, weights, batch, held=False)
    outputs = {name: tensor.name for name, tensor in zip(sorted(taps), graph.outputs, strict=True)}
    return bytes(graph.graph.as_graph_def().SerializeToString()), outputs


def trace_graph(
    recipe: Recipe,
    taps: Mapping[str, Tap],
    weights: Path,
    batch: int,
    tail: Mapping[str, np.ndarray] | None = None,
    *,
    held: bool,
) -> Any:
    """The graph at one batch shape, traced with numbers for variables, `tail` put in as `keras_base.put` does.

    held: made for TensorFlow itself, BatchNormalization folded, and large arrays captured. OpenVINO does the first on
    its own, and reads nothing but what is inside.
    """
    wanted = [taps[name] for name in sorted(taps)]
    height, width = recipe.pixels.height, recipe.pixels.width
    model = keras_model(recipe, weights, tail or {})
    outputs = tap_outputs(model, wanted)
    several = keras.Model(model.inputs, outputs)
    own = isinstance(model, user_model.UserModel)
    values = fold_batchnorm.fold_batchnorm(several, outputs) if held and recipe.numerics == "f32" and not own else {}
    numbers = [(variable, values.get(id(variable), variable.numpy())) for variable in several.variables]
    if held:
        numbers = [(v, tf.constant(array) if array.nbytes > _HELD_BYTES else array) for v, array in numbers]

    def forward(pixels: tf.Tensor) -> list[tf.Tensor]:
        with keras.StatelessScope(numbers):
            maps = several(preprocess(pixels, recipe.preprocess), training=False)
        maps = maps if isinstance(maps, list) else [maps]
        return [pool(m, tap) for tap, m in zip(wanted, maps, strict=True)]

    signature = [tf.TensorSpec((batch, height, width, 3), tf.uint8)]
    graph = tf.function(forward, input_signature=signature, autograph=False).get_concrete_function()
    return convert_variables_to_constants_v2(graph) if own else graph  # its layers may hold what is no Keras variable


def keras_model(recipe: Recipe, weights: Path, tail: Mapping[str, np.ndarray]) -> keras.Model:
    """The base at the recipe's numerics: `tensorflow-bf16` is Keras's mixed_bfloat16 policy.

    A model of one's own is opened as it is in its file, `weights`.
    """
    if catalogue.base_of(recipe.base).own:
        return user_model.load_model(weights, recipe)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16" if recipe.numerics == "tensorflow-bf16" else "float32")
    try:
        model = build.build_base(catalogue.get_base(recipe.base), weights, recipe.pixels.height, recipe.pixels.width)
    finally:
        keras.config.set_dtype_policy(before)
    build.assign_weights(model, tail)
    return model


def tap_outputs(model: keras.Model, taps: Sequence[Tap]) -> list[keras.KerasTensor]:
    """What the model gives at each. Raises Unusable where it has no such layer, or nothing that can be pooled so."""
    own = isinstance(model, user_model.UserModel)
    names = model.paths() if own else [layer.name for layer in model.layers]
    for tap in taps:
        if tap.layer != "output" and tap.layer not in names:
            near = difflib.get_close_matches(tap.layer, names, n=4, cutoff=0.5)
            raise Unusable(
                f"extract.taps: {model.name} has no layer {tap.layer!r}",
                f"{'near it are ' + ', '.join(near) + '; ' if near else ''}the last are {', '.join(names[-4:])}",
            )
    layers = [tap.layer for tap in taps]
    outputs = model.at(layers) if own else [_at(model, layer) for layer in layers]
    for tap, output in zip(taps, outputs, strict=True):
        if tap.pooling != "none" and len(output.shape) != 4:
            shape = tuple(output.shape)
            raise Unusable(
                f"extract.taps: layer {tap.layer!r} gives shape {shape}, which has no places to pool over",
                "use pooling: none",
            )
    return outputs


def _at(model: keras.Model, layer: str) -> keras.KerasTensor:
    return model.output if layer == "output" else model.get_layer(layer).output


def preprocess(pixels: Any, numbers: Preprocess) -> Any:
    """(x * scale - mean) / std in float32; what is neutral is left out of the graph. Of tensors, or Keras's symbols."""
    x = keras.ops.cast(pixels, "float32")
    if numbers.order == "bgr":
        x = x[..., ::-1]
    if numbers.scale != 1.0:
        x = x * numbers.scale
    if any(numbers.mean):
        x = x - np.array(numbers.mean, np.float32)
    if numbers.std != (1.0, 1.0, 1.0):
        x = x / np.array(numbers.std, np.float32)
    return x


def pool(maps: Any, tap: Tap) -> Any:
    """float32 maps (n, h, w, c), pooled over their places. Of tensors, or Keras's symbols."""
    maps = keras.ops.cast(maps, "float32")
    if tap.pooling == "avg":
        return keras.ops.mean(maps, axis=(1, 2))
    return keras.ops.max(maps, axis=(1, 2)) if tap.pooling == "max" else maps
