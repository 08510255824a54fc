"""export_model.py: files of heads on labels, numbers and shares say what `predict` and the heads' arrays say."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

import pipeline as frozenbase
from cache.errors import PipelineError
from pipeline.results import registry
from pipeline.serving import export_check, export_kinds, export_model
from pipeline.serving.export_kinds import Kind
from stages.export.deployable import Deployable
from stages.heads.fitted import Head, Layer, Layers
from stages.runtime.silent_imports import import_openvino
from stages.targets.labels import Labels
from stages.targets.numbers import Numbers
from stages.targets.soft import Soft
from stages.targets.target import Target
from tests.conftest import command, opened
from tests.support import other_targets, own_models
from tests.support.other_targets import NAMES

TRUST = ("--set", "base.trust=true")
WORDS = {
    "labels": "for each label, in the order of `classes`, its probability",
    "numbers": "for each number, in the order of `classes`, its value in its unit",
    "shares": "for each class, in the order of `classes`, its probability after the temperature; they sum to 1",
}


SPREAD = np.array([100.0, 1.0])
"""About the standard deviations of the two numbers."""


class Made(NamedTuple):
    """A project on that target with a head; of numbers also a network with a hidden layer, and a fine-tuned model."""

    target: str
    config: Path

    @property
    def images(self) -> Path:
        return self.config.parent.parent / "images"

    def predict(self, name: str) -> np.ndarray:
        """What `pipeline predict` says of all images."""
        found = command("predict", name, self.images, "-c", self.config, "--json", *TRUST, expect=0).json["predict"]
        if self.target == "numbers":
            return np.array([[row[f"predicted_{of}"] for of in NAMES["numbers"]] for row in found["predictions"]])
        return np.array([[row["probabilities"][of] for of in NAMES[self.target]] for row in found["predictions"]])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model of random weights, and pictures of its size, since OpenVINO rounds others otherwise."""
    folder = tmp_path_factory.mktemp("place")
    own_models.cnn().save(folder / "cnn.keras")
    other_targets.write_table(folder, own_models.SIZE)
    return folder


@pytest.fixture(scope="module", params=WORDS)
def made(request: pytest.FixtureRequest, place: Path) -> Made:
    target = request.param
    deep = ", deep: {kind: dense, choose: val, units: [4], epochs: 2}" if target == "numbers" else ""
    more = f"""\
heads: {{first: {{kind: {other_targets.linear(target)}}}{deep}, near: {{kind: knn}}}}
finetune: {{last: {{head: first, unfreeze_from: s2_1_conv, lr: 1.0e-3, epochs: 1, batch: 8}}}}
"""
    config = other_targets.write_on_network(place, target, own_models.SIZE, more)
    command("run", "-c", config, *TRUST, expect=0)
    return Made(target, config)


