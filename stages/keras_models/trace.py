"""Owns a base as a TensorFlow graph, uint8 in and taps out. Not running it (engines/). A TensorFlow room."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from cache.errors import Unusable
from stages.bases import catalogue
from stages.bases.catalogue import Base, Preprocess
from stages.bases.formats import LayerInfo
from stages.bases.pooling import Plan, plan_pooling
from stages.bases.recipe import FrozenBase, Recipe, Tap
from stages.keras_models import build, user_model
from stages.runtime.suggest import suggest

_HELD_BYTES = 100_000
"""Larger arrays are captured, since TensorFlow holds constants several times; it folds smaller ones into others."""

Values = dict[int, np.ndarray]
"""id of a variable -> the value that a graph holds in its place."""


def graph_def(base: FrozenBase, batch: int) -> tuple[bytes, dict[str, str]]:
    """A serialised GraphDef for OpenVINO, which contains all weights, and the name of each tap's tensor in it."""
    graph = trace_graph(base, batch, for_tensorflow=False)
    outputs = {name: tensor.name for name, tensor in zip(sorted(base.taps), graph.outputs, strict=True)}
    return bytes(graph.graph.as_graph_def().SerializeToString()), outputs


def trace_graph(base: FrozenBase, batch: int, for_tensorflow: bool = True) -> Any:
    """The graph at one batch shape, traced with constants for variables, after `build.assign_weights(tail)`.

    for_tensorflow: fold BatchNormalization, and capture large arrays. OpenVINO folds by itself and reads no captures.
    """
    recipe, wanted = base.recipe, [base.taps[name] for name in sorted(base.taps)]
    model = keras_model(recipe, base.weights, base.tail)
    outputs = tap_outputs(model, wanted)
    several = keras.Model(model.inputs, outputs)
    from_file = isinstance(model, user_model.UserModel)
    fold = for_tensorflow and recipe.numerics == "f32" and not from_file
    values = fold_batchnorm(several, outputs) if fold else {}
    numbers = [(variable, values.get(id(variable), variable.numpy())) for variable in several.variables]
    if for_tensorflow:
        numbers = [(v, tf.constant(array) if array.nbytes > _HELD_BYTES else array) for v, array in numbers]

    def forward(pixels: tf.Tensor) -> list[tf.Tensor]:
        with keras.StatelessScope(numbers):
            maps = several(preprocess(pixels, recipe.preprocess), training=False)
        maps = maps if isinstance(maps, list) else [maps]
        return [pool(m, tap) for tap, m in zip(wanted, maps, strict=True)]

    signature = [tf.TensorSpec((batch, recipe.pixels.height, recipe.pixels.width, 3), tf.uint8)]
    graph = tf.function(forward, input_signature=signature, autograph=False).get_concrete_function()
    return convert_variables_to_constants_v2(graph) if from_file else graph  # layers may have other variables too


def keras_model(recipe: Recipe, weights: Path, tail: Mapping[str, np.ndarray]) -> keras.Model:
    """The base in the recipe's numerics: `tensorflow-bf16` is Keras's mixed_bfloat16 policy.

    A base from a file is opened as it was saved.
    """
    if catalogue.base_of(recipe.base).is_file:
        own = user_model.load_model(weights, recipe)
        build.assign_weights(own, tail)
        return own
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16" if recipe.numerics == "tensorflow-bf16" else "float32")
    try:
        model = build.build_base(catalogue.get_base(recipe.base), weights, recipe.pixels.height, recipe.pixels.width)
    finally:
        keras.config.set_dtype_policy(before)
    build.assign_weights(model, tail)
    return model


def list_layers(base: Base, file: Path | None, size: int) -> list[LayerInfo]:
    """The layers of a base, in order, for images of `size` pixels a side; a file is opened, with the code in it."""
    if base.is_file and file is not None:
        named = user_model.read_model(file, size, size).named_layers()
    else:
        layers = build.build_base(base, None, size, size).layers
        named = [(layer.name, layer) for layer in layers if not isinstance(layer, keras.layers.InputLayer)]
    found = []
    for name, layer in named:
        shapes = {tuple(output.shape[1:]) for node in layer._inbound_nodes for output in node.output_tensors}
        found.append(LayerInfo(name, type(layer).__name__, shapes.pop() if len(shapes) == 1 else None))
    return found


def tap_outputs(model: keras.Model, taps: Sequence[Tap]) -> list[keras.KerasTensor]:
    """The model's output at each. Raises Unusable if it has no such layer, or an output that cannot be pooled so."""
    from_file = isinstance(model, user_model.UserModel)
    names = [name for name, _ in model.named_layers()] if from_file else [layer.name for layer in model.layers]
    for tap in taps:
        there = model.has(tap.layer) if from_file else tap.layer == "output" or tap.layer in names
        if not there:
            near = suggest(tap.layer, reversed(names), 4)  # the last of a block's layers is its output
            raise Unusable(
                f"extract.taps: {model.name} has no layer {tap.layer!r}",
                f"{'similar: ' + ', '.join(near) + '; ' if near else ''}the last ones: {', '.join(names[-4:])}",
            )
    layers = [tap.layer for tap in taps]
    if from_file:
        outputs: list[keras.KerasTensor] = model.at(layers)
    else:
        outputs = [model.output if layer == "output" else model.get_layer(layer).output for layer in layers]
    for tap, output in zip(taps, outputs, strict=True):
        _plan(tap, output)
    return outputs


