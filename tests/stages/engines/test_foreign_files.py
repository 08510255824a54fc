"""ONNX files and OpenVINO's own in both engines: rows against numpy, proofs, refusals."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from cache.errors import NotAvailable, Unusable
from stages.bases import catalogue, openvino_xml, trust, weights
from stages.bases.catalogue import PREPROCESS_WORDS, Preprocess
from stages.bases.recipe import FrozenBase, Recipe, Tap
from stages.data.images import PixelSpec
from stages.engines import openvino_files, proof, select
from stages.engines.embed import Embed, check_independence, embed_all
from stages.runtime.limited_process import Limits
from stages.runtime.silent_imports import import_openvino
from tests.support import onnx_models, pictures
from tests.support.onnx_models import arrays, conv_net, conv_nodes, numbers, save, token_net

SIZE = 32
ENGINES = ["openvino", "onnxruntime"]
MAPS, RAW = {"maps": Tap(pooling="none")}, Preprocess()


def base_of(
    path: Path, taps: Mapping[str, Tap] = MAPS, preprocess: Preprocess = RAW, size: tuple[int, int] = (SIZE, SIZE)
) -> FrozenBase:
    kind = catalogue.choose_base(path.name)
    digest = weights.digest_of(kind, path)
    return FrozenBase(Recipe(kind.name, 1, "output", digest, preprocess, PixelSpec(*size)), taps, path)


def rows_of(base: FrozenBase, engine: str, pixels: np.ndarray) -> dict[str, np.ndarray]:
    return embed_all(select.open_engine(engine, base, 4), pixels)


def as_openvino(path: Path) -> Path:
    """The same model as OpenVINO's files."""
    openvino = import_openvino()
    target = path.with_suffix(".xml")
    openvino.save_model(openvino.Core().read_model(path), target, compress_to_fp16=False)
    path.unlink()
    return target


@pytest.mark.parametrize("engine", ENGINES)
def test_maps_are_those_of_numpy(tmp_path: Path, engine: str) -> None:
    pixels = pictures.crops(5, SIZE)
    taps = {"maps": Tap(pooling="none"), "mean": Tap(), "max": Tap("maps", "max"), "inner": Tap("conv", "none")}
    rows = rows_of(base_of(conv_net(tmp_path / "net.onnx"), taps, PREPROCESS_WORDS["imagenet"]), engine, pixels)
    numbers = PREPROCESS_WORDS["imagenet"]
    maps = onnx_models.conv_maps((pixels * numbers.scale - np.array(numbers.mean)) / np.array(numbers.std))
    np.testing.assert_allclose(rows["maps"], maps, atol=1e-5)
    np.testing.assert_allclose(rows["mean"], maps.mean((1, 2)), atol=1e-5)
    np.testing.assert_allclose(rows["max"], maps.max((1, 2)), atol=1e-5)
    np.testing.assert_allclose(np.maximum(rows["inner"], 0), maps, atol=1e-5)


@pytest.mark.parametrize("engine", ENGINES)
def test_tokens_are_pooled_without_those_that_are_no_patches(tmp_path: Path, engine: str) -> None:
    pixels = pictures.crops(3, SIZE)
    taps = {name: Tap(pooling=name) for name in ("none", "cls", "mean", "cls+mean")}  # type: ignore[arg-type]
    base = base_of(token_net(tmp_path / "net.onnx", prefix=5), {**taps, "pooled": Tap("pooled", "none")})
    rows = rows_of(base, engine, pixels)
    assert rows["none"].shape == (3, 5 + 16, 12)
    np.testing.assert_allclose(rows["cls"], rows["none"][:, 0], atol=1e-6)
    np.testing.assert_array_equal(rows["cls"], rows["pooled"])
    np.testing.assert_allclose(rows["mean"], rows["none"][:, 5:].mean(1), atol=1e-6)
    np.testing.assert_allclose(rows["cls+mean"], np.concatenate([rows["cls"], rows["mean"]], 1), atol=1e-6)


