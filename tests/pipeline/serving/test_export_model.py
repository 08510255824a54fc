"""A model as one file: it resizes as extraction does, says what the model says, and is there only once it was tried."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
from PIL import Image

from cache import records
from cache.errors import PipelineError, Unusable
from pipeline.project.progress import no_progress
from pipeline.results import registry
from pipeline.results.model import Model
from pipeline.serving import export_check, export_kinds, export_model
from pipeline.serving.export_check import Sample
from stages.bases import catalogue
from stages.bases.recipe import FrozenBase, Tap
from stages.data import augment, images
from stages.data.augment import Augment
from stages.data.images import Fit, PixelSpec, Resize
from stages.export.deployable import Deployable
from stages.heads import average
from stages.heads.fitted import Head, Layer, Layers
from stages.metrics import calibration
from stages.metrics.calibration import apply_temperature
from stages.targets.classes import Classes
from tests.conftest import command, opened

SIZE = 64
N = 12


def photographs(folder: Path) -> None:
    """Crops of two photographs, of all sizes; those of the second brighter; every other one a JPEG."""
    rng = np.random.default_rng(0)
    for label, source in (("cat", skimage.data.chelsea()), ("cup", skimage.data.coffee())):
        (folder / label).mkdir(parents=True)
        for i in range(N):
            height, width = rng.integers(270 if i == 1 else 40, 300, 2)  # a large JPEG is decoded scaled
            y, x = (int(rng.integers(side - n)) for side, n in zip(source.shape, (height, width), strict=False))
            picture = Image.fromarray(source[y : y + height, x : x + width])
            picture.save(folder / label / f"{i}.{'jpg' if i % 2 else 'png'}")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of photographs, EfficientNet-Lite0 at 64 pixels with its own weights, and two heads."""
    folder = tmp_path_factory.mktemp("photographs")
    photographs(folder / "images")
    config = folder / "pipeline.yaml"
    config.write_text(f"""
data: {{split: {{val: 0.2, test: 0.2}}}}
extract: {{size: {SIZE}, taps: {{pooled: {{}}, early: {{layer: block3_add, pooling: max}}}}}}
heads:
  both: {{kind: logistic, C: 1.0e-3, choose: val, unknown: 0.3, tap: [pooled, early]}}
  knn: {{kind: knn, k: 3}}
""")
    with pytest.MonkeyPatch.context() as patched:  # val has seven images
        patched.setattr(calibration, "LEAST_IMAGES", 5)
        patched.setattr(calibration, "LEAST_OF_CLASS", 2)
        command("run", "-c", config, expect=0)
    return config


@pytest.fixture(scope="module")
def made(project: Path) -> tuple[Model, Deployable, list[Sample]]:
    """The logistic head as it lies there, ready to be written."""
    today = opened(project)
    model = registry.find(today.folder, "both")
    deployable = export_model.load_deployable(today, model)
    return model, deployable, export_check.choose_samples(today, model, deployable)


def resizing(spec: PixelSpec) -> Callable[[np.ndarray], np.ndarray]:
    import keras

    from stages.export import resize

    image = keras.Input((None, None, 3), dtype="uint8")
    network = keras.Model(image, resize.resize_to_fit(image, spec))
    return lambda pixels: np.asarray(network(pixels[None])[0])


@pytest.mark.parametrize("resize", ["bilinear", "bicubic", "keras"])
@pytest.mark.parametrize("fit", ["squash", "crop", "pad", "crop of 101"])
def test_resizing_is_that_of_extraction(fit: str, resize: Resize) -> None:
    """To the bit: up, down, odd, halved, wide, and tall on both sides of where Pillow takes rows first; of noise."""
    resize_to = 101 if fit == "crop of 101" else None
    named: Fit = "crop" if resize_to else fit  # type: ignore[assignment]
    spec, rng = PixelSpec(64, 96, named, resize, "full", resize_to=resize_to), np.random.default_rng(1)
    resized = resizing(spec)
    sizes = [(64, 96), (128, 64), (301, 451), (37, 200), (700, 33), (20, 20), (1, 1), (3, 400), (65, 130)]
    sizes += [(128, 192), (256, 384), (448, 448), (320, 224), (321, 224), (1000, 150), (150, 1000)]
    for height, width in sizes:
        pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        found = resized(pixels)
        expected = np.asarray(images._fit(Image.fromarray(pixels), spec), np.float32)
        assert found.shape == expected.shape
        assert np.array_equal(found, expected), (height, width)