def preprocess(pixels: Any, numbers: Preprocess) -> Any:
    """(x * scale - mean) / std in float32, without neutral operations. Takes tensors or Keras's symbolic ones."""
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


def divide_by_length(x: Any, spans: Sequence[tuple[int, int]]) -> Any:
    """Rows (n, dim), those of each span of columns divided by their own length, as stages/heads/matrix.py does."""
    if not spans:
        return x
    parts, end = [], 0
    for start, stop in spans:
        parts += [x[:, end:start]] if start > end else []
        parts.append(keras.layers.UnitNormalization()(x[:, start:stop]))
        end = stop
    parts += [x[:, end:]] if end < x.shape[-1] else []
    return parts[0] if len(parts) == 1 else keras.ops.concatenate(parts, axis=1)


def pool(output: Any, tap: Tap) -> Any:
    """float32 maps (n, h, w, c), or tokens (n, tokens, c), pooled as the tap says. Takes symbolic tensors too."""
    return pool_by(output, _plan(tap, output))


def pool_by(output: Any, plan: Plan) -> Any:
    """The same, as planned."""
    x = keras.ops.cast(output, "float32")
    if plan.channels_last:
        x = keras.ops.transpose(x, (0, 2, 3, 1))
    if plan.reduce is not None:
        x = (keras.ops.mean if plan.reduce == "mean" else keras.ops.max)(x, axis=(1, 2))
    parts = [x[:, 0] if part == "cls" else keras.ops.mean(x[:, plan.first :], axis=1) for part in plan.parts]
    return keras.ops.concatenate(parts, axis=1) if parts else x


def _plan(tap: Tap, output: Any) -> Plan:
    """Keras's maps have their channels last, unless the tap says otherwise."""
    shape = tuple(output.shape)[1:]
    known = replace(tap, layout=tap.layout or "nhwc") if len(shape) == 3 else tap
    return plan_pooling(known, shape, (1, 1), "nhwc")


def fold_batchnorm(model: keras.Model, kept: Sequence[keras.KerasTensor]) -> Values:
    """New kernels and biases that include the BatchNormalization after them, which becomes the identity.

    y = gamma (conv(x) - mean) / sqrt(variance + epsilon) + beta is another convolution and a bias (Jacob et al. 2018,
    arXiv:1712.05877, 3.2), which TensorFlow fuses with the activation. The tensors `kept` keep their values. Takes a
    Functional model; layers that are called more than once are not folded. Values are float32.
    """
    values: Values = {}
    excluded = {id(tensor) for tensor in kept}
    for norm in model.layers:
        if isinstance(norm, keras.layers.BatchNormalization) and len(norm._inbound_nodes) == 1:
            before = norm.input._keras_history.operation
            if _foldable(before) and id(before.output) not in excluded:
                values.update(_fold(before, norm))
    return values


def _foldable(layer: keras.layers.Layer) -> bool:
    """Whether it is a linear convolution whose output is read once."""
    kinds = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)
    read_once = len(layer._inbound_nodes) == len(layer._outbound_nodes) == 1
    return isinstance(layer, kinds) and layer.activation is keras.activations.linear and read_once


def _fold(conv: keras.layers.Layer, norm: keras.layers.BatchNormalization) -> Values:
    variance = norm.moving_variance.numpy().astype(np.float64)
    scale = (norm.gamma.numpy() if norm.scale else 1.0) / np.sqrt(variance + norm.epsilon)
    shift = (norm.beta.numpy() if norm.center else 0.0) - norm.moving_mean.numpy() * scale
    kernel = conv.kernel.numpy()
    if isinstance(conv, keras.layers.DepthwiseConv2D):  # (h, w, channels, multiplier)
        values = {id(conv.kernel): kernel * scale.reshape(1, 1, *kernel.shape[2:])}
    else:
        values = {id(conv.kernel): kernel * scale}
    if conv.use_bias:
        shift = shift + conv.bias.numpy() * scale
        values[id(conv.bias)] = np.zeros(len(shift))
    values[id(norm.moving_variance)] = np.full(len(shift), _one_minus(norm.epsilon))
    values[id(norm.moving_mean)] = np.zeros(len(shift)) if norm.center else -shift
    if norm.center:
        values[id(norm.beta)] = shift
    if norm.scale:
        values[id(norm.gamma)] = np.ones(len(shift))
    return {number: value.astype(np.float32) for number, value in values.items()}


def _one_minus(epsilon: float) -> np.float32:
    """The float32 that gives exactly 1 with epsilon added: only then does the graph optimizer drop the product."""
    one, less = np.float32(1), np.float32(1) - np.float32(epsilon)
    return less if less + np.float32(epsilon) == one else np.nextafter(less, one)
