"""Owns running a base in TensorFlow, from a stored graph. Not tracing it (keras_models/trace.py).

With a stored graph Keras is not imported, which saves two seconds with the building of the base. A TensorFlow room.
"""

import io
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from typing import Any

import numpy as np

from cache import compiled_models, npz
from stages.bases.recipe import FrozenBase
from stages.engines import allowed_ops
from stages.engines.embed import CPU_BATCH, GPU_BATCH, pad_batch
from stages.runtime import hardware
from stages.runtime.silent_imports import without_banners

VERSION = 1
"""Of how a graph is made. Raise it when the same recipe gives another one."""

GRAPH, ARRAYS, TENSORS = "graph.pb", "arrays.npz", "tensors.txt"
"""The files of a stored graph. The last has the names of its input and outputs, a line each, the taps in order."""

_Call = Callable[[np.ndarray], Sequence[np.ndarray]]
"""uint8 (batch, h, w, 3) -> float32 (batch, ...) of each tap, sorted by name."""


class TensorFlowEmbed:
    """An `Embed`. A row never depends on its neighbours, bitwise: the batch shape is fixed, and weights are constants.

    A call is computed on a CPU by the thread that makes it: several calls of small batches at once are faster than one
    large batch shared among threads.
    """

    def __init__(self, base: FrozenBase, batch: int | None, open_graph: Callable[[FrozenBase, int], _Call]) -> None:
        tf = _import_tensorflow()
        tf.config.experimental.enable_tensor_float_32_execution(False)  # TF32 moves rows by 1e-3
        self.batch = batch or (GPU_BATCH if tf.config.list_physical_devices("GPU") else CPU_BATCH)
        self._names = sorted(base.taps)
        self._call = open_graph(base, self.batch)
        self.provenance = {
            "engine": "tensorflow",
            "device": _device(tf),
            "versions": {"tensorflow": tf.__version__, "keras": version("keras")},
        }

    def __call__(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        outputs = self._call(pad_batch(pixels, self.batch))
        return {name: rows[: len(pixels)] for name, rows in zip(self._names, outputs, strict=True)}


def open_built(base: FrozenBase, batch: int | None) -> TensorFlowEmbed:
    """A base of the catalogue (select.py `Open`), from a stored graph."""
    return TensorFlowEmbed(base, batch, _open_stored)


def open_file(base: FrozenBase, batch: int | None) -> TensorFlowEmbed:
    """A model file, traced anew in each process: its layers may hold lookup tables or Python functions."""
    return TensorFlowEmbed(base, batch, _open_traced)


def _open_stored(base: FrozenBase, batch: int) -> _Call:
    components = {
        "version": VERSION,
        "tensorflow": version("tensorflow"),
        "keras": version("keras"),
        "batch": batch,
        "taps": {name: base.recipe.components(tap) for name, tap in base.taps.items()},
    }
    make = partial(_make_graph, base, batch)
    return _open_session(make() if base.tail else compiled_models.load_or_make(components, make, _find_unexpected))


def _open_traced(base: FrozenBase, batch: int) -> _Call:
    graph, constant = _import_trace().trace_graph(base, batch), _import_tensorflow().constant
    return lambda pixels: [rows.numpy() for rows in graph(constant(pixels))]


def _import_tensorflow() -> Any:
    """TensorFlow without Keras, which takes a second to import, and which TensorFlow needs for optimizers only."""
    with without_banners():
        if "tensorflow" not in sys.modules and "keras" not in sys.modules:
            sys.modules["keras"] = None  # type: ignore[assignment]  # as if it were not installed
            try:
                import tensorflow
            finally:
                del sys.modules["keras"]
        import tensorflow
    return tensorflow


def _import_trace() -> Any:
    with without_banners():
        from stages.keras_models import trace

    return trace


def _make_graph(base: FrozenBase, batch: int) -> dict[str, bytes]:
    """The files of the graph that `trace.trace_graph` returns; captured arrays are named after their placeholders."""
    traced = _import_trace().trace_graph(base, batch)
    held = {inner.op.name: outer.numpy() for outer, inner in traced.graph.captures}
    tensors = [traced.inputs[0].name, *(tensor.name for tensor in traced.outputs)]
    return {
        GRAPH: traced.graph.as_graph_def().SerializeToString(),
        ARRAYS: npz.dump(held),
        TENSORS: "\n".join(tensors).encode(),
    }


def _open_session(stored: Mapping[str, bytes]) -> _Call:
    """The graph in a session, which can compute in the caller's thread; functions of TensorFlow 2 cannot."""
    tf = _import_tensorflow()
    v1 = tf.compat.v1
    settings = v1.ConfigProto(
        use_per_session_threads=True,
        intra_op_parallelism_threads=1,
        inter_op_parallelism_threads=-1,  # in the caller's
        allow_soft_placement=True,
    )
    definition = v1.GraphDef.FromString(stored[GRAPH])
    arrays = npz.load(io.BytesIO(stored[ARRAYS]))
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
    pixels, *taps = stored[TENSORS].decode().split()
    call: _Call = session.make_callable(taps, [pixels])
    return call


def _find_unexpected(stored: Mapping[str, bytes]) -> list[str]:
    definition = _import_tensorflow().compat.v1.GraphDef.FromString(stored[GRAPH])
    return allowed_ops.unexpected_in_graph(definition)


def _device(tf: Any) -> str:
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        return str(tf.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU"))
    return hardware.cpu_name()