def test_a_network_is_base_tail_taps_and_head(made: tuple[Any, Deployable, Any]) -> None:
    """A fine-tuned base, maps and vectors joined, BGR, hidden layers, three classes, a temperature."""
    from stages.export import keras_network

    rng = np.random.default_rng(2)
    taps = (Tap("output", "none"), Tap("block15_add"))
    recipe = replace(
        made[1].bases[0].recipe,
        pixels=PixelSpec(SIZE, 96, "crop"),
        preprocess=catalogue.get_base("vgg16").preprocess,
        dtype="float32",
    )
    wide = 2 * 3 * 1280 + 192
    hidden = Layer(rng.normal(size=(wide, 8)) / 60, rng.normal(size=8), "tanh")
    head = Head("dense", Classes("abc"), Layers([hidden, Layer(rng.normal(size=(8, 3)), np.zeros(3))]), {})
    tail = {"head_conv/0": rng.normal(size=(1, 1, 320, 1280)).astype(np.float32) / 20}
    base = FrozenBase(recipe, {"0": taps[0], "1": taps[1]}, made[1].bases[0].weights)
    deployable = Deployable((base,), head, 1.5, tail)
    pixels = images.decode(Path(made[2][0].place).read_bytes(), None)
    fitted = np.asarray(images._fit(Image.fromarray(pixels), recipe.pixels))[None]
    found = np.asarray(
        keras_network.build_network(deployable)(np.concatenate([fitted, fitted]))
    )  # of their size: no rounding differs
    assert found.shape == (2, 3)
    assert np.abs(found - deployable.open()([fitted])).max() < 1e-3
    assert np.abs(found - replace(deployable, tail={}).open()([fitted])).max() > 1e-2


def test_a_model_of_two_sizes_is_one_network(made: tuple[Any, Deployable, Any]) -> None:
    """Whose inputs are joined in the order of the head's taps, not of the bases."""
    from stages.export import keras_network

    first = replace(made[1].bases[0], taps={"0": Tap(), "2": Tap("block3_add")})
    recipe = replace(first.recipe, pixels=PixelSpec(2 * SIZE, SIZE, "pad"))
    second = replace(first, recipe=recipe, taps={"1": Tap("block3_add", "max")})
    rng = np.random.default_rng(3)
    layer = Layer(rng.normal(size=(1280 + 2 * 24, 2)), np.zeros(2))
    deployable = Deployable(
        (first, second),
        Head("ridge", Classes("abc"), Layers([layer, Layer(rng.normal(size=(2, 3)), np.zeros(3))]), {}),
    )
    pixels = images.decode(Path(made[2][0].place).read_bytes(), None)
    fitted = [np.asarray(images._fit(Image.fromarray(pixels), base.recipe.pixels))[None] for base in (first, second)]
    found = np.asarray(keras_network.build_network(deployable)(pixels[None]))
    assert np.abs(found - deployable.open()(fitted)).max() < 1e-3


def test_an_average_is_the_mean_over_members_and_views(made: tuple[Any, Deployable, Any]) -> None:
    from stages.export import keras_network

    rng, heads, tails = np.random.default_rng(2), [], []
    for _ in range(2):
        layers = Layers([Layer(rng.normal(size=(192, 1)) / 9, rng.normal(size=1))])
        heads.append(Head("logistic", Classes("ab"), layers, {}))
        tails.append({"block15_project_conv/0": rng.normal(size=(1, 1, 1152, 192)).astype(np.float32) / 9})
    head, tail = average.join(list(zip(heads, tails, strict=True)), {})
    base, elements = replace(made[1].bases[0], taps={"0": Tap("block15_add")}), ((0, False), (1, True))
    several = Deployable((base,), head, 1.5, tail, elements)
    pixels = images.decode(Path(made[2][0].place).read_bytes(), replace(base.recipe.pixels, decode="full"))[None]
    said = several.open()([pixels])
    assert np.abs(np.asarray(keras_network.build_network(several)(pixels)) - said).max() < 1e-3
    views = np.concatenate([augment.turn(pixels, element) for element in elements])
    alone = [
        replace(several, head=head, tail=tail, elements=elements[:1], temperature=1.0).open()([views])
        for head, tail in zip(heads, tails, strict=True)
    ]
    assert np.abs(apply_temperature(np.mean(alone, axis=(0, 1))[None], 1.5) - said).max() < 1e-5
    assert np.abs(apply_temperature(alone[0][:1], 1.5) - said).max() > 1e-2


