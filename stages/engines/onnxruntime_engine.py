"""Owns running an ONNX file in ONNX Runtime, on the CPU. Not reading what the file says (bases/onnx_file.py).

Preprocessing and pooling are done here, in numpy.
"""

from collections.abc import Collection, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from cache import atomic_files
from cache.errors import Unusable
from stages.bases import onnx_file, onnx_proto, trust
from stages.bases.catalogue import Preprocess
from stages.bases.foreign_file import ImageInput, absent_tensor, call_apart
from stages.bases.pooling import Plan, plan_pooling
from stages.bases.recipe import FrozenBase, Tap
from stages.engines.embed import CPU_BATCH, pad_batch
from stages.runtime import hardware

_DTYPES = {"float": np.float32, "float16": np.float16, "uint8": np.uint8}


class OnnxRuntimeEmbed:
    """An `Embed`, at one fixed batch shape. A call is computed by the thread that makes it."""

    def __init__(self, file: Path, image: ImageInput, numbers: Preprocess, taps: Mapping[str, Tap], batch: int) -> None:
        import onnxruntime

        self.batch, self._image, self._numbers, self._taps = batch, image, numbers, taps
        self._session, first = _open_session(file, {tap.layer for tap in taps.values()} - {"output"})
        self._names = {name: first if tap.layer == "output" else tap.layer for name, tap in taps.items()}
        self._wanted = sorted(set(self._names.values()))
        self.provenance = {
            "engine": "onnxruntime",
            "device": hardware.cpu_name(),
            "versions": {"onnxruntime": onnxruntime.__version__},
        }

    def __call__(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        rows = self.pool(self.outputs(pixels), (pixels.shape[1], pixels.shape[2]))
        return {name: values[: len(pixels)] for name, values in rows.items()}

    def outputs(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        """What the network gives at each tap, before pooling, of a padded batch."""
        values = _preprocess(pad_batch(pixels, self.batch), self._numbers)
        values = values.transpose(0, 3, 1, 2) if self._image.layout == "nchw" else values
        feed = {self._image.name: np.ascontiguousarray(values.astype(_DTYPES[self._image.dtype]))}
        found = dict(zip(self._wanted, self._session.run(self._wanted, feed), strict=True))
        return {name: found[layer] for name, layer in self._names.items()}

    def pool(self, outputs: Mapping[str, np.ndarray], size: tuple[int, int]) -> dict[str, np.ndarray]:
        """Rows of what `outputs` gives for images of that (height, width)."""
        plans = {
            name: plan_pooling(tap, outputs[name].shape[1:], size, self._image.layout)
            for name, tap in self._taps.items()
        }
        return {name: _pool(outputs[name].astype(np.float32), plan) for name, plan in plans.items()}


def open_file(base: FrozenBase, batch: int | None) -> OnnxRuntimeEmbed:
    """A base that is an ONNX file (select.py `Open`), first tried in a process with limits."""
    image = onnx_file.find_input(base.weights)
    pixels = base.recipe.pixels
    image.check_size(base.weights, pixels.height, pixels.width)
    batch = image.batch or batch or CPU_BATCH
    find_shapes(base, batch)
    return OnnxRuntimeEmbed(base.weights, image, base.recipe.preprocess, base.taps, batch)


def find_shapes(base: FrozenBase, batch: int) -> dict[str, tuple[int, ...]]:
    """What each tap gives for an image before pooling, found in a process with limits.

    Raises Unusable where it cannot be run there.
    """
    pixels = base.recipe.pixels
    job = {
        "path": str(base.weights),
        "numbers": base.recipe.preprocess.components(),
        "taps": {name: asdict(tap) for name, tap in base.taps.items()},
        "shape": [batch, pixels.height, pixels.width, 3],
    }
    trusted, limits = trust.is_trusted(base.recipe.weights_sha256), onnx_file.limits(base.weights)
    found = call_apart(f"{__name__}:try_file", job, limits, "running {} in ONNX Runtime", trusted, [base.weights])
    return {name: tuple(shape) for name, shape in found.items()}


def try_file(
    path: str, numbers: Mapping[str, Any], taps: Mapping[str, Mapping[str, Any]], shape: list[int]
) -> dict[str, list[int]]:
    """Open the file and run it once: the shapes that taps have for an image."""
    file = Path(path)
    image, wanted = onnx_file.find_input(file), {name: Tap(**tap) for name, tap in taps.items()}
    embed = OnnxRuntimeEmbed(file, image, Preprocess(**numbers), wanted, shape[0])
    outputs = embed.outputs(np.zeros(shape, np.uint8))
    embed.pool(outputs, (shape[1], shape[2]))
    return {name: list(output.shape[1:]) for name, output in outputs.items()}


def _open_session(file: Path, layers: Collection[str]) -> tuple[Any, str]:
    """A session of the model with those tensors as outputs too, and the name of its first output."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    model = onnx_proto.read_model(file)
    outputs = [output.name for output in model.graph.output]
    known = [name for node in model.graph.node for name in node.output]
    for layer in sorted(set(layers) - set(outputs)):
        if layer not in known:
            raise absent_tensor(file, layer, known[::-1])
        model.graph.output.add().name = layer
    with atomic_files.temporary_folder() as folder:
        place = onnx_file.without_links(file, folder)
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(place.parent))
        content = str(place) if len(model.graph.output) == len(outputs) else model.SerializeToString()
        try:
            return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"]), outputs[0]
        except Exception as error:
            what = f"base.name: ONNX Runtime cannot open {file}: {' '.join(str(error).split())[:300]}"
            raise Unusable(what, "try extract.engine: openvino") from error


def _preprocess(pixels: np.ndarray, numbers: Preprocess) -> np.ndarray:
    """(x * scale - mean) / std in float32, as keras_models/trace.py."""
    x = pixels.astype(np.float32)
    x = x[..., ::-1] if numbers.order == "bgr" else x
    x = x * np.float32(numbers.scale) if numbers.scale != 1.0 else x
    x = x - np.array(numbers.mean, np.float32) if any(numbers.mean) else x
    return x / np.array(numbers.std, np.float32) if tuple(numbers.std) != (1.0, 1.0, 1.0) else x


def _pool(x: np.ndarray, plan: Plan) -> np.ndarray:
    x = x.transpose(0, 2, 3, 1) if plan.channels_last else x
    if plan.reduce is not None:
        x = x.mean(axis=(1, 2)) if plan.reduce == "mean" else x.max(axis=(1, 2))
    parts = [x[:, 0] if part == "cls" else x[:, plan.first :].mean(axis=1) for part in plan.parts]
    return np.ascontiguousarray(np.concatenate(parts, axis=1) if parts else x)