def test_openvino_s_own_files_and_channels_in_any_order(tmp_path: Path) -> None:
    pixels = pictures.crops(3, SIZE)
    bgr = Preprocess(1 / 255, order="bgr")
    file = as_openvino(conv_net(tmp_path / "net.onnx"))
    assert openvino_xml.find_harm(file) == []
    assert openvino_xml.find_input(file).layout == "nchw"
    assert openvino_xml.list_layers(catalogue.choose_base(file.name), file, SIZE)[0].shape == (8, None, None)
    rows = rows_of(base_of(file, preprocess=bgr), "auto", pixels)["maps"]
    np.testing.assert_allclose(rows, onnx_models.conv_maps(pixels[..., ::-1] / 255), atol=1e-5)
    file.with_suffix(".bin").unlink()
    with pytest.raises(NotAvailable, match=r"has its weights in net\.bin, which is not beside it"):
        base_of(file)


@pytest.mark.parametrize("engine", ENGINES)
def test_height_and_width_may_differ(tmp_path: Path, engine: str) -> None:
    path = conv_net(tmp_path / "net.onnx", ("n", 3, 32, 48))
    rows = rows_of(base_of(path, size=(32, 48)), engine, pictures.crops(2, 48)[:, :32])
    assert rows["maps"].shape == (2, 8, 12, 8)
    with pytest.raises(Unusable, match=r"takes images of 32 x 48 pixels; got 48 x 32") as error:
        select.open_engine(engine, base_of(path, size=(48, 32)))
    assert error.value.hint == "use size: [32, 48]"


@pytest.mark.parametrize("engine", ENGINES)
def test_a_batch_that_is_fixed_at_1_is_run_one_by_one(tmp_path: Path, engine: str) -> None:
    embed = select.open_engine(engine, base_of(conv_net(tmp_path / "net.onnx", (1, 3, SIZE, SIZE))), 8)
    assert embed.batch == 1
    check_independence(embed, SIZE, SIZE)
    assert embed_all(embed, pictures.crops(3, SIZE))["maps"].shape == (3, 8, 8, 8)


@pytest.mark.parametrize("engine", ENGINES)
def test_data_beside_the_file_in_a_cache_of_links(tmp_path: Path, engine: str) -> None:
    made = onnx_models.with_external_data(conv_net(tmp_path / "made" / "net.onnx"))
    expected = rows_of(base_of(made), engine, pictures.crops(2, SIZE))["maps"]
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots"
    blobs.mkdir()
    snapshot.mkdir()
    for number, name in enumerate(("net.onnx", "net.data")):
        shutil.move(made.parent / name, blobs / f"{number}")
        (snapshot / name).symlink_to(blobs / f"{number}")
    linked = base_of(snapshot / "net.onnx", {"maps": Tap(pooling="none"), "inner": Tap("conv", "none")})
    np.testing.assert_array_equal(rows_of(linked, engine, pictures.crops(2, SIZE))["maps"], expected)
    assert linked.recipe.weights_sha256 == base_of(snapshot / "net.onnx").recipe.weights_sha256
    (blobs / "1").write_bytes((blobs / "1").read_bytes()[::-1])
    assert linked.recipe.weights_sha256 != base_of(snapshot / "net.onnx").recipe.weights_sha256


def of_whole_batch(path: Path) -> Path:
    """Subtracts the batch's mean."""
    nodes = [
        *conv_nodes(),
        helper.make_node("ReduceMean", ["maps"], ["mean"], axes=[0]),
        helper.make_node("Sub", ["maps", "mean"], ["out"]),
    ]
    return save(path, nodes, arrays(kernel=numbers(8, 3, 4, 4)), ["out"])


def dynamically_quantised(path: Path) -> Path:
    """Its scale is that of the whole batch, as of quantisation without calibration."""
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["image"], ["q", "scale", "zero"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["rounded"]),
        helper.make_node("Conv", ["rounded", "kernel"], ["out"], strides=[4, 4]),
    ]
    return save(path, nodes, arrays(kernel=numbers(8, 3, 4, 4)), ["out"])


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("make", [of_whole_batch, dynamically_quantised])
def test_rows_that_depend_on_others_are_refused(tmp_path: Path, make: Callable[[Path], Path], engine: str) -> None:
    base = base_of(make(tmp_path / "net.onnx"), preprocess=PREPROCESS_WORDS["imagenet"])
    embed = select.open_engine(engine, base, 4)
    with pytest.raises(Unusable, match="another row for an image alone than for the same image in a batch"):
        check_independence(embed, SIZE, SIZE)


