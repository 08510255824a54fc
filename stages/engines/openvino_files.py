"""Owns ONNX files and OpenVINO's own as models for its engine. Not running them (openvino_engine.py).

A file is read and made one graph of fixed shapes in a process of its own, which may crash. Only what comes of that is
opened here, and only if it is operations that compute, with constant indices that lie within their tensors.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from cache import atomic_files, compiled_models
from cache.errors import Unusable
from stages.bases import catalogue, onnx_file, openvino_xml, trust
from stages.bases.catalogue import Preprocess
from stages.bases.foreign_file import ImageInput, absent_tensor, call_apart, open_reader
from stages.bases.formats import ONNX_FILE
from stages.bases.pooling import plan_pooling
from stages.bases.recipe import FrozenBase, Tap
from stages.engines import openvino_engine
from stages.engines.embed import CPU_BATCH
from stages.engines.openvino_engine import GRAPH, WEIGHTS, OpenVINOEmbed
from stages.runtime.silent_imports import import_openvino

log = logging.getLogger(__name__)

VERSION = 2
"""Of how a file is converted. Raise it when the same recipe gives another model."""


_INTEGERS = ("i8", "u8", "i4", "u4")


def open_file(base: FrozenBase, batch: int | None) -> OpenVINOEmbed:
    """A base that is an ONNX file or OpenVINO's own (select.py `Open`). Raises Unusable where it cannot be run here."""
    model, batch = converted_file(base, batch)
    return OpenVINOEmbed(model, base.recipe.numerics, batch)


def converted_file(base: FrozenBase, batch: int | None) -> tuple[Mapping[str, bytes], int]:
    """The model as OpenVINO's two files, stored as that of `openvino_engine.converted_model` is, and its batch.

    Raises Unusable where it cannot be run here, or does more than compute.
    """
    kind = catalogue.base_of(base.recipe.base).format
    image = open_reader(kind).find_input(base.weights)
    image.check_size(base.weights, base.recipe.pixels.height, base.recipe.pixels.width)
    batch = image.batch or batch or CPU_BATCH
    components = {
        "version": VERSION,
        "openvino": import_openvino().get_version(),
        "batch": batch,
        "taps": {name: base.recipe.components(tap) for name, tap in base.taps.items()},
    }
    trusted = trust.is_trusted(base.recipe.weights_sha256)

    def find_unexpected(model: Mapping[str, bytes]) -> list[str]:
        return openvino_xml.find_unexpected(model[GRAPH], model[WEIGHTS])

    def describe(unexpected: Sequence[str]) -> str:
        return f"{base.weights} becomes a model with {', '.join(unexpected[:5])}, which is more than arithmetic"

    def make() -> dict[str, bytes]:
        made = _convert_apart(base, image, batch, trusted)
        if not trusted and (unexpected := find_unexpected(made)):
            raise Unusable(f"base.name: {describe(unexpected)}", trust.advise(base.weights))
        return made

    if not trusted:
        return compiled_models.load_or_make(components, make, find_unexpected), batch
    model = compiled_models.load_or_make(components, make, lambda model: [])
    if (unexpected := find_unexpected(model)) and not open_reader(kind).find_harm(base.weights):
        log.warning("%s; it is run since you trust it", describe(unexpected))  # else told by the file's own names
    return model, batch


def _convert_apart(base: FrozenBase, image: ImageInput, batch: int, trusted: bool) -> dict[str, bytes]:
    kind = catalogue.base_of(base.recipe.base).format
    limits = open_reader(kind).limits(base.weights)
    with atomic_files.temporary_folder() as folder:
        job = {
            "path": str(onnx_file.without_links(base.weights, folder) if kind is ONNX_FILE else base.weights),
            "folder": str(folder),
            "image": image._asdict(),
            "shape": [batch, base.recipe.pixels.height, base.recipe.pixels.width, 3],
            "numbers": base.recipe.preprocess.components(),
            "taps": {name: asdict(tap) for name, tap in base.taps.items()},
        }
        call_apart(f"{__name__}:convert", job, limits, "reading {} in OpenVINO", trusted, [base.weights])
        return {name: (folder / name).read_bytes() for name in (GRAPH, WEIGHTS)}


