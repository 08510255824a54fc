"""A head on an ONNX file as one ONNX file: extracted, fitted, written and tried, by the commands."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from stages.runtime.silent_imports import import_openvino
from tests.conftest import command
from tests.support import onnx_models, pictures

CONFIG = """\
data: {split: {val: 0.3, test: 0.2}}
base: {name: m/net.onnx, preprocess: imagenet}
extract:
  {size: [32, 40], fit: crop, resize_to: 44, resize: bicubic, taps: {tokens: {pooling: cls+mean, prefix: 1}}}
heads: {logistic: {tap: tokens}, knn: {kind: knn, k: 3, tap: tokens}}
"""


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A project of photographs of two sizes, on a network of tokens whose data are in another file."""
    onnx_models.with_external_data(onnx_models.token_net(tmp_path / "m" / "net.onnx"))
    for number, pixels in enumerate(pictures.crops(24, 96)):
        path = tmp_path / "images" / ("cat", "cup", "person")[number % 3] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[: 60 + number]).save(path)
    (tmp_path / "pipeline.yaml").write_text(CONFIG)
    return tmp_path / "pipeline.yaml"


def test_it_says_what_the_model_says(foreign: Path, tmp_path: Path) -> None:
    command("run", "-c", foreign, expect=0)
    path = tmp_path / "out" / "model.onnx"
    path.parent.mkdir()
    command("export", "logistic", "-c", foreign, "-o", path, expect=0)
    about = json.loads(path.with_name("model.onnx.json").read_bytes())
    assert about["check"]["images"] == 24
    assert about["check"]["max_difference"] < 1e-5
    assert about["licences"]["weights"] == "not known"
    assert about["input"]["resized_inside"] == [{"size": [32, 40], "fit": "crop", "resize": "bicubic", "resize_to": 44}]
    shapes = about["input"]["shape"], about["output"]["shape"]
    assert shapes == (["n", "height", "width", 3], ["n", 3])
    assert sorted(p.name for p in path.parent.iterdir()) == ["model.onnx", "model.onnx.json"]
    session = onnxruntime.InferenceSession(path)
    files = sorted((foreign.parent / "images").rglob("*.png"))[:2]
    pair = np.stack([np.asarray(Image.open(file))[:60] for file in files])
    both, alone = session.run(None, {"image": pair})[0], session.run(None, {"image": pair[1:]})[0]
    assert np.allclose(both[1], alone[0], atol=1e-6)
    said = command("export", "logistic", "-c", foreign, "-o", tmp_path / "model.keras", expect=2).err
    assert "of which no .keras file can be made, only .onnx" in " ".join(said.split())
    said = command("export", "knn", "-c", foreign, "-o", tmp_path / "knn.onnx", expect=2).err
    assert "is a knn head, which has no layers to write" in said


def test_a_file_of_openvino_has_no_other_form(foreign: Path, tmp_path: Path) -> None:
    openvino = import_openvino()
    openvino.save_model(openvino.Core().read_model(tmp_path / "m" / "net.onnx"), tmp_path / "m" / "net.xml")
    foreign.write_text(CONFIG.replace("net.onnx", "net.xml"))
    command("run", "-c", foreign, expect=0)
    for name in ("model.onnx", "model.keras"):
        said = " ".join(command("export", "logistic", "-c", foreign, "-o", tmp_path / name, expect=2).err.split())
        assert f"net.xml, of which no {name[5:]} file can be made" in said
        assert "train the head on the base's ONNX or Keras file, and export that" in said
        assert not (tmp_path / name).exists()