def weights_in_int8(path: Path) -> Path:
    kernel = np.clip(np.rint(numbers(8, 3, 4, 4) * 100), -127, 127).astype(np.int8)
    nodes = [helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["kernel"]), *conv_nodes()]
    return save(path, nodes, arrays(q=kernel, scale=np.float32(0.01), zero=np.int8(0)), ["maps"])


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("make", "apart"), [(weights_in_int8, 0.1), (lambda p: conv_net(p, dtype=TensorProto.FLOAT16), 0.05)]
)
def test_weights_of_fewer_digits_run(tmp_path: Path, make: Callable[[Path], Path], apart: float, engine: str) -> None:
    pixels = pictures.crops(3, SIZE)
    base = base_of(make(tmp_path / "net.onnx"), preprocess=Preprocess(1 / 255))
    embed = select.open_engine(engine, base, 4)
    check_independence(embed, SIZE, SIZE)
    np.testing.assert_allclose(embed_all(embed, pixels)["maps"], onnx_models.conv_maps(pixels / 255), atol=apart)


def test_the_engines_are_compared_and_must_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = base_of(token_net(tmp_path / "net.onnx"), {"k": Tap(pooling="mean")})
    embed = select.open_engine("openvino", base, 4)
    assert proof.golden_rows(base, embed)["k"].shape == (1, 12)

    class Wrong:
        batch, provenance = 4, embed.provenance

        def __call__(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
            return {"k": embed(pixels)["k"] * 1.001}

    wrong: Embed = Wrong()
    with pytest.raises(
        Unusable, match=r"openvino and onnxruntime give other rows of .*net\.onnx at output: they differ"
    ):
        proof.golden_rows(base, wrong)
    monkeypatch.setattr(select, "ENGINES", {"openvino": select.ENGINES["openvino"]})
    assert proof.golden_rows(base, wrong)["k"].shape == (1, 12)  # nothing to compare with


def test_a_file_that_takes_too_much_is_refused_or_if_trusted_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    nodes = [
        *conv_nodes(),
        helper.make_node("ConstantOfShape", ["huge"], ["zeros"]),
        helper.make_node("ReduceSum", ["zeros"], ["none"], keepdims=0),
        helper.make_node("Add", ["maps", "none"], ["out"]),
    ]
    initial = arrays(kernel=numbers(8, 3, 4, 4), huge=np.array([40_000_000_000]))
    base = base_of(save(tmp_path / "net.onnx", nodes, initial, ["out"]))
    for engine in ENGINES:
        with pytest.raises(Unusable, match=r"(reading|running) .* (needed more than|failed|crashed)|fits in no memory"):
            select.open_engine(engine, base, 4)
    small = base_of(conv_net(tmp_path / "small.onnx"))
    monkeypatch.setattr("stages.bases.onnx_file.limits", lambda file: Limits(None, 0.01))
    for engine in ENGINES:
        with pytest.raises(Unusable, match="took more than 0 s") as error:
            select.open_engine(engine, small, 4)
        assert "pipeline bases trust" in error.value.hint
    trust.trust_file(small.weights)
    monkeypatch.setattr("stages.bases.onnx_file.limits", lambda file: Limits(100_000_000, 0.01))
    for engine, doing in zip(ENGINES, (f"reading {small.weights} in OpenVINO", "in ONNX Runtime"), strict=True):
        caplog.clear()
        assert select.open_engine(engine, small, 4).batch == 4
        told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
        assert len(told) == 2
        for text, why in zip(told, ("took more than 0 s", "needed more than 0 GB of memory"), strict=True):
            assert doing in text
            assert text.endswith(f"{why}; it goes on since you trust it")


@pytest.mark.parametrize("engine", ENGINES)
def test_what_it_has_not_is_a_sentence(tmp_path: Path, engine: str) -> None:
    path = token_net(tmp_path / "net.onnx")
    with pytest.raises(Unusable, match="has no tensor 'tokenz'") as error:
        select.open_engine(engine, base_of(path, {"k": Tap("tokenz", "none")}))
    assert "similar: tokens" in error.value.hint
    with pytest.raises(Unusable, match="17 tokens of 12 values; pooling: avg has no meaning"):
        rows_of(base_of(path, {"k": Tap()}), engine, pictures.crops(1, SIZE))


def test_what_comes_of_a_file_is_checked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    base = base_of(conv_net(tmp_path / "net.onnx"))
    monkeypatch.setattr(openvino_xml, "ALLOWED", openvino_xml.ALLOWED - {"Convolution"})
    with pytest.raises(Unusable, match="becomes a model with Convolution of opset1, which is more than arithmetic"):
        openvino_files.open_file(base, 4)
    trust.trust_file(base.weights)
    assert openvino_files.open_file(base, 4).batch == 4
    (told,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert told.endswith(
        "becomes a model with Convolution of opset1, which is more than arithmetic; it is run since you trust it"
    )


def test_a_model_s_xml_is_data(tmp_path: Path) -> None:
    file = as_openvino(token_net(tmp_path / "net.onnx"))
    xml, data = file.read_bytes(), file.with_suffix(".bin").read_bytes()
    assert openvino_xml.find_unexpected(xml, data, fixed=False) == []
    assert "that has no size" in openvino_xml.find_unexpected(xml, data)[0]
    changes = {
        b"<!DOCTYPE net>" + xml: "a document type",
        xml[:-20]: "no XML",
        xml.replace(b'version="opset1"', b'version="extension"', 1): "of extension",
        xml.replace(b'type="Concat"', b'type="ReadValue"'): "ReadValue of opset1",
        xml.replace(b'offset="', b'offset="9'): "data from",
    }
    for changed, said in changes.items():
        assert said in ", ".join(openvino_xml.find_unexpected(changed, data, fixed=False)), said
    assert any("indices" in one for one in openvino_xml.find_unexpected(xml, b"\x7f" * len(data), fixed=False))


def test_golden_pixels_are_those_of_the_recipe(tmp_path: Path) -> None:
    base = base_of(conv_net(tmp_path / "net.onnx"), size=(32, 48))
    assert proof.golden_pixels(base.recipe).shape == (32, 48, 3)
    assert proof.is_foreign(base.recipe)
    assert len(proof.golden_id()) == 64
    assert onnx.load(base.weights).graph.name == "net"


@pytest.mark.slow
@pytest.mark.parametrize(("name", "n"), [("efficientnet_lite0", 8), ("resnet50", 2)])
def test_a_base_of_the_catalogue_as_onnx_gives_its_own_rows(tmp_path: Path, name: str, n: int) -> None:
    """To 1e-4 of their scale: Lite0 with its real weights, ResNet50 with random ones."""
    import keras
    import tensorflow as tf
    import tf2onnx

    from stages.keras_models import build

    base, pixels = catalogue.get_base(name), pictures.crops(n, 224)
    keras.utils.set_random_seed(0)
    file = weights.published_path(base) if base.package else tmp_path / "random.weights.h5"
    model = build.build_base(base, file if base.package else None, 224, 224)
    if not base.package:
        model.save_weights(file)
    signature = (tf.TensorSpec((None, 224, 224, 3), tf.float32, name="image"),)
    exported = tmp_path / "net.onnx"
    tf2onnx.convert.from_keras(model, signature, opset=17, inputs_as_nchw=["image"], output_path=exported)
    recipe = Recipe.of(base, weights.digest_of(base, file), PixelSpec(224, 224), "f32", "float32")
    native = embed_all(select.open_engine("openvino", FrozenBase(recipe, {"k": Tap()}, file)), pixels)["k"]
    foreign = base_of(exported, {"k": Tap()}, base.preprocess, (224, 224))
    for engine in ENGINES:
        rows = embed_all(select.open_engine(engine, foreign), pixels)["k"]
        assert np.abs(rows - native).max() <= 1e-4 * np.abs(native).max()
