"""Owns a model as OpenVINO's two files, whatever its bases are. Not its test (export_check). A TensorFlow room.

Each base is the graph that its engine runs, from fitted pixels to rows. What is before and after it, resizing and the
head, are Keras networks as in keras_network.py, which OpenVINO reads by way of ONNX.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from cache import atomic_files
from stages.bases import catalogue
from stages.bases.recipe import FrozenBase
from stages.engines import openvino_engine, openvino_files
from stages.engines.openvino_engine import GRAPH, WEIGHTS
from stages.export import keras_network, resize
from stages.export.deployable import Deployable
from stages.runtime.silent_imports import import_openvino


def save_network(deployable: Deployable, path: Path) -> int | None:
    """Write it to `path`, which ends in .xml, and its weights to the .bin beside it.

    Input and output are those of a file that keras_network.py writes. Returns how many pictures it takes at once: one
    where a base's graph has a number for its batch, as transformers do, else None, any number. Raises Unusable where a
    part does not fit.
    """
    openvino = import_openvino()
    ((head, _),) = deployable.members  # an average is of trained blocks, which such a file cannot have
    graphs = [_read_base(base) for base in deployable.bases]
    batch = None if all(_free_batch(graph) for graph in graphs) else 1
    if batch:
        graphs = [_read_base(base) for base in deployable.bases]  # as they were
    image = openvino.opset13.parameter([batch or -1, -1, -1, 3], np.uint8, name="image")
    rows: dict[str, Any] = {}
    for base, graph in zip(deployable.bases, graphs, strict=True):
        fitted = _attach(_fitting_network(base), {"image": image.output(0)})
        names = [result.get_friendly_name() for result in graph.get_results()]
        rows |= zip(names, _attach(graph, {graph.inputs[0].node.get_friendly_name(): fitted[0]}), strict=True)
    inputs = {name: keras.Input(tuple(row.get_partial_shape().get_max_shape())[1:], name=f"tap{name}")
              for name, row in rows.items()}  # fmt: skip
    flat = {name: layers.Flatten()(tensor) for name, tensor in inputs.items()}
    said = keras_network.outputs([keras_network.head_function(head, "head_")(flat)], flat, deployable)
    after = _converted(keras.Model(list(inputs.values()), said))
    found = _attach(after, {f"tap{name}": row for name, row in rows.items()})
    whole = openvino.Model([openvino.opset13.result(part) for part in found], [image], "frozenbase")
    whole.inputs[0].set_names({"image"})
    for part, name in zip(whole.outputs, keras_network.output_names(deployable), strict=True):
        part.set_names({name})
    openvino_engine.save(openvino, whole, path)
    return batch


def _read_base(base: FrozenBase) -> Any:
    """Fitted pixels, uint8 (1, height, width, 3), to the rows of each tap; results are named as the taps."""
    if catalogue.base_of(base.recipe.base).format.reader is not None:
        files, _ = openvino_files.converted_file(base, 1)
    else:
        files = openvino_engine.converted_model(base, 1)
    return import_openvino().Core().read_model(files[GRAPH], files[WEIGHTS])


def _free_batch(graph: Any) -> bool:
    """Whether it takes any batch now, and gives as many rows; else it may be unusable."""
    try:
        graph.reshape([-1, *list(graph.inputs[0].partial_shape)[1:]])
    except RuntimeError:
        return False
    return all(result.get_output_partial_shape(0)[0].is_dynamic for result in graph.get_results())


def _fitting_network(base: FrozenBase) -> Any:
    image = keras_network.image_input()
    return _converted(keras.Model(image, ops.cast(resize.resize_to_fit(image, base.recipe.pixels), "uint8")))


def _converted(network: keras.Model) -> Any:
    with atomic_files.temporary_folder() as folder:
        keras_network.write_onnx(network, folder / "network.onnx")
        return import_openvino().Core().read_model(folder / "network.onnx")


def _attach(graph: Any, sources: dict[str, Any]) -> Sequence[Any]:
    """What the results of a graph are, once its parameters, by name, are those outputs of another."""
    for parameter in graph.get_parameters():
        parameter.output(0).replace(sources[parameter.get_friendly_name()])
    return [result.input_value(0) for result in graph.get_results()]
