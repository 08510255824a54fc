"""openvino_convert.py, compiled_models.py: made once, kept whole, found without TensorFlow, taken by gc."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cache import compiled_models, gc
from cache.errors import PipelineError
from cache.hash_index import HashIndex
from cache.store import Cache
from stages.bases.recipe import Recipe, Tap
from stages.engines import openvino_convert
from stages.engines.openvino_engine import OpenVINOEmbed
from tests.support import crash, fakes
from tests.support.networks import SIZE, recipe
from tests.support.pictures import crops
from tests.support.process import run

BOTH = {"avg": Tap(), "max": Tap("output", "max")}


def test_two_taps_of_one_tensor_keep_their_names(files: Any, tmp_path: Path) -> None:
    taps = {"z": Tap("block3_add", "none"), "a": Tap("block3_add", "none", "float16"), "m": Tap()}
    model = openvino_convert.converted_model(
        recipe("efficientnet_lite0"), taps, files("efficientnet_lite0"), 8, [tmp_path]
    )
    rows = OpenVINOEmbed(model, "f32", 8)(crops(1, SIZE))
    assert {name: r.shape[1:] for name, r in rows.items()} == {"z": (24, 24, 24), "a": (24, 24, 24), "m": (1280,)}


def test_another_batch_or_tap_is_another_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[int, list[str]]] = []

    def convert(recipe: Recipe, taps: Any, weights: Path, batch: int) -> dict[str, bytes]:
        made.append((batch, sorted(taps)))
        return {"model.xml": b"", "model.bin": b""}

    monkeypatch.setattr(openvino_convert, "_convert", convert)
    lite0 = recipe("efficientnet_lite0")
    for batch, taps in ((8, BOTH), (8, BOTH), (4, BOTH), (8, {"avg": Tap()})):
        openvino_convert.converted_model(lite0, taps, Path("w"), batch, [tmp_path])
    assert made == [(8, sorted(BOTH)), (4, sorted(BOTH)), (8, ["avg"])]


def test_a_damaged_or_foreign_model_is_never_served(tmp_path: Path) -> None:
    cache, ours, theirs = Cache(tmp_path, HashIndex()), {"base": "ours"}, {"base": "theirs"}
    for components in (ours, theirs):
        compiled_models.store(cache, components, {"model.xml": str(components).encode(), "model.bin": b"weights"})
    assert compiled_models.read(tmp_path, ours) == {"model.xml": str(ours).encode(), "model.bin": b"weights"}
    mine, other = sorted((tmp_path / "converted").iterdir(), key=lambda folder: "ours" not in str(record_of(folder)))
    (mine / "model.bin").write_bytes(b"weighty")
    assert compiled_models.read(tmp_path, ours) is None
    assert [Path(path) for path, _ in compiled_models.verify(cache)] == [mine]
    shutil.rmtree(mine)
    shutil.copytree(other, mine)
    assert compiled_models.read(tmp_path, ours) is None
    assert compiled_models.read(tmp_path, theirs) is not None


def record_of(folder: Path) -> Any:
    return json.loads((folder / "record.json").read_text())


def test_gc_counts_converted_models_and_takes_them_by_age(tmp_path: Path) -> None:
    cache = Cache(tmp_path, HashIndex())
    compiled_models.store(cache, {"base": "x"}, {"model.xml": b"x" * 100})
    (entry,) = [entry for entry in gc.list_entries(cache) if entry.kind == "converted"]
    assert entry.bytes > 100
    assert gc.choose_surplus([entry], [], 60, None, entry.used + 30) == []
    going = gc.choose_surplus([entry], [], 60, None, entry.used + 90)
    assert list(gc.remove_entries(going, set)) == [entry]
    assert not entry.path.exists()


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


@pytest.mark.parametrize("room", range(0, 1200, 100))
def test_on_a_full_disk_a_model_is_kept_whole_or_not_at_all(
    fast_path: Path, room: int, caplog: pytest.LogCaptureFixture
) -> None:
    cache, components = Cache(fast_path, HashIndex()), {"base": "b"}
    model = {"model.xml": b"x" * 300, "model.bin": b"b" * 300}
    cache.prepare()
    with crash.standing(crash.Shim(crash.full_after(room))), caplog.at_level("INFO"):
        compiled_models.store(cache, components, model)
    found = {path.name: path.read_bytes() for path in fast_path.glob("converted/*/*") if path.name != "record.json"}
    assert found in ({}, model)
    assert (compiled_models.read(fast_path, components) == model) == bool(found)
    assert ("No space left on device" in caplog.text) != bool(found)
    assert [*fast_path.rglob(".*.tmp")] == []
    compiled_models.store(cache, components, model)
    assert compiled_models.read(fast_path, components) == model


def test_a_model_that_openvino_cannot_write_is_said_to_be(tmp_path: Path) -> None:
    import openvino
    from openvino import opset13

    inputs = opset13.parameter([1, 8], np.float32)
    model = openvino.Model([opset13.relu(inputs)], [inputs])
    (tmp_path / "model.bin").mkdir()
    with pytest.raises(PipelineError, match=f"to {tmp_path}, among the temporary") as caught:
        openvino_convert._save(openvino, model, tmp_path / "model.xml")
    assert "TMPDIR" in caught.value.hint
