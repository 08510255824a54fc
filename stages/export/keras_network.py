"""Owns a model as one Keras network, and its file, .keras or ONNX. Not its test (export_check). A TensorFlow room."""

import logging
import warnings
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
from keras import layers, ops

from stages.bases.recipe import FrozenBase
from stages.export import resize
from stages.export.deployable import Deployable
from stages.keras_models import trace

Kind = Literal["keras", "onnx"]


def build_network(deployable: Deployable) -> keras.Model:
    """uint8 RGB (n, any height, any width, 3) -> probabilities (n, classes) float32, rows sum to 1.

    Resizing as in the recipes is part of it. Raises Unusable where a part does not fit.
    """
    image = keras.Input((None, None, 3), dtype="uint8", name="image")
    rows: dict[str, Any] = {}
    for number, base in enumerate(deployable.bases):
        rows |= _rows(image, base, f"_{number}" if number else "")
    joined = ops.concatenate([rows[str(number)] for number in range(len(rows))], axis=1)
    logits: Any = trace.divide_by_length(joined, deployable.head.layers.unit)
    for number, layer in enumerate(deployable.head.layers):
        dense = layers.Dense(layer.bias.size, layer.activation, name=f"head_{number}")
        logits = dense(logits)
        dense.set_weights([layer.weights.astype(np.float32), layer.bias.astype(np.float32)])
    logits = logits / deployable.temperature  # (n, 1) of two classes, else (n, classes)
    if len(deployable.head.classes) == 2:
        logits = ops.concatenate([-logits, logits], axis=1)
    activation = "sigmoid" if len(deployable.head.classes) == 2 else "softmax"
    return keras.Model(image, layers.Activation(activation, name="probabilities")(logits), name="frozenbase")


def _rows(image: Any, base: FrozenBase, suffix: str) -> dict[str, Any]:
    """The flat rows of a base by the names of its taps; `suffix` tells apart the networks of one base at two sizes."""
    pixels = trace.preprocess(resize.resize_to_fit(image, base.recipe.pixels), base.recipe.preprocess)
    model, taps = trace.keras_model(base.recipe, base.weights, base.tail), list(base.taps.values())
    network = keras.Model(model.inputs, trace.tap_outputs(model, taps), name=f"{model.name}{suffix}")
    maps = network(pixels, training=False)
    maps = maps if isinstance(maps, list) else [maps]
    pooled = (trace.pool(m, tap) for m, tap in zip(maps, taps, strict=True))
    return {name: layers.Flatten()(m) for name, m in zip(base.taps, pooled, strict=True)}


def save_network(model: keras.Model, kind: Kind, path: Path) -> None:
    """Write the network to `path`, which ends in .keras or .onnx. The latter needs tf2onnx."""
    if kind == "keras":
        model.save(path)
        return
    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    signature = [keras.InputSpec(shape=image.shape, dtype=image.dtype, name=image.name) for image in model.inputs]
    with warnings.catch_warnings(action="ignore"):  # Keras's, about numpy
        model.export(path, format="onnx", verbose=False, input_signature=signature)
    _name_parts(path, model.output_names[0])


def _name_parts(path: Path, output: str) -> None:
    """Name the output of an ONNX file, and the dimensions that any size fits."""
    import onnx

    file = onnx.load(path)
    (image,), (probabilities,) = file.graph.input, file.graph.output
    for node in file.graph.node:
        node.output[:] = [output if name == probabilities.name else name for name in node.output]
    probabilities.name = output
    for part, names in ((image, ("n", "height", "width")), (probabilities, ("n",))):
        for dimension, name in zip(part.type.tensor_type.shape.dim, names, strict=False):
            dimension.dim_param = name
    onnx.save(file, path)
