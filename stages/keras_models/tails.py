"""Owns the part of a base that fine-tuning trains, as a network of its own. Not training it. A TensorFlow room."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from cache import atomic_files
from cache.errors import Unusable
from stages.bases import catalogue
from stages.bases.blocks import FoundBlock
from stages.bases.recipe import Recipe
from stages.keras_models import build, user_model
from stages.keras_models.graph import Call, Graph, name_apart
from stages.keras_models.user_model import UserModel

_SIDE = 224
"""Of images for a model that takes any size."""


@dataclass(frozen=True)
class Tail:
    """What lies between a boundary and the end of a base, and its layers by name; of a user's model, by path."""

    model: keras.Model
    layers: Mapping[str, keras.layers.Layer]


def list_blocks(file: Path, size: int | None, layer: str) -> list[FoundBlock]:
    """What of the model in that file can be trained, up to `layer`; the code in the file is run.

    Shapes are for images of `size` pixels a side; None: of the size that it takes.
    """
    model = user_model.read_model(file, size or _SIDE, size or _SIDE)
    user_model.check_image(file, model, size, size)
    height, width = (size or side or _SIDE for side in model.inputs[0].shape[1:3])
    graph = _on_images(model, height, width)
    segments, found = graph.segments(graph.find(layer)), []
    for number, segment in enumerate(segments):
        if any(_trained(call.operation) for later in segments[number:] for call in later.calls):
            counts = {id(w): int(np.prod(w.shape)) for call in segment.calls for w in _trained(call.operation)}
            layers, (shape,) = [call.path for call in segment.calls], [x.shape for x in segment.boundary.outputs]
            obstacle = _find_obstacle([call for later in segments[number:] for call in later.calls])
            found.append(FoundBlock(layers, segment.boundary.path, list(shape[1:]), sum(counts.values()), obstacle))
    return found


def open_tail(recipe: Recipe, weights: Path | None, boundary: str, layer: str) -> Tail:
    """The part of a base from the output of `boundary` to that of `layer`, with layers that can be trained.

    weights: None leaves those of a base of the catalogue random. Raises Unusable where a model has no such part, or one
    that cannot be trained.
    """
    base = catalogue.base_of(recipe.base)
    if base.is_file:
        assert weights is not None
        return _of_file(recipe, weights, boundary, layer)
    model = build.build_base(base, weights, recipe.pixels.height, recipe.pixels.width)
    tail = keras.Model(model.get_layer(boundary).output, model.output, name="tail")
    for each in tail.layers:
        unfreeze(each)
    return Tail(tail, {each.name: each for each in tail.layers})


def _of_file(recipe: Recipe, file: Path, boundary: str, layer: str) -> Tail:
    if atomic_files.sha256_of(file) != recipe.weights_sha256:
        raise Unusable(f"{file} is not the file that the rows were made with", "it was changed: run again")
    model = user_model.load_model(file, recipe)
    graph = _on_images(model, recipe.pixels.height, recipe.pixels.width)
    end = graph.find(layer)
    segments = graph.segments(end)
    start = next((number for number, segment in enumerate(segments) if segment.boundary.path == boundary), None)
    if start is None:
        raise Unusable(
            f"{file}: not all that {layer} is computed from runs through {boundary}",
            f"pipeline bases {file} lists cuts",
        )
    calls = [call for segment in segments[start:] for call in segment.calls]
    layers = {call.path: call.operation for call in calls if isinstance(call.operation, keras.layers.Layer)}
    if obstacle := _find_obstacle(calls):
        raise Unusable(f"{file} cannot be trained from {boundary} on: {obstacle}")
    for each in layers.values():
        unfreeze(each)
    name_apart(calls)
    return Tail(keras.Model(segments[start].boundary.outputs[0], end, name="tail"), layers)


def unfreeze(layer: keras.layers.Layer) -> None:
    """Let a layer be trained, but for BatchNormalization in it, which stays in inference mode."""
    layer.trainable = True
    for part in layer._flatten_layers():
        if isinstance(part, keras.layers.BatchNormalization):
            part.trainable = False


def _trained(operation: Any) -> Sequence[Any]:
    """The weights that training would change; an operation has none."""
    if not isinstance(operation, keras.layers.Layer):
        return ()
    unfreeze(operation)
    weights: Sequence[Any] = operation.trainable_weights
    return weights


def _on_images(model: UserModel, height: int, width: int) -> Graph:
    (image,) = model.inputs
    return Graph(model, [keras.Input((height, width, 3), dtype=image.dtype)])


def _find_obstacle(calls: Sequence[Call]) -> str:
    """Why these cannot be trained together, or nothing."""
    for call in calls:
        if isinstance(call.operation, keras.layers.Layer):
            dtypes = {call.operation.compute_dtype, *(w.dtype for w in call.weights if "float" in w.dtype)}
            if others := sorted(dtypes - {"float32"}):
                return f"its layer {call.path!r} computes in {others[0]}, and fine-tuning trains layers of float32"
    return ""
