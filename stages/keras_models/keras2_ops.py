"""Owns functions of TensorFlow in a graph of Keras 2, such as `x / 127.5`, as operations of Keras 3. A TensorFlow room.

Keras 2 saved each as a layer, TFOpLambda, with the function's name and arguments. Not reading files (keras2_files.py).
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import keras
import numpy as np
from keras import ops
from keras.src.applications.convnext import LayerScale


def _slice(x: Any, slice_spec: list[Any]) -> Any:
    """`slice_spec` as in the file: {"start", "stop", "step"}, "..." or a number for each axis."""
    parts = [slice(p["start"], p["stop"], p["step"]) if isinstance(p, dict) else p for p in slice_spec]
    return x[tuple(... if part == "..." else part for part in parts)]


def _matmul(a: Any, b: Any, transpose_a: bool = False, transpose_b: bool = False) -> Any:
    return ops.matmul(ops.swapaxes(a, -1, -2) if transpose_a else a, ops.swapaxes(b, -1, -2) if transpose_b else b)


def _pad(tensor: Any, paddings: Any, mode: str = "CONSTANT", constant_values: float = 0) -> Any:
    return ops.pad(tensor, paddings, mode.lower(), constant_values if mode == "CONSTANT" else None)


def _resize(images: Any, size: Any, method: str = "bilinear", antialias: bool = False) -> Any:
    return ops.image.resize(images, size, interpolation=method, antialias=antialias)


FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "tf.__operators__.add": lambda x, y: x + y,
    "tf.__operators__.getitem": _slice,
    "tf.cast": lambda x, dtype: ops.cast(x, dtype),
    "tf.clip_by_value": lambda t, clip_value_min, clip_value_max: ops.clip(t, clip_value_min, clip_value_max),
    "tf.compat.v1.squeeze": lambda input, axis=None: ops.squeeze(input, axis),
    "tf.compat.v1.pad": _pad,
    "tf.compat.v1.transpose": lambda a, perm=None, conjugate=False: ops.transpose(a, perm),
    "tf.concat": lambda values, axis: ops.concatenate(values, axis),
    "tf.expand_dims": lambda input, axis: ops.expand_dims(input, axis),
    "tf.image.resize": _resize,
    "tf.linalg.matmul": _matmul,
    "tf.math.abs": ops.abs,
    "tf.math.add": lambda x, y: x + y,
    "tf.math.divide": lambda x, y: x / y,
    "tf.math.exp": ops.exp,
    "tf.math.l2_normalize": lambda x, axis=None, epsilon=1e-12: (
        x * ops.rsqrt(ops.maximum(ops.sum(x * x, axis, keepdims=True), epsilon))
    ),
    "tf.math.log": ops.log,
    "tf.math.maximum": lambda x, y: ops.maximum(x, y),
    "tf.math.minimum": lambda x, y: ops.minimum(x, y),
    "tf.math.multiply": lambda x, y: x * y,
    "tf.math.negative": ops.negative,
    "tf.math.pow": lambda x, y: x**y,
    "tf.math.reduce_max": lambda input_tensor, axis=None, keepdims=False: ops.max(input_tensor, axis, keepdims),
    "tf.math.reduce_mean": lambda input_tensor, axis=None, keepdims=False: ops.mean(input_tensor, axis, keepdims),
    "tf.math.reduce_sum": lambda input_tensor, axis=None, keepdims=False: ops.sum(input_tensor, axis, keepdims),
    "tf.math.sigmoid": ops.sigmoid,
    "tf.math.sqrt": ops.sqrt,
    "tf.math.square": ops.square,
    "tf.math.subtract": lambda x, y: x - y,
    "tf.math.tanh": ops.tanh,
    "tf.math.truediv": lambda x, y: x / y,
    "tf.nn.avg_pool2d": lambda input, ksize, strides, padding: ops.average_pool(input, ksize, strides, padding.lower()),
    "tf.nn.bias_add": lambda value, bias, data_format="NHWC": value + bias,
    "tf.nn.gelu": lambda features, approximate=False: ops.gelu(features, approximate),
    "tf.nn.max_pool2d": lambda input, ksize, strides, padding: ops.max_pool(input, ksize, strides, padding.lower()),
    "tf.nn.relu": lambda features: ops.relu(features),
    "tf.nn.relu6": lambda features: ops.relu6(features),
    "tf.nn.silu": lambda features, beta=1.0: features * ops.sigmoid(features * beta),
    "tf.nn.softmax": lambda logits, axis=-1: ops.softmax(logits, axis),
    "tf.split": lambda value, num_or_size_splits, axis=0: ops.split(value, num_or_size_splits, axis),
    "tf.reshape": lambda tensor, shape: ops.reshape(tensor, shape),
    "tf.stack": lambda values, axis=0: ops.stack(values, axis),
}
"""By their name in TensorFlow. The first argument comes by its place, the others by their names in TensorFlow."""


_NUMBERS = {"x", "y", "bias"}
"""Arguments that are numbers, or lists of them."""


class TensorFlowOp(keras.layers.Layer):
    """One call of such a function. arguments: those that are not tensors; constants: its first argument, or none."""

    def __init__(self, function: str, constants: Sequence[Any], arguments: Mapping[str, Any], **config: Any) -> None:
        super().__init__(**config)
        if function not in FUNCTIONS:
            raise ValueError(f"Unknown function: {function!r}")
        numbers = {name: np.asarray(arguments[name], np.float32) for name in _NUMBERS & arguments.keys()}
        self.function = partial(FUNCTIONS[function], *constants, **{**arguments, **numbers})

    def call(self, *tensors: Any, **named: Any) -> Any:
        return self.function(*tensors, **named)


CUSTOM_OBJECTS = {"TensorFlowOp": TensorFlowOp, "LayerScale": LayerScale}
"""For Keras, to open files of Keras 2."""
