"""Owns a base's network in 8 bits: made by nncf, with ranges taken from pictures; stretches of it may stay in float32.

Not which stretches a head needs (pipeline/evaluation/quantise.py), nor the file as a base (bases/openvino_xml.py).
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import math
import statistics
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cache import atomic_files
from cache.errors import PipelineError
from stages.bases import catalogue, published
from stages.bases.recipe import FrozenBase, Recipe, Tap
from stages.engines import openvino_engine, openvino_files
from stages.engines.embed import CPU_BATCH, Embed
from stages.engines.openvino_engine import GRAPH, WEIGHTS, OpenVINOEmbed
from stages.runtime import hardware, parallel
from stages.runtime.silent_imports import import_nncf, import_openvino

Model = Mapping[str, bytes]
"""OpenVINO's two files, GRAPH and WEIGHTS."""

RANGES = ("MINMAX", "MEAN_MINMAX")
"""How nncf takes the range of an activation from pictures: the extremes of all, or their mean over pictures. The first
is far better for EfficientNet-Lite0, the second where single pictures have outliers."""

_WEIGHTED = ("Convolution", "GroupConvolution", "MatMul")
_ELEMENTWISE = ("Convert", "Add", "Subtract", "Multiply", "Divide")
_MOST_PARTS = 64
_ROUNDS, _CALLS = 5, 6


class Part(NamedTuple):
    """A stretch of the network: names of all operations in it, how many of them have weights, and values of their maps.

    values: those that they read and write. Where maps are large, float32 costs most.
    """

    names: tuple[str, ...]
    layers: int
    values: int


def versions() -> dict[str, str]:
    """Of what makes int8 models. Raises NotAvailable where it is not installed."""
    nncf = import_nncf()
    return {"nncf": str(nncf.__version__), "openvino": import_openvino().get_version().partition("-")[0]}


def float_model(recipe: Recipe, weights: Path, layers: Sequence[str]) -> tuple[Model, int]:
    """The base in float32, from uint8 (n, h, w, 3) to its output and then `layers`, and the n that it has.

    These tensors have the names of their layers. Raises as opening a base does.
    """
    taps = {f"{number:03d} {layer}": Tap(layer, "none") for number, layer in enumerate(["output", *layers])}
    base = FrozenBase(recipe, taps, weights)
    if catalogue.base_of(recipe.base).format.reader is not None:
        model, batch = openvino_files.converted_file(base, None)
    else:
        model, batch = openvino_engine.converted_model(base, CPU_BATCH), CPU_BATCH
    network = _read(model)
    _fold(network)
    _transpose_late(network)
    for result in network.get_results():
        source, name = result.input_value(0), result.get_friendly_name().partition(" ")[2]
        source.add_names({name})
        if name != "output":
            source.node.set_friendly_name(name)  # by which layers are listed
    return _save(import_openvino(), network), batch


class Quantiser:
    """Makes int8 models of one float model, which takes `pictures`: uint8 (n, h, w, 3)."""

    def __init__(self, model: Model, batch: int, pictures: np.ndarray) -> None:
        self._model, self._batch, self._pictures = model, batch, pictures
        network = _read(model)
        # Where a batch is written into the network, it stays, and pictures are taken so many at a time.
        self._free = _resize(network, -1) and _resize(network, 1)
        self.parts = _find_parts(_read(model))

    @property
    def layers(self) -> int:
        """Those with weights."""
        return sum(part.layers for part in self.parts)

    def quantise(self, kept: Collection[Part], ranges: str, most: int | None = None) -> Model:
        """The model, with `kept` parts in float32, by the first `most` pictures.

        Its batch is free, if that of the float model can be.
        """
        nncf, openvino, network = import_nncf(), import_openvino(), _read(self._model)
        if self._free:
            _resize(network, 1)
        step = 1 if self._free else self._batch
        some = self._pictures[:most]
        items = [some[start : start + step] for start in range(0, len(some) - step + 1, step)]
        names = [name for part in kept for name in part.names]
        estimators = nncf.quantization.range_estimator.RangeEstimatorParametersSet
        settings = nncf.AdvancedQuantizationParameters(activations_range_estimator_params=getattr(estimators, ranges))
        with contextlib.redirect_stdout(io.StringIO()):  # its progress bars
            made = nncf.quantize(
                network,
                nncf.Dataset(items),
                preset=nncf.QuantizationPreset.MIXED,
                subset_size=len(items),
                ignored_scope=nncf.IgnoredScope(names=names, validate=False),
                advanced_parameters=settings,
            )
        if self._free:
            _resize(made, -1)
        return _save(openvino, made)

    def rank(self, ranges: str, pictures: int, advance: Callable[[int], None]) -> list[Part]:
        """The parts, that which alone in int8 turns the output's rows most, for its `values`, first.

        By so many pictures.
        """
        some = self._pictures[:pictures]
        exact = pooled_rows(open_model(self._model, self._batch), some)
        errors = {}
        for part in self.parts:
            alone = self.quantise([other for other in self.parts if other is not part], ranges, pictures)
            errors[part] = 1 - cosines(exact, pooled_rows(open_model(alone, self._batch), some)).mean()
            advance(1)
        return sorted(self.parts, key=lambda part: -errors[part] / part.values)


def open_model(model: Model, batch: int, numerics: str = "f32") -> OpenVINOEmbed:
    """A model to run, at that batch. Raises Unusable if the numerics need bfloat16, and this CPU has none."""
    network = _read(model)
    _resize(network, batch)
    return OpenVINOEmbed(_save(import_openvino(), network), numerics, batch)


