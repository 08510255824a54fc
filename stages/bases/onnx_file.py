"""Owns what an ONNX file says without running it: parts, inputs, operators, tensors. Not running it (engines/).

A file is data, but libraries that run it trust it: with indices of its choice GatherND has read memory beyond a tensor.
So, unless the user trusts a file, it may have only operators that compute, and those that index by data only with
constants that lie within the tensor. Needs the package onnx, whose reader is that of protobuf.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from cache import atomic_files
from cache.errors import Unusable
from stages.bases import onnx_proto, trust
from stages.bases.catalogue import Base
from stages.bases.foreign_file import MOST_NODES, ImageInput, call_apart, find_image_input, limits_for
from stages.bases.formats import LayerInfo
from stages.bases.onnx_proto import External
from stages.runtime.limited_process import Limits

log = logging.getLogger(__name__)

ALLOWED = frozenset((
    "Abs", "Add", "And", "AveragePool", "BatchNormalization", "Cast", "CastLike", "Ceil", "Clip", "Concat", "Constant",
    "ConstantOfShape", "Conv", "ConvInteger", "Cos", "DepthToSpace", "DequantizeLinear", "Div", "DynamicQuantizeLinear",
    "Einsum", "Elu", "Equal", "Erf", "Exp", "Expand", "Flatten", "Floor", "Gelu", "Gemm", "GlobalAveragePool",
    "GlobalMaxPool", "Greater", "GreaterOrEqual", "GroupNormalization", "HardSigmoid", "HardSwish", "Identity",
    "InstanceNormalization", "IsInf", "IsNaN", "LayerNormalization", "LeakyRelu", "Less", "LessOrEqual", "Log",
    "LogSoftmax", "LpNormalization", "LRN", "MatMul", "MatMulInteger", "Max", "MaxPool", "Min", "Mish", "Mod", "Mul",
    "Neg", "Not", "Or", "Pad", "Pow", "PRelu", "QLinearConv", "QLinearMatMul", "QuantizeLinear", "Range", "Reciprocal",
    "ReduceL1", "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare",
    "Relu", "Reshape", "Resize", "RMSNormalization", "Round", "Selu", "Shape", "Sigmoid", "Sign", "Sin", "Size",
    "Slice", "Softmax", "Softplus", "Softsign", "SpaceToDepth", "Split", "Sqrt", "Squeeze", "Sub", "Sum", "Swish",
    "Tanh", "Tile", "Transpose", "Unsqueeze", "Where",
))  # fmt: skip
"""Operators of ONNX's own domain that compute, and read no memory by numbers that a picture decides."""

OWN = ("", "ai.onnx")
"""Names of ONNX's own domain."""


class _Facts(NamedTuple):
    """What a file says, small enough to keep: no weights. cut: whether a tensor within it is larger than its data."""

    opset: int
    inputs: tuple[tuple[str, tuple[int | None, ...], str], ...]
    outputs: int
    external: tuple[External, ...]
    harm: tuple[str, ...]
    cut: bool
    rough: bool


def _facts(path: Path) -> _Facts:
    """Read once in a process, as long as the file stays the same: a large one takes seconds."""
    try:
        stat = path.stat()
    except OSError as error:
        raise Unusable(f"base.name: {path} cannot be read: {error.strerror}") from error
    return _read_facts(path, (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns))


@lru_cache(maxsize=16)
def _read_facts(path: Path, stat: tuple[int, ...]) -> _Facts:
    model = onnx_proto.read_model(path)
    try:
        tensors, initial = list(onnx_proto.tensors(model)), {tensor.name for tensor in model.graph.initializer}
        return _Facts(
            next((kind.version for kind in model.opset_import if kind.domain in OWN), 0),
            tuple(_describe_input(value) for value in model.graph.input if value.name not in initial),
            len(model.graph.output),
            tuple(dict.fromkeys(onnx_proto.external(tensor) for tensor in tensors if onnx_proto.is_external(tensor))),
            tuple(_find_harm(model)),
            bool(model.graph.sparse_initializer) or any(map(onnx_proto.is_cut, tensors)),
            _is_rough(model),
        )
    except (LookupError, TypeError, ValueError) as error:  # types and numbers that no writer would give
        raise Unusable(f"base.name: {path} is no whole ONNX file", "copy or export it again") from error


def _describe_input(value: Any) -> tuple[str, tuple[int | None, ...], str]:
    kind = value.type.tensor_type
    shape = tuple(d.dim_value if d.HasField("dim_value") else None for d in kind.shape.dim)
    return value.name, shape, onnx_proto.import_onnx().TensorProto.DataType.Name(kind.elem_type).lower()


def data_files(path: Path) -> list[Path]:
    """The files beside it that hold its larger tensors, sorted.

    Raises Unusable where one would lie outside of the model's folder; a cache of links, as the hub's client keeps, may
    have them in the folder that the model's own link leads to.
    """
    return [onnx_proto.beside(path, name) for name in sorted({place.name for place in _facts(path).external})]


def without_links(path: Path, folder: Path) -> Path:
    """The file; or, where its data lie behind symbolic links, which no library follows, a link or copy in `folder`."""
    parts = [path, *data_files(path)]
    if not any(part.is_symlink() for part in parts[1:]):
        return path
    for part, place in ((part, folder / part.relative_to(path.parent)) for part in parts):
        atomic_files.make_folder(place.parent)
        atomic_files.link_or_copy(part.resolve(), place)
    return folder / path.name