def convert(
    path: str,
    folder: str,
    image: Mapping[str, Any],
    shape: list[int],
    numbers: Mapping[str, Any],
    taps: Mapping[str, Mapping[str, Any]],
) -> None:
    """Write the graph from uint8 (n, h, w, 3) to the taps, at one fixed shape, as GRAPH and WEIGHTS.

    Raises Unusable where OpenVINO cannot read the file, or it has no such tensor, or pooling has no meaning for it.
    """
    openvino = import_openvino()
    ops, passes = openvino.opset13, openvino.passes.Manager()
    file, core, given = Path(path), openvino.Core(), ImageInput(**image)
    try:
        model = core.read_model(path)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise Unusable(
            f"base.name: OpenVINO cannot read {file}: {reason}", "try extract.engine: onnxruntime"
        ) from error
    wanted = {name: Tap(**tap) for name, tap in taps.items()}
    for layer in {tap.layer for tap in wanted.values()} - {"output"}:
        _add_output(model, file, layer)
    model.reshape(list(given.full_shape(shape[0], shape[1], shape[2])))
    (parameter,) = model.get_parameters()
    pixels = ops.parameter(shape, np.uint8)
    values = _preprocess(ops, pixels, Preprocess(**numbers))
    values = ops.transpose(values, np.array([0, 3, 1, 2])) if given.layout == "nchw" else values
    parameter.output(0).replace(ops.convert(values, parameter.get_element_type().to_string()).output(0))
    results = []
    for name, tap in wanted.items():
        output = _find(model, file, tap.layer)
        source = output.node.input_value(0) if output.node.get_type_name() == "Result" else output
        if not source.get_partial_shape().is_static:
            raise Unusable(f"base.name: {file} gives {tap.layer!r} in a shape that depends on the picture", "")
        results.append(ops.result(_pool(ops, source, tap, (shape[1], shape[2]), given)))
        results[-1].set_friendly_name(name)
    whole = openvino.Model(results, [pixels])
    _keep_integers(whole)
    passes.register_pass(openvino.passes.ConstantFolding())
    passes.run_passes(whole)
    openvino_engine.save(openvino, whole, Path(folder) / GRAPH)


def _keep_integers(model: Any) -> None:
    """Leave quantised weights as integers: folded into float32 ones, they would be multiplied as such.

    The name is that of the C++ attribute which the pass heeds; Python has none for it.
    """
    converted = (op for op in model.get_ops() if op.get_type_name() == "Convert")
    for op in converted:
        source = op.input_value(0)
        if source.node.get_type_name() == "Constant" and source.get_element_type().to_string() in _INTEGERS:
            op.get_rt_info()["DisableConstantFolding_0"] = ""


def _preprocess(ops: Any, pixels: Any, numbers: Preprocess) -> Any:
    """(x * scale - mean) / std in float32, without neutral operations, as keras_models/trace.py."""
    x = ops.convert(pixels, "f32")
    if numbers.order == "bgr":
        x = ops.gather(x, np.array([2, 1, 0]), 3)
    if numbers.scale != 1.0:
        x = ops.multiply(x, np.float32(numbers.scale))
    if any(numbers.mean):
        x = ops.subtract(x, np.array(numbers.mean, np.float32))
    if tuple(numbers.std) != (1.0, 1.0, 1.0):
        x = ops.divide(x, np.array(numbers.std, np.float32))
    return x


def _pool(ops: Any, output: Any, tap: Tap, size: tuple[int, int], image: ImageInput) -> Any:
    x = ops.convert(output, "f32")
    plan = plan_pooling(tap, tuple(output.get_shape())[1:], size, image.layout)
    if plan.channels_last:
        x = ops.transpose(x, np.array([0, 2, 3, 1]))
    if plan.reduce is not None:
        reduce = ops.reduce_mean if plan.reduce == "mean" else ops.reduce_max
        x = reduce(x, np.array([1, 2]), False)
    parts = []
    for part in plan.parts:
        first, last = (0, 1) if part == "cls" else (plan.first, int(output.get_shape()[1]))
        tokens = ops.slice(x, np.array([first]), np.array([last]), np.array([1]), np.array([1]))
        parts.append(ops.reduce_mean(tokens, np.array([1]), False))
    return (parts[0] if len(parts) == 1 else ops.concat(parts, 1)) if parts else x


def _add_output(model: Any, file: Path, layer: str) -> None:
    try:
        model.add_outputs(layer)
    except RuntimeError:
        nodes = {op.get_friendly_name(): op for op in model.get_ops()}
        if layer in nodes:
            model.add_outputs(nodes[layer].output(0))
            return
        names = [name for op in model.get_ordered_ops() for out in op.outputs() for name in sorted(out.get_names())]
        raise absent_tensor(file, layer, [*reversed(names), *nodes]) from None


def _find(model: Any, file: Path, layer: str) -> Any:
    if layer == "output":
        return model.output(0)
    for output in model.outputs:
        source = output.node.input_value(0)
        if layer in (*output.get_names(), *source.get_names(), source.node.get_friendly_name()):
            return output
    raise absent_tensor(file, layer, ())
