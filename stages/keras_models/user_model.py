"""Owns opening a user's Keras model, and finding layers in it. Not whether it may be opened. A TensorFlow room.

Opening one can run code from the file: callers ask first whether the user trusts it (weights.ensure_file).
"""

import re
import zipfile
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import keras

from cache.errors import Unusable, Unwritable
from stages.bases.catalogue import Preprocess
from stages.bases.recipe import Recipe
from stages.keras_models import build, graph, keras2_files, keras2_ops
from stages.keras_models.graph import Graph


class UserModel(keras.Model):
    """A graph of layers, (batch, height, width, 3) -> any output, whose layers can be found at any depth."""

    def named_layers(self) -> list[tuple[str, Any]]:
        """Its layers and operations by name, in order; layers of a nested model follow it, as `vgg16/block5_pool`."""
        return list(_paths(self))

    def get_layer(self, name: str | None = None, index: int | None = None) -> keras.layers.Layer:
        """As Keras's, and layers at any depth by their paths."""
        if name is None or "/" not in name:
            return super().get_layer(name, index)
        if name not in (found := self._graph.layers):
            raise ValueError(f"No such layer: {name}")
        return found[name]

    def has(self, path: str) -> bool:
        """Whether `at` may find something there: also a layer within a layer, which `named_layers` does not list."""
        return path == "output" or path in dict(self.named_layers()) or self._graph.has(path)

    @cached_property
    def _graph(self) -> Graph:
        return Graph(self, self.inputs)

    def at(self, paths: Sequence[str]) -> list[keras.KerasTensor]:
        """Its output at each of `paths`: layers, or `output`. Raises Unusable where that is not one tensor."""
        layers = sorted(set(paths) - {"output"})
        if not {name for name, _ in self.named_layers()}.issuperset(layers):  # within a layer
            graph.name_apart(self._graph.calls)
            return [self._graph.find(path) for path in paths]
        with build.number_names_from(graph.UNUSED):
            outputs = keras.tree.flatten(_add_outputs(self, layers)(self.inputs))
        whole, inner = outputs[: len(self.outputs)], outputs[len(self.outputs) :]
        found = dict(zip(layers, inner, strict=True))
        return [_single(path, whole if path == "output" else found[path]) for path in paths]


def load_model(path: Path, recipe: Recipe) -> UserModel:
    """The model in a `.keras` or legacy `.h5` file, for images of the recipe's size. Code in the file is run.

    Layers compute in the dtypes they were saved with. Raises Unusable if the file is damaged, needs something that is
    not in Keras, or holds a model that does not take RGB images of that size.
    """
    model = read_model(path, recipe.pixels.height, recipe.pixels.width)
    check_image(path, model, recipe.pixels.height, recipe.pixels.width)
    (image,) = model.inputs
    if not image.dtype.startswith(("float", "bfloat")) and recipe.preprocess != Preprocess():
        raise Unusable(
            f"base.preprocess: {path} takes {image.dtype}, to which preprocessed pixels would be truncated",
            "leave base.preprocess out",
        )
    model.trainable = False
    return model


def read_model(path: Path, height: int, width: int) -> UserModel:
    """The model, whatever it takes; one that was saved before it was built is built for that size."""
    _check_file(path)
    try:
        with keras2_files.keras3_copy(path) as file, build.number_names_from(0):  # of layers within layers
            model = keras.saving.load_model(file, keras2_ops.CUSTOM_OBJECTS, compile=False, safe_mode=False)
    except Unwritable:
        raise
    except Exception as error:
        raise _explain(path, error) from error
    return _as_graph(path, model, height, width)


def _check_file(path: Path) -> None:
    """Keras reports a damaged file as missing."""
    whole = zipfile.is_zipfile(path) if path.suffix == ".keras" else h5py.is_hdf5(path)
    if not whole:
        kind = "zip archive" if path.suffix == ".keras" else "HDF5 file"
        raise Unusable(
            f"{path} is not a Keras model: it is not a whole {kind}", "copy it again, or save the model again"
        )
    if path.suffix != ".keras":
        try:
            with h5py.File(path) as file:
                only_weights = "model_config" not in file.attrs
        except OSError as error:
            raise _explain(path, error) from error
        if only_weights:
            raise Unusable(
                f"{path} holds weights without a model",
                f"name their base: base: {{name: vgg16, weights: {path.name}}}, or save the whole model: model.save()",
            )


