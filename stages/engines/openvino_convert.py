"""Owns converting a base for OpenVINO, once: the model is stored. Not running it (openvino_engine.py).

Preprocessing and pooling are inside: uint8 in, taps out.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from cache import atomic_files, compiled_models
from cache.errors import PipelineError
from stages.bases.recipe import FrozenBase
from stages.engines import allowed_ops
from stages.runtime.silent_imports import import_openvino, without_banners

VERSION = 1
"""Of how a base is converted. Raise it when the same recipe gives another model."""

GRAPH, WEIGHTS = "model.xml", "model.bin"


def converted_model(base: FrozenBase, batch: int) -> Mapping[str, bytes]:
    """The model as OpenVINO's two files, GRAPH and WEIGHTS; its outputs are named as the taps.

    It is stored (compiled_models.py), unless it has a trained tail. Raises Unusable if weights or taps do not fit.
    """
    components = {
        "version": VERSION,
        "openvino": import_openvino().get_version(),
        "batch": batch,
        "taps": {name: base.recipe.components(tap) for name, tap in base.taps.items()},
    }
    make = partial(_convert, base, batch)
    return make() if base.tail else compiled_models.load_or_make(components, make, _find_unexpected)


def _find_unexpected(model: Mapping[str, bytes]) -> list[str]:
    return allowed_ops.unexpected_in_xml(model[GRAPH], len(model[WEIGHTS]))


def _convert(base: FrozenBase, batch: int) -> dict[str, bytes]:
    """The two files of the graph that `trace.graph_def` returns. OpenVINO reads a frozen graph from a file only."""
    with without_banners():
        from stages.keras_models import trace
    openvino = import_openvino()
    with atomic_files.temporary_folder() as folder:
        graph = folder / "graph.pb"
        definition, outputs = trace.graph_def(base, batch)
        graph.write_bytes(definition)
        read = openvino.Core().read_model(graph)
        results = []  # made anew: dead ends of the graph are results too, and taps of one tensor share one
        for name, tensor in outputs.items():
            results.append(openvino.op.Result(read.output(tensor).node.input_value(0)))
            results[-1].set_friendly_name(name)
        try:
            openvino.save_model(openvino.Model(results, read.get_parameters()), folder / GRAPH, compress_to_fp16=False)
        except RuntimeError as error:  # `iostream error`, whatever the reason
            raise PipelineError(
                f"OpenVINO cannot write the converted base to {folder}, among the temporary files: {error}",
                "free some space there, or name another folder with TMPDIR, or use --set extract.engine=tensorflow",
            ) from error
        return {name: (folder / name).read_bytes() for name in (GRAPH, WEIGHTS)}
