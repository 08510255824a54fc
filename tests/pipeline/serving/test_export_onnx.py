"""A head on an ONNX file as one ONNX file: extracted, fitted, written and tried, by the commands."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from PIL import Image

from cache.errors import Unusable
from stages.export import onnx_join
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
    assert "of which no .keras file can be made, only .onnx or .xml" in " ".join(said.split())
    said = command("export", "knn", "-c", foreign, "-o", tmp_path / "knn.onnx", expect=2).err
    assert "is a knn head, which has no layers to write" in said


def test_above_protobuf_s_limit_its_weights_are_beside_it(
    foreign: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command("run", "-c", foreign, expect=0)
    monkeypatch.setattr(onnx_join, "MOST_BYTES", 3000)
    path = tmp_path / "large.onnx"
    monkeypatch.setattr("pipeline.show.progress._EVERY_S", 0)
    told = command("export", "logistic", "-c", foreign, "-o", path, expect=0)
    assert "large.onnx.data (" in told.out
    for step in ("computing the predictions of 24 images: 1 of 1", "writing large.onnx: 1 of 1", "testing it in a"):
        assert step in told.err
    about = json.loads(path.with_name("large.onnx.json").read_bytes())
    data = path.with_name("large.onnx.data").read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    assert about["data"] == {"file": "large.onnx.data", "bytes": len(data), "sha256": digest}
    assert about["check"]["max_difference"] < 1e-5
    said = command("export", "logistic", "-c", foreign, "-o", path, expect=2).err
    assert "large.onnx is there already" in said
    old = onnx.load(foreign.parent / "m" / "net.onnx", load_external_data=False)
    old.opset_import[0].version = 11
    (foreign.parent / "m" / "net.onnx").write_bytes(old.SerializeToString())
    command("run", "-c", foreign, "--set", "extract.engine=onnxruntime", "--json")
    with pytest.raises(Unusable, match=r"above 2 GB they cannot be raised to 13, which the exported file has"):
        onnx_join.check_files([foreign.parent / "m" / "net.onnx"])


def test_a_head_on_a_file_of_openvino_is_written_as_one(foreign: Path, tmp_path: Path) -> None:
    openvino = import_openvino()
    openvino.save_model(openvino.Core().read_model(tmp_path / "m" / "net.onnx"), tmp_path / "m" / "net.xml")
    foreign.write_text(CONFIG.replace("net.onnx", "net.xml"))
    command("run", "-c", foreign, expect=0)
    for name in ("model.onnx", "model.keras"):
        said = " ".join(command("export", "logistic", "-c", foreign, "-o", tmp_path / name, expect=2).err.split())
        assert f"net.xml, of which no {name[5:]} file can be made, only .xml (OpenVINO) name it model.xml" in said
        assert not (tmp_path / name).exists()
    path = tmp_path / "out" / "model.xml"
    path.parent.mkdir()
    command("export", "logistic", "-c", foreign, "-o", path, expect=0)
    assert sorted(p.name for p in path.parent.iterdir()) == ["model.bin", "model.xml", "model.xml.json"]
    about = json.loads(path.with_name("model.xml.json").read_bytes())
    assert about["data"]["sha256"] == hashlib.sha256(path.with_suffix(".bin").read_bytes()).hexdigest()
    assert about["check"]["max_difference"] < 5e-3
    assert about["check"]["settings"] == {"INFERENCE_PRECISION_HINT": "f32"}
    assert about["input"]["shape"] == [1, "height", "width", 3]
