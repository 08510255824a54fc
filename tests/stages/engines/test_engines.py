"""tensorflow_engine.py, openvino_engine.py: rows equal Keras's, and never depend on their neighbours."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cache import compiled_models
from cache.errors import Unusable
from stages.bases import catalogue
from stages.bases.recipe import FrozenBase, Tap
from stages.engines import select as engines
from stages.engines import tensorflow_engine
from stages.runtime.silent_imports import import_openvino
from tests.support.networks import SIZE, recipe
from tests.support.pictures import crops


def embed(
    name: str,
    files: Any,
    taps: dict[str, Tap],
    batch: int | None = None,
    numerics: str = "f32",
    engine: str = "tensorflow",
) -> Any:
    return engines.open_engine(engine, FrozenBase(recipe(name, numerics), taps, files(name)), batch)


def has_bf16() -> bool:
    """Whether this CPU computes in bfloat16, as OpenVINO says."""
    return "BF16" in import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


NAMES = ["efficientnet_lite0", "mobilenet_v2", pytest.param("resnet50", marks=pytest.mark.slow), "vgg16"]


@pytest.mark.parametrize(("engine", "tolerance"), [("tensorflow", 3e-5), ("openvino", 1e-4)])
@pytest.mark.parametrize("name", NAMES)
def test_rows_equal_keras_predict(name: str, engine: str, tolerance: float, files: Any) -> None:
    from stages.keras_models import build

    base, pixels = catalogue.get_base(name), crops(8, SIZE)
    taps = {"avg": Tap(), "max": Tap("output", "max"), "none": Tap("output", "none")}
    found = embed(name, files, taps, engine=engine)(pixels)
    assert len(list(compiled_models.default_folder().iterdir())) == 1, "only allowed operations"
    x = pixels.astype(np.float32)[..., :: -1 if base.preprocess.order == "bgr" else 1]
    x = (x * base.preprocess.scale - np.float32(base.preprocess.mean)) / np.float32(base.preprocess.std)
    maps = build.build_base(base, files(name), SIZE, SIZE).predict(x, verbose=0)
    for tap, expected in {"avg": maps.mean(axis=(1, 2)), "max": maps.max(axis=(1, 2)), "none": maps}.items():
        assert found[tap].dtype == np.float32
        assert np.abs(found[tap] - expected).max() <= tolerance * np.abs(expected).max(), tap


@pytest.mark.parametrize("engine", ["tensorflow", "openvino"])
@pytest.mark.parametrize("name", NAMES)
def test_a_row_never_depends_on_its_neighbours(name: str, engine: str, files: Any) -> None:
    """Bitwise: alone, in a full batch, in any order, beside anything; in bfloat16 too."""
    taps = {"t": Tap("output", "none")}
    _never_depends(embed(name, files, taps, engine=engine), crops(8, SIZE))
    if engine == "tensorflow" or has_bf16():
        rough = "tensorflow-bf16" if engine == "tensorflow" else "openvino-bf16"
        _never_depends(embed(name, files, taps, numerics=rough, engine=engine), crops(8, SIZE))


def _never_depends(function: Any, pixels: np.ndarray) -> None:
    rows = function(pixels)["t"]
    order = np.random.default_rng(3).permutation(8)
    assert np.array_equal(function(pixels[order])["t"], rows[order])
    for i in (0, 5):
        assert np.array_equal(function(pixels[i : i + 1])["t"][0], rows[i])
        beside = np.concatenate([255 - pixels[:3], pixels[i : i + 1]])
        assert np.array_equal(function(beside)["t"][3], rows[i])


def test_an_inner_layer_and_several_taps_from_one_pass(files: Any) -> None:
    taps = {"a": Tap("block3_add", "none"), "b": Tap("block15_add"), "c": Tap()}
    found = embed("efficientnet_lite0", files, taps)(crops(2, SIZE))
    assert {name: rows.shape for name, rows in found.items()} == {"a": (2, 24, 24, 24), "b": (2, 192), "c": (2, 1280)}


@pytest.mark.parametrize("batch", [1, 3, 32])
def test_other_batch_shapes_agree_to_1e5(batch: int, files: Any) -> None:
    pixels = crops(3, SIZE)
    rows = embed("efficientnet_lite0", files, {"t": Tap()})(pixels)["t"]
    other = embed("efficientnet_lite0", files, {"t": Tap()}, batch)
    parts = [other(pixels[i : i + batch])["t"] for i in range(0, 3, batch)]
    assert np.abs(np.concatenate(parts) - rows).max() <= 1e-5 * np.abs(rows).max()


@pytest.mark.parametrize("numerics", ["tensorflow-bf16", "openvino-bf16"])
def test_bf16_is_near_and_not_the_same_or_refused(numerics: str, files: Any) -> None:
    pixels, taps = crops(8, SIZE), {"t": Tap()}
    if numerics == "openvino-bf16" and not has_bf16():
        with pytest.raises(Unusable, match="needs a CPU with bfloat16"):
            embed("efficientnet_lite0", files, taps, numerics=numerics, engine="auto")
        return
    exact = embed("efficientnet_lite0", files, taps)(pixels)["t"]
    rough = embed("efficientnet_lite0", files, taps, numerics=numerics, engine="auto")(pixels)["t"]
    assert rough.dtype == np.float32
    assert 1e-5 < np.abs(rough - exact).max() / np.abs(exact).max() < 0.1


def test_several_threads_get_what_one_gets(files: Any) -> None:
    pixels = crops(8, SIZE)
    function = embed("efficientnet_lite0", files, {"t": Tap()}, engine="openvino")
    rows = function(pixels)["t"]
    with ThreadPoolExecutor(4) as threads:
        for number, found in enumerate(threads.map(lambda i: function(pixels[i % 8 :])["t"], range(40))):
            assert np.array_equal(found, rows[number % 8 :])


def test_input_is_left_as_it_was(files: Any) -> None:
    pixels = crops(8, SIZE)  # a full batch, which is not copied on its way in
    before = pixels.copy()
    embed("vgg16", files, {"t": Tap()})(pixels)
    assert np.array_equal(pixels, before)


def test_an_unknown_layer_is_named_with_some_that_are_there(files: Any) -> None:
    with pytest.raises(Unusable, match=r"efficientnet_lite0 has no layer 'block99'") as caught:
        embed("efficientnet_lite0", files, {"t": Tap("block99")})
    assert "head_activation" in caught.value.hint


def test_a_kept_graph_gives_the_same_rows_in_a_process_without_keras(files: Any, tmp_path: Path) -> None:
    taps = {"z": Tap("block3_add", "none"), "a": Tap()}
    base = FrozenBase(recipe("efficientnet_lite0"), taps, files("efficientnet_lite0"))
    rows = engines.open_engine("tensorflow", base)(crops(3, SIZE))
    program = f"""
