"""tails.py, finetune/network.py: both sides of a boundary are the whole model, and training moves one of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from cache import atomic_files
from cache.errors import Unusable
from stages.bases import blocks, catalogue
from stages.bases.blocks import FoundBlock
from stages.bases.recipe import FrozenBase, Pooling, Recipe, Tap
from stages.data.images import PixelSpec
from stages.engines import select
from stages.engines.embed import embed_all
from stages.finetune import training
from stages.finetune.boundary_maps import Cached
from stages.finetune.network import Network
from stages.heads.fitted import Head, Layer, Layers
from stages.keras_models import tails, trace
from stages.targets.classes import Classes
from tests.support import own_models
from tests.support.networks import Spec
from tests.support.own_models import SIZE

N = 32
Y = np.arange(N) % 3
PIXELS = (np.random.default_rng(0).integers(0, 140, (N, SIZE, SIZE, 3)) + 50 * Y[:, None, None, None]).astype(np.uint8)
"""Noise, brighter for the later classes: something to learn."""

TAPS = {
    "vit": Tap("output", "mean"),
    "cnn": Tap("s2_relu2", "avg"),
    "nested": Tap("output", "none"),
    "encoder": Tap("output", "none"),
}
MAKE: dict[str, Callable[[], Any]] = {
    "vit": lambda: own_models.vit(sums="operators", dropout=0.2),
    "cnn": lambda: own_models.cnn(head=True),
    "nested": own_models.nested,
    "encoder": own_models.encoder,
}


@dataclass
class Own:
    """A model in a file, the tap of a head on it, and what can be trained."""

    file: Path
    tap: Tap

    @cached_property
    def recipe(self) -> Recipe:
        base = catalogue.choose_base(str(self.file), True)
        return Recipe.of(base, atomic_files.sha256_of(self.file), PixelSpec(SIZE, SIZE), "f32", "float32")

    @cached_property
    def blocks(self) -> list[FoundBlock]:
        return tails.list_blocks(self.file, SIZE, self.tap.layer)

    def rows(self, tap: Tap, tail: dict[str, np.ndarray] | None = None) -> np.ndarray:
        embed = select.open_engine("tensorflow", FrozenBase(self.recipe, {"t": tap}, self.file, tail or {}))
        return embed_all(embed, PIXELS)["t"].reshape(N, *embed(PIXELS[:1])["t"].shape[1:])

    def network(self, block: FoundBlock, head: Head) -> Network:
        return Network(self.recipe, self.file, block, self.tap, head)


@pytest.fixture(scope="module", params=list(MAKE))
def own(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Own:
    file = tmp_path_factory.mktemp("own") / f"{request.param}.keras"
    MAKE[request.param]().save(file)
    return Own(file, TAPS[request.param])


def head_on(features: np.ndarray) -> Head:
    layer = Layer(np.random.default_rng(1).normal(0, 0.1, (features.shape[1], 3)), np.zeros(3))
    return Head("logistic", Classes("abc"), Layers([layer]), {})


def test_what_lies_before_and_after_a_boundary_is_the_whole(own: Own) -> None:
    whole = own.rows(own.tap).reshape(N, -1)
    for block in (own.blocks[0], own.blocks[len(own.blocks) // 2], own.blocks[-1]):
        maps = own.rows(Tap(block.boundary, "none"))
        assert maps.shape[1:] == block.shape(SIZE)
        network = own.network(block, head_on(whole))
        found = network.features(Cached(maps, [], np.arange(N)), np.arange(N))
        assert np.abs(found - whole).max() <= 1e-5 * np.abs(whole).max(), block.name


def test_training_lowers_the_loss_and_moves_nothing_before_the_boundary(own: Own, tmp_path: Path) -> None:
    """Nor BatchNormalization after it. With dropout too, a run that was stopped goes on to the same weights."""
    block = own.blocks[len(own.blocks) // 2]
    maps = Cached(own.rows(Tap(block.boundary, "none")), [], np.arange(N))
    data = training.Data(maps, Y, np.arange(24), np.arange(24, N))
    network = own.network(block, head_on(own.rows(own.tap).reshape(N, -1)))
    history = training.train(Spec(epochs=6, lr=1e-2), 0, network, data, tmp_path / "whole.npz")
    assert None not in history.loss
    assert history.loss[-1] < 0.95 * history.loss[0]
    tail = network.tail_arrays()

    before, after = (trace.keras_model(own.recipe, own.file, arrays) for arrays in ({}, tail))
    trained = {id(weight) for name in tail for weight in after.get_layer(name.rpartition("/")[0]).weights}
    moved = 0
    for old, new in zip(before.weights, after.weights, strict=True):
        same = old.numpy().tobytes() == new.numpy().tobytes()
        assert same or (id(new) in trained and not new.path.split("/")[-2].endswith("_bn")), new.path
        moved += not same
    assert moved > 0
    features = own.rows(own.tap, tail).reshape(N, -1)
    expected = network.features(data.boundary, np.arange(N))
    assert np.abs(features - expected).max() <= 1e-5 * np.abs(expected).max(), "as exports and predictions put it in"

    network.reset()
    training.train(Spec(epochs=3, lr=1e-2), 0, network, data, tmp_path / "stopped.npz")
    again = own.network(block, head_on(features))
    resumed = training.train(Spec(epochs=6, lr=1e-2), 0, again, data, tmp_path / "stopped.npz")
    assert resumed.loss == history.loss
    assert all(array.tobytes() == tail[name].tobytes() for name, array in again.tail_arrays().items())


def test_layers_within_a_layer_have_the_same_paths_whenever_the_file_is_opened(tmp_path: Path) -> None:
    file = tmp_path / "m.keras"
    own_models.encoder().save(file)
    found = Own(file, Tap("output", "none")).blocks
    assert found == Own(file, Tap("output", "none")).blocks
    assert found[-2].layers[0] == "encoder/blocks/block2/norm2"
    assert found[-2].layers[-1] == "encoder/blocks/block2/add_1"
    assert (found[-1].name, found[-1].boundary) == ("encoder/norm", "encoder/blocks/block2/add_1")


@pytest.mark.parametrize(
    ("make", "pooling", "start"),
    [
        (lambda: own_models.vit(dropout=0.5), "mean", "b2_norm2"),
        (own_models.encoder, "none", "encoder/blocks/block1/norm2"),
    ],
)
def test_dropout_is_active_after_the_boundary_while_training_alone(
    make: Callable[[], Any], pooling: Pooling, start: str, tmp_path: Path
) -> None:
    file = tmp_path / "m.keras"
    make().save(file)
    own = Own(file, Tap("output", pooling))
    block = blocks.find_block(own.blocks, start, "m.keras")
    maps = own.rows(Tap(block.boundary, "none"))
    network = own.network(block, head_on(own.rows(own.tap)))
    said = []
    for epoch, training_too in ((0, True), (0, True), (1, True), (0, False), (1, False)):
        network.seed_layers(3, epoch)
        said.append(np.asarray(network.model(maps, training=training_too)))
    assert np.array_equal(said[0], said[1])
    assert np.abs(said[0] - said[2]).max() > 1e-3
    assert np.array_equal(said[3], said[4])


def test_a_part_that_cannot_be_trained_is_refused(tmp_path: Path) -> None:
    image = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.Conv2D(4, 3, name="stem")(image)
    keras.Model(image, keras.layers.Conv2D(4, 3, name="half", dtype="mixed_bfloat16")(x)).save(tmp_path / "m.keras")
    own = Own(tmp_path / "m.keras", Tap("output", "avg"))
    with pytest.raises(Unusable, match=r"'half' on: its layer 'half' computes in bfloat16, and fine-tuning trains"):
        blocks.find_block(own.blocks, "half", "m.keras")
    with pytest.raises(Unusable, match=r"from stem on: its layer 'half' computes in bfloat16"):
        tails.open_tail(own.recipe, own.file, "stem", "output")
    with pytest.raises(Unusable, match="not all that half is computed from runs through half"):
        tails.open_tail(own.recipe, own.file, "half", "half")
    own.file.write_bytes(own.file.read_bytes() + b"another")
    with pytest.raises(Unusable, match="is not the file that the rows were made with"):
        tails.open_tail(own.recipe, own.file, "stem", "output")


@pytest.mark.parametrize(
    ("name", "start", "message"),
    [
        ("b2_norm1", "b2_norm1", ""),
        ("b2_add1", "b2_norm1", ""),
        ("b2_mlp1", "", "cannot be trained from 'b2_mlp1' on, since not all paths run through it"),
        ("b2_nrm1", "", "has no layer 'b2_nrm1' that training can start from"),
        ("rescale", "", "has no layer 'rescale' that training can start from"),
    ],
)
def test_a_layer_begins_or_ends_a_block_or_is_refused_with_the_nearest(name: str, start: str, message: str) -> None:
    found = [
        FoundBlock(["patches"], "rescale", [32, 32, 3], 10),
        FoundBlock(["b2_norm1", "b2_attention", "b2_add1"], "patches", [16, 16], 10),
        FoundBlock(["b2_norm2", "b2_mlp1", "b2_add2"], "b2_add1", [16, 16], 10),
        FoundBlock(["norm"], "b2_add2", [16, 16], 10),
    ]
    if start:
        assert blocks.find_block(found, name, "m.keras").name == start
        return
    with pytest.raises(Unusable, match=message) as caught:
        blocks.find_block(found, name, "m.keras")
    assert "pipeline bases m.keras lists" in caught.value.hint
    assert "b2_norm" in caught.value.hint or name == "rescale"
