"""Owns a model as one ONNX file where a base is an ONNX file. Not its test (export_check). A TensorFlow room.

What is before and after such a base, resizing and the head, are Keras networks as in keras_network.py, converted;
onnx_join.py puts the base's own graph between them.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras
from keras import layers, ops

from cache import atomic_files
from stages.bases import catalogue, onnx_file, trust
from stages.bases.foreign_file import call_apart
from stages.bases.pooling import plan_pooling
from stages.bases.recipe import FrozenBase
from stages.engines import onnxruntime_engine
from stages.export import keras_network, onnx_join
from stages.export.deployable import Deployable
from stages.keras_models import trace
from stages.runtime.limited_process import Limits


class _Piece(NamedTuple):
    """A base. before: the Keras network from pictures to its ONNX file, or to its rows where it has none.

    inputs: of the network after it, each with the layer of the file that it takes, or None for what `before` gives.
    rows: what that network makes of them, by tap.
    """

    before: keras.Model
    file: Path | None
    inputs: list[tuple[Any, str | None]]
    rows: dict[str, Any]


def save_network(deployable: Deployable, path: Path) -> int | None:
    """Write it to `path`, which ends in .onnx: input and output as of a file that keras_network.py writes.

    Returns how many pictures it takes at once, None for any number. Raises Unusable where a part does not fit.
    """
    ((head, _),) = deployable.members  # an average is of trained blocks, and these bases have none
    files = [base.weights for base in deployable.bases if _is_onnx(base)]
    opset, batch = onnx_join.find_opset(files), onnx_join.find_batch(files)
    pieces = [
        _around_file(base, batch) if _is_onnx(base) else _of_keras(base, i) for i, base in enumerate(deployable.bases)
    ]
    rows = {name: row for piece in pieces for name, row in piece.rows.items()}
    said = keras_network.outputs([keras_network.head_function(head, "head_")(rows)], rows, deployable)
    after = keras.Model([tensor for piece in pieces for tensor, _ in piece.inputs], said)
    with atomic_files.temporary_folder() as folder:
        written = min(opset, onnx_join.NEWEST_CONVERTED)
        for i, piece in enumerate(pieces):
            keras_network.write_onnx(piece.before, folder / f"before{i}.onnx", written)
        keras_network.write_onnx(after, folder / "after.onnx", written)
        parts = [
            {
                "before": str(folder / f"before{i}.onnx"),
                "file": None if piece.file is None else str(piece.file),
                "inputs": {tensor.name: layer for tensor, layer in piece.inputs},
            }
            for i, piece in enumerate(pieces)
        ]
        whole = {"path": str(path), "opset": opset, "batch": batch, "most": onnx_join.MOST_BYTES}
        whole["outputs"] = keras_network.output_names(deployable)
        job = {"parts": parts, "after": str(folder / "after.onnx"), **whole}
        _join([base for base in deployable.bases if _is_onnx(base)], job)
    return batch


def _is_onnx(base: FrozenBase) -> bool:
    return catalogue.base_of(base.recipe.base).format.onnx


def _around_file(base: FrozenBase, batch: int | None) -> _Piece:
    image = onnx_file.find_input(base.weights)
    pictures = keras_network.image_input()
    values = keras_network.preprocessed(pictures, base)
    values = ops.transpose(values, (0, 3, 1, 2)) if image.layout == "nchw" else values
    values = values if image.dtype == "float" else ops.cast(values, image.dtype)
    shapes = onnxruntime_engine.find_shapes(base, batch or 1)
    inputs = {name: keras.Input(shapes[name], name=f"tap{name}") for name in base.taps}
    size = base.recipe.pixels.height, base.recipe.pixels.width
    rows = {
        name: layers.Flatten()(trace.pool_by(inputs[name], plan_pooling(tap, shapes[name], size, image.layout)))
        for name, tap in base.taps.items()
    }
    taken: list[tuple[Any, str | None]] = [(inputs[name], tap.layer) for name, tap in base.taps.items()]
    return _Piece(keras.Model(pictures, values), base.weights, taken, rows)


def _of_keras(base: FrozenBase, number: int) -> _Piece:
    """One tensor joins the rows of all taps, since converted networks don't name theirs."""
    pictures = keras_network.image_input()
    found = keras_network.base_rows(base, keras_network.preprocessed(pictures, base))
    joined, rows, start = keras.Input((sum(row.shape[1] for row in found.values()),), name=f"rows{number}"), {}, 0
    for name, row in found.items():
        rows[name] = joined[:, start : start + row.shape[1]]
        start += row.shape[1]
    before = keras.Model(pictures, ops.concatenate(list(found.values()), axis=1))
    return _Piece(before, None, [(joined, None)], rows)


def _join(bases: Sequence[FrozenBase], job: Mapping[str, Any]) -> None:
    """In a process with limits, since the library that raises versions of operators may crash."""
    files = [base.weights for base in bases]
    limits = [onnx_file.limits(file) for file in files]
    both = Limits(sum(one.memory or 0 for one in limits), sum(one.seconds or 0 for one in limits))
    trusted = all(trust.is_trusted(base.recipe.weights_sha256) for base in bases)
    call_apart("stages.export.onnx_join:join", job, both, "writing {} into one file", trusted, files)
