"""Owns running a base in OpenVINO, on the CPU, and converting it for that, once: the model is stored.

Preprocessing and pooling are inside: uint8 in, taps out.
"""

import os
import queue
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cache import atomic_files, compiled_models
from cache.errors import PipelineError, Unusable
from stages.bases.recipe import FrozenBase
from stages.engines import allowed_ops
from stages.engines.embed import CPU_BATCH, pad_batch
from stages.runtime import hardware
from stages.runtime.silent_imports import import_openvino, without_banners

VERSION = 1
"""Of how a base is converted. Raise it when the same recipe gives another model."""

GRAPH, WEIGHTS = "model.xml", "model.bin"


class OpenVINOEmbed:
    """An `Embed`, at one fixed batch shape.

    There is a stream of one thread for each core, and an infer request for each stream. Threads that call it at once
    each take an idle request and wait for it, so that one thread decodes while another's request runs.
    """

    def __init__(self, model: Mapping[str, bytes], numerics: str, batch: int) -> None:
        """Raises Unusable if the numerics need bfloat16, and this CPU has none."""
        openvino = import_openvino()
        core = openvino.Core()
        if numerics == "openvino-bf16":
            check_bf16(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
        self.batch = batch
        network = core.read_model(model[GRAPH], model[WEIGHTS])
        self._names = [result.get_friendly_name() for result in network.get_results()]
        share = int(os.environ.get("TF_NUM_INTRAOP_THREADS", 0))  # of a worker among others: cluster.py
        streams = share or hardware.cpu_count()
        compiled = core.compile_model(
            network,
            "CPU",
            {
                # the default would be bf16 on a CPU that has it
                "INFERENCE_PRECISION_HINT": "bf16" if numerics == "openvino-bf16" else "f32",
                "NUM_STREAMS": streams,
                "INFERENCE_NUM_THREADS": streams,
                "ENABLE_CPU_PINNING": False,  # else the streams of all worker processes share the first cores
            },
        )
        self._idle: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(streams):
            self._idle.put(compiled.create_infer_request())
        self.provenance = {
            "engine": "openvino",
            "device": hardware.cpu_name(),
            "versions": {"openvino": openvino.get_version().partition("-")[0]},
        }
        # The first call initialises OpenVINO's binding to numpy. Two first calls at once can deadlock, one with
        # Python's lock and one with the lock of the initialisation.
        self(np.zeros([*network.inputs[0].shape], np.uint8))

    def __call__(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        n, request = len(pixels), self._idle.get()
        try:
            request.infer([pad_batch(pixels, self.batch)], share_inputs=True)
            return {name: request.get_output_tensor(i).data[:n].copy() for i, name in enumerate(self._names)}
        finally:
            self._idle.put(request)


def open_converted(base: FrozenBase, batch: int | None) -> OpenVINOEmbed:
    """A base that converts by way of a TensorFlow graph (select.py `Open`)."""
    batch = batch or CPU_BATCH
    return OpenVINOEmbed(converted_model(base, batch), base.recipe.numerics, batch)


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
    if base.tail:
        return _convert(base, batch)
    return compiled_models.load_or_make(
        components,
        lambda: _convert(base, batch),
        lambda model: allowed_ops.unexpected_in_xml(model[GRAPH], len(model[WEIGHTS])),
    )


def save(openvino: Any, model: Any, path: Path) -> None:
    """Raises PipelineError if it cannot be written, which OpenVINO calls `iostream error` whatever the reason."""
    try:
        openvino.save_model(model, path, compress_to_fp16=False)
    except RuntimeError as error:
        raise PipelineError(
            f"OpenVINO cannot write the converted base to {path.parent}, among the temporary files: {error}",
            "free some space there, or name another folder with TMPDIR, or use --set extract.engine=tensorflow",
        ) from error


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
        save(openvino, openvino.Model(results, read.get_parameters()), folder / GRAPH)
        return {name: (folder / name).read_bytes() for name in (GRAPH, WEIGHTS)}


def check_bf16(capabilities: list[str]) -> None:
    """Raises Unusable if they lack bfloat16, where OpenVINO would silently compute in f32 or emulate it slowly."""
    if "BF16" not in capabilities:
        raise Unusable(
            f"extract.numerics: openvino-bf16 needs a CPU with bfloat16; {hardware.cpu_name()} has none",
            "use numerics: f32, or compute these rows on another machine",
        )
