"""Owns converting the description of a model in files of Keras 2 to that of Keras 3. Not opening them (user_model.py).

Weights stay as they are, and so do files of Keras 3.
"""

from __future__ import annotations

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
    if kind in _GRAPHS and isinstance(config, dict) and "layers" in config:
        return {
            **node,
            **({"module": "keras.src.models.functional"} if "module" in node else {}),
            "config": _graph(config),
        }
    if kind == "BatchNormalization" and isinstance(config.get("axis"), list):
        return {**node, "config": {**config, "axis": config["axis"][0]}}
    if kind == "DepthwiseConv2D":
        return {**node, "config": {name: value for name, value in config.items() if name != "groups"}}
    return node


def _graph(config: _Config) -> _Config:
    """A single input or output is not a list of one; the first call of a nested model has the number 0, not 1."""
    nested = {layer["config"]["name"] for layer in config["layers"] if "layers" in layer["config"]}
    ends = {name: config[name] for name in ("input_layers", "output_layers")}
    used = list(_ends([*ends.values(), *(layer["inbound_nodes"] for layer in config["layers"])]))
    first: dict[str, int] = {}
    for name, call, *_ in used:
        first[name] = min(call, first.get(name, call))
    for end in used:
        end[1] -= first[end[0]] if end[0] in nested else 0
    return {**config, **{name: end[0] if _is_list_of_one(end) else end for name, end in ends.items()}}


def _ends(node: Any) -> Iterator[list[Any]]:
    """All [layer, number of its call, number of its output, ...] below the node."""
    if isinstance(node, list) and len(node) > 2 and isinstance(node[0], str):
        yield node
    elif isinstance(node, list | dict):
        for part in node.values() if isinstance(node, dict) else node:
            yield from _ends(part)


def _is_list_of_one(ends: Any) -> bool:
    return isinstance(ends, list) and len(ends) == 1 and isinstance(ends[0], list)
