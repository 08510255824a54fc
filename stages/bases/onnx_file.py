"""Owns what an ONNX file says without running it: parts, inputs, operators, tensors. Not running it (engines/).

A file is data, but libraries that run it trust it: with indices of its choice GatherND has read memory beyond a tensor.
So, unless the user trusts a file, it may have only operators that compute, and those that index by data only with
constants that lie within the tensor. Needs the package onnx, whose reader is that of protobuf.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from cache import atomic_files
from cache.errors import NotAvailable, Unusable
from stages.bases import trust
from stages.bases.catalogue import Base
from stages.bases.foreign_file import MOST_NODES, ImageInput, call_apart, find_image_input, limits_for
from stages.bases.formats import LayerInfo
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


def read_model(path: Path) -> Any:
    """The file as onnx.ModelProto, without its external data.

    Raises Unusable where it is no whole ONNX file, NotAvailable where the package is absent.
    """
    onnx = _import_onnx()
    try:
        model = onnx.load(path, load_external_data=False)
    except OSError as error:
        raise Unusable(f"base.name: {path} cannot be read: {error.strerror}") from error
    except Exception as error:
        raise Unusable(f"base.name: {path} is no whole ONNX file", "copy or export it again") from error
    if not model.graph.node or not model.graph.output:
        raise Unusable(f"base.name: {path} is no whole ONNX file: it has no nodes", "copy or export it again")
    return model


def read_whole(path: Path) -> Any:
    """The same with its external data, also from behind links, where onnx's own reader finds none."""
    model = read_model(path)
    for tensor in filter(_is_external, _tensors(model)):
        tensor.raw_data = _read_external(tensor, path)
        tensor.ClearField("external_data")
        tensor.ClearField("data_location")
    return model


def data_files(path: Path) -> list[Path]:
    """The files beside it that hold its larger tensors, sorted.

    Raises Unusable where one would lie outside of the model's folder; a cache of links, as the hub's client keeps, may
    have them in the folder that the model's own link leads to.
    """
    names = sorted({_location(tensor) for tensor in _tensors(read_model(path)) if _is_external(tensor)})
    return [_beside(path, name) for name in names]


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
    model = read_model(path)
    onnx = _import_onnx()
    initial = {tensor.name for tensor in model.graph.initializer}
    found = []
    for value in model.graph.input:
        if value.name not in initial:
            kind = value.type.tensor_type
            shape = tuple(d.dim_value if d.HasField("dim_value") else None for d in kind.shape.dim)
            found.append((value.name, shape, onnx.TensorProto.DataType.Name(kind.elem_type).lower()))
    return find_image_input(path, found)


def find_harm(path: Path) -> list[str]:
    """What it has beyond arithmetic, as phrases; none where it may be opened without the user's trust."""
    model, found = read_model(path), []
    nodes, constants = list(_nodes(model.graph)), _constants(model.graph)
    odd = {node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}" for node in nodes}
    odd -= ALLOWED | {"Gather"}
    if odd:
        found.append(f"the operators {', '.join(sorted(odd)[:5])}")
    if model.functions or any(a.HasField("g") or a.graphs for node in nodes for a in node.attribute):
        found.append("graphs within its graph")
    indices = [constants.get(node.input[1]) for node in nodes if node.op_type == "Gather"]
    if any(tensor is None for tensor in indices):
        found.append("Gather by indices that are no constants")
    if len(nodes) > MOST_NODES:
        found.append(f"{len(nodes):,} operators")
    if model.graph.sparse_initializer or any(_is_cut(tensor, path) for tensor in _tensors(model)):
        found.append("tensors that are larger than their data")
    return found


def is_rough(path: Path) -> bool:
    """Whether it computes in fewer digits than float32, so that engines differ: in float16, or quantised."""
    model = read_model(path)
    if any(
        "Quantize" in node.op_type or "Integer" in node.op_type or "QLinear" in node.op_type
        for node in _nodes(model.graph)
    ):
        return True
    return any(tensor.data_type == _import_onnx().TensorProto.FLOAT16 for tensor in model.graph.initializer)


def count_outputs(path: Path) -> int:
    """How many outputs it has."""
    return len(read_model(path).graph.output)


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
    onnx, file = _import_onnx(), Path(path)
    model, image = read_model(file), find_input(file)
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
    constants = _constants(model.graph)
    inner = [name for name in kinds if name not in outputs and name not in constants and len(shapes.get(name, ())) > 1]
    of_one = {name: list(shape[1:]) for name, shape in shapes.items()}
    tensors = [(name, kinds.get(name, "?"), of_one.get(name)) for name in (*outputs, *inner)]
    return {"tensors": tensors, "beyond": _find_index_beyond(file, model.graph, shapes)}