def test_a_view_in_a_network_is_that_of_extraction() -> None:
    from stages.export import keras_network

    pixels = np.random.default_rng(0).random((2, 5, 5, 3), np.float32)
    for element in Augment("both", turns=True).elements():
        assert np.array_equal(keras_network.turned(pixels, element), augment.turn(pixels, element)), element


@pytest.mark.parametrize("kind", ["keras", "onnx"])
def test_what_is_written_says_what_the_model_says(project: Path, tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"model.{kind}"
    ran = command("export", "head/both", "-c", project, "--format", kind, "--output", path, "--json", expect=0)
    about = json.loads((tmp_path / f"model.{kind}.json").read_bytes())
    assert {**about, "file": str(path)} == ran.json["written"]
    assert sorted(p.name for p in tmp_path.iterdir()) == [path.name, f"{path.name}.json"]
    assert about["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert about["check"]["images"] == 2 * N
    assert about["check"]["max_difference"] <= 1e-5  # which a pixel that is a level off would show
    assert about["check"]["decode_scaled_adds"] > 1e-6
    assert about["check"]["runtime"].startswith({"keras": "keras ", "onnx": "onnxruntime "}[kind])
    assert (about["classes"], about["positive_class"]) == (["cat", "cup"], "cup")
    assert (about["input"]["name"], about["output"]["name"]) == ("image", "probabilities")
    assert about["input"]["shape"] == ["n", "height", "width", 3]
    assert about["unknown"]["rate"] == 0.3
    assert about["unknown"]["output"]["name"] == "unknown_score"
    assert about["check"]["max_difference_unknown"] <= 1e-3
    if kind == "onnx":
        outputs = {"probabilities": ["n", 2], "unknown_score": ["n"]}
        assert names_of(path) == ({"image": ["n", "height", "width", 3]}, outputs)
    assert about["licences"] == {"weights": "Apache-2.0", "data": "not known"}
    model = registry.find(project.parent, "both")
    assert about["model"] == {"name": "head/both", "key": model.key, "kind": "logistic"}
    fitted = model.calibration
    assert about["temperature"] == fitted.temperature
    with np.load(model.folder / "predictions.npz") as stored:
        before = stored["probabilities"]
    after = apply_temperature(before, about["temperature"])
    assert np.array_equal(after[:, 1] >= about["threshold"], before[:, 1] >= fitted.threshold)
    again = command("export", "both", "-c", project, "--format", kind, "--output", path)
    assert (again.code, "is there already" in again.err) == (2, True)


def names_of(file: Path) -> tuple[dict[str, list[Any]], ...]:
    """Shapes of an ONNX file's inputs and outputs, by name."""
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return tuple({part.name: part.shape for part in parts} for parts in (session.get_inputs(), session.get_outputs()))


def test_the_kind_of_file_is_that_of_its_name(project: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    ran = command("export", "both", "-c", project, "-o", path, "--json", expect=0)
    assert ran.json["written"]["format"] == "keras"
    for name in ("model", "model.h5"):
        ran = command("export", "both", "-c", project, "-o", tmp_path / name)
        assert (ran.code, "expected a name that ends in .keras, .onnx or .xml" in ran.err) == (2, True)
    ran = command("export", "both", "-c", project, "-o", path, "--force", "--format", "onnx")
    assert (ran.code, "expected the name of a file that ends in .onnx" in ran.err) == (2, True)


def test_a_file_that_says_something_else_is_never_there(made: Any, tmp_path: Path) -> None:
    """One of its two taps is left out."""
    model, deployable, tried_on = made
    (layer,) = deployable.head.layers
    head = replace(deployable.head, form=Layers([replace(layer, weights=layer.weights[1280:])]))
    (base,) = deployable.bases
    wrong = replace(deployable, bases=(replace(base, taps={"0": base.taps["1"]}),), head=head, unknown=None)
    path = tmp_path / "model.onnx"
    path.write_bytes(b"mine")
    with pytest.raises(PipelineError, match="the file is not the model: of 2 images, a probability differs by up to"):
        export_model.write_checked(model, wrong, tried_on[:2], "onnx", path, no_progress)
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [(path.name, b"mine")]


def test_a_file_that_no_program_can_use_is_never_there(made: Any, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no model")
    with open(tmp_path / "log", "w+b") as log, pytest.raises(PipelineError, match="no other program can use the file"):
        export_check.check_file(tmp_path / "model.onnx", made[1], made[2], log, lambda n: None)


def test_the_process_that_runs_it_sees_the_packages_of_this_one(
    made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever they are: on PYTHONPATH, among the user's own, or in a folder that was added since the start."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "onnxruntime.py").write_text("__version__ = 'of this path'\nraise SystemExit(__version__)")
    (tmp_path / "model.onnx").write_bytes(b"no model")
    with open(tmp_path / "log", "w+b") as log, pytest.raises(PipelineError, match="of this path"):
        export_check.check_file(tmp_path / "model.onnx", made[1], made[2], log, lambda n: None)


def test_a_package_that_it_lacks_is_no_fault_of_the_file(
    made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "onnxruntime.py").write_text("import a_library_that_is_not_here")
    with open(tmp_path / "log", "w+b") as log, pytest.raises(PipelineError, match="cannot be tested") as caught:
        export_check.check_file(tmp_path / "model.onnx", made[1], made[2], log, lambda n: None)
    assert "No module named 'a_library_that_is_not_here'" in caught.value.message
    assert sys.executable in caught.value.hint


def test_the_process_that_tries_it_cannot_import_this_package() -> None:
    program = f"import runpy; runpy.run_path({str(export_check._RUNNER)!r})['block_own_packages'](); import stages"
    done = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True)
    assert done.returncode == 1
    assert "import of stages halted" in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("knn", "--format", "keras", "--output", "m.keras"), "is a knn head, which has no layers to write"),
        (("both", "--format", "keras", "--output", "m.onnx"), "expected the name of a file that ends in .keras"),
        (("nobody", "--format", "keras", "--output", "m.keras"), "no model 'nobody'"),
        (
            ("both", "--format", "keras", "--output", "m.keras", "--set", "extract.size=32"),
            "keeps the settings it was made",
        ),
        (("both", "--format", "pickle", "--output", "m.pickle"), "'pickle' is not one of"),
        (("--format", "keras", "--output", "m.keras"), "Missing argument 'MODEL'"),
    ],
)
def test_what_cannot_be_written_is_exit_2(project: Path, words: tuple[str, ...], message: str) -> None:
    ran = command("export", *words, *(() if words[0] == "--format" else ("-c", project)))
    assert ran.code == 2
    assert message in ran.err


def test_rows_that_others_would_round_otherwise_are_exit_2(made: Any) -> None:
    model, deployable, _ = made
    (base,) = deployable.bases
    rounded = replace(base, recipe=replace(base.recipe, numerics="tensorflow-bf16"))
    with pytest.raises(Unusable, match="takes tensorflow-bf16 rows, which other programs round differently"):
        export_kinds.check_model(model, replace(deployable, bases=(rounded,)), "onnx")


def test_without_any_original_image_it_is_exit_4(project: Path, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    shutil.copy(project.parent / "images" / "cat" / "0.png", tmp_path / "images")
    Image.open(tmp_path / "images" / "0.png").rotate(90).save(tmp_path / "images" / "0.png")
    for folder, reason in (("images", "none of the 24 images of head/both"), ("nowhere", "is not there")):
        ran = command("export", "both", "-c", project, "--format", "keras", "--output", tmp_path / "m.keras",
                      "--set", f"data.root={tmp_path / folder}")  # fmt: skip
        assert ran.code == 4, ran.err
        assert reason in ran.err
    assert not (tmp_path / "m.keras").exists()


def test_a_model_with_pickled_arrays_is_not_trusted(project: Path, tmp_path: Path) -> None:
    """Nor is a pickle loaded: np.load would run what is in it."""
    shutil.copytree(project.parent / "models", tmp_path / "models")
    shutil.copy(project, tmp_path)
    model = registry.find(tmp_path, "both")
    np.savez(model.folder / "head.npz", layer0_weights=np.array([{}], dtype=object), layer0_bias=np.zeros(1))
    files = {**model.record["files"], "head.npz": hashlib.sha256((model.folder / "head.npz").read_bytes()).hexdigest()}
    (model.folder / "record.json").write_bytes(records.dump({**model.record, "files": files}))
    output = ("--format", "keras", "--output", tmp_path / "m.keras")
    for words in (("export", "both", *output), ("predict", "both", project.parent / "images")):
        assert "are not trusted" in command(*words, "-c", tmp_path, expect=2).err


def test_help_tells_of_both_spellings() -> None:
    told = command("export", "-h").out
    assert "pipeline export head/logistic -o model.onnx" in told
    assert "pipeline export features -o features.parquet" in told
    assert command("export", "head/any", "--help").out == command("export", "MODEL", "-h").out
