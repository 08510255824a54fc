"""curve.py: figures by number of images and a forecast, for every target, from cached rows alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import pipeline as frozenbase
from tests.conftest import Pipeline
from tests.support import fakes, other_targets
from tests.support.disk import read_tree
from tests.support.process import run


@pytest.fixture
def config(tmp_path: Path, fake_embed: None, pipeline: Pipeline) -> Path:
    fakes.two_classes(tmp_path / "images", 40)
    for i in range(12):  # of the other class by the picture
        (tmp_path / "images" / "dark" / f"{i:04d}.png").write_bytes(fakes.textured(500 + i, True))
    config = tmp_path / "pipeline.yaml"
    config.write_text(
        "data: {split: {method: stratified}}\nextract: {size: 16}\nheads: {logistic: {}, knn: {kind: knn}}\n"
    )
    pipeline("run", "extract", "-c", config, expect=0)
    return config


def curved(pipeline: Pipeline, config: Path, *more: str | Path) -> dict[str, Any]:
    ran = pipeline("curve", "-c", config, "--json", *more)
    assert ran.code == 0, ran.out
    return dict(ran.json["curve"])


def test_it_has_figures_by_size_and_a_forecast_and_writes_nothing(pipeline: Pipeline, config: Path) -> None:
    before = read_tree(config.parent)
    found = curved(pipeline, config, "logistic")
    n = found["images"]
    assert n == sum(row.split != "test" for row in frozenbase.open(config).manifest)
    assert [point["images"] for point in found["forecast"]] == [n, 2 * n]
    sizes = [point["images"] for point in found["measured"]]
    assert sizes == sorted(sizes)
    assert sizes[-1] == n * 4 // 5
    assert (found["figures"], found["level"]) == (["log_loss", "accuracy", "auroc"], 0.9)
    for point in (*found["measured"], *found["forecast"]):
        for name in found["figures"]:
            assert point[name]["low"] <= point[name]["value"] <= point[name]["high"]
    assert 0.7 < found["measured"][-1]["accuracy"]["value"] < 1
    gap = found["forecast"][1]["accuracy"]["value"] - found["forecast"][0]["accuracy"]["value"]
    assert found["gain"]["accuracy"]["value"] == pytest.approx(gap)
    assert found["laws"]["accuracy"]["b"] > 0
    assert read_tree(config.parent) == before
    assert curved(pipeline, config, "logistic") == found


def test_it_is_shown_and_drawn(pipeline: Pipeline, config: Path, tmp_path: Path) -> None:
    shown = pipeline("curve", "knn", "-c", config, "-o", tmp_path / "curve.png", expect=0).out
    found = curved(pipeline, config, "knn")
    ahead = found["forecast"][1]
    cell = "{value:.3f} ({low:.3f}-{high:.3f})".format(**ahead["accuracy"])
    (line,) = [line for line in shown.splitlines() if line.split()[:2] == [f"{ahead['images']:,}", "forecast"]]
    assert cell in line
    assert f"{found['images']:,} images more would change" in shown
    assert (tmp_path / "curve.png").read_bytes()[:4] == b"\x89PNG"
    pipeline("curve", "knn", "-c", config, "-o", tmp_path / "curve.svg", expect=0)
    assert (
        b"labelled images" in (tmp_path / "curve.svg").read_bytes() or b"<svg" in (tmp_path / "curve.svg").read_bytes()
    )


def test_more_draws_fit_more_heads(pipeline: Pipeline, config: Path) -> None:
    once, thrice = (curved(pipeline, config, "knn", "--repeats", n) for n in ("1", "3"))
    assert (once["repeats"], thrice["repeats"]) == (1, 3)
    assert once["measured"] != thrice["measured"]


@pytest.mark.parametrize(("target", "named"), [("labels", "macro_ap"), ("number", "mae"), ("soft", "accuracy")])
def test_each_target_has_its_own_figures(
    pipeline: Pipeline, fake_embed: None, tmp_path: Path, target: str, named: str
) -> None:
    other_targets.write_table(tmp_path)
    heads = f"{{first: {{kind: {other_targets.linear(target)}}}}}"
    if target == "labels":
        heads = "{first: {kind: knn}}"
    config = other_targets.write_config(tmp_path, other_targets.TARGETS[target], heads)
    pipeline("run", "extract", "-c", config, expect=0)
    found = curved(pipeline, config, "first")
    assert named in found["figures"]
    ends = found["forecast"][1][named]
    assert ends["low"] <= ends["value"] <= ends["high"]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["best"], 2, "no head 'best' in pipeline.yaml; it has logistic, knn"),
        (["logistic", "--set", "heads={logistic: {sweep: {C: [1, 2]}}}"], 2, "head logistic is a sweep of 2 points"),
        (["logistic", "-o", "curve.txt"], 2, "expected a name that ends in .png or .svg"),
        (["logistic", "--set", "data.split={method: hash, test: 0.8}"], 2, "too few for a curve"),
        (["logistic", "--set", "extract.size=24"], 4, "no image has a row"),
    ],
)
def test_what_has_no_curve_is_one_sentence(
    pipeline: Pipeline, config: Path, words: list[str], code: int, said: str
) -> None:
    ran = pipeline("curve", "-c", config, *words)
    assert (ran.code, said in " ".join(ran.err.split())) == (code, True), ran.err
    assert "Traceback" not in ran.err


def test_it_needs_no_tensorflow(config: Path) -> None:
    out, _ = run("curve", "knn", "-c", config, "--json", FAKE="", HIDE="tensorflow,keras,openvino,distributed")
    assert json.loads(out)["curve"]["measured"]


def test_it_is_there_in_python(config: Path) -> None:
    found = frozenbase.open(config).curve("knn")
    assert json.dumps(found.to_json())
    assert found.draw("png")[:4] == b"\x89PNG"
