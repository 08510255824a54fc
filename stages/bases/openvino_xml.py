"""Owns what OpenVINO's own files say without running them: inputs, layers, and whether they do more than compute.

Not running them (engines/), nor which operations the catalogue's bases have (engines/allowed_ops.py).
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from cache.errors import NotAvailable, Unusable
from stages.bases.catalogue import Base
from stages.bases.foreign_file import MOST_NODES, ImageInput, find_image_input, limits_for
from stages.bases.formats import LayerInfo
from stages.runtime.limited_process import Limits

ALLOWED = frozenset((
    "Abs", "Add", "AvgPool", "BatchNormInference", "Broadcast", "Ceiling", "Clamp", "Concat", "Const", "Convert",
    "ConvertLike", "Convolution", "Cos", "DepthToSpace", "Divide", "Einsum", "Elu", "Equal", "Erf", "Exp",
    "FakeConvert", "FakeQuantize", "Floor", "FloorMod", "Gather", "Gelu", "Greater", "GreaterEqual",
    "GroupConvolution", "GroupNormalization", "HardSigmoid", "HSigmoid", "HSwish", "Interpolate", "IsInf", "IsNaN",
    "Less", "LessEqual", "Log", "LogicalAnd", "LogicalNot", "LogicalOr", "LogSoftmax", "LRN", "MatMul", "Maximum",
    "MaxPool", "Minimum", "Mish", "Mod", "Multiply", "MVN", "Negative", "NormalizeL2", "NotEqual", "Pad",
    "Parameter", "Power", "PRelu", "Range", "ReduceL1", "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin",
    "ReduceProd", "ReduceSum", "ReLU", "Reshape", "Result", "RMS", "Round", "ScaledDotProductAttention", "Select",
    "Selu", "ShapeOf", "Sigmoid", "Sign", "Sin", "Slice", "SoftMax", "SoftPlus", "SoftSign", "SpaceToDepth",
    "Split", "Sqrt", "SquaredDifference", "Squeeze", "StridedSlice", "Subtract", "Swish", "Tanh", "Tile",
    "Transpose", "Unsqueeze", "VariadicSplit",
))  # fmt: skip

MOST_BYTES = 4_000_000_000
"""Of one tensor of a graph, for a whole batch."""

_DTYPES = {"f32": "float", "f16": "float16", "u8": "uint8"}


@dataclass(frozen=True)
class _Layer:
    """Shapes have -1 where a length depends on the picture."""

    name: str
    kind: str
    opset: str
    data: Mapping[str, str]
    inputs: tuple[tuple[int, ...], ...]
    outputs: tuple[tuple[int, ...], ...]


def find_unexpected(xml: bytes, weights: bytes, fixed: bool = True) -> list[str]:
    """What it has beyond arithmetic, as phrases: operations, indices, sizes, data beyond the file.

    fixed: whether each shape has to be, as in a model that runs; those of a file may depend on the picture.
    """
    if b"<!" in xml:
        return ["a document type"]
    try:
        layers, sources = _parse(xml)
    except (ElementTree.ParseError, ValueError) as error:
        return [f"no XML ({error})"]
    found = {
        f"{layer.kind} of {layer.opset}"
        for layer in layers.values()
        if layer.kind not in ALLOWED or not re.fullmatch(r"opset\d+", layer.opset)
    }
    if len(layers) > MOST_NODES:
        found.add(f"{len(layers):,} operations")
    for number, layer in layers.items():
        if any((fixed and min(shape, default=0) < 0) or 4 * math.prod(shape) > MOST_BYTES for shape in layer.outputs):
            found.add(f"an output of {layer.name} that has no size, or one that fits in no memory")
        start, size = (int(layer.data.get(field, 0)) for field in ("offset", "size"))
        if layer.kind == "Const" and (min(start, size) < 0 or start + size > len(weights)):
            found.add(f"data from {start} on")
        elif layer.kind == "Gather":
            inputs = [layers.get(sources.get((number, port), "")) for port in ("1", "2")]
            if not _is_within(layer, inputs, weights):
                found.add(f"indices of {layer.name} that are no constants within its input")
    return sorted(found)


def data_files(path: Path) -> list[Path]:
    """The file of its weights. Raises NotAvailable where it is not beside it."""
    weights = path.with_suffix(".bin")
    if not weights.is_file():
        raise NotAvailable(
            f"base.name: {path} has its weights in {weights.name}, which is not beside it", "copy it too"
        )
    return [weights]


def find_input(path: Path) -> ImageInput:
    """Its one input, of images. Raises Unusable where it has another, or is no such file."""
    found = []
    for layer in _parse_file(path).values():
        if layer.kind == "Parameter" and layer.outputs:
            shape = tuple(None if n < 0 else n for n in layer.outputs[0])
            kind = layer.data.get("element_type", "?")
            found.append((layer.name, shape, _DTYPES.get(kind, kind)))
    return find_image_input(path, found)


def find_harm(path: Path) -> list[str]:
    """What it has beyond arithmetic, as phrases; none where it may be opened without the user's trust."""
    return find_unexpected(path.read_bytes(), data_files(path)[0].read_bytes(), fixed=False)