import sys
from pathlib import Path
import numpy as np
from stages.bases.recipe import FrozenBase, Tap
from stages.engines import select
from tests.support.networks import recipe
from tests.support.pictures import crops
taps = {taps!r}
base = FrozenBase(recipe("efficientnet_lite0"), taps, Path({str(tmp_path / "gone")!r}))
embed = select.open_engine("tensorflow", base)
np.savez({str(tmp_path / "rows.npz")!r}, **embed(crops(3, {SIZE})))
assert "keras" not in sys.modules
import keras
keras.Sequential([keras.layers.Dense(1)]).compile("adam")
"""
    subprocess.run([sys.executable, "-c", program], check=True)
    with np.load(tmp_path / "rows.npz") as again:
        assert {name: np.array_equal(again[name], rows[name]) for name in rows} == {"z": True, "a": True}


def test_large_arrays_are_held_once_and_outside_the_graph(files: Any) -> None:
    """TensorFlow would hold those inside several times over."""
    engines.open_engine("tensorflow", FrozenBase(recipe("vgg16"), {"t": Tap()}, files("vgg16")))
    (graph,) = compiled_models.default_folder().glob(f"*/{tensorflow_engine.GRAPH}")
    (arrays,) = compiled_models.default_folder().glob(f"*/{tensorflow_engine.ARRAYS}")
    assert graph.stat().st_size < 1e6 < 50e6 < arrays.stat().st_size
