"""user_model.py, keras2_files.py: a model from a file says what Keras says of it, at any layer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cache import atomic_files
from cache.errors import Unusable
from stages.bases import catalogue
from stages.bases.catalogue import Preprocess
from stages.bases.recipe import FrozenBase, Recipe, Tap
from stages.data.images import PixelSpec
from stages.engines.embed import Embed
from stages.export.deployable import Deployable
from stages.extract import opened_bases
from stages.extract.opened_bases import Job
from stages.heads.fitted import Head, Layer, Layers
from stages.targets.classes import Classes
from tests.support import GOLDEN

SIZE = 32
PIXELS = np.random.default_rng(0).integers(0, 256, (4, SIZE, SIZE, 3), np.uint8)


def opened(path: Path, taps: dict[str, Tap], numbers: Preprocess | None = None, size: int = SIZE) -> Embed:
    """As a task opens it."""
    base = catalogue.choose_base(str(path), True, numbers)
    digest = atomic_files.sha256_of(path) if path.is_file() else ""
    recipe = Recipe.of(base, digest, PixelSpec(size, size), "f32", "float32")
    return opened_bases.open_embed(Job(recipe, str(path), "", None, ""), taps)


def conv_base(side: int | None = SIZE) -> Any:
    """A small network with what the large ones have: BatchNormalization with statistics, depthwise layers, a sum."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(0)
    image = keras.Input((side, side, 3))
    x = layers.Conv2D(6, 3, 2, padding="same", use_bias=False, name="conv")(image)
    x = layers.BatchNormalization(name="bn")(x)
    x = layers.Add(name="add")([x, layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)])
    model = keras.Model(image, layers.Conv2D(8, 1, activation="relu", name="last")(x), name="conv_base")
    model.get_layer("bn").set_weights([np.linspace(0.5, 1.5, 6), *np.linspace(-1, 1, 12).reshape(2, 6), np.ones(6)])
    return model


def sequential() -> Any:
    import keras
    from keras import layers

    return keras.Sequential([conv_base(), layers.Flatten(), layers.Dropout(0.5), layers.Dense(3, name="top")])


def functional() -> Any:
    """A nested model that stands in another, behind layers of its own; what would be drawn in training is not."""
    import keras
    from keras import layers

    image = keras.Input((SIZE, SIZE, 3))
    x = layers.RandomFlip(name="flip")(layers.Rescaling(1 / 255, name="rescaled")(image))
    inner = keras.Input((SIZE, SIZE, 3))
    middle = keras.Model(inner, layers.ReLU(name="relu")(conv_base()(inner, training=False)), name="middle")
    x = layers.GlobalAveragePooling2D(name="pool")(middle(x))
    return keras.Model(image, layers.Dense(3, name="top")(layers.Dropout(0.5)(x)))


@pytest.mark.parametrize("suffix", ["keras", "h5"])
@pytest.mark.parametrize(
    ("build", "nested", "before"),
    [
        (sequential, "conv_base", lambda x: x),
        (functional, "middle/conv_base", lambda x: x / 255),
    ],
)
def test_it_says_what_keras_says_at_any_depth(
    tmp_path: Path, suffix: str, build: Callable[[], Any], nested: str, before: Callable[[Any], Any]
) -> None:
    import keras

    model, path = build(), tmp_path / f"model.{suffix}"
    model.save(path)
    inner = conv_base()  # the same weights, from the same seed
    places = {"add": ("avg", (1, 2)), "last": ("max", (1, 2))}
    taps = {name: Tap(f"{nested}/{name}", pooling) for name, (pooling, _) in places.items()}  # type: ignore[arg-type]
    rows = opened(
        path, {**taps, "whole": Tap(nested, "none"), "output": Tap("output", "none"), "top": Tap("top", "none")}
    )(PIXELS)
    x = PIXELS.astype(np.float32)
    expected = {
        "add": keras.Model(inner.input, inner.get_layer("add").output).predict(before(x), verbose=0).mean(axis=(1, 2)),
        "last": inner.predict(before(x), verbose=0).max(axis=(1, 2)),
        "whole": inner.predict(before(x), verbose=0),
        "output": model.predict(x, verbose=0),
        "top": model.predict(x, verbose=0),
    }
    for name, wanted in expected.items():
        assert rows[name].shape == wanted.shape
        assert np.abs(rows[name] - wanted).max() <= 1e-5 * np.abs(wanted).max(), name


