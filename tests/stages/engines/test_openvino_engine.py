"""openvino_engine.py: a model is made once for each batch and taps, and later found without TensorFlow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cache.errors import PipelineError
from stages.bases.recipe import FrozenBase, Tap
from stages.engines import openvino_engine
from stages.engines.openvino_engine import OpenVINOEmbed
from tests.support import fakes
from tests.support.networks import SIZE, recipe
from tests.support.pictures import crops
from tests.support.process import run

BOTH = {"avg": Tap(), "max": Tap("output", "max")}


def test_two_taps_of_one_tensor_keep_their_names(files: Any) -> None:
    taps = {"z": Tap("block3_add", "none"), "a": Tap("block3_add", "none", "float16"), "m": Tap()}
    base = FrozenBase(recipe("efficientnet_lite0"), taps, files("efficientnet_lite0"))
    model = openvino_engine.converted_model(base, 8)
    rows = OpenVINOEmbed(model, "f32", 8)(crops(1, SIZE))
    assert {name: r.shape[1:] for name, r in rows.items()} == {"z": (24, 24, 24), "a": (24, 24, 24), "m": (1280,)}


def test_another_batch_or_tap_is_another_model(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[int, list[str]]] = []

    def convert(base: FrozenBase, batch: int) -> dict[str, bytes]:
        made.append((batch, sorted(base.taps)))
        return {"model.xml": b"<net/>", "model.bin": b""}

    monkeypatch.setattr(openvino_engine, "_convert", convert)
    lite0 = recipe("efficientnet_lite0")
    for batch, taps in ((8, BOTH), (8, BOTH), (4, BOTH), (8, {"avg": Tap()})):
        openvino_engine.converted_model(FrozenBase(lite0, taps, Path("w")), batch)
    assert made == [(8, sorted(BOTH)), (4, sorted(BOTH)), (8, ["avg"])]


def test_once_converted_rows_are_made_without_tensorflow_and_without_telemetry(tmp_path: Path) -> None:
    """Also for predict, which keeps nothing. OpenVINO's own telemetry would make ~/intel."""
    fakes.two_classes(tmp_path / "images", 8)
    (tmp_path / "home").mkdir()
    config, log = tmp_path / "pipeline.yaml", tmp_path / "log"
    config.write_text("extract: {size: 32, engine: openvino}\ndata: {split: {val: 0.3}}\n")
    out, _ = run("run", "-c", config, "--json", FAKE="", HOME=str(tmp_path / "home"))
    assert json.loads(out)["extract"]["engine"] == "openvino"
    new = tmp_path / "images" / "dark" / "new.png"
    new.write_bytes(fakes.textured(99, bright=False))
    for words in (["predict", "logistic", new, "-c", config], ["run", "extract", "-c", config]):
        out, _ = run(*words, "--json", FAKE="", WATCH=str(log))
        assert json.loads(out)[words[0].replace("run", "extract")]["computed"] == 1
        assert json.loads(log.read_text().splitlines()[-1]) == ["imported"]
    assert list((tmp_path / "home").glob("intel*")) == []


def test_a_model_that_openvino_cannot_write_is_said_to_be(tmp_path: Path) -> None:
    import openvino
    from openvino import opset13

    inputs = opset13.parameter([1, 8], np.float32)
    model = openvino.Model([opset13.relu(inputs)], [inputs])
    (tmp_path / "model.bin").mkdir()
    with pytest.raises(PipelineError, match=f"to {tmp_path}, among the temporary") as caught:
        openvino_engine.save(openvino, model, tmp_path / "model.xml")
    assert "TMPDIR" in caught.value.hint