def pooled_rows(embed: Embed, pixels: np.ndarray) -> np.ndarray:
    """The rows of a head on the output, of any number of pictures."""
    parts = [pixels[start : start + embed.batch] for start in range(0, len(pixels), embed.batch)]
    return np.concatenate(parallel.run_in_threads(lambda part: pool(embed(part)), parts))


def pool(outputs: Mapping[str, np.ndarray]) -> np.ndarray:
    """The mean of the first output, `output`, over places or tokens: float32 (n, channels)."""
    maps = next(iter(outputs.values()))
    return np.asarray(maps.mean(axis=tuple(range(1, maps.ndim - 1)))) if maps.ndim > 2 else maps


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Of each row of a with that of b, (n,)."""
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.asarray((a * b).sum(axis=1) / np.maximum(lengths, np.finfo(np.float32).tiny))


def with_facts(model: Model, facts: Mapping[str, Any]) -> Model:
    """The same with facts of this package within, which stay when it is copied or shared."""
    network = _read(model)
    for name, value in facts.items():
        network.set_rt_info(value if isinstance(value, str) else json.dumps(value), [published.OWN, name])
    return _save(import_openvino(), network)


def images_per_second(embeds: Mapping[str, Embed], pixels: np.ndarray) -> dict[str, float]:
    """Forward passes of each on all cores, in turns: medians."""
    threads = hardware.cpu_count()
    found: dict[str, list[float]] = {name: [] for name in embeds}
    for number in range(_ROUNDS):
        for name in list(embeds) if number % 2 else list(embeds)[::-1]:
            parts = [pixels[: embeds[name].batch]] * (_CALLS * threads)
            started = time.perf_counter()
            parallel.run_in_threads(embeds[name], parts, threads)
            found[name].append(sum(map(len, parts)) / (time.perf_counter() - started))
    return {name: statistics.median(speeds) for name, speeds in found.items()}


def _read(model: Model) -> Any:
    return import_openvino().Core().read_model(model[GRAPH], model[WEIGHTS])


def _save(openvino: Any, network: Any) -> Model:
    with atomic_files.temporary_folder() as folder:
        openvino_engine.save(openvino, network, folder / GRAPH)
        return {name: (folder / name).read_bytes() for name in (GRAPH, WEIGHTS)}


def _fold(network: Any) -> None:
    """Fold batch norms into the layers before them, as OpenVINO does when it compiles.

    nncf corrects the biases of layers that are followed by one, not by a product and then a sum.
    """
    import_nncf()  # which brings the module, private to OpenVINO, that has it
    import_openvino()._offline_transformations.apply_moc_transformations(network, cf=False)


def _transpose_late(network: Any) -> None:
    """Take the channels of the pixels apart after the preprocessing, not before.

    Values stay as they are. Convolutions want channels together again, and OpenVINO does neither then.
    """
    constant = import_openvino().opset13.constant
    for transpose in [op for op in network.get_ordered_ops() if op.get_type_name() == "Transpose"][:1]:
        back = np.argsort(transpose.input_value(1).node.data)
        while (after := _elementwise_reader(transpose, len(back))) is not None:
            for other in after.inputs()[1:]:
                other.replace_source_output(constant(other.get_source_output().node.data.transpose(back)).output(0))
            readers = after.output(0).get_target_inputs()
            after.input(0).replace_source_output(transpose.input_value(0))
            transpose.input(0).replace_source_output(after.output(0))
            for reader in readers:
                reader.replace_source_output(transpose.output(0))
    network.validate_nodes_and_infer_types()


def _elementwise_reader(transpose: Any, rank: int) -> Any | None:
    """What alone reads it, if that is arithmetic with constants of that rank."""
    readers = [reader.get_node() for reader in transpose.output(0).get_target_inputs()]
    if len(readers) != 1 or readers[0].get_type_name() not in _ELEMENTWISE:
        return None
    first, *others = (value.node for value in readers[0].input_values())
    fits = all(other.get_type_name() == "Constant" and other.data.ndim == rank for other in others)
    return readers[0] if fits and first.get_friendly_name() == transpose.get_friendly_name() else None


def _resize(network: Any, batch: int) -> bool:
    """Whether it takes that batch (-1: any) and gives as many rows; it is then reshaped, else it may be unusable."""
    try:
        network.reshape([batch, *list(network.inputs[0].partial_shape)[1:]])
    except RuntimeError:
        return False
    rows = [result.get_output_partial_shape(0)[0] for result in network.get_results()]
    return all(n.is_dynamic if batch < 0 else n == batch for n in rows)


def _find_parts(network: Any) -> tuple[Part, ...]:
    """Stretches in the order of computation, each with as many layers that have weights."""
    ops = [op for op in network.get_ordered_ops() if op.get_type_name() not in ("Constant", "Parameter", "Result")]
    weighted = [number for number, op in enumerate(ops) if op.get_type_name() in _WEIGHTED]
    if not weighted:
        raise PipelineError("the base has no convolution or product of matrices, which is what int8 makes faster", "")
    cuts = [int(group[0]) for group in np.array_split(weighted, min(len(weighted), _MOST_PARTS))]
    found = []
    for a, b in itertools.pairwise([0, *cuts[1:], len(ops)]):
        layers = [op for op in ops[a:b] if op.get_type_name() in _WEIGHTED]
        values = sum(math.prod(tensor.get_shape()) for op in layers for tensor in (op.input_value(0), op.output(0)))
        found.append(Part(tuple(op.get_friendly_name() for op in ops[a:b]), len(layers), values))
    return tuple(found)
