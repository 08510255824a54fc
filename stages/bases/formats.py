"""Owns the kinds of bases there are, one row each: which files hold one, and what opens it. Not the bases themselves
(catalogue.py), nor the engines (engines/select.py).
"""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, NamedTuple


class LayerInfo(NamedTuple):
    """A layer: its name as a tap, its class, and the shape of its output for one image; None if it has several."""

    name: str
    kind: str
    shape: tuple[int | None, ...] | None


@dataclass(frozen=True)
class BaseFormat:
    """One kind of base. Functions are named as `module:function`, so that a row imports nothing.

    name: in FORMATS; of a base that is a file, also its name in keys. suffixes: of files that hold a whole base, layers
    and weights; () where each base has a row in the catalogue. engines: engine -> the function that opens such a base
    in it (engines/select.py `Open`), for engines whose own row does not have it. layers: the function that lists its
    layers, (base, file or None, pixels a side) -> list of LayerInfo; None if there is none. auto: the engine that
    `engine: auto` prefers. numerics: those it can be computed in; None for all of its engines'. runs_code: whether
    opening a file runs code that is in it, so that the user must trust it (trust.py). keras: whether it opens as a
    Keras network, which exports are written from; onnx: whether it is an ONNX graph, which exports are written around.
    blocks: the function that finds in a file what can be trained, (file, pixels a side or None, last layer) -> list of
    FoundBlock; None of a format that cannot be fine-tuned, and of the catalogue's, whose blocks are a table
    (blocks.py). reader: the module that says of a file what is in it without running it (foreign_file.py `Reader`), of
    files that are data, but may do more than compute; None of others.
    """

    name: str
    suffixes: tuple[str, ...] = ()
    engines: Mapping[str, str] = field(default_factory=dict)
    layers: str | None = None
    auto: str | None = None
    numerics: tuple[str, ...] | None = None
    runs_code: bool = False
    keras: bool = False
    onnx: bool = False
    blocks: str | None = None
    reader: str | None = None


_LISTED = "stages.keras_models.trace:list_layers"

BUILT = BaseFormat("built", layers=_LISTED, keras=True)
"""Bases of the catalogue: a function builds the layers, and a file has the weights."""

KERAS_FILE = BaseFormat(
    "model",
    (".keras", ".h5", ".hdf5"),
    layers=_LISTED,
    auto="tensorflow",  # it may hold what OpenVINO cannot convert
    numerics=("f32",),  # it computes in the dtypes that it was saved with
    runs_code=True,
    keras=True,
    blocks="stages.keras_models.tails:list_blocks",
)


_IN_OPENVINO = {"openvino": "stages.engines.openvino_files:open_file"}

ONNX_FILE = BaseFormat(
    "onnx",
    (".onnx",),
    {**_IN_OPENVINO, "onnxruntime": "stages.engines.onnxruntime_engine:open_file"},
    layers="stages.bases.onnx_file:list_layers",
    onnx=True,
    reader="stages.bases.onnx_file",
)
OPENVINO_FILE = BaseFormat(
    "openvino",
    (".xml",),
    _IN_OPENVINO,
    layers="stages.bases.openvino_xml:list_layers",
    reader="stages.bases.openvino_xml",
)

FORMATS: dict[str, BaseFormat] = {kind.name: kind for kind in (BUILT, KERAS_FILE, ONNX_FILE, OPENVINO_FILE)}


def find_file_format(name: str) -> BaseFormat | None:
    """The format of a base that is a file, by its path; None where `name` is no such path."""
    suffix = PurePath(name).suffix
    return next((kind for kind in FORMATS.values() if suffix in kind.suffixes), None)


def load_function(reference: str) -> Any:
    """The function that `module:function` names."""
    module, _, name = reference.partition(":")
    return getattr(importlib.import_module(module), name)
