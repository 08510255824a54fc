"""Owns a user's model as one line of calls, and where it can be cut. Not opening its file (user_model.py).

A TensorFlow room. A cut is a tensor from which alone all that comes after it is computed: every path from the image to
the last layer runs through it. Nested models are run layer by layer, and so are layers that only call layers of their
own (composite.py), so that they can be cut inside.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import keras
from keras.src.models.functional import Functional

from cache.errors import Unusable
from stages.keras_models import build, composite, keras2_ops

UNUSED = 1_000_000
"""A number that no layer has in its name: operations get names too, which may not be those of layers of the file."""


@dataclass(frozen=True)
class Call:
    """A call of a layer or operation: its path in the model, the tensors it reads, those it gives."""

    path: str
    operation: Any
    inputs: Sequence[keras.KerasTensor]
    outputs: Sequence[keras.KerasTensor]

    @property
    def weights(self) -> list[Any]:
        """Those of a layer; an operation has none."""
        return list(getattr(self.operation, "weights", ()))


@dataclass(frozen=True)
class Segment:
    """All calls after one cut, up to the next cut or, of the last one, to the end."""

    boundary: Call
    calls: Sequence[Call]


class Graph:
    """The calls of a model on some inputs, in an order in which they can be computed."""

    def __init__(self, model: keras.Model, inputs: Sequence[keras.KerasTensor]) -> None:
        self.name = model.name
        self.calls: list[Call] = []
        self._whole: dict[str, list[Sequence[keras.KerasTensor]]] = defaultdict(list)  # of nested models, by call
        with build.number_names_from(UNUSED):
            self._whole["output"].append(_tensors(self._run(model, inputs, "")))

    @cached_property
    def layers(self) -> dict[str, keras.layers.Layer]:
        """By path, without nested models."""
        layers = [(call.path, call.operation) for call in self.calls]
        return {path: layer for path, layer in layers if isinstance(layer, keras.layers.Layer)}

    def has(self, path: str) -> bool:
        """Whether there is something of that path: a layer, an operation, a nested model, or `output`."""
        return path in self._whole or any(call.path == path for call in self.calls)

    def find(self, path: str) -> keras.KerasTensor:
        """What the layer there gives. Raises Unusable where that is not one tensor."""
        found = [call.outputs for call in self.calls if call.path == path]
        found += self._whole.get(path, [])
        if len(found) == 1 and len(found[0]) == 1:
            return found[0][0]
        what = "there is no such layer" if not found else "it is called more than once, or has more than one output"
        raise Unusable(f"layer {path!r} of {self.name}: {what}", "name a layer that is called once, with one output")

    def segments(self, end: keras.KerasTensor) -> list[Segment]:
        """The graph before `end` after its first cut, cut wherever that can be."""
        calls = self._that_lead_to(end)
        cuts = self._find_cuts(calls, end)
        spans = zip(cuts, [*cuts[1:], len(calls) - 1], strict=True)
        return [Segment(calls[cut], calls[cut + 1 : last + 1]) for cut, last in spans if last > cut]

    def _run(self, model: keras.Model, inputs: Sequence[Any], prefix: str) -> Any:
        def call(operation: Any, *args: Any, **kwargs: Any) -> Any:
            path, tensors = f"{prefix}{operation.name}", _tensors((args, kwargs))
            nested = has_graph(operation) and type(operation).call in (Functional.call, keras.Sequential.call)
            inner = operation if nested else composite.open_layer(operation, args, kwargs)
            if inner is not None:
                whole = self._run(inner, tensors, f"{path}/")
                self._whole[path].append(_tensors(whole))
                return whole
            if isinstance(operation, keras2_ops.TensorFlowOp):
                whole = operation.call(*args, **kwargs)
            else:
                whole = operation(*args, **kwargs)
            self.calls.append(Call(path, operation, tensors, _tensors(whole)))
            return whole

        graph = keras.Model(model.inputs, model.outputs) if isinstance(model, keras.Sequential) else model
        return graph._run_through_graph(inputs, call_fn=call)

    def _that_lead_to(self, end: keras.KerasTensor) -> list[Call]:
        wanted, found = {id(end)}, []
        for call in reversed(self.calls):
            if any(id(tensor) in wanted for tensor in call.outputs):
                wanted |= {id(tensor) for tensor in call.inputs}
                found.append(call)
        return found[::-1]

    def _find_cuts(self, calls: Sequence[Call], end: keras.KerasTensor) -> list[int]:
        """Numbers of the calls whose one output is all that later calls read, and none of whose weights they use.

        A weight on both sides would change the frozen side while the other is trained.
        """
        often = Counter(call.path for call in self.calls)
        last_read = {id(tensor): number for number, call in enumerate(calls) for tensor in call.inputs}
        last_read[id(end)] = len(calls)
        last_use = {id(weight): number for number, call in enumerate(calls) for weight in call.weights}
        read_until, used_until, cuts = 0, 0, []
        for number, call in enumerate(calls):
            used_until = max([used_until, *(last_use[id(weight)] for weight in call.weights)])
            if max(read_until, used_until) <= number and often[call.path] == 1 and _can_be_kept(call.outputs):
                cuts.append(number)
            read_until = max([read_until, *(last_read.get(id(tensor), 0) for tensor in call.outputs)])
        return cuts


def name_apart(calls: Sequence[Call]) -> None:
    """Give those of one name names of their own, which one network must have: of layers of several nested models."""
    often = Counter(operation.name for operation in {id(call.operation): call.operation for call in calls}.values())
    for call in calls:
        if often[call.operation.name] > 1:
            call.operation.name = call.path.replace("/", "__")


def has_graph(layer: Any) -> bool:
    """Whether it is a Functional or Sequential model; Keras has no public name for the former."""
    return isinstance(layer, keras.Model) and bool(getattr(layer, "inputs", None))


def _tensors(of: Any) -> list[keras.KerasTensor]:
    return [each for each in keras.tree.flatten(of) if isinstance(each, keras.KerasTensor)]


def _can_be_kept(outputs: Sequence[keras.KerasTensor]) -> bool:
    """Whether it can be rows: one tensor of decimals, each dimension of an image known."""
    one = len(outputs) == 1 and len(outputs[0].shape) > 1
    return one and None not in outputs[0].shape[1:] and outputs[0].dtype.startswith(("float", "bfloat"))
