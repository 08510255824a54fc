"""catalogue.py, blocks.py: each row of the tables, held against the network that keras.applications builds."""

from __future__ import annotations

import ast
import gc
import hashlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cache import atomic_files, compiled_models
from cache.errors import Unusable
from stages.bases import blocks, catalogue, weights
from stages.bases.catalogue import Base
from stages.bases.recipe import FrozenBase, Recipe, Tap
from stages.data.images import PixelSpec
from stages.engines import select
from tests.support import generate_blocks
from tests.support.networks import randomise
from tests.support.pictures import photographs

SMALLEST = (
    "efficientnet_lite0", "mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0", "convnext_tiny", "vgg16",
)  # fmt: skip
"""Of the families that differ most in layers and in preprocessing; `make test-all` builds all bases."""

TOLERANCE = 1e-4
"""Of the largest value: what f32 promises."""
OF_KERAS = [base for base in catalogue.BASES.values() if base.package is None]
ODD = (
    "mobilenet", "mobilenet_v3_small", "efficientnet_b0", "resnet50_v2", "inception_v3", "xception", "convnext_tiny",
    "vgg16",
)  # fmt: skip


@dataclass
class Network:
    """A base as we build it, with random weights and statistics, and those in a file as Keras's downloads are.

    theirs: the same with that file by Keras's function and weights="imagenet", which asked for (name, URL, hash).
    """

    base: Base
    file: Path
    model: Any = None
    theirs: Any = None
    asked: tuple[str, str, str | None] | None = None

    @property
    def size(self) -> int:
        """NASNet with ImageNet's weights takes its own size only, and MobileNetV2 has another file for 96 pixels."""
        return self.base.size if self.base.name.startswith(("nasnet", "mobilenet_v2")) else 96

    @property
    def recipe(self) -> Recipe:
        return Recipe.of(
            self.base, atomic_files.sha256_of(self.file), PixelSpec(self.size, self.size), "f32", "float32"
        )


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=() if name in SMALLEST else pytest.mark.slow) for name in catalogue.BASES],
)
def network(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    import h5py
    import keras
    from keras.src.legacy.saving import legacy_h5_format

    from stages.keras_models import build

    base = catalogue.get_base(request.param)
    made = Network(base, tmp_path_factory.mktemp("weights") / "weights_notop.h5")
    keras.utils.set_random_seed(0)
    made.model = build.build_base(base, None, made.size, made.size)
    randomise(made.model, base)
    with h5py.File(made.file, "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, made.model)
    if base.package is None:
        build_theirs(made)
    yield made
    made.file.unlink()
    made.model = made.theirs = None
    keras.backend.clear_session()
    gc.collect()  # networks are full of cycles, and all bases in one process would take more memory than there is


def keras_s_function(base: Base) -> Any:
    import keras

    return getattr(keras.applications, base.builder.partition(":")[2])


def build_theirs(made: Network) -> None:
    from keras.src.utils import file_utils

    def get_file(name: str, origin: str, file_hash: str | None = None, **more: Any) -> str:
        made.asked = (name, origin, file_hash)
        return str(made.file)

    shape = (made.size, made.size, 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(file_utils, "get_file", get_file)
        made.theirs = keras_s_function(made.base)(include_top=False, weights="imagenet", input_shape=shape)


def test_the_table_s_facts_are_those_of_the_network(network: Network) -> None:
    base, model = network.base, network.model
    assert model.output_shape[-1] == base.feature_dim
    assert model.layers[-1].name == base.output
    assert model.count_params() == base.parameters
    assert not model.trainable_variables


def test_each_boundary_cuts_the_network_in_two_and_is_as_large_as_the_table_says(network: Network) -> None:
    import keras

    model = network.model
    order = [layer.name for layer in model.layers]
    found = blocks.blocks_of(network.base)
    for block in found:
        assert tuple(model.get_layer(block.boundary).output.shape[1:]) == block.shape(network.size), block
    places = [order.index(block.boundary) for block in found]
    assert places == sorted(places)
    if found:
        assert found[-1].boundary != network.base.output
        for block in (found[0], found[len(found) // 2], found[-1]):  # a cut in the middle of a block would show here
            keras.Model(model.get_layer(block.boundary).output, model.output)
    assert {block.boundary for block in found} <= generate_blocks.find_cuts(model)


def test_the_weight_file_and_its_digest_are_those_that_keras_fetches_or_the_package_ships(network: Network) -> None:
    base = network.base
    algorithm, _, digest = base.digest.partition(":")
    if base.package is None:
        assert network.asked == (base.weights, base.url, digest or None)
    else:
        assert atomic_files.sha256_of(weights.published_path(base)) == digest
    assert not digest or len(digest) == 2 * hashlib.new(algorithm).digest_size


def test_each_url_and_digest_stands_in_keras_s_own_source() -> None:
    """Of all bases, and without building them; test_the_weight_file... knows whose it is."""
    import keras

    folder = Path(keras.__file__).parent / "src" / "applications"
    nodes = [node for path in folder.glob("*.py") for node in ast.walk(ast.parse(path.read_text()))]
    texts = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    for base in OF_KERAS:
        folder_url, _, name = base.url.rpartition("/")
        assert base.url in texts or f"{folder_url}/" in texts, base.name
        assert name in (base.weights, *texts), base.name
    digests = [base.digest.rpartition(":")[2] for base in OF_KERAS if base.digest]
    assert set(digests) <= texts
    assert len(set(digests)) == len(digests) == len(OF_KERAS) - 2
    assert len({base.url for base in OF_KERAS}) == len(OF_KERAS)


def test_rows_are_those_of_keras_s_own_network_and_preprocessing(network: Network) -> None:
    """In each engine. As weights="imagenet" builds it, which of EfficientNet is another than one that loads a file."""
    pixels, recipe = photographs(network.size), network.recipe
    expected = keras_s_own(network, pixels)
    scale = np.abs(expected).max()
    for name in ("tensorflow", "openvino"):
        embed = select.open_engine(name, FrozenBase(recipe, {"rows": Tap()}, network.file))
        off = np.abs(embed(pixels)["rows"] - expected).max()
        assert off <= TOLERANCE * scale, name
        swapped = embed(np.ascontiguousarray(pixels[..., ::-1]))["rows"]
        assert np.abs(swapped - expected).max() > 20 * off, "as near as it is far with other channels, however deep"
        assert np.abs(swapped - expected).max() > 3 * TOLERANCE * scale, "or the test could not fail"
    assert len(list(compiled_models.default_folder().iterdir())) == 2, "a model with other operations is not stored"


def keras_s_own(network: Network, pixels: np.ndarray) -> np.ndarray:
    """float32 (n, feature_dim) by global average pooling."""
    if network.base.package is not None:  # no network of Keras's
        numbers = network.base.preprocess
        x = (pixels.astype(np.float32) - np.float32(numbers.mean)) / np.float32(numbers.std)
        return np.asarray(network.model(x, training=False)).mean(axis=(1, 2))
    x = sys.modules[keras_s_function(network.base).__module__].preprocess_input(pixels.astype(np.float32))
    return np.asarray(network.theirs(x, training=False)).mean(axis=(1, 2))


@pytest.mark.parametrize("base", OF_KERAS, ids=lambda base: base.name)
def test_preprocessing_is_keras_s(base: Base) -> None:
    """Of all bases. EfficientNet's is done by its layers, which need numbers before them to do what they should."""
    pixels, numbers = np.arange(27, dtype=np.float32).reshape(1, 3, 3, 3) * 9, base.preprocess
    x = pixels[..., ::-1] if numbers.order == "bgr" else pixels
    ours = (x * np.float32(numbers.scale) - np.float32(numbers.mean)) / np.float32(numbers.std)
    theirs = sys.modules[keras_s_function(base).__module__].preprocess_input(pixels.copy())
    if base.name.startswith("efficientnet_b"):
        assert np.array_equal(theirs, pixels)
        ours = (ours / 255 - catalogue.IMAGENET_MEAN) / np.sqrt(catalogue.IMAGENET_STD)
        theirs = (pixels / 255 - catalogue.IMAGENET_MEAN) / catalogue.IMAGENET_STD
    assert np.allclose(ours, theirs, atol=1e-5)


def test_every_network_of_keras_applications_is_a_base() -> None:
    import keras

    functions = {f"keras.applications:{name}" for name in vars(keras.applications) if name[0].isupper()}
    assert functions == {base.builder for base in OF_KERAS}


@pytest.mark.parametrize("base", OF_KERAS, ids=lambda base: base.name)
def test_a_base_takes_as_few_pixels_as_keras_does(base: Base) -> None:
    from stages.keras_models import build

    with pytest.raises(ValueError, match=f"at least {base.least}x{base.least}"):
        keras_s_function(base)(include_top=False, weights=None, input_shape=(base.least - 1, base.least, 3))
    with pytest.raises(Unusable, match=f"{base.name} needs at least {base.least} pixels a side"):
        build.build_base(base, None, base.least, base.least - 1)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in SMALLEST else pytest.mark.slow) for name in catalogue.BASES]
)
def test_blocks_json_holds_what_is_read_from_the_networks(name: str) -> None:
    from stages.keras_models import build

    base, size = catalogue.get_base(name), generate_blocks.SIZE
    found = generate_blocks.find_blocks(base, build.build_base(base, None, size, size))
    assert found == list(blocks.blocks_of(base)), "python -m tests.support.generate_blocks"
    assert bool(found) != name.startswith("nasnet")


@pytest.mark.parametrize("name", ODD)
def test_the_sides_of_maps_are_rounded_as_each_family_does(name: str) -> None:
    from stages.keras_models import build

    base = catalogue.get_base(name)
    size = base.least + 25
    model = build.build_base(base, None, size, size)
    for block in blocks.blocks_of(base):
        assert tuple(model.get_layer(block.boundary).output.shape[1:]) == block.shape(size), block


@pytest.mark.slow
def test_multiply_adds_at_the_base_s_own_size(network: Network) -> None:
    from stages.keras_models import build

    base = network.base
    model = build.build_base(base, None, base.size, base.size)
    assert sum(multiply_adds(layer) for layer in model.layers) / 1e9 == pytest.approx(base.gmacs, rel=0.02)
    for block in blocks.blocks_of(base):
        assert tuple(model.get_layer(block.boundary).output.shape[1:]) == block.shape(base.size), block


def multiply_adds(layer: Any) -> int:
    """Of one image, through kernels."""
    if hasattr(layer, "layers"):
        return sum(multiply_adds(inner) for inner in layer.layers)
    kernels = [weight for weight in layer.weights if "kernel" in weight.name]
    return sum(int(np.prod(layer.output.shape[1:-1]) * np.prod(kernel.shape)) for kernel in kernels)


def test_an_efficientnet_without_imagenet_s_normalization_is_refused(tmp_path: Path) -> None:
    """It was trained on other numbers than the table gives, and its rows would only be wrong."""
    from stages.keras_models import build

    base = catalogue.get_base("efficientnet_b0")
    build.build_base(base, None, 32, 32).save_weights(tmp_path / "own.weights.h5")
    with pytest.raises(Unusable, match=r"its layer normalization\w* has the mean \[0\.0, 0\.0, 0\.0\]"):
        build.build_base(base, tmp_path / "own.weights.h5", 32, 32)


def test_a_layer_has_the_same_name_in_each_network_of_a_process() -> None:
    """Keras numbers layers without a name through the process: a tap or a trained layer would be another's."""
    from stages.keras_models import build

    first, second = (build.build_base(catalogue.get_base("mobilenet_v3_small"), None, 32, 32) for _ in range(2))
    assert [layer.name for layer in first.layers] == [layer.name for layer in second.layers]


def test_a_base_without_blocks_says_so() -> None:
    with pytest.raises(Unusable, match="nasnet_mobile has no blocks to train from: its cells read the two before"):
        blocks.get_block(catalogue.get_base("nasnet_mobile"), "block1")