@pytest.mark.parametrize(
    ("file", "tap"),
    [
        ("keras2_sequential.h5", "conv_base/relu"),
        ("keras2_functional.h5", "conv_base/relu"),
        ("keras2_functional.keras", "conv_base/relu"),
    ],
)
def test_files_that_keras_2_wrote(file: str, tap: str) -> None:
    """Written by tf_keras 2.21, as its `predict` found them on PIXELS; nested models stand otherwise in them."""
    expected, name = np.load(GOLDEN / "keras2_expected.npz"), file[len("keras2_") :].partition(".")[0]
    rows = opened(GOLDEN / file, {"relu": Tap(tap), "output": Tap("output", "none")})(PIXELS)
    for mine, theirs in ((rows["relu"], expected[f"{name}_relu"]), (rows["output"], expected[name])):
        assert np.abs(mine - theirs).max() <= 1e-5 * np.abs(theirs).max()


def test_preprocessing_is_what_was_written(tmp_path: Path) -> None:
    conv_base().save(tmp_path / "m.keras")
    numbers = Preprocess(0.5, (1.0, 2.0, 3.0), (4.0, 5.0, 6.0), "bgr")
    rows = opened(tmp_path / "m.keras", {"t": Tap("output", "none")}, numbers)(PIXELS)["t"]
    x = (PIXELS[..., ::-1].astype(np.float32) * 0.5 - np.float32([1, 2, 3])) / np.float32([4, 5, 6])
    expected = conv_base().predict(x, verbose=0)
    assert np.abs(rows - expected).max() <= 1e-5 * np.abs(expected).max()


def test_a_model_of_any_size_takes_any_size(tmp_path: Path) -> None:
    conv_base(None).save(tmp_path / "m.keras")
    assert opened(tmp_path / "m.keras", {"t": Tap("output", "none")}, size=20)(np.zeros((1, 20, 20, 3), np.uint8))[
        "t"
    ].shape == (1, 10, 10, 8)


@pytest.mark.parametrize("engine", ["tensorflow", "openvino"])
def test_arrays_that_are_no_variables_of_a_layer_stay_with_it(tmp_path: Path, engine: str) -> None:
    import keras

    path, rng = tmp_path / "model.keras", np.random.default_rng(1)
    mean, variance = rng.uniform(0, 255, (SIZE, SIZE, 3)), rng.uniform(1, 99, (SIZE, SIZE, 3))
    normalised = keras.layers.Normalization((1, 2, 3), mean, variance)
    model = keras.Sequential([keras.Input((SIZE, SIZE, 3)), normalised, conv_base()])
    model.save(path)
    recipe = Recipe.of(
        catalogue.choose_base(str(path), True, None),
        atomic_files.sha256_of(path),
        PixelSpec(SIZE, SIZE),
        "f32",
        "float32",
    )
    embed = opened_bases.open_embed(
        Job(recipe, str(path), str(tmp_path), None, "", engine), {"maps": Tap(pooling="none")}
    )
    expected = model.predict(PIXELS.astype(np.float32), verbose=0)
    assert np.abs(embed(PIXELS)["maps"] - expected).max() < 1e-4 * np.abs(expected).max()


def test_lambda_layers_are_opened(tmp_path: Path) -> None:
    import keras

    image = keras.Input((SIZE, SIZE, 3))
    keras.Model(image, keras.layers.Lambda(lambda x: 2 * x)(image)).save(tmp_path / "m.keras")
    rows = opened(tmp_path / "m.keras", {"t": Tap("output", "none")})(PIXELS)["t"]
    assert np.array_equal(rows, 2.0 * PIXELS)


def test_one_that_mixes_the_pictures_of_a_batch_is_refused(tmp_path: Path) -> None:
    import keras

    image = keras.Input((SIZE, SIZE, 3))
    keras.Model(image, image - keras.ops.mean(image, axis=0, keepdims=True)).save(tmp_path / "m.keras")
    with pytest.raises(Unusable, match="gives another row for an image alone than for the same image in a batch"):
        opened(tmp_path / "m.keras", {"t": Tap("output", "none")})


def inputs(*shapes: tuple[int, ...]) -> Callable[[Path], None]:
    """Writes a model that takes inputs of those shapes."""

    def write(path: Path) -> None:
        import keras

        taken = [keras.Input(shape) for shape in shapes]
        flat = [keras.layers.Flatten()(image) for image in taken]
        keras.Model(taken, keras.ops.concatenate(flat, axis=1)).save(path)

    return write


def subclassed(path: Path) -> None:
    import keras

    @keras.saving.register_keras_serializable("test")
    class Opaque(keras.Model):
        def call(self, x: Any) -> Any:
            return x

    Opaque().save(path)