def _explain(path: Path, error: Exception) -> Unusable:
    text = " ".join(str(error).split())
    unknown = re.search(r"(?:Could not locate \w+|Unknown \w+:|Could not deserialize) '([\w.]+)'", text)
    if unknown:
        return Unusable(
            f"{path} needs {unknown[1]!r}, which is neither in Keras nor registered with it",
            "build the model from Keras's layers; or, from Python, import the module that registers it "
            "(keras.saving.register_keras_serializable) before pipeline.open",
        )
    reason = text.rpartition("Exception encountered: ")[2][:300]
    return Unusable(f"{path} cannot be opened as a Keras model: {reason}", "save the model again with Keras 3")


def _as_graph(path: Path, model: Any, height: int, width: int) -> UserModel:
    """The same layers and weights as one Functional model."""
    if isinstance(model, keras.Sequential) and not model.built:
        model.build((None, height, width, 3))
    if not graph.has_graph(model):
        raise Unusable(
            f"{path} is a {type(model).__name__}, whose layers cannot be listed",
            "build it as a Functional or Sequential model",
        )
    return UserModel(model.inputs, model.outputs, name=model.name)


def check_image(path: Path, model: UserModel, height: int | None, width: int | None) -> None:
    """Raise Unusable where it does not take RGB images, or none of that size; None: of whatever size."""
    if len(model.inputs) != 1:
        raise Unusable(f"{path} takes {len(model.inputs)} inputs; expected one, of RGB images", "use another model")
    (image,) = model.inputs
    if len(image.shape) != 4 or image.shape[3] not in (3, None):
        raise Unusable(
            f"{path} takes {image.shape}; expected (batch, height, width, 3), of RGB images",
            "grayscale images are extracted as RGB too: add a first layer that makes one channel of three",
        )
    sides = image.shape[1:3]
    if any(None not in (side, given) and side != given for side, given in zip(sides, (height, width), strict=True)):
        raise Unusable(
            f"extract.size: {path} takes images of {sides[0]} x {sides[1]} pixels; got {height} x {width}",
            f"use extract.size: {sides[0]}" if sides[0] == sides[1] else "build it for square images",
        )


def _has_ops(layer: Any) -> bool:
    """Whether it is a model with functions of Keras 2, which are replaced by operations that a file can hold."""
    return graph.has_graph(layer) and any(isinstance(x, keras2_ops.TensorFlowOp) or _has_ops(x) for x in layer.layers)


def _paths(model: keras.Model, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for layer in getattr(model, "operations", model.layers):
        if not isinstance(layer, keras.layers.InputLayer):
            yield prefix + layer.name, layer
            if graph.has_graph(layer):
                yield from _paths(layer, f"{prefix}{layer.name}/")


def _add_outputs(model: keras.Model, paths: Sequence[str]) -> keras.Model:
    """The model, with shared layers and one list of outputs: its own, and then those of the layers at `paths`.

    A layer's attribute `output` is no use: in a nested model it belongs to the graph of that model, not to the graph in
    which the model is called. So the graph is rebuilt, and a nested model with layers in `paths` is replaced by one
    with more outputs, which is called once, since a layer that occurs twice in a network is saved incompletely.
    """
    found: dict[str, Any] = {}

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        wanted = any(path.partition("/")[0] == layer.name for path in paths)
        if wanted and layer.name in found:
            raise Unusable(
                f"extract.taps: layer {layer.name!r} of {model.name} is called more than once",
                "name a layer that is called once",
            )
        inner = [path.partition("/")[2] for path in paths if path.startswith(f"{layer.name}/")]
        if isinstance(layer, keras2_ops.TensorFlowOp):
            whole = layer.call(*args, **kwargs)
        elif inner or _has_ops(layer):
            outputs = _add_outputs(layer, inner)(keras.tree.flatten(args), **kwargs)
            whole = outputs[: len(layer.outputs)]
            found.update({f"{layer.name}/{path}": x for path, x in zip(inner, outputs[len(whole) :], strict=True)})
        else:
            whole = layer(*args, **kwargs)
        if wanted:
            found[layer.name] = whole
        return whole

    graph = keras.Model(model.inputs, model.outputs) if isinstance(model, keras.Sequential) else model
    again = keras.models.clone_model(graph, clone_function=lambda layer: layer, call_function=call)
    return keras.Model(again.inputs, [*again.outputs, *(_single(path, found[path]) for path in paths)], name=model.name)


def _single(path: str, outputs: Any) -> keras.KerasTensor:
    """The output of a layer, if it is one tensor."""
    flat = keras.tree.flatten(outputs)
    if len(flat) > 1:
        raise Unusable(
            f"extract.taps: {path} of the model has {len(flat)} outputs; expected one", "name a layer that has one"
        )
    return flat[0]
