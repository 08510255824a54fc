"""Small ONNX files with fixed random weights, sound and hostile."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CHANNELS, DIM = 8, 12


def arrays(**values: np.ndarray) -> list[TensorProto]:
    return [numpy_helper.from_array(array, name) for name, array in values.items()]


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32) / 4


def save(
    path: Path,
    nodes: Sequence[Any],
    initial: Sequence[TensorProto],
    outputs: Sequence[str],
    shape: Sequence[int | str] = ("n", 3, "h", "w"),
    dtype: int = TensorProto.FLOAT,
    more: Sequence[Any] = (),
    domains: Sequence[str] = ("",),
) -> Path:
    inputs = [helper.make_tensor_value_info("image", dtype, shape), *more]
    found = [helper.make_empty_tensor_value_info(name) for name in outputs]
    graph = helper.make_graph(list(nodes), "net", inputs, found, list(initial))
    opsets = [helper.make_opsetid(domain, 17 if not domain else 1) for domain in domains]
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


def conv_nodes(then: str = "maps") -> list[Any]:
    return [
        helper.make_node("Conv", ["image", "kernel"], ["conv"], strides=[4, 4]),
        helper.make_node("Relu", ["conv"], [then]),
    ]


def conv_net(path: Path, shape: Sequence[int | str] = ("n", 3, "h", "w"), dtype: int = TensorProto.FLOAT) -> Path:
    """maps: (n, 8, h/4, w/4)."""
    kernel = numbers(CHANNELS, 3, 4, 4)
    kernel = kernel.astype(np.float16) if dtype == TensorProto.FLOAT16 else kernel
    return save(path, conv_nodes(), arrays(kernel=kernel), ["maps"], shape, dtype)


def conv_maps(pixels: np.ndarray) -> np.ndarray:
    """What conv_net gives for float pixels (n, h, w, 3): (n, h/4, w/4, 8)."""
    n, h, w, _ = pixels.shape
    patches = pixels.reshape(n, h // 4, 4, w // 4, 4, 3).transpose(0, 1, 3, 5, 2, 4).reshape(n, h // 4, w // 4, -1)
    return np.maximum(patches.astype(np.float64) @ numbers(CHANNELS, 3, 4, 4).reshape(CHANNELS, -1).T, 0)


def token_net(path: Path, prefix: int = 1, computed: bool = False) -> Path:
    """tokens: (n, prefix + patches of 8 pixels, 12), as a vision transformer's without its blocks; and the first.

    computed: the number of the first is computed, though it is always 0.
    """
    nodes = [
        helper.make_node("Conv", ["image", "kernel"], ["patches"], strides=[8, 8]),
        helper.make_node("Shape", ["patches"], ["shape"]),
        helper.make_node("Gather", ["shape", "zero"], ["n"], axis=0),
        helper.make_node("Concat", ["n", "flat"], ["flattened"], axis=0),
        helper.make_node("Reshape", ["patches", "flattened"], ["rows"]),
        helper.make_node("Transpose", ["rows"], ["sequence"], perm=[0, 2, 1]),
        helper.make_node("Concat", ["n", "of_one"], ["expanded"], axis=0),
        helper.make_node("Expand", ["first", "expanded"], ["prefix"]),
        helper.make_node("Concat", ["prefix", "sequence"], ["joined"], axis=1),
        helper.make_node("LayerNormalization", ["joined", "ones"], ["tokens"], axis=-1),
        helper.make_node("Add", ["scalar", "scalar"], ["number"]),
        helper.make_node("Gather", ["tokens", "number" if computed else "scalar"], ["pooled"], axis=1),
    ]
    initial = arrays(
        kernel=numbers(DIM, 3, 8, 8), zero=np.array([0]), flat=np.array([DIM, -1]), of_one=np.array([prefix, DIM]),
        first=numbers(1, prefix, DIM, seed=1), ones=np.ones(DIM, np.float32), scalar=np.array(0),
    )  # fmt: skip
    return save(path, nodes, initial, ["tokens", "pooled"])


def with_external_data(path: Path, name: str = "net.data") -> Path:
    """The model with its tensors in a file beside it."""
    onnx.save(onnx.load(path), path, save_as_external_data=True, location=name, size_threshold=0)
    return path


def pointing_at(path: Path, location: str) -> Path:
    """The model, its data said to be at `location`."""
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    path.write_bytes(model.SerializeToString())
    return path
