"""Owns which operations a stored model may have: those of the catalogue's bases. Not running it, nor storing it.

A graph can do more than compute. In TensorFlow even stateless operations read files (ReadFile, MatchingFiles,
LookupTableImport); in OpenVINO an extension is code. A base that needs others works, but is not stored.
"""

import itertools
import re
from typing import Any
from xml.etree import ElementTree

TENSORFLOW = frozenset((
    "AddV2", "AvgPool", "BiasAdd", "Cast", "ConcatV2", "Const", "Conv2D", "DepthwiseConv2dNative", "Erfc", "Identity",
    "IdentityN", "MatMul", "Max", "MaxPool", "Maximum", "Mean", "Mul", "Neg", "Pad", "PartitionedCall", "Placeholder",
    "RealDiv", "Relu", "Relu6", "Reshape", "Rsqrt", "Sigmoid", "Sqrt", "SquaredDifference", "Squeeze", "StopGradient",
    "StridedSlice", "Sub",
))  # fmt: skip
OPENVINO = frozenset((
    "Add", "AvgPool", "Clamp", "Concat", "Const", "Convert", "Convolution", "Divide", "Erf", "GroupConvolution",
    "MatMul", "MaxPool", "Multiply", "Negative", "Pad", "Parameter", "Power", "ReLU", "ReduceMax", "ReduceMean",
    "Reshape", "Result", "Sigmoid", "SquaredDifference", "StridedSlice", "Subtract", "Transpose",
))  # fmt: skip


def unexpected_in_graph(definition: Any) -> list[str]:
    """What else a GraphDef has, in its functions too."""
    functions = definition.library.function
    nodes = itertools.chain(definition.node, *(function.node_def for function in functions))
    return sorted({node.op for node in nodes} - {function.signature.name for function in functions} - TENSORFLOW)


def unexpected_in_xml(xml: bytes, weights: int) -> list[str]:
    """What else OpenVINO's XML has, also of other sets than OpenVINO's own, or beyond its `weights` bytes of data."""
    if b"<!" in xml:
        return ["a document type"]
    try:
        layers = list(ElementTree.fromstring(xml).iter("layer"))
        spans = [
            (int(data.get("offset", 0)), int(data.get("size", 0))) for layer in layers for data in layer.iter("data")
        ]
    except (ElementTree.ParseError, ValueError) as error:
        return [f"no XML ({error})"]
    kinds = {(layer.get("type", ""), layer.get("version", "")) for layer in layers}
    known = {kind for kind in kinds if kind[0] in OPENVINO and re.fullmatch(r"opset\d+", kind[1])}
    beyond = [f"data from {start} on" for start, size in spans if min(start, size) < 0 or start + size > weights]
    return sorted(f"{name} of {version}" for name, version in kinds - known) + beyond[:1]
