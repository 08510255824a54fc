"""Owns an ONNX file as protobuf: reading it, its tensors, and where their data lie. Not what it says (onnx_file.py).

Needs the package onnx, whose reader is that of protobuf.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from cache.errors import NotAvailable, Unusable


class External(NamedTuple):
    """Where the data of a tensor lie, in the file of that name; length: None up to its end. needed: bytes."""

    name: str
    offset: int
    length: int | None
    needed: int

    def is_cut(self, path: Path) -> bool:
        """Whether the file beside that model has less."""
        whole = beside(path, self.name).stat().st_size
        length = whole - self.offset if self.length is None else self.length
        return min(self.offset, length) < 0 or self.offset + length > whole or self.needed > length


def read_model(path: Path) -> Any:
    """The file as onnx.ModelProto, without its external data.

    Raises Unusable where it is no whole ONNX file, NotAvailable where the package is absent.
    """
    onnx = import_onnx()
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
    for tensor in filter(is_external, tensors(model)):
        tensor.raw_data = _read_external(tensor, path)
        tensor.ClearField("external_data")
        tensor.ClearField("data_location")
    return model


def external(tensor: Any) -> External:
    """Of a tensor that `is_external`."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    length = int(entries["length"]) if entries.get("length") else None
    return External(entries.get("location", ""), int(entries.get("offset") or 0), length, _needed(tensor))


def numbers(tensor: Any, path: Path) -> np.ndarray:
    """Its values, in a row."""
    onnx = import_onnx()
    if not is_external(tensor):
        return np.ravel(onnx.numpy_helper.to_array(tensor))
    return np.frombuffer(_read_external(tensor, path), onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type))


def _read_external(tensor: Any, path: Path) -> bytes:
    """The bytes of its values, from a file beside the model, also through a link."""
    place = external(tensor)
    with open(beside(path, place.name), "rb") as file:
        file.seek(place.offset)
        return file.read(place.needed)


def import_onnx() -> Any:
    """The package. Raises NotAvailable where it is not installed."""
    try:
        import onnx
        import onnx.shape_inference
    except ImportError as error:
        raise NotAvailable("an ONNX file as base needs the package onnx", "pip install 'frozenbase[onnx]'") from error
    return onnx


def nodes(graph: Any) -> Iterator[Any]:
    """All operators, also of graphs within it."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
                yield from nodes(inner)


def tensors(model: Any) -> Iterator[Any]:
    """All that it has numbers of."""
    yield from model.graph.initializer
    for node in nodes(model.graph):
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors


def constants(graph: Any) -> dict[str, Any]:
    """Name -> TensorProto of what does not depend on the image; None for a number in an attribute."""
    found = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            found[node.output[0]] = next((a.t for a in node.attribute if a.HasField("t")), None)
        elif node.op_type == "Identity" and node.input[0] in found:
            found[node.output[0]] = found[node.input[0]]
    return found


def is_external(tensor: Any) -> bool:
    """Whether its data lie in another file."""
    return bool(tensor.data_location == import_onnx().TensorProto.EXTERNAL)


def beside(path: Path, name: str) -> Path:
    """The file of that name beside a model. Raises Unusable where it is elsewhere, NotAvailable where absent."""
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


def is_cut(tensor: Any) -> bool:
    """Whether its own data cannot hold as many numbers as its shape says."""
    onnx = import_onnx()
    if min(tensor.dims, default=0) < 0 or tensor.data_type == onnx.TensorProto.STRING:
        return True
    if is_external(tensor):
        return False
    if tensor.HasField("raw_data"):
        return bool(_needed(tensor) > len(tensor.raw_data))
    held: Sequence[Sequence[Any]] = (
        tensor.float_data, tensor.int32_data, tensor.int64_data, tensor.double_data, tensor.uint64_data,
    )  # fmt: skip
    return bool(math.prod(tensor.dims) > 8 * max(map(len, held)))


def _needed(tensor: Any) -> int:
    """Bytes."""
    onnx = import_onnx()
    if tensor.data_type == onnx.TensorProto.STRING:
        return 0
    name = onnx.TensorProto.DataType.Name(tensor.data_type)
    bits = 4 if name.endswith("INT4") else 8 * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    return int(-(-bits * math.prod(tensor.dims) // 8))
