"""quantise.py: an int8 file is a base like any other, near to the float one; one that costs the head is not written."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pipeline as frozenbase
from pipeline.evaluation import cost, quantise
from stages.bases import catalogue, openvino_xml
from stages.bases.recipe import FrozenBase, Recipe, Tap
from stages.data.images import PixelSpec
from stages.engines import openvino_files
from stages.engines import quantise as int8
from stages.runtime import hardware
from stages.runtime.silent_imports import import_openvino
from tests.conftest import command, counts
from tests.support import fakes

SIZE = 48
NAMED = "{name: small.xml, preprocess: unit}"


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A project of 48 pictures on a base of four layers with random weights, an OpenVINO file."""
    fakes.two_classes(tmp_path / "images", 24)
    openvino = import_openvino()
    ops, rng = openvino.opset13, np.random.default_rng(0)
    given = ops.parameter([-1, 3, SIZE, SIZE], np.float32, name="pixels")

    def convolve(x: Any, channels: tuple[int, int], side: int, stride: int, name: str) -> Any:
        kernel = rng.normal(0, (2 / channels[0] / side**2) ** 0.5, (channels[1], channels[0], side, side))
        same = [side // 2] * 2
        made = ops.convolution(x, kernel.astype(np.float32), [stride, stride], same, same, [1, 1], name=name)
        return ops.relu(made)

    x = convolve(given, (3, 16), 3, 2, "first")
    x = ops.add(x, convolve(convolve(x, (16, 32), 3, 1, "wide"), (32, 16), 1, 1, "narrow"))
    x = convolve(x, (16, 40), 3, 2, "last")
    x.output(0).set_names({"maps"})
    openvino.save_model(openvino.Model([ops.result(x)], [given]), tmp_path / "small.xml", compress_to_fp16=False)
    config = tmp_path / "pipeline.yaml"
    split = "data: {split: {val: 0.2, test: 0.2}}"
    config.write_text(f"{split}\nbase: {NAMED}\nextract: {{size: {SIZE}, fit: crop}}\n")
    return config


def test_what_it_writes_is_a_base_near_the_float_one(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(small.parent)
    words = ("bases", "quantise", "small.xml", "-o", "small-int8.xml", "--layer", "wide", "--pictures", "16")
    found = command(*words, "--json", expect=0).json["quantise"]
    assert found["pictures"] == 16
    assert (found["layers"], found["chosen"]["kept"], found["chosen"]["judged"]) == (4, 0, None)
    assert found["chosen"]["mean"] >= quantise.TURN
    assert set(found["speeds"]) - {"bf16"} == {"f32", "int8"}
    assert (found["labelled"], found["least_labelled"]) == (pytest.approx(39, abs=6), cost.LEAST_JUDGED)
    file = small.parent / "small-int8.xml"
    assert openvino_xml.is_rough(file)
    assert openvino_xml.find_harm(file) == []
    assert found["versions"]["nncf"] in file.read_text()
    exact = frozenbase.open(small).features()
    small.write_text("base: small-int8.xml\nextract: {taps: {pooled: {}, early: {layer: wide}}}\n")  # no size, no fit
    ran = command("run", "extract", "-c", small, "--json")
    assert counts(ran) == (48, 0)
    rows = frozenbase.open(small).features()
    assert list(rows.ids) == list(exact.ids)
    assert int8.cosines(exact.X, rows.X).min() > 0.98
    assert np.abs(exact.X - rows.X).max() > 1e-4 * np.abs(exact.X).max(), "these are other rows"
    assert frozenbase.open(small).features(tap="early").X.shape == (48, 32)
    listed = {layer["name"] for layer in command("bases", file, "--layers", "--json").json["bases"]["layers"]}
    assert "wide" in listed
    assert not any("fq_weights" in name for name in listed)


def test_integers_stay_integers_and_rows_stay_alone(small: Path, tmp_path: Path) -> None:
    out = tmp_path / "int8.xml"
    command("bases", "quantise", "small.xml", "-c", small, "-o", out, "--images", tmp_path / "images", expect=0)
    base = FrozenBase(_recipe(out), {"a": Tap(), "b": Tap("last")}, out)
    model, batch = openvino_files.converted_file(base, None)
    assert model["model.xml"].count(b'element_type="i8"') == 4
    opened = int8.open_model(model, batch)
    pixels = np.random.default_rng(0).integers(0, 256, (batch, SIZE, SIZE, 3), np.uint8)
    together, alone = opened(pixels), opened(pixels[3:4])
    assert all(np.array_equal(together[name][3], alone[name][0]) for name in together)


def test_what_costs_least_in_float32_is_first_to_stay_there(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where parts alone in int8 turn rows as much, the one with the smallest maps."""
    pixels = np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 3), np.uint8)
    model, batch = int8.float_model(_recipe(small.with_name("small.xml")), small.with_name("small.xml"), ())
    quantiser = int8.Quantiser(model, batch, pixels)
    half = SIZE // 2
    wide = half**2 * (16 + 32) * batch
    assert [part.values for part in quantiser.parts] == [
        (SIZE**2 * 3 + half**2 * 16) * batch, wide, wide, (half**2 * 16 + (half // 2) ** 2 * 40) * batch
    ]  # fmt: skip
    monkeypatch.setattr(int8, "cosines", lambda a, b: np.array([0.5]))
    ranked = quantiser.rank(int8.RANGES[0], 1, lambda n: None)
    assert [quantiser.parts.index(part) for part in ranked] == [3, 0, 1, 2]


def test_batch_norms_are_folded_and_channels_taken_apart_late(tmp_path: Path) -> None:
    """nncf corrects no bias behind a product; rows are those of the file all the same."""
    openvino = import_openvino()
    ops, rng = openvino.opset13, np.random.default_rng(0)

    def numbers(*shape: int) -> np.ndarray:
        return rng.normal(0, 1, shape).astype(np.float32)

    given = ops.parameter([-1, SIZE, SIZE, 3], np.float32, name="pixels")
    x = ops.transpose(given, np.array([0, 3, 1, 2]))
    x = ops.divide(ops.subtract(x, numbers(1, 3, 1, 1)), numbers(1, 3, 1, 1))
    x = ops.convolution(x, numbers(8, 3, 3, 3), [2, 2], [1, 1], [1, 1], [1, 1])
    x = ops.relu(ops.add(ops.multiply(x, numbers(8, 1, 1)), numbers(8, 1, 1)))
    file = tmp_path / "norm.xml"
    openvino.save_model(openvino.Model([ops.result(x)], [given]), file, compress_to_fp16=False)
    model, batch = int8.float_model(_recipe(file), file, ())
    kinds = [kind for kind in re.findall(rb' type="(\w+)" version', model["model.xml"]) if kind != b"Const"]
    before, after = kinds[: kinds.index(b"Convolution")], kinds[kinds.index(b"Convolution") :]
    assert before[-1] == b"Transpose"
    assert b"Add" in after
    assert b"Multiply" not in after
    pixels = rng.integers(0, 256, (batch, SIZE, SIZE, 3), np.uint8)
    taps = {"row": Tap("output", "none")}
    whole = openvino_files.open_file(FrozenBase(_recipe(file), taps, file), batch)
    (rows,), (expected,) = int8.open_model(model, batch)(pixels).values(), whole(pixels).values()
    assert np.allclose(rows, expected, rtol=1e-5, atol=1e-5)


def _recipe(file: Path) -> Recipe:
    return Recipe.of(catalogue.choose_base(str(file)), "00" * 32, PixelSpec(SIZE, SIZE, "crop"), "f32", "float32")


@pytest.mark.parametrize(("loss", "code"), [(0.9, 0), (-1.0, 1)])
def test_a_head_judges_it(small: Path, monkeypatch: pytest.MonkeyPatch, loss: float, code: int) -> None:
    """With labels enough; where no layers in float32 help, nothing is written."""
    monkeypatch.setattr(cost, "LEAST_JUDGED", 20)
    monkeypatch.setattr(cost, "LOSS", loss)
    monkeypatch.setattr(cost, "TIMES", 1)
    out = small.parent / "out" / "int8.xml"
    ran = command("bases", "quantise", small.parent / "small.xml", "-c", small, "-o", out, "--json")
    assert ran.code == code, ran.out
    assert out.exists() == (code == 0)
    if code:
        assert "even with 2 of 4 layers in float32, " in ran.json["error"]["message"]
        return
    judged = ran.json["quantise"]["chosen"]["judged"]
    assert judged["images"] == ran.json["quantise"]["labelled"]
    assert judged["figures"]["f32"]["accuracy"] == pytest.approx(1, abs=0.1)
    low, high = judged["difference"]["accuracy"]["ci"]
    assert low <= judged["difference"]["accuracy"]["value"] <= high
    again = command("bases", "quantise", "small.xml", "-c", small, "-o", out)
    assert again.code == 2
    assert "is there already" in again.err


def test_a_folder_without_a_project_will_do(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = small.parent / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    words = ("bases", "quantise", "../small.xml", "-o", "int8.xml", "--images", "../images", "--size", str(SIZE))
    assert "preprocess: nothing beside" in " ".join(command(*words, expect=2).err.split())
    ran = command(*words, "--set", "base.preprocess=unit", expect=0)
    assert "images or groups with a class are too few" in ran.out
    assert sorted(path.name for path in elsewhere.iterdir()) == ["int8.bin", "int8.xml"]


def test_without_nncf_it_says_what_to_install(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nncf", None)
    ran = command("bases", "quantise", "small.xml", "-c", small, "-o", small.parent / "x.xml", expect=4)
    assert "frozenbase[int8]" in ran.err


def test_a_cpu_without_the_instructions_that_is_slower_refuses(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "has_int8_dot_products", lambda: False)
    monkeypatch.setattr(int8, "images_per_second", lambda embeds, pixels: {"f32": 100.0, "int8": 90.0})
    ran = command("bases", "quantise", small.parent / "small.xml", "-c", small, "-o", small.parent / "x.xml", expect=1)
    assert "90 images/s, 100 in float32" in " ".join(ran.err.split())
    assert not (small.parent / "x.xml").exists()


def test_nncf_is_silent_and_reports_to_nobody() -> None:
    program = """
import logging
from stages.runtime.silent_imports import import_nncf
import_nncf()
from nncf.telemetry.wrapper import NNCFTelemetry, telemetry
assert not isinstance(telemetry, NNCFTelemetry)
assert logging.getLoggerClass() is logging.Logger
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout + done.stderr == ""
