"""Owns a model as one Keras network, and its file, .keras or ONNX. Not its test (export_check). A TensorFlow room."""

import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
from keras import layers, ops

from stages.data.augment import Element
from stages.export import resize
from stages.export.deployable import Deployable
from stages.heads.average import Member
from stages.keras_models import trace

Kind = Literal["keras", "onnx"]


def build_network(deployable: Deployable) -> keras.Model:
    """uint8 RGB (n, any height, any width, 3) -> probabilities (n, classes) float32, rows sum to 1.

    Resizing as in the recipe is part of it. Raises Unusable where a part does not fit.
    """
    image = keras.Input((None, None, 3), dtype="uint8", name="image")
    fitted = resize.resize_to_fit(image, deployable.recipe.pixels)
    views = [trace.preprocess(turned(fitted, element), deployable.recipe.preprocess) for element in deployable.elements]
    members = enumerate(deployable.members)
    said = [logits for number, member in members for logits in _logits(deployable, number, member, views)]
    two = len(deployable.head.classes) == 2
    if len(said) == 1:
        logits, last = said[0] / deployable.temperature, "sigmoid" if two else "softmax"
    else:
        each = [ops.sigmoid(one) if two else ops.softmax(one) for one in said]
        mean = sum(each[1:], start=each[0]) / len(each)
        logits = ops.log(ops.maximum(mean, np.finfo(np.float32).tiny)) / deployable.temperature
        last = "softmax"
    return keras.Model(image, layers.Activation(last, name="probabilities")(logits), name="frozenbase")


def _logits(deployable: Deployable, number: int, member: Member, views: Sequence[Any]) -> Iterator[Any]:
    """What a member says of each view: (n, classes), of two classes what is to go through a sigmoid."""
    head, tail = member
    base = trace.keras_model(deployable.recipe, deployable.weights, tail)
    name = f"{base.name}_{number}" if number else base.name
    several = keras.Model(base.inputs, trace.tap_outputs(base, deployable.taps), name=name)
    stack = [
        layers.Dense(layer.bias.size, layer.activation, name=f"head_{f'{number}_' if number else ''}{i}")
        for i, layer in enumerate(head.layers)
    ]
    for pixels in views:
        maps = several(pixels, training=False)
        maps = maps if isinstance(maps, list) else [maps]
        rows = [layers.Flatten()(trace.pool(m, tap)) for m, tap in zip(maps, deployable.taps, strict=True)]
        logits: Any = trace.divide_by_length(ops.concatenate(rows, axis=1), head.layers.unit)
        for dense, layer in zip(stack, head.layers, strict=True):
            logits = dense(logits)
            dense.set_weights([layer.weights.astype(np.float32), layer.bias.astype(np.float32)])
        yield ops.concatenate([-logits, logits], axis=1) if len(head.classes) == 2 else logits


def turned(pixels: Any, element: Element) -> Any:
    """As augment.turn, of (n, h, w, 3)."""
    quarters, swap = element
    if quarters % 2:
        pixels = ops.transpose(pixels, (0, 2, 1, 3))
    flipped = {0: set(), 1: {1}, 2: {1, 2}, 3: {2}}[quarters] ^ ({2} if swap else set())
    return ops.flip(pixels, sorted(flipped)) if flipped else pixels


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
