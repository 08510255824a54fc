"""Owns making OpenVINO's form of a base, once: it is kept in the cache, and later found there without TensorFlow.

Preprocessing and pooling are inside: uint8 in, taps out. Not running it (openvino_engine.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from cache import atomic_files, compiled_models
from cache.errors import PipelineError
from stages.bases.recipe import Recipe, Tap
from stages.runtime.silent_imports import import_openvino, without_banners

VERSION = 1
"""Of how a base is converted. Raise it when the same recipe gives another model."""

GRAPH, WEIGHTS = "model.xml", "model.bin"


def converted_model(
    recipe: Recipe, taps: Mapping[str, Tap], weights: Path, batch: int, places: Sequence[Path]
) -> Mapping[str, bytes]:
    """The model as OpenVINO's two files, GRAPH and WEIGHTS; its outputs bear the names of the taps.

    It is looked for in the caches at `places`, and kept in the first once it was made. Raises Unusable where weights or
    taps do not fit the base.
    """
    components = {
        "version": VERSION,
        "openvino": import_openvino().get_version(),
        "batch": batch,
        "taps": {name: recipe.components(tap) for name, tap in taps.items()},
    }
    return compiled_models.load_or_make(places, components, partial(_convert, recipe, taps, weights, batch))


def _save(openvino: Any, model: Any, path: Path) -> None:
    """Raises PipelineError where it cannot be written, which OpenVINO calls `iostream error`, whatever the reason."""
    try:
        openvino.save_model(model, path, compress_to_fp16=False)
    except RuntimeError as error:
        raise PipelineError(
            f"OpenVINO cannot write its form of the base to {path.parent}, among the temporary files: {error}",
            "make room there, or name another folder with TMPDIR; or do without: --set extract.engine=tensorflow",
        ) from error


def _convert(recipe: Recipe, taps: Mapping[str, Tap], weights: Path, batch: int) -> dict[str, bytes]:
    """Through files in a temporary folder, as OpenVINO reads a frozen graph from nothing else."""
    with without_banners():
        from stages.keras_models import trace
    openvino = import_openvino()
    with atomic_files.temporary_folder() as folder:
        graph = folder / "graph.pb"
        definition, outputs = trace.graph_def(recipe, taps, weights, batch)
        graph.write_bytes(definition)
        read = openvino.Core().read_model(graph)
        results = []  # anew, since what TensorFlow left over is a result too, and taps of one tensor share one
        for name, tensor in outputs.items():
            results.append(openvino.op.Result(read.output(tensor).node.input_value(0)))
            results[-1].set_friendly_name(name)
        _save(openvino, openvino.Model(results, read.get_parameters()), folder / GRAPH)
        return {name: (folder / name).read_bytes() for name in (GRAPH, WEIGHTS)}
