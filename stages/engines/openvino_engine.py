"""Owns running a base in OpenVINO, on the CPU: `Embed` from a converted model. Not making it (openvino_convert.py)."""

from __future__ import annotations

import os
import queue
from collections.abc import Mapping
from typing import Any

import numpy as np

from cache.errors import Unusable
from stages.bases.recipe import Numerics
from stages.engines.openvino_convert import GRAPH, WEIGHTS
from stages.runtime import hardware
from stages.runtime.silent_imports import import_openvino


class OpenVINOEmbed:
    """uint8 (n, h, w, 3) with 1 <= n <= batch -> {tap name: float32 (n, ...)}.

    One fixed batch shape, the rest padded, as TensorFlowEmbed. There is a stream of one thread for each core, and an
    infer request for each stream: threads that call it at once each take an idle one, and wait while it computes, so
    that one thread decodes while another's request runs.
    """

    def __init__(self, model: Mapping[str, bytes], numerics: Numerics, batch: int) -> None:
        """Raises Unusable where this CPU has no bfloat16 and the numerics ask for it."""
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
                # where a CPU has bfloat16, it would be the default
                "INFERENCE_PRECISION_HINT": "bf16" if numerics == "openvino-bf16" else "f32",
                "NUM_STREAMS": streams,
                "INFERENCE_NUM_THREADS": streams,
                "ENABLE_CPU_PINNING": False,  # or the streams of all worker processes share the first cores
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
        # The first call prepares OpenVINO's binding to numpy; two threads that made it at once have waited for each
        # other for ever, one with Python's lock and one with that of the preparation.
        self(np.zeros([*network.inputs[0].shape], np.uint8))

    def __call__(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        n = len(pixels)
        if n < self.batch:
            pixels = np.concatenate([pixels, np.zeros((self.batch - n, *pixels.shape[1:]), np.uint8)])
        request = self._idle.get()
        try:
            request.infer([pixels], share_inputs=True)
            return {name: request.get_output_tensor(i).data[:n].copy() for i, name in enumerate(self._names)}
        finally:
            self._idle.put(request)


def check_bf16(capabilities: list[str]) -> None:
    """Raises Unusable where they lack bfloat16: OpenVINO would compute in f32, or imitate it slowly, and not say so."""
    if "BF16" not in capabilities:
        raise Unusable(
            f"extract.numerics: openvino-bf16 needs a CPU with bfloat16; {hardware.cpu_name()} has none",
            "use numerics: f32, or compute these rows on another machine",
        )
