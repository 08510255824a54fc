"""Owns a model as one Keras network, and its file, .keras or ONNX. Not its test (export_check). A TensorFlow room."""

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
from keras import layers, ops

from stages.bases.recipe import FrozenBase
from stages.data.augment import Element
from stages.export import resize, unknown_score
from stages.export.deployable import Deployable
from stages.heads.average import Member
from stages.heads.fitted import Head
from stages.keras_models import trace
from stages.targets.target import Target

Kind = Literal["keras", "onnx"]


def build_network(deployable: Deployable) -> keras.Model:
    """uint8 RGB (n, any height, any width, 3) -> predictions (n, columns) float32, and scores as unknown (n,) float32.

    Resizing as in the recipes is part of it. Raises Unusable where a part does not fit.
    """
    image = image_input()
    views = [[preprocessed(image, base, element) for base in deployable.bases] for element in deployable.elements]
    members = enumerate(deployable.members)
    pairs = [pair for number, member in members for pair in _scores(deployable, number, member, views)]
    return keras.Model(image, outputs([said for said, _ in pairs], pairs[0][1], deployable), name="frozenbase")


def output_names(deployable: Deployable) -> list[str]:
    """Of a file's outputs, in order."""
    return [output_name(deployable.head.target), *([] if deployable.unknown is None else [unknown_score.NAME])]


def output_name(target: Target) -> str:
    return "probabilities" if target.probabilities else "numbers"


def outputs(said: Sequence[Any], rows: Mapping[str, Any], deployable: Deployable) -> Any:
    """Predictions, of what `head_function` gives, and of a model that can tell, scores as unknown of these rows."""
    found = predictions(said, deployable)
    return found if deployable.unknown is None else [found, unknown_score.unknown_score(rows, deployable.unknown)]


def predictions(said: Sequence[Any], deployable: Deployable) -> Any:
    """The mean of what several say, at the model's temperature: (n, columns), from what `head_function` gives."""
    target, name = deployable.head.target, output_name(deployable.head.target)
    two = len(target) == 2
    if not target.exclusive:
        each = [ops.sigmoid(one) if target.probabilities else one for one in said]
        mean = sum(each[1:], start=each[0]) / len(each)
        return layers.Activation("linear", name=name)(mean)
    if len(said) == 1:
        logits, last = said[0] / deployable.temperature, "sigmoid" if two else "softmax"
    else:
        each = [ops.sigmoid(one) if two else ops.softmax(one) for one in said]
        mean = sum(each[1:], start=each[0]) / len(each)
        logits = ops.log(ops.maximum(mean, np.finfo(np.float32).tiny)) / deployable.temperature
        last = "softmax"
    return layers.Activation(last, name=name)(logits)


def image_input() -> Any:
    """uint8 RGB (n, any height, any width, 3)."""
    return keras.Input((None, None, 3), dtype="uint8", name="image")


def preprocessed(image: Any, base: FrozenBase, element: Element = (0, False)) -> Any:
    """The input of a base's network, in a view."""
    return trace.preprocess(turned(resize.resize_to_fit(image, base.recipe.pixels), element), base.recipe.preprocess)


def _scores(
    deployable: Deployable, number: int, member: Member, views: Sequence[Sequence[Any]]
) -> Iterator[tuple[Any, Mapping[str, Any]]]:
    """What a member says of each view, as `head_function` gives it, and the rows it says it of."""
    head, tail = member
    networks = [
        _network(base, tail, f"_{number}_{i}" if number or i else "") for i, base in enumerate(deployable.bases)
    ]
    logits = head_function(head, f"head_{f'{number}_' if number else ''}")
    for pixels in views:
        rows: dict[str, Any] = {}
        for base, network, fitted in zip(deployable.bases, networks, pixels, strict=True):
            rows |= _rows(network, base, fitted)
        yield logits(rows), rows


def head_function(head: Head, prefix: str) -> Callable[[Mapping[str, Any]], Any]:
    """What it says of rows (n, dim), named 0, 1 and so on: scores, of two classes of both, of numbers these."""
    stack = [
        layers.Dense(layer.bias.size, layer.activation, name=f"{prefix}{i}") for i, layer in enumerate(head.layers)
    ]

    def logits(rows: Mapping[str, Any]) -> Any:
        joined = ops.concatenate([rows[str(number)] for number in range(len(rows))], axis=1)
        said: Any = trace.divide_by_length(joined, head.layers.unit)
        for dense, layer in zip(stack, head.layers, strict=True):
            said = dense(said)
            dense.set_weights([layer.weights.astype(np.float32), layer.bias.astype(np.float32)])
        if not head.target.probabilities:  # linear, so that is a number at scores 0 and what 1 adds
            centre = head.target.predict(np.zeros((1, head.target.outputs)))
            scale = head.target.predict(np.ones((1, head.target.outputs))) - centre
            return said * scale.astype(np.float32) + centre.astype(np.float32)
        return ops.concatenate([-said, said], axis=1) if head.target.outputs == 1 and head.target.exclusive else said

    return logits


def base_rows(base: FrozenBase, fitted: Any) -> dict[str, Any]:
    """Of a base without a tail, by tap: (n, dim), from its network's input."""
    return _rows(_network(base, {}, ""), base, fitted)


def _rows(network: keras.Model, base: FrozenBase, fitted: Any) -> dict[str, Any]:
    maps = network(fitted, training=False)
    maps = maps if isinstance(maps, list) else [maps]
    return {name: layers.Flatten()(trace.pool(m, tap)) for m, (name, tap) in zip(maps, base.taps.items(), strict=True)}


def _network(base: FrozenBase, tail: Mapping[str, np.ndarray], suffix: str) -> keras.Model:
    """Preprocessed pixels to the base's taps; `suffix` tells apart networks of one base."""
    model = trace.keras_model(base.recipe, base.weights, tail)
    return keras.Model(model.inputs, trace.tap_outputs(model, list(base.taps.values())), name=f"{model.name}{suffix}")


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
    write_onnx(model, path)
    _name_parts(path, model.output_names)


def write_onnx(model: keras.Model, path: Path, opset: int | None = None) -> None:
    """Write it in a version of ONNX's operators, or tf2onnx's own. Inputs keep their names, outputs do not."""
    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    inputs = [keras.InputSpec(shape=part.shape, dtype=part.dtype, name=part.name) for part in model.inputs]
    signature = inputs if len(inputs) == 1 else [inputs]
    with warnings.catch_warnings(action="ignore"):  # Keras's, about numpy
        model.export(path, format="onnx", verbose=False, input_signature=signature, opset_version=opset)


def _name_parts(path: Path, names: Sequence[str]) -> None:
    """Name the outputs of an ONNX file, and the dimensions that any size fits."""
    import onnx

    file = onnx.load(path)
    (image,), said = file.graph.input, list(file.graph.output)
    named = {part.name: name for part, name in zip(said, names, strict=True)}
    for node in file.graph.node:
        for ends in (node.input, node.output):
            ends[:] = [named.get(name, name) for name in ends]
    for part in said:
        part.name = named[part.name]
    for part, free in ((image, ("n", "height", "width")), *((part, ("n",)) for part in said)):
        for dimension, name in zip(part.type.tensor_type.shape.dim, free, strict=False):
            dimension.dim_param = name
    onnx.save(file, path)
