"""Owns running a base in TensorFlow: `Embed` from a frozen graph, kept in the cache. Not tracing it. A TensorFlow room.

Where the cache has the graph, Keras is not even imported: that, and building the base in it, take two seconds.
"""

from __future__ import annotations

import io
import itertools
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from cache import compiled_models, npz
from cache.errors import PipelineError
from stages.bases import catalogue
from stages.bases.recipe import Recipe, Tap
from stages.engines.embed import CPU_BATCH, GPU_BATCH
from stages.runtime import hardware
from stages.runtime.silent_imports import without_banners

VERSION = 1
"""Of how a base is frozen. Raise it when the same recipe gives another graph."""

GRAPH, ARRAYS, TENSORS = "graph.pb", "arrays.npz", "tensors.txt"
"""The files of a frozen graph. The last names what goes in and what comes out, a line each, the taps in order."""


class TensorFlowEmbed:
    """uint8 (n, h, w, 3) with 1 <= n <= batch -> {tap name: float32 (n, ...)}.

    The graph has numbers for weights and runs at one fixed batch shape, the rest padded: a row's value never depends on
    its neighbours, bitwise. A call is computed in the thread that makes it, on a CPU by that thread alone: several at
    once, of small batches, are faster than one large one that shares its work out.
    """

    def __init__(
        self,
        recipe: Recipe,
        taps: Mapping[str, Tap],
        weights: Path,
        batch: int | None = None,
        places: Sequence[Path] = (),
        tail: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """`places`: caches that may have the graph; the first keeps it. `tail`: as `engines_graph.traced` has it."""
        tf = _imported()
        tf.config.experimental.enable_tensor_float_32_execution(False)  # f32 is a promise; TF32 moves rows by 1e-3
        self.batch = batch or (GPU_BATCH if tf.config.list_physical_devices("GPU") else CPU_BATCH)
        self._names = sorted(taps)
        self._call: Callable[[np.ndarray], Sequence[np.ndarray]]
        if catalogue.base_of(
            recipe.base
        ).own:  # its layers may hold what only this process has: tables, or functions of Python
            graph = _room().trace_graph(recipe, taps, weights, self.batch, held=True)
            self._call = lambda pixels: [rows.numpy() for rows in graph(tf.constant(pixels))]
        else:
            components = {
                "version": VERSION,
                "tensorflow": version("tensorflow"),
                "keras": version("keras"),
                "batch": self.batch,
                "taps": {name: recipe.components(tap) for name, tap in taps.items()},
            }
            make = partial(_frozen, recipe, taps, weights, self.batch, tail)
            self._call = _session(compiled_models.load_or_make(() if tail else places, components, make))
        self.provenance = {
            "engine": "tensorflow",
            "device": _device(tf),
            "versions": {"tensorflow": tf.__version__, "keras": version("keras")},
        }

    def __call__(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        n = len(pixels)
        if n < self.batch:
            pixels = np.concatenate([pixels, np.zeros((self.batch - n, *pixels.shape[1:]), np.uint8)])
        return {name: rows[:n] for name, rows in zip(self._names, self._call(pixels), strict=True)}


def _imported() -> Any:
    """TensorFlow without Keras, which it would import for nothing but optimisers to save, and which takes a second."""
    with without_banners():
        if "tensorflow" not in sys.modules and "keras" not in sys.modules:
            sys.modules["keras"] = None  # type: ignore[assignment]  # as if it were not installed
            try:
                import tensorflow
            finally:
                del sys.modules["keras"]
        import tensorflow
    return tensorflow


def _room() -> Any:
    with without_banners():
        from stages.keras_models import trace

    return trace


def _frozen(*recipe: Any) -> dict[str, bytes]:
    """What the graph holds outside itself is by the name of the placeholder that stands for it."""
    traced = _room().trace_graph(*recipe, held=True)
    held = {inner.op.name: outer.numpy() for outer, inner in traced.graph.captures}
    tensors = [traced.inputs[0].name, *(tensor.name for tensor in traced.outputs)]
    return {
        GRAPH: traced.graph.as_graph_def().SerializeToString(),
        ARRAYS: npz.dump(held),
        TENSORS: "\n".join(tensors).encode(),
    }


def _session(frozen: Mapping[str, bytes]) -> Callable[[np.ndarray], Sequence[np.ndarray]]:
    """uint8 (batch, h, w, 3) -> float32 (batch, ...) of each tap. By a session, as only that has threads of its own."""
    tf = _imported()
    v1 = tf.compat.v1
    settings = v1.ConfigProto(
        use_per_session_threads=True,
        intra_op_parallelism_threads=1,
        inter_op_parallelism_threads=-1,  # in the caller's
        allow_soft_placement=True,
    )
    definition = v1.GraphDef.FromString(frozen[GRAPH])
    _check(definition)
    arrays = npz.load(io.BytesIO(frozen[ARRAYS]))
    with tf.Graph().as_default() as graph:
        values = {name: v1.placeholder(array.dtype, array.shape) for name, array in arrays.items()}
        held = {name: v1.Variable(value, trainable=False, use_resource=True) for name, value in values.items()}
        tf.graph_util.import_graph_def(
            definition,
            name="",
            input_map={f"{name}:0": variable.value() for name, variable in held.items()},
        )
        session = v1.Session(graph=graph, config=settings)
        for name, variable in held.items():
            session.run(variable.initializer, {values[name]: arrays.pop(name)})
    pixels, *taps = frozen[TENSORS].decode().split()
    call: Callable[[np.ndarray], Sequence[np.ndarray]] = session.make_callable(taps, [pixels])
    return call


def _check(definition: Any) -> None:
    """Raises PipelineError for a graph that does more than compute, as write a file: others may write to a cache."""
    from tensorflow.python.framework import op_def_registry

    functions = definition.library.function
    nodes = itertools.chain(definition.node, *(function.node_def for function in functions))
    names = {node.op for node in nodes} - {function.signature.name for function in functions}
    known = {name: op_def_registry.get(name) for name in names if not name.startswith("Debug")}  # these may write too
    others = sorted(name for name in names if known.get(name) is None or known[name].is_stateful)
    if others:
        raise PipelineError(
            f"a base's graph, from converted/ in the cache, has {', '.join(others)}; expected nothing but arithmetic, "
            "as in those that are made here",
            "delete converted/ there, and find out who wrote it; graphs are made again",
        )


def _device(tf: Any) -> str:
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        return str(tf.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU"))
    return hardware.cpu_name()