def open_keras(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    import keras

    network = keras.saving.load_model(path, compile=False)
    several = len(network.outputs) > 1  # behind predictions, scores as unknown
    return lambda pixels: np.asarray(network(pixels)[0] if several else network(pixels))


def open_onnx(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda pixels: np.asarray(session.run(None, {"image": pixels})[0])


def open_xml(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    network = import_openvino().Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda pixels: np.asarray(network([pixels])[0])


OPEN: dict[Kind, Callable[[Path], Callable[[np.ndarray], np.ndarray]]] = {
    "keras": open_keras,
    "onnx": open_onnx,
    "xml": open_xml,
}


def answers(kind: Kind, path: Path, images: Path) -> np.ndarray:
    """What the file says of whole pictures, a batch of several at once."""
    pixels = np.stack([np.asarray(Image.open(file)) for file in sorted(images.iterdir())])
    run = OPEN[kind](path)
    return np.concatenate([run(pixels[:20]), run(pixels[20:])])


def assert_same(made: Made, found: np.ndarray, expected: np.ndarray) -> None:
    """To the tolerance of the documentation and, since nothing here is rounded, nearly that of float32."""
    wrong = np.abs(found - expected) / (SPREAD if made.target == "numbers" else 1)
    assert wrong.max() < 2e-5 < export_check.LIMIT


def written(made: Made, kind: Kind, name: str, path: Path) -> Path:
    """Without the test in a fresh process."""
    today = opened(made.config, "base.trust=true")
    model = registry.find(today.folder, name)
    export_kinds.write(export_model.load_deployable(today, model), kind, path)
    return path


@pytest.mark.parametrize("kind", ["keras", "xml"])
def test_a_file_says_what_predict_and_the_arrays_say(made: Made, tmp_path: Path, kind: Kind) -> None:
    found = answers(kind, written(made, kind, "first", tmp_path / f"model.{kind}"), made.images)
    assert found.dtype == np.float32
    assert_same(made, found, made.predict("first"))
    X, _, ids = frozenbase.open(made.config).features(compute=False)
    paths = {row.id: row.path for row in frozenbase.open(made.config).manifest}
    model = registry.find(made.config.parent, "first")
    by_hand = other_targets.by_hand(made.target, made.config.parent, model.folder, X)
    order = np.argsort([paths[i] for i in ids])
    assert_same(made, found, by_hand[order])
    if made.target == "labels":
        assert np.ptp(found.sum(axis=1)) > 0.1, "labels are independent"
    if made.target == "shares":
        assert found.sum(axis=1) == pytest.approx(np.ones(len(found)), abs=1e-5)


def learnt_numbers(made: Made) -> np.ndarray:
    """Those of the table that are not in test."""
    splits = other_targets.splits_of(made.config.parent)
    return other_targets.truth_of("numbers", made.config.parent, [path for path in splits if splits[path] != "test"])


def test_its_json_says_what_the_answers_are(made: Made, tmp_path: Path) -> None:
    ran = command("export", "first", "-c", made.config, "-o", tmp_path / "model.onnx", *TRUST, expect=0)
    about = json.loads((tmp_path / "model.onnx.json").read_bytes())
    number = made.target == "numbers"
    name = "numbers" if number else "probabilities"
    assert about["classes"] == NAMES[made.target]
    assert about["output"] == {
        "name": name,
        "dtype": "float32",
        "shape": ["n", 3 - number],
        "words": WORDS[made.target],
    }
    assert (about["positive_class"], about["threshold"], about["temperature"]) == (None, None, 1.0)
    fitted = registry.find(made.config.parent, "first").metrics["calibration"]
    assert about.get("half_widths") == (fitted["half_widths"] if number else None)
    assert about.get("thresholds") == (fitted["thresholds"] if made.target == "labels" else None)
    kind = {"labels": "labels", "numbers": "number", "shares": "soft"}[made.target]
    assert about["target"]["kind"] == kind
    if number:
        truth = learnt_numbers(made)
        assert about["target"]["units"] == ["lx", "m"]
        assert about["target"]["centre"] == pytest.approx(truth.mean(axis=0))
        assert about["target"]["scale"] == pytest.approx(truth.std(axis=0))
    assert (about["check"]["images"], about["check"]["limit"]) == (32, 0.005)
    said = f"predictions differ by at most {about['check']['max_difference']:.1e}"
    assert f"{said}{' standard deviations' if number else ''}\n" in ran.out
    assert_same(made, answers("onnx", tmp_path / "model.onnx", made.images), made.predict("first"))


@pytest.mark.parametrize("made", ["numbers"], indirect=True)
@pytest.mark.parametrize(("name", "kind"), [("deep", "keras"), ("finetune/last", "onnx")])
def test_a_network_with_a_hidden_layer_and_a_fine_tuned_model(
    made: Made, tmp_path: Path, name: str, kind: Kind
) -> None:
    command("run", "finetune", "-c", made.config, *TRUST, expect=0)
    path = written(made, kind, name, tmp_path / f"model.{kind}")
    assert_same(made, answers(kind, path, made.images), made.predict(name))


def sigmoid(scores: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-scores)))


def softmax(logits: np.ndarray) -> np.ndarray:
    return np.asarray(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True))


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize(
    "target", [Labels("ab"), Numbers("ab", (1e3, 0.0), (50.0, 2.0)), Soft("abc")], ids=lambda t: t.kind
)
def test_an_average_is_the_mean_of_what_members_say(target: Target, members: int) -> None:
    """Of shares then at the temperature, which labels and numbers have none of."""
    import keras

    from stages.export import keras_network

    rng, row = np.random.default_rng(0), keras.Input((4,))
    layers = [Layer(rng.normal(size=(4, len(target))), rng.normal(size=len(target))) for _ in range(members)]
    heads = [Head("ridge", target, Layers([layer]), {}) for layer in layers]
    said = [keras_network.head_function(head, f"h{i}")({"0": row}) for i, head in enumerate(heads)]
    temperature = 1.7 if target.exclusive else 1.0
    network = keras.Model(row, keras_network.predictions(said, Deployable((), heads[0], temperature)))
    x = rng.normal(size=(5, 4))
    found, scores = np.asarray(network(x)), np.stack([x @ layer.weights + layer.bias for layer in layers])
    if target.kind == "labels":
        expected = sigmoid(scores).mean(axis=0)
    elif target.kind == "number":
        expected = 1e3 * np.array([1, 0]) + scores.mean(axis=0) * np.array([50, 2])
    else:
        expected = softmax(np.log(np.mean([softmax(one) for one in scores], axis=0)) / 1.7)
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("made", ["numbers"], indirect=True)
def test_numbers_are_held_to_the_limit_in_standard_deviations(made: Made, tmp_path: Path) -> None:
    """0.4 lx are within it, and 5 are not."""
    today = opened(made.config, "base.trust=true")
    model = registry.find(today.folder, "first")
    deployable = export_model.load_deployable(today, model)
    samples = export_check.choose_samples(today, model, deployable)[:2]
    path = written(made, "onnx", "first", tmp_path / "model.onnx")

    def check(off: float) -> float:
        moved = [
            replace(sample, expected=sample.expected + off * np.eye(1, len(sample.expected))[0]) for sample in samples
        ]
        with (tmp_path / "log").open("w+b") as log:
            return float(export_check.check_file(path, deployable, moved, log, lambda n: None)["max_difference"])

    assert check(0.4) == pytest.approx(0.4 / learnt_numbers(made)[:, 0].std(), rel=0.01)
    with pytest.raises(PipelineError, match=r"a number, in standard deviations, differs by up to 0\.04"):
        check(5.0)


@pytest.mark.parametrize("made", ["numbers"], indirect=True)
@pytest.mark.parametrize(
    ("name", "suffix", "message"),
    [
        ("near", "onnx", "is a knn head, which has no layers to write"),
        ("finetune/last", "xml", "has blocks of the base that were trained, of which no .xml file can be made"),
    ],
)
def test_what_cannot_be_written_is_one_sentence(
    made: Made, tmp_path: Path, name: str, suffix: str, message: str
) -> None:
    command("run", "finetune", "-c", made.config, *TRUST, expect=0)
    ran = command("export", name, "-c", made.config, "-o", tmp_path / f"m.{suffix}", *TRUST, expect=2)
    assert message in " ".join(ran.err.split())
    assert not list(tmp_path.iterdir())
