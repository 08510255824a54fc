"""Owns converting the description of a model in files of Keras 2 to that of Keras 3. Not opening them (user_model.py).

Weights stay as they are, and so do files of Keras 3.
"""

import json
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py

from cache import atomic_files

_GRAPHS = ("Functional", "Model")

_DROPPED = {
    "Attention": ("score_mode",),
    "Conv2DTranspose": ("groups",),
    "DepthwiseConv2D": ("groups",),
    "MultiHeadAttention": ("query_shape", "key_shape", "value_shape", "softmax_robust_masking"),
    "SeparableConv2D": ("groups", "kernel_constraint", "kernel_initializer", "kernel_regularizer"),
    "SpatialDropout2D": ("trainable", "noise_shape"),
}
"""Settings, by kind of layer, that Keras 3 does not take."""

_Config = dict[str, Any]


@contextmanager
def keras3_copy(path: Path) -> Iterator[Path]:
    """The file itself, or a temporary copy that Keras 3 can read. Raises KeyError if it holds no model."""
    config, version = _read(path)
    if not version.startswith("2."):
        yield path
        return
    with atomic_files.temporary_folder() as folder:
        copy = folder / path.name
        _write(path, copy, json.dumps(_converted(json.loads(config))))
        yield copy


def _read(path: Path) -> tuple[str, str]:
    """The description of the model, and the version of Keras that wrote it."""
    if path.suffix == ".keras":
        with zipfile.ZipFile(path) as archive:
            about = json.loads(archive.read("metadata.json"))
            return archive.read("config.json").decode(), str(about.get("keras_version", ""))
    with h5py.File(path) as file:
        return file.attrs["model_config"], str(file.attrs.get("keras_version", ""))


def _write(path: Path, copy: Path, config: str) -> None:
    if path.suffix == ".keras":
        with zipfile.ZipFile(path) as archive, zipfile.ZipFile(copy, "w") as written:
            for name in archive.namelist():
                written.writestr(name, config if name == "config.json" else archive.read(name))
        return
    shutil.copyfile(path, copy)
    with h5py.File(copy, "r+") as file:
        file.attrs["model_config"] = config


def _converted(node: Any) -> Any:
    """A node of a description, with all below it, as Keras 3 writes it."""
    if isinstance(node, list):
        return [_converted(part) for part in node]
    if not isinstance(node, dict):
        return node
    node = {name: _converted(part) for name, part in node.items()}
    kind, config = node.get("class_name"), node.get("config")
    if not isinstance(kind, str) or not isinstance(config, dict):
        return node
    if kind == "Policy":
        return config["name"]
    if isinstance(config.get("name"), str):
        config["name"] = config["name"].replace("/", "_")
    if kind in _GRAPHS and "layers" in config:
        return {
            **node,
            **({"module": "keras.src.models.functional"} if "module" in node else {}),
            "config": _graph(config),
        }
    return _layer(node, kind, config)


def _layer(node: _Config, kind: str, config: _Config) -> _Config:
    """A layer: without settings that Keras 3 has not, which make no difference when images are only classified."""
    dropped = {"rng_type", *_DROPPED.get(kind, ())}
    if "module" in node and "batch_input_shape" in config:
        if kind == "InputLayer":
            config["batch_shape"] = config["batch_input_shape"]
        dropped.add("batch_input_shape")
    if kind in ("TFOpLambda", "SlicingOpLambda"):
        kind, config["function"] = "TensorFlowOp", f"tf.{config['function']}"
    elif kind == "RandomCrop":  # Keras 3 does nothing when it is not training
        kind, dropped, config["crop_to_aspect_ratio"] = "Resizing", dropped | {"seed"}, True
    elif kind in ("RandomHeight", "RandomWidth"):
        kind, dropped = "Identity", dropped | {"factor", "interpolation", "seed"}
    elif kind == "BatchNormalization" and isinstance(config.get("axis"), list):
        config["axis"] = config["axis"][0]
    if kind == "MultiHeadAttention":
        node.pop("build_config", None)  # of one shape, where it has three
    if kind != node["class_name"] and "module" in node:
        own = kind == "TensorFlowOp"
        node |= {"module": None if own else "keras.layers", "registered_name": kind if own else None}
    return {**node, "class_name": kind, "config": {name: v for name, v in config.items() if name not in dropped}}


def _graph(config: _Config) -> _Config:
    """A single input or output is not a list of one; the first call of a nested model has the number 0, not 1."""
    nested = {layer["config"]["name"] for layer in config["layers"] if "layers" in layer["config"]}
    ends = {name: config[name] for name in ("input_layers", "output_layers")}
    used = list(_ends([*ends.values(), *(layer["inbound_nodes"] for layer in config["layers"])]))
    first: dict[str, int] = {}
    for end in used:
        end[0] = end[0].replace("/", "_")
        first[end[0]] = min(end[1], first.get(end[0], end[1]))
    for end in used:
        end[1] -= first[end[0]] if end[0] in nested else 0
    layers = [{**layer, **_called(layer)} for layer in config["layers"]]
    single = {name: end[0] if len(end) == 1 and isinstance(end[0], list) else end for name, end in ends.items()}
    return {**config, "layers": layers, **single}


def _called(layer: _Config) -> _Config:
    """A layer's name and calls, those with tensors among their named arguments as Keras 3 writes them."""
    name, op = layer["config"]["name"], layer["class_name"] == "TensorFlowOp"
    calls = [[call] if isinstance(call[0], str) else call for call in layer["inbound_nodes"]]
    if not op and not any(list(_ends(end[3:])) for call in calls for end in call):
        return {"name": name}
    ((*ends,),) = calls  # each layer of that kind is called once
    places, named = [_tensor(end) for end in ends], ends[0][3] if len(ends[0]) > 3 else {}
    tensors = {key: _tensor(part) for key, part in named.items() if _is_end(part)}
    others = {key: part for key, part in named.items() if key not in tensors and key != "name"}
    if op:
        if "slice_spec" in others:
            others["slice_spec"] = ["..." if _is_ellipsis(part) else part for part in others["slice_spec"]]
        constants = [] if isinstance(places[0], dict) else places
        layer = {**layer, "config": {**layer["config"], "arguments": others, "constants": constants}}
        places, others = [] if constants else places, {}
    first = [places] if len(places) > 1 else places
    return {**layer, "name": name, "inbound_nodes": [{"args": first, "kwargs": {**tensors, **others}}]}


def _is_end(node: Any) -> bool:
    """Whether it is [layer, number of its call, number of its output, ...]."""
    return isinstance(node, list) and len(node) > 2 and isinstance(node[0], str)


def _is_ellipsis(part: Any) -> bool:
    return isinstance(part, dict) and part.get("class_name") == "__ellipsis__"


def _tensor(end: list[Any]) -> Any:
    """An output of a layer, as Keras 3 writes it; of a constant, its value."""
    if end[0] == "_CONSTANT_VALUE":
        return end[2]
    return {"class_name": "__keras_tensor__", "config": {"shape": [1], "dtype": "float32", "keras_history": end[:3]}}


def _ends(node: Any) -> Iterator[list[Any]]:
    """All [layer, number of its call, number of its output, ...] below the node."""
    if _is_end(node):
        yield node
        yield from _ends(node[3:])
    elif isinstance(node, list | dict):
        for part in node.values() if isinstance(node, dict) else node:
            yield from _ends(part)