def _find_index_beyond(path: Path, graph: Any, shapes: dict[str, tuple[int | None, ...]]) -> str | None:
    constants = _constants(graph)
    for node in graph.node:
        if node.op_type == "Gather" and (tensor := constants.get(node.input[1])) is not None:  # else find_harm names it
            axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
            shape = shapes.get(node.input[0])
            length = shape[axis] if shape and -len(shape) <= axis < len(shape) else None
            numbers = _numbers(tensor, path)
            if length is not None and numbers.size and not (-length <= numbers.min() and numbers.max() < length):
                return f"base.name: {path} has an index beyond its tensor (Gather {node.name})"
    return None


def _numbers(tensor: Any, path: Path) -> np.ndarray:
    """Its values, in a row."""
    onnx = _import_onnx()
    if not _is_external(tensor):
        return np.ravel(onnx.numpy_helper.to_array(tensor))
    return np.frombuffer(_read_external(tensor, path), onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type))


def _read_external(tensor: Any, path: Path) -> bytes:
    """The bytes of its values, from a file beside the model, also through a link."""
    offset = int(next((entry.value for entry in tensor.external_data if entry.key == "offset"), 0))
    with open(_beside(path, _location(tensor)), "rb") as file:
        file.seek(offset)
        return file.read(math.ceil(_bits(_import_onnx(), tensor.data_type) * math.prod(tensor.dims) / 8))


def _import_onnx() -> Any:
    try:
        import onnx
        import onnx.shape_inference
    except ImportError as error:
        raise NotAvailable("an ONNX file as base needs the package onnx", "pip install 'frozenbase[onnx]'") from error
    return onnx


def _nodes(graph: Any) -> Iterator[Any]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
                yield from _nodes(inner)


def _tensors(model: Any) -> Iterator[Any]:
    yield from model.graph.initializer
    for node in _nodes(model.graph):
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors


def _constants(graph: Any) -> dict[str, Any]:
    """Name -> TensorProto of what does not depend on the image; None for a number in an attribute."""
    found = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            found[node.output[0]] = next((a.t for a in node.attribute if a.HasField("t")), None)
        elif node.op_type == "Identity" and node.input[0] in found:
            found[node.output[0]] = found[node.input[0]]
    return found


def _is_external(tensor: Any) -> bool:
    return bool(tensor.data_location == _import_onnx().TensorProto.EXTERNAL)


def _location(tensor: Any) -> str:
    return next((entry.value for entry in tensor.external_data if entry.key == "location"), "")


def _beside(path: Path, name: str) -> Path:
    parts = PurePosixPath(name)
    file = path.parent / name
    plain = name and not parts.is_absolute() and ".." not in parts.parts and "\\" not in name
    folders = {path.parent.resolve(), path.resolve().parent}
    if not plain or not any(file.resolve().is_relative_to(folder) for folder in folders):
        raise Unusable(
            f"base.name: {path} keeps data in {name!r}, outside of its folder", "export it again, into one folder"
        )
    if not file.is_file():
        raise NotAvailable(
            f"base.name: {path} keeps data in {name}, which is not beside it", "copy that file there too"
        )
    return file


def _is_cut(tensor: Any, path: Path) -> bool:
    """Whether its data cannot hold as many numbers as its shape says."""
    onnx = _import_onnx()
    count = math.prod(tensor.dims)
    if min(tensor.dims, default=0) < 0 or tensor.data_type == onnx.TensorProto.STRING:
        return True
    size = _bits(onnx, tensor.data_type) * count / 8
    if _is_external(tensor):
        entries = {entry.key: entry.value for entry in tensor.external_data}
        offset, whole = int(entries.get("offset") or 0), _beside(path, entries.get("location", "")).stat().st_size
        length = int(entries.get("length") or whole - offset)
        return min(offset, length) < 0 or offset + length > whole or size > length
    if tensor.HasField("raw_data"):
        return bool(size > len(tensor.raw_data))
    held: Sequence[Sequence[Any]] = (
        tensor.float_data, tensor.int32_data, tensor.int64_data, tensor.double_data, tensor.uint64_data,
    )  # fmt: skip
    return bool(count > 8 * max(map(len, held)))


def _bits(onnx: Any, kind: int) -> int:
    name = onnx.TensorProto.DataType.Name(kind)
    return 4 if name.endswith("INT4") else int(8 * onnx.helper.tensor_dtype_to_np_dtype(kind).itemsize)
