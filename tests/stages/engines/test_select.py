"""select.py, openvino_engine.py, parity.py: which engine runs, from what, and whether it may add to a key."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pipeline as frozenbase
from cache import compiled_models
from cache.errors import NotAvailable, PipelineError, Unusable
from stages.engines import openvino_engine, select
from stages.extract import opened_bases
from stages.runtime import hardware
from tests.conftest import Pipeline
from tests.support import fakes
from tests.support.process import events, run


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Ten pictures and a pipeline.yaml that has them at 32 pixels."""
    fakes.two_classes(tmp_path / "images", 5)
    config = tmp_path / "pipeline.yaml"
    config.write_text("data: {root: images}\nextract: {size: 32}\nheads: {logistic: {C: 0.01}}\n")
    return config


@pytest.mark.parametrize(
    ("asked", "numerics", "gpu", "installed", "chosen"),
    [
        ("auto", "f32", False, True, "openvino"),
        ("auto", "f32", True, True, "tensorflow"),
        ("auto", "f32", False, False, "tensorflow"),
        ("auto", "tensorflow-bf16", False, True, "tensorflow"),
        ("auto", "openvino-bf16", True, True, "openvino"),
        ("tensorflow", "f32", False, True, "tensorflow"),
        ("openvino", "f32", True, True, "openvino"),
    ],
)
def test_which_engine_runs(
    asked: str, numerics: str, gpu: bool, installed: bool, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "has_gpu", lambda: gpu)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if installed else None)
    assert select.choose_engine(asked, numerics).name == chosen


def test_an_engine_that_is_not_installed_says_how_to_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(NotAvailable, match="the engine openvino is not installed") as caught:
        select.choose_engine("openvino", "f32")
    assert "pip install openvino" in caught.value.hint


def test_arithmetic_of_another_engine_is_refused(pipeline: Pipeline, photographs: Path) -> None:
    sets = ("--set", "extract.engine=tensorflow", "--set", "extract.numerics=openvino-bf16")
    ran = pipeline("run", "-c", photographs, *sets)
    assert ran.code == 2
    assert "openvino-bf16 is the arithmetic of openvino; engine: tensorflow cannot do it" in ran.err


def test_a_cpu_without_bfloat16_is_refused() -> None:
    with pytest.raises(Unusable, match="needs a CPU with bfloat16"):
        openvino_engine.check_bf16(["FP32", "INT8"])
    openvino_engine.check_bf16(["FP32", "BF16"])


def test_a_converted_model_is_kept_and_later_needs_no_tensorflow(photographs: Path, tmp_path: Path) -> None:
    words = ("run", "extract", "-c", photographs, "--json")
    log = tmp_path / "log"
    first = json.loads(run(*words, FAKE="", WATCH=str(log))[0])["extract"]
    assert (first["engine"], first["computed"], "tensorflow" in events(log)[-1]) == ("openvino", 10, True)
    (kept,) = compiled_models.default_folder().iterdir()
    assert not (tmp_path / ".features" / "converted").exists(), "where others may write"
    rows = stored(photographs)
    shutil.rmtree(tmp_path / ".features" / "features")
    again = json.loads(run(*words, FAKE="", WATCH=str(log))[0])["extract"]
    assert (again["computed"], "tensorflow" in events(log)[-1]) == (10, False)
    assert np.array_equal(stored(photographs), rows)
    (kept / "model.bin").write_bytes(b"another")
    shutil.rmtree(tmp_path / ".features" / "features")
    _, err = run(*words, FAKE="")
    assert "model.bin is missing or was changed after it was written" in err
    assert np.array_equal(stored(photographs), rows)


def stored(config: Path) -> Any:
    return frozenbase.open(config).features().X


def test_another_engine_may_add_rows_that_agree_and_no_others(
    photographs: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By the rows that are stored: real ones of TensorFlow, and then ones that nobody computed."""
    sets = ("-c", photographs, "--set")
    run("run", "extract", *sets, "extract.engine=tensorflow", FAKE="")
    fakes.two_classes(tmp_path / "images", 6)
    done = json.loads(run("run", "extract", "--json", *sets, "extract.engine=openvino", FAKE="")[0])["extract"]
    assert (done["computed"], done["engine"]) == (2, "openvino")
    theirs = opened_bases.open_embed

    class Other:
        """An engine whose rows are a little larger."""

        def __init__(self, *arguments: Any) -> None:
            self.embed = theirs(*arguments)
            self.batch = self.embed.batch
            self.provenance = {**self.embed.provenance, "engine": "other"}

        def __call__(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
            return {name: rows * 1.001 for name, rows in self.embed(pixels).items()}

    monkeypatch.setattr(opened_bases, "open_embed", Other)
    fakes.two_classes(tmp_path / "images", 7)

    with pytest.raises(PipelineError, match=r"computes other rows of efficientnet_lite0 at output than those stored"):
        frozenbase.open(photographs).features()