def find_input(path: Path) -> ImageInput:
    """Its one input, of images. Raises Unusable where it has another."""
    return find_image_input(path, _facts(path).inputs)


def opset(path: Path) -> int:
    """The version of ONNX's own operators that it has."""
    return _facts(path).opset


def find_harm(path: Path) -> list[str]:
    """What it has beyond arithmetic, as phrases; none where it may be opened without the user's trust."""
    facts = _facts(path)
    if facts.cut or any(place.is_cut(path) for place in facts.external):
        return [*facts.harm, "tensors that are larger than their data"]
    return list(facts.harm)


def _find_harm(model: Any) -> Iterator[str]:
    """But for tensors without their data."""
    nodes, constants = list(onnx_proto.nodes(model.graph)), onnx_proto.constants(model.graph)
    odd = {node.op_type if node.domain in OWN else f"{node.domain}.{node.op_type}" for node in nodes}
    odd -= ALLOWED | {"Gather"}
    if odd:
        yield f"the operators {', '.join(sorted(odd)[:5])}"
    if model.functions or any(a.HasField("g") or a.graphs for node in nodes for a in node.attribute):
        yield "graphs within its graph"
    indices = [constants.get(node.input[1]) for node in nodes if node.op_type == "Gather"]
    if any(tensor is None for tensor in indices):
        yield "Gather by indices that are no constants"
    if len(nodes) > MOST_NODES:
        yield f"{len(nodes):,} operators"


def is_rough(path: Path) -> bool:
    """Whether it computes in fewer digits than float32, so that engines differ: in float16, or quantised."""
    return _facts(path).rough


def _is_rough(model: Any) -> bool:
    if any(
        "Quantize" in node.op_type or "Integer" in node.op_type or "QLinear" in node.op_type
        for node in onnx_proto.nodes(model.graph)
    ):
        return True
    half = onnx_proto.import_onnx().TensorProto.FLOAT16
    return any(tensor.data_type == half for tensor in model.graph.initializer)


def count_outputs(path: Path) -> int:
    """How many outputs it has."""
    return _facts(path).outputs


def list_layers(base: Base, file: Path | None, size: int) -> list[LayerInfo]:
    """Its outputs, and then all tensors that can be a tap, with shapes for one image of that size.

    Raises Unusable where it has an index beyond its tensor, or cannot be looked through within limits; of a trusted
    base these are warnings.
    """
    assert file is not None
    job = {"path": str(file), "height": size, "width": size}
    found = call_apart(f"{__name__}:infer_shapes", job, limits(file), "looking through {}", base.trusted, [file])
    if found["beyond"] and not base.trusted:
        raise Unusable(found["beyond"], trust.advise(file))
    if found["beyond"]:
        log.warning("%s; it is looked at since you trust it", found["beyond"])
    return [LayerInfo(name, kind, None if shape is None else tuple(shape)) for name, kind, shape in found["tensors"]]


def limits(path: Path) -> Limits:
    """What a library may take to read and compile it."""
    return limits_for([path, *data_files(path)])


def infer_shapes(path: str, height: int, width: int) -> dict[str, Any]:
    """tensors: (name, operator, shape without the batch) of each; in a process with limits, as its library may crash.

    beyond: a sentence where a constant index lies beyond its tensor, else None.
    """
    onnx, file = onnx_proto.import_onnx(), Path(path)
    model, image = onnx_proto.read_model(file), find_input(file)
    (value,) = (value for value in model.graph.input if value.name == image.name)
    for dim, length in zip(value.type.tensor_type.shape.dim, image.full_shape(1, height, width), strict=True):
        dim.dim_value = length
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    shapes = {t.name: tuple(t.dims) for t in inferred.graph.initializer}
    for known in (*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output):
        kind = known.type.tensor_type
        if kind.HasField("shape"):
            shapes[known.name] = tuple(d.dim_value if d.HasField("dim_value") else None for d in kind.shape.dim)
    kinds = {name: node.op_type for node in model.graph.node for name in node.output if name}
    outputs = [output.name for output in model.graph.output]
    constants = onnx_proto.constants(model.graph)
    inner = [name for name in kinds if name not in outputs and name not in constants and len(shapes.get(name, ())) > 1]
    of_one = {name: list(shape[1:]) for name, shape in shapes.items()}
    tensors = [(name, kinds.get(name, "?"), of_one.get(name)) for name in (*outputs, *inner)]
    return {"tensors": tensors, "beyond": _find_index_beyond(file, model.graph, shapes)}


def _find_index_beyond(path: Path, graph: Any, shapes: dict[str, tuple[int | None, ...]]) -> str | None:
    constants = onnx_proto.constants(graph)
    for node in graph.node:
        if node.op_type == "Gather" and (tensor := constants.get(node.input[1])) is not None:  # else find_harm names it
            axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
            shape = shapes.get(node.input[0])
            length = shape[axis] if shape and -len(shape) <= axis < len(shape) else None
            numbers = onnx_proto.numbers(tensor, path)
            if length is not None and numbers.size and not (-length <= numbers.min() and numbers.max() < length):
                return f"base.name: {path} has an index beyond its tensor (Gather {node.name})"
    return None
