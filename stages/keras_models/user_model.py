"""Owns opening a model of a person's own, and finding any layer in it. Not whether it may be opened. A TensorFlow room.

To open one is to run what code it brings along, so callers ask for trust first (weights.ensure_file).
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import keras

from cache.errors import Unusable, Unwritable
from stages.bases.catalogue import Preprocess
from stages.bases.recipe import Recipe
from stages.keras_models import keras2_files


class UserModel(keras.Model):
    """A graph of layers, (batch, height, width, 3) -> whatever it gives, whose layers are found at any depth."""

    def paths(self) -> list[str]:
        """Names of its layers, in order; those of a nested model, after its own, as `vgg16/block5_pool`."""
        return list(_paths(self))

    def at(self, paths: Sequence[str]) -> list[keras.KerasTensor]:
        """What it gives at each of `paths`: layers of it, or `output`. Raises Unusable where that is not one tensor."""
        layers = sorted(set(paths) - {"output"})
        outputs = keras.tree.flatten(_with(self, layers)(self.inputs))
        own, taken = outputs[: len(self.outputs)], outputs[len(self.outputs) :]
        found = dict(zip(layers, taken, strict=True))
        return [_one(path, own if path == "output" else found[path]) for path in paths]


def load_model(path: Path, recipe: Recipe) -> UserModel:
    """The model in a `.keras` or legacy `.h5` file, for pictures of the recipe's size. Its code is run.

    Layers compute in the dtypes they were saved with. Raises Unusable where the file is damaged, needs what Keras does
    not have, or holds a model of something else than RGB pictures of that size.
    """
    _check_file(path)
    try:
        with keras2_files.keras3_copy(path) as file:
            model = keras.saving.load_model(file, compile=False, safe_mode=False)
    except Unwritable:
        raise
    except Exception as error:
        raise _explained(path, error) from error
    model = _as_graph(path, model, recipe)
    _check_input(path, model, recipe)
    model.trainable = False
    return model


def _check_file(path: Path) -> None:
    """Keras would say of a damaged file that it is not there."""
    whole = zipfile.is_zipfile(path) if path.suffix == ".keras" else h5py.is_hdf5(path)
    if not whole:
        kind = "zip archive" if path.suffix == ".keras" else "HDF5 file"
        raise Unusable(
            f"{path} is no Keras model: it is no {kind}, or is cut short", "copy it again, or save the model again"
        )
    if path.suffix != ".keras":
        try:
            with h5py.File(path) as file:
                only_weights = "model_config" not in file.attrs
        except OSError as error:
            raise _explained(path, error) from error
        if only_weights:
            raise Unusable(
                f"{path} holds weights, and no model that they belong to",
                f"name their base: base: {{name: vgg16, weights: {path.name}}}, or save the whole model: model.save()",
            )


def _explained(path: Path, error: Exception) -> Unusable:
    text = " ".join(str(error).split())
    unknown = re.search(r"(?:Could not locate \w+|Unknown \w+:) '(\w+)'", text)
    if unknown:
        return Unusable(
            f"{path} needs {unknown[1]!r}, which neither Keras has nor anything that is registered with it",
            "build the model of Keras's own layers; or, from Python, import the module that registers it "
            "(keras.saving.register_keras_serializable) before pipeline.open",
        )
    return Unusable(f"{path} cannot be opened as a Keras model: {text[:300]}", "save the model again with Keras 3")


def _as_graph(path: Path, model: Any, recipe: Recipe) -> UserModel:
    """The same layers, with their weights, as one Functional model."""
    if isinstance(model, keras.Sequential) and not model.built:
        model.build((None, recipe.pixels.height, recipe.pixels.width, 3))
    if not _has_graph(model):
        raise Unusable(
            f"{path} is a {type(model).__name__}, whose layers cannot be told from outside",
            "build it as a Functional or Sequential model",
        )
    return UserModel(model.inputs, model.outputs, name=model.name)


def _check_input(path: Path, model: UserModel, recipe: Recipe) -> None:
    if len(model.inputs) != 1:
        raise Unusable(f"{path} takes {len(model.inputs)} inputs; expected one, of RGB pictures", "use another model")
    (taken,) = model.inputs
    size = (recipe.pixels.height, recipe.pixels.width)
    if len(taken.shape) != 4 or taken.shape[3] not in (3, None):
        raise Unusable(
            f"{path} takes {taken.shape}; expected (batch, height, width, 3), of RGB pictures",
            "grey pictures are extracted as RGB too: put a layer before it that makes one channel of three",
        )
    if any(side not in (None, given) for side, given in zip(taken.shape[1:3], size, strict=True)):
        sides = taken.shape[1:3]
        raise Unusable(
            f"extract.size: {path} takes pictures of {sides[0]} x {sides[1]} pixels; got {size[0]} x {size[1]}",
            f"use extract.size: {sides[0]}" if sides[0] == sides[1] else "build it for pictures of equal sides",
        )
    if not taken.dtype.startswith(("float", "bfloat")) and recipe.preprocess != Preprocess():
        raise Unusable(
            f"base.preprocess: {path} takes {taken.dtype}, which numbers between would be cut to",
            "leave base.preprocess out",
        )


def _has_graph(layer: Any) -> bool:
    """Whether it is a Functional or Sequential model: Keras has no public name for the first."""
    return isinstance(layer, keras.Model) and bool(getattr(layer, "inputs", None))


def _paths(model: keras.Model, prefix: str = "") -> Iterator[str]:
    for layer in model.layers:
        if not isinstance(layer, keras.layers.InputLayer):
            yield prefix + layer.name
            if _has_graph(layer):
                yield from _paths(layer, f"{prefix}{layer.name}/")


def _with(model: keras.Model, paths: Sequence[str]) -> keras.Model:
    """The model, sharing its layers, with more outputs, in one list: its own, and then what is at each of `paths`.

    A layer's own `output` won't do: that of a nested model belongs to the graph it was built in, not to the one it is
    called in. So the graph is gone through again, and a nested model that paths lead into is called with more outputs
    in its place: once, since a layer that stands twice in a network is not whole in its file.
    """
    found: dict[str, Any] = {}

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        if not any(path.partition("/")[0] == layer.name for path in paths):
            return layer(*args, **kwargs)
        if layer.name in found:
            raise Unusable(
                f"extract.taps: layer {layer.name!r} of {model.name} is called more than once",
                "name a layer that is called once, and so has one output",
            )
        inner = [path.partition("/")[2] for path in paths if path.startswith(f"{layer.name}/")]
        if not inner:
            found[layer.name] = layer(*args, **kwargs)
            return found[layer.name]
        outputs = _with(layer, inner)(keras.tree.flatten(args), **kwargs)
        own = outputs[: len(layer.outputs)]
        found[layer.name] = own
        found.update({f"{layer.name}/{path}": x for path, x in zip(inner, outputs[len(own) :], strict=True)})
        return own

    graph = keras.Model(model.inputs, model.outputs) if isinstance(model, keras.Sequential) else model
    again = keras.models.clone_model(graph, clone_function=lambda layer: layer, call_function=call)
    return keras.Model(again.inputs, [*again.outputs, *(_one(path, found[path]) for path in paths)], name=model.name)


def _one(path: str, outputs: Any) -> keras.KerasTensor:
    """The one tensor that a layer gives."""
    flat = keras.tree.flatten(outputs)
    if len(flat) > 1:
        raise Unusable(
            f"extract.taps: {path} of the model gives {len(flat)} tensors; expected one", "name a layer that gives one"
        )
    return flat[0]
