"""graph.py: the cuts of a model are those that taking its calls away one by one finds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cache.errors import Unusable
from stages.keras_models.graph import Graph
from tests.support import own_models
from tests.support.own_models import SIZE


def shared() -> Any:
    """A layer with weights that stands on both sides of the cuts in the middle."""
    import keras
    from keras import layers

    image, twice = keras.Input((SIZE, SIZE, 3)), layers.Dense(3, name="twice")
    x = layers.Conv2D(3, 1, name="middle")(layers.ReLU(name="first")(twice(layers.ReLU(name="stem")(image))))
    return keras.Model(image, layers.Conv2D(3, 1, name="last")(twice(x)))


def branches() -> Any:
    """What two branches give is joined at the end; a third leads nowhere else than to an output of its own."""
    import keras
    from keras import layers

    image = keras.Input((SIZE, SIZE, 3))
    x = layers.Conv2D(4, 3, name="stem")(image)
    one, other = layers.Conv2D(2, 3, name="one")(x), layers.Conv2D(2, 3, name="other")(x)
    layers.Conv2D(2, 3, name="aside")(x)
    x = layers.Concatenate(name="join")([layers.ReLU(name="relu")(one), other])
    return keras.Model(image, keras.ops.max(layers.Conv2D(2, 1, name="last")(x), axis=(1, 2)))


def by_removal(graph: Graph, image: Any, end: Any) -> set[str]:
    """The calls without which no path leads from the image to the end, but for the last one."""
    found = set()
    for removed in graph.calls:
        reached = {id(image)}
        for call in graph.calls:
            if call is not removed and any(id(tensor) in reached for tensor in call.inputs):
                reached |= {id(tensor) for tensor in call.outputs}
        if id(end) not in reached and id(end) not in {id(tensor) for tensor in removed.outputs}:
            found.add(removed.path)
    return found


MODELS: dict[str, tuple[Callable[[], Any], str, set[str]]] = {
    "vit": (own_models.vit, "output", {"b1_add1", "b2_add2", "tokens"}),
    "operators": (lambda: own_models.vit(sums="operators"), "output", {"tokens"}),
    "cnn": (lambda: own_models.cnn(head=True), "output", {"s1_relu2", "pool", "stem_conv"}),
    "up to a layer": (lambda: own_models.cnn(head=True), "s1_2_conv", {"stem_relu", "s1_1_bn"}),
    "nested": (own_models.nested, "output", {"cnn/s1_relu2", "cnn/s2_relu2"}),
    "encoder": (own_models.encoder, "output", {"tokens", "encoder/blocks/block1/add_1", "encoder/norm"}),
    "branches": (branches, "output", {"stem", "join", "last"}),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_cuts_are_what_all_paths_run_through(name: str) -> None:
    import keras

    make, layer, some = MODELS[name]
    image = keras.Input((SIZE, SIZE, 3))
    graph = Graph(make(), [image])
    end = graph.find(layer)
    segments = graph.segments(end)
    found = [segment.boundary.path for segment in segments]
    assert set(found) == by_removal(graph, image, end) >= some
    for segment, following in zip(segments, [*found[1:], None], strict=True):
        assert following in (None, segment.calls[-1].path), "a block ends in the next cut"
        assert any(id(segment.boundary.outputs[0]) == id(tensor) for tensor in segment.calls[0].inputs)


def test_there_is_no_cut_between_two_calls_of_one_layer() -> None:
    import keras

    graph = Graph(shared(), [keras.Input((SIZE, SIZE, 3))])
    assert [segment.boundary.path for segment in graph.segments(graph.find("output"))] == ["stem"]
    with pytest.raises(Unusable, match=r"layer 'twice' of .*: it is called more than once"):
        graph.find("twice")
    with pytest.raises(Unusable, match=r"layer 'thrice' of .*: there is no such layer"):
        graph.find("thrice")


def test_an_operation_can_be_a_tap_under_the_name_that_its_file_has(tmp_path: Path) -> None:
    import keras

    from stages.keras_models import user_model

    written = own_models.vit(sums="operators")
    written.save(tmp_path / "m.keras")
    sums = [operation.name for operation in written.operations if operation.name.startswith("add")]
    model = user_model.read_model(tmp_path / "m.keras", SIZE, SIZE)
    assert len(sums) == 4
    assert set(sums) < {name for name, _ in model.named_layers()}
    x = np.random.default_rng(0).uniform(0, 255, (2, SIZE, SIZE, 3)).astype(np.float32)
    (found,) = model.at([sums[-1]])
    normed = model.get_layer("norm")(keras.Model(model.inputs, found).predict(x, verbose=0))
    assert np.abs(np.asarray(normed) - model.predict(x, verbose=0)).max() < 1e-5