def is_rough(path: Path) -> bool:
    """Whether it computes in fewer digits than float32: quantised. OpenVINO turns float16 into float32."""
    return any(layer.kind == "FakeQuantize" for layer in _parse_file(path).values())


def count_outputs(path: Path) -> int:
    """How many outputs it has."""
    return sum(layer.kind == "Result" for layer in _parse_file(path).values())


def list_layers(base: Base, file: Path | None, size: int) -> list[LayerInfo]:
    """Its outputs, and then all layers that can be a tap, with the shapes that the file has."""
    assert file is not None
    layers, sources = _parse(file.read_bytes())
    results = [sources.get((number, "0"), "") for number, layer in layers.items() if layer.kind == "Result"]
    inner = [number for number in _reached(layers, sources) if number not in results]
    found = []
    for layer in (layers[number] for number in (*results, *inner) if number in layers):
        if layer.kind not in ("Const", "Result", "Parameter") and len(layer.outputs) == 1 and len(layer.outputs[0]) > 1:
            shape = tuple(None if n < 0 else n for n in layer.outputs[0][1:])
            found.append(LayerInfo(layer.name, layer.kind, shape))
    return found


def _reached(layers: Mapping[str, _Layer], sources: Mapping[tuple[str, str], str]) -> list[str]:
    """The numbers of layers that depend on the picture; what makes weights out of their quantised form does not."""
    before: dict[str, list[str]] = {}
    for (number, _), source in sources.items():
        before.setdefault(number, []).append(source)
    found: dict[str, bool] = {}
    for number, layer in layers.items():  # the file has them in the order of computation
        found[number] = layer.kind == "Parameter" or any(found.get(one) for one in before.get(number, ()))
    return [number for number, depends in found.items() if depends]


def limits(path: Path) -> Limits:
    """What OpenVINO may take to read and compile it."""
    return limits_for([path, *data_files(path)])


def _parse_file(path: Path) -> dict[str, _Layer]:
    try:
        return _parse(path.read_bytes())[0]
    except (ElementTree.ParseError, ValueError) as error:
        raise Unusable(f"base.name: {path} is no model of OpenVINO: {error}", "copy or export it again") from error


def _parse(xml: bytes) -> tuple[dict[str, _Layer], dict[tuple[str, str], str]]:
    """Layers by number, and of (layer, its input from 0 on) the number of the layer before it."""
    root = ElementTree.fromstring(xml)
    if root.tag != "net":
        raise ValueError(f"its root is {root.tag!r}")
    layers = {node.get("id", ""): _read(node) for node in root.iterfind("layers/layer")}
    edges = root.iterfind("edges/edge")
    return layers, {(e.get("to-layer", ""), e.get("to-port", "")): e.get("from-layer", "") for e in edges}


def _read(node: Any) -> _Layer:
    def shapes(side: str) -> tuple[tuple[int, ...], ...]:
        ports = node.find(side)
        return tuple(tuple(int(dim.text) for dim in port.iter("dim")) for port in ports) if ports is not None else ()

    data = node.find("data")
    return _Layer(
        node.get("name", ""), node.get("type", ""), node.get("version", ""), data.attrib if data is not None else {},
        shapes("input"), shapes("output"),
    )  # fmt: skip


def _is_within(gather: _Layer, inputs: list[_Layer | None], weights: bytes) -> bool:
    """Whether its indices and axis are constants, and all of them lie within what it takes, if that has a length."""
    indices, along = (_numbers(source, weights) for source in inputs)
    if indices is None or along is None or along.size != 1 or not gather.inputs:
        return False
    shape, axis = gather.inputs[0], int(along.item())
    if not -len(shape) <= axis < len(shape):
        return False
    length = shape[axis]
    return length < 0 or not indices.size or bool(-length <= indices.min() and indices.max() < length)


def _numbers(source: _Layer | None, weights: bytes) -> np.ndarray | None:
    """The whole numbers of a constant; None for anything else."""
    if source is None or source.kind != "Const" or source.data.get("element_type") not in ("i32", "i64"):
        return None
    start, size = int(source.data["offset"]), int(source.data["size"])
    if min(start, size) < 0 or start + size > len(weights):
        return None
    width = np.int64 if source.data["element_type"] == "i64" else np.int32
    return np.frombuffer(weights[start : start + size], width)