def unregistered(path: Path) -> None:
    import keras

    class Scale(keras.layers.Layer):
        def call(self, x: Any) -> Any:
            return x

    image = keras.Input((SIZE, SIZE, 3))
    keras.Model(image, Scale()(image)).save(path)


def cut(path: Path) -> None:
    conv_base().save(path)
    path.write_bytes(path.read_bytes()[:-400])


@pytest.mark.parametrize(
    ("name", "write", "message", "hint"),
    [
        ("m.keras", inputs((SIZE, SIZE, 3), (5,)), "takes 2 inputs; expected one, of RGB images", ""),
        ("m.keras", inputs((SIZE, SIZE, 1)), r"takes \(None, 32, 32, 1\); expected \(batch, height, width, 3\)", ""),
        ("m.keras", inputs((5,)), r"takes \(None, 5\); expected", ""),
        ("m.keras", inputs((48, 48, 3)), "takes images of 48 x 48 pixels; got 32 x 32", "use extract.size: 48"),
        ("m.keras", subclassed, "is a Opaque, whose layers cannot be listed", "Functional or Sequential"),
        ("m.keras", unregistered, "needs 'Scale', which is neither in Keras nor", "register_keras"),
        ("m.h5", unregistered, "needs 'Scale', which is neither in Keras nor", "register_keras"),
        ("m.keras", cut, "is not a Keras model: it is not a whole zip archive", "copy it again"),
        ("m.h5", cut, "cannot be opened as a Keras model: .*truncated", ""),
        ("m.h5", lambda path: path.write_bytes(b"x"), "is not a Keras model: it is not a whole HDF5", "copy it again"),
        ("m.weights.h5", lambda path: conv_base().save_weights(path), "holds weights without a model", "{name: vgg16"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_used_is_one_sentence(
    tmp_path: Path, name: str, write: Callable[[Path], None], message: str, hint: str
) -> None:
    write(tmp_path / name)
    with pytest.raises(Unusable, match=message) as caught:
        opened(tmp_path / name, {"t": Tap("output", "none")})
    assert hint in caught.value.hint
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("tap", "message", "hint"),
    [
        (Tap("conv_base/laste"), "has no layer 'conv_base/laste'", "similar: conv_base/last"),
        (Tap("last"), "has no layer 'last'", "the last ones: conv_base/last, flatten"),
        (Tap("output"), "'output' gives one row of .* values; pooling: avg has no meaning", "use pooling: none"),
    ],
)
def test_a_tap_that_is_not_there_is_named_with_some_that_are(tmp_path: Path, tap: Tap, message: str, hint: str) -> None:
    sequential().save(tmp_path / "m.keras")
    with pytest.raises(Unusable, match=message) as caught:
        opened(tmp_path / "m.keras", {"t": tap})
    assert hint in caught.value.hint


def test_a_layer_that_is_called_twice_is_no_tap(tmp_path: Path) -> None:
    import keras

    image, dense = keras.Input((SIZE, SIZE, 3)), keras.layers.Dense(3, name="dense")
    keras.Model(image, dense(dense(image))).save(tmp_path / "m.keras")
    with pytest.raises(Unusable, match=r"layer 'dense' of .* is called more than once"):
        opened(tmp_path / "m.keras", {"t": Tap("dense")})


def test_a_head_on_several_of_its_layers_is_one_file(tmp_path: Path) -> None:
    """Each layer stands in the file once, however many taps lead into the nested model that it is of."""
    import keras

    from stages.export import keras_network

    functional().save(tmp_path / "m.keras")
    base = catalogue.choose_base("m.keras", True)
    recipe = Recipe.of(base, atomic_files.sha256_of(tmp_path / "m.keras"), PixelSpec(SIZE, SIZE), "f32", "float32")
    nested = ("middle/conv_base", "middle/conv_base/add", "middle/relu")
    taps = (*(Tap(layer) for layer in nested), Tap("pool", "none"))
    weights = np.random.default_rng(1).normal(size=(8 + 6 + 8 + 8, 3))
    head = Head("ridge", Classes("abc"), Layers([Layer(weights, np.zeros(3))]), {})
    named = {str(number): tap for number, tap in enumerate(taps)}
    servable = Deployable((FrozenBase(recipe, named, tmp_path / "m.keras"),), head)
    keras_network.save_network(keras_network.build_network(servable), "keras", tmp_path / "whole.keras")
    found = keras.saving.load_model(tmp_path / "whole.keras", compile=False)(PIXELS)
    assert np.abs(np.asarray(found) - servable.open()([PIXELS])).max() < 1e-5
