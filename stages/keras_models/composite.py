"""Owns looking into a layer that only calls layers of its own, as the encoders of keras-hub do. A TensorFlow room."""

import ast
import inspect
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from stages.keras_models import build


def open_layer(layer: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> keras.Model | None:
    """What the layer does to such arguments, as a model of the layers in it; None where it is not that alone.

    Its inputs are the tensors among the arguments, in order. Layers of Keras itself are left whole, and so is one with
    weights of its own, or that does something else while it is trained.
    """
    if not _may_be_opened(layer):
        return None
    inputs: list[keras.KerasTensor] = []

    def stand_in(value: Any) -> Any:
        if not isinstance(value, keras.KerasTensor):
            return value
        inputs.append(keras.Input(batch_shape=value.shape, dtype=value.dtype))
        return inputs[-1]

    try:
        with build.number_names_from(0):  # operations get names, which must be the same in each process
            given, named = keras.tree.map_structure(stand_in, (list(args), dict(kwargs)))
            model = keras.Model(inputs, keras.tree.flatten(layer.call(*given, **named)))
    except Exception:  # noqa: BLE001 (code of others, which need not run without numbers)
        return None
    held = {id(weight) for weight in model.weights}
    return model if all(id(weight) in held for weight in layer.weights) else None


def _may_be_opened(layer: Any) -> bool:
    if not isinstance(layer, keras.layers.Layer) or isinstance(layer, keras.Model):
        return False
    of_keras = type(layer).__module__.partition(".")[0] == "keras"
    parts = [part for part in layer._flatten_layers() if part is not layer]
    own = [*layer._trainable_variables, *layer._non_trainable_variables, *layer._seed_generators]
    return not of_keras and bool(parts) and not own and layer.compute_dtype == "float32" and _passes_training_on(layer)


def _passes_training_on(layer: Any) -> bool:
    """Whether its code does nothing with `training` but hand it to others; False where the code is not at hand."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(type(layer).call)))
    except (OSError, TypeError, SyntaxError):
        return False
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    passed = {id(value) for call in calls for value in (*call.args, *(word.value for word in call.keywords))}
    names = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id == "training"]
    return all(id(name) in passed for name in names)
