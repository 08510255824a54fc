"""Owns folding BatchNormalization into the convolution before it. Not the graph (trace.py). A TensorFlow room."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np

Values = dict[int, np.ndarray]
"""id of a variable -> the value that a graph holds in its place."""


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
