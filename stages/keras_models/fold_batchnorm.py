"""Owns folding BatchNormalization into the convolution before it, as numbers. Not the graph. A TensorFlow room."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np

Values = dict[int, np.ndarray]
"""id of a variable -> what a graph is to hold in its place."""


def fold_batchnorm(model: keras.Model, kept: Sequence[keras.KerasTensor]) -> Values:
    """Kernels and biases that do the work of the BatchNormalization after them, which is left with nothing to do.

    y = gamma (conv(x) - mean) / sqrt(variance + epsilon) + beta is another convolution and a bias (Jacob et al. 2018,
    arXiv:1712.05877, 3.2), which TensorFlow computes at once with the activation. `kept` tensors stay what they are.
    Values in float32, of a Functional model; layers that are called more than once are left alone.
    """
    values: Values = {}
    untouched = {id(tensor) for tensor in kept}
    for norm in model.layers:
        if isinstance(norm, keras.layers.BatchNormalization) and len(norm._inbound_nodes) == 1:
            before = norm.input._keras_history.operation
            if _foldable(before) and id(before.output) not in untouched:
                values.update(_fold(before, norm))
    return values


def _foldable(layer: keras.layers.Layer) -> bool:
    """Whether it is a convolution that nothing else reads, with nothing between."""
    kinds = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)
    alone = len(layer._inbound_nodes) == len(layer._outbound_nodes) == 1
    return isinstance(layer, kinds) and layer.activation is keras.activations.linear and alone


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
    values[id(norm.moving_variance)] = np.full(len(shift), _one_less(norm.epsilon))
    values[id(norm.moving_mean)] = np.zeros(len(shift)) if norm.center else -shift
    if norm.center:
        values[id(norm.beta)] = shift
    if norm.scale:
        values[id(norm.gamma)] = np.ones(len(shift))
    return {number: value.astype(np.float32) for number, value in values.items()}


def _one_less(epsilon: float) -> np.float32:
    """The float32 that makes exactly 1 with epsilon: only then a graph's optimiser leaves the product out."""
    one, less = np.float32(1), np.float32(1) - np.float32(epsilon)
    return less if less + np.float32(epsilon) == one else np.nextafter(less, one)
