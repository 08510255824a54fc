"""training.py: training from the boundary is training the whole network, and leaves the frozen part alone."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from cache.errors import Unusable
from stages.bases import blocks, catalogue
from stages.bases.recipe import Recipe, Tap
from stages.data.images import PixelSpec
from stages.finetune import training
from stages.finetune.boundary_maps import Cached
from stages.finetune.network import Network
from stages.heads.fitted import Head, Layer, Layers
from stages.keras_models import build
from stages.targets.classes import Classes
from tests.support.networks import BATCH, Spec, curve

SIZE = 64
N = 40
STEPS = 20


@dataclass
class Case:
    """A base with weights in a file, a head on it, and inputs (n, h, w, 3) as the base sees them, with labels."""

    name: str
    file: Path
    block: str
    classes: int = 2

    @property
    def recipe(self) -> Recipe:
        return Recipe.of(catalogue.get_base(self.name), "0" * 64, PixelSpec(SIZE, SIZE), "f32", "float32")

    @property
    def head(self) -> Head:
        rng, outputs = np.random.default_rng(1), 1 if self.classes == 2 else self.classes
        layer = Layer(
            rng.normal(0, 0.1, (catalogue.get_base(self.name).feature_dim, outputs)), rng.normal(0, 0.1, outputs)
        )
        return Head("logistic", Classes("abcdef"[: self.classes]), Layers([layer]), {"C": 1.0})

    def base(self) -> keras.Model:
        return build.build_base(catalogue.get_base(self.name), self.file, SIZE, SIZE)

    def network(self) -> Network:
        return Network(
            self.recipe, self.file, blocks.get_block(catalogue.get_base(self.name), self.block), Tap(), self.head
        )

    def data(self) -> tuple[np.ndarray, np.ndarray]:
        """Noise, brighter for the later classes: something to learn."""
        rng = np.random.default_rng(2)
        y = rng.integers(0, self.classes, N)
        x = rng.normal(0, 0.6, (N, SIZE, SIZE, 3)) + 0.4 * y[:, None, None, None]
        return x.astype(np.float32), y

    @cached_property
    def frozen(self) -> keras.Model:
        """The part before the boundary."""
        base, layer = self.base(), blocks.get_block(catalogue.get_base(self.name), self.block).boundary
        return keras.Model(base.input, base.get_layer(layer).output)

    def boundary(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(self.frozen.predict(x, verbose=0))

    def cached(self, views: int = 1) -> training.Data:
        x, y = self.data()
        train, val = np.arange(24), np.arange(24, N)
        others = [self.boundary(x[train] + 0.1 * view) for view in range(1, views)]
        return training.Data(Cached(self.boundary(x), others, train), y, train, val)


@pytest.fixture(scope="module")
def lite0(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """Its own trained weights, in which no BatchNormalization is as it was initialised."""
    from cache.hash_index import HashIndex
    from cache.store import Cache
    from stages.bases import weights

    cache = Cache(tmp_path_factory.mktemp("cache"), HashIndex())
    found = weights.resolve_weights(
        catalogue.get_base("efficientnet_lite0"), "imagenet", Path("none"), cache, offline=True
    )
    assert found.path is not None
    return Case("efficientnet_lite0", found.path, "block15")


@pytest.fixture(scope="module")
def vgg16(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """Random weights with a fixed seed, and a head of three classes."""
    keras.utils.set_random_seed(3)
    path = tmp_path_factory.mktemp("vgg16") / "vgg16.weights.h5"
    build.build_base(catalogue.get_base("vgg16"), None, SIZE, SIZE).save_weights(path)
    return Case("vgg16", path, "block5", classes=3)


@pytest.mark.parametrize("case", ["lite0", "vgg16"])
def test_from_the_boundary_is_step_for_step_the_whole_network(case: str, request: pytest.FixtureRequest) -> None:
    """Against plain Keras on images: base(x, training=False), the later blocks trainable, BatchNormalization not."""
    of: Case = request.getfixturevalue(case)
    tf.config.experimental.enable_op_determinism()
    x, y = of.data()
    network, maps = of.network(), of.boundary(x)
    training.compile_for(Spec(), network, N, y)
    base = of.base()
    names = {layer.name for layer in network.tail.layers}
    for layer in base.layers:
        layer.trainable = layer.name in names and not isinstance(layer, keras.layers.BatchNormalization)
    image = keras.Input((SIZE, SIZE, 3))
    dense = keras.layers.Dense(of.head.layers[0].bias.size)
    whole = keras.Model(image, dense(keras.layers.GlobalAveragePooling2D()(base(image, training=False))))
    dense.set_weights([of.head.layers[0].weights, of.head.layers[0].bias])
    losses = keras.losses
    loss = losses.BinaryCrossentropy if of.classes == 2 else losses.CategoricalCrossentropy
    whole.compile(keras.optimizers.Adam(1e-3), loss(from_logits=True), jit_compile=False)
    before = dense.get_weights()[0]
    for step in range(STEPS):
        part = np.random.default_rng(step).choice(N, BATCH, replace=False)
        truth = training.loss_targets(network, y[part])
        ours = float(network.model.train_on_batch(maps[part], truth))
        theirs = float(whole.train_on_batch(x[part], truth))
        assert ours == pytest.approx(theirs, rel=1e-5, abs=1e-6), step
    assert np.abs(dense.get_weights()[0] - before).max() > 1e-3, "something was learnt"
    trained = network.tail_arrays()
    assert len(trained) == sum(len(layer.weights) for layer in base.layers if layer.name in names) > 0
    for name, array in trained.items():
        layer, _, number = name.rpartition("/")
        reference = base.get_layer(layer).weights[int(number)].numpy()
        assert np.abs(array - reference).max() <= 1e-5 * max(1, np.abs(reference).max()), name
    for ours_w, theirs_w in zip(network.dense[0].get_weights(), dense.get_weights(), strict=True):
        assert np.abs(ours_w - theirs_w).max() <= 1e-5


def test_before_training_it_says_what_the_head_says_on_the_frozen_base(lite0: Case) -> None:
    x, _ = lite0.data()
    features = np.asarray(lite0.base().predict(x, verbose=0)).mean(axis=(1, 2))
    data = lite0.cached()
    said = lite0.network().predict(data.boundary, np.arange(N))
    assert np.abs(said - lite0.head.predict(features)).max() < 1e-5


def test_frozen_weights_and_batch_statistics_stay_as_they_were_to_the_bit(lite0: Case, tmp_path: Path) -> None:
    network = lite0.network()
    before = {v.path: v.numpy() for layer in network.tail.layers for v in layer.weights}
    training.train(Spec(epochs=2, lr=1e-4), 0, network, lite0.cached(), tmp_path / "checkpoint.npz")
    after = {v.path: v.numpy() for layer in network.tail.layers for v in layer.weights}
    moved = {path for path, value in after.items() if value.tobytes() != before[path].tobytes()}
    norms = {v.path for layer in network.tail.layers for v in layer.weights
             if isinstance(layer, keras.layers.BatchNormalization)}  # fmt: skip
    assert norms
    assert moved == set(before) - norms
    assert len(network.tail_arrays()) == len(before)


def test_the_tail_is_all_there_is_of_the_blocks_and_no_less_is_put_in(lite0: Case) -> None:
    """Into a network of random weights: what came of less would be random too."""
    recipe, block = lite0.recipe, blocks.get_block(catalogue.get_base(lite0.name), lite0.block)
    network, tail, where = Network(recipe, None, block, Tap(), lite0.head), lite0.network().tail_arrays(), np.arange(N)
    data = lite0.cached()
    with pytest.raises(Unusable, match=r"tail\.npz has no block15_depthwise_bn/0"):
        network.put_tail({name: array for name, array in tail.items() if name != "block15_depthwise_bn/0"})
    network.put_tail(tail)
    expected = lite0.network().predict(data.boundary, where)
    assert network.predict(data.boundary, where).tobytes() == expected.tobytes()


def test_a_run_that_was_stopped_goes_on_to_the_same_weights(lite0: Case, tmp_path: Path) -> None:
    """With several views and a schedule, whose state must be taken up too."""
    spec, path = (
        Spec(epochs=3, views=3, schedule="cosine", weight_decay=0.01, class_weight="balanced"),
        tmp_path / "checkpoint.npz",
    )
    whole, data = lite0.network(), lite0.cached(views=3)
    expected = training.train(spec, 7, whole, data, tmp_path / "other.npz")

    class Stopped(Exception):
        pass

    epochs: list[int] = []

    def stop(n: int) -> None:
        epochs.append(n)
        if epochs == [1, 1]:
            raise Stopped

    with pytest.raises(Stopped):
        training.train(spec, 7, lite0.network(), data, path, lambda done: nullcontext(stop))
    again = lite0.network()
    before: list[int] = []
    after: list[int] = []

    def watch(done: int) -> AbstractContextManager[Callable[[int], object]]:
        before.append(done)
        return nullcontext(after.append)

    history = training.train(spec, 7, again, data, path, watch)
    assert (before, after) == ([2], [1]), "two epochs were there"
    assert (history.loss, history.val_log_loss) == (expected.loss, expected.val_log_loss)
    for name, array in whole.tail_arrays().items():
        assert array.tobytes() == again.tail_arrays()[name].tobytes(), name
    again.reset()
    training.train(spec, 8, again, data, None)
    assert any(a.tobytes() != again.tail_arrays()[n].tobytes() for n, a in whole.tail_arrays().items())
    again.reset()
    training.train(spec, 7, again, data, None)
    for name, array in whole.tail_arrays().items():
        assert array.tobytes() == again.tail_arrays()[name].tobytes(), "of the other seed nothing is left"


def test_a_damaged_checkpoint_is_told_and_left_aside(
    lite0: Case, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "checkpoint.npz"
    path.write_bytes(b"PK\x03\x04 half of it")
    history = training.train(Spec(epochs=1), 0, lite0.network(), lite0.cached(), path)
    assert history.epochs == 1
    assert "is damaged" in caplog.text


def test_the_best_epoch_s_weights_are_kept_be_it_none(lite0: Case, tmp_path: Path) -> None:
    """A rate that ruins everything: the head as it was is the best there is, and patience ends it early."""
    network = lite0.network()
    start = network.tail_arrays()
    history = training.train(
        Spec(optimizer="sgd", lr=100.0, epochs=9, patience=2), 0, network, lite0.cached(), tmp_path / "c.npz"
    )
    assert (history.best, history.epochs) == (0, 2)
    assert all(array.tobytes() == start[name].tobytes() for name, array in network.tail_arrays().items())


def test_a_loss_that_is_no_number_ends_training_and_is_never_the_best(vgg16: Case, tmp_path: Path) -> None:
    network = vgg16.network()
    start = network.tail_arrays()
    spec = Spec(optimizer="sgd", lr=1e6, log_dir=str(tmp_path / "log"))
    for _ in range(2):  # the second goes on from the checkpoint, and has nothing left to do
        history = training.train(spec, 0, network, vgg16.cached(), tmp_path / "c.npz")
        assert (history.best, history.loss, history.diverged) == (0, [None], True)
        assert history.val_log_loss[1] == pytest.approx(-np.log(1e-15))
    assert all(array.tobytes() == start[name].tobytes() for name, array in network.tail_arrays().items())


def test_tensorboard_reads_the_curves(lite0: Case, tmp_path: Path) -> None:
    history = training.train(Spec(epochs=2, log_dir=str(tmp_path)), 0, lite0.network(), lite0.cached(), None)
    assert curve(tmp_path / "train", "epoch_loss") == pytest.approx(history.loss)
    assert curve(tmp_path / "validation", "epoch_log_loss") == pytest.approx(history.val_log_loss[1:])


def test_a_rehearsal_leaves_the_network_as_it_was(lite0: Case) -> None:
    network = lite0.network()
    start = network.tail_arrays()
    assert training.time_epoch(Spec(), network, 24, 16) > 0
    assert all(array.tobytes() == start[name].tobytes() for name, array in network.tail_arrays().items())
