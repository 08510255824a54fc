"""splits.py: `pipeline splits redraw` draws anew what splits.csv remembers, and says how much has moved."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Pipeline
from tests.support import fakes


@pytest.fixture
def config(project: Path) -> Path:
    project.write_text("data: {split: {method: stratified, val: 0.3, test: 0.2}}\nextract: {size: 16}\n")
    return project


def test_redraw_is_the_way_to_other_settings(pipeline: Pipeline, config: Path) -> None:
    key = pipeline("run", "-c", config, "--json").json["heads"]["logistic"]["key"]
    before = (config.parent / "splits.csv").read_text()
    config.write_text(config.read_text().replace("test: 0.2", "test: 0.2, seed: 5"))
    ran = pipeline("run", "-c", config)
    assert ran.code == 2
    assert "pipeline splits redraw" in ran.err
    done = pipeline("splits", "redraw", "-c", config, "--json")
    assert (done.code, done.json["command"]) == (0, "splits redraw")
    after = (config.parent / "splits.csv").read_text()
    assert after.startswith("# method=stratified val=0.3 test=0.2 seed=5\n")
    moved = set(after.splitlines()[2:]) - set(before.splitlines()[2:])
    assert {name: done.json["splits"][name] for name in ("path", "images", "moved")} == {
        "path": str(config.parent / "splits.csv"),
        "images": 24,
        "moved": len(moved),
    }
    assert moved
    ran = pipeline("run", "-c", config, "--json")
    assert (ran.code, ran.json["extract"]["reused"], ran.json["heads"]["logistic"]["hit"]) == (0, 24, False)
    assert ran.json["heads"]["logistic"]["key"] != key
    assert pipeline("show", key, "-c", config).code == 0


def test_redraw_forgets_edits_mistakes_and_what_is_gone(pipeline: Pipeline, config: Path) -> None:
    fresh = pipeline("splits", "redraw", "-c", config)
    assert fresh.code == 0
    record = config.parent / "splits.csv"
    assert f"wrote {record}: 24 images, 0 of them in another split than before" in fresh.out
    assert ["class", "train", "val", "test"] in [line.split() for line in fresh.out.splitlines()]
    drawn = record.read_text()
    record.write_text(drawn.replace(",train,", ",val,"))
    assert "24 images, 12 of them in another split" in pipeline("splits", "redraw", "-c", config).out
    record.write_text(drawn.replace(",train,", ",trian,"))
    assert pipeline("splits", "redraw", "-c", config).code == 0
    assert record.read_text() == drawn
    (config.parent / "images" / "dark" / "0000.png").unlink()
    assert "wrote" in pipeline("splits", "redraw", "-c", config).out
    assert len(record.read_text().splitlines()) == 2 + 23


def test_redraw_replaces_no_file_of_others(pipeline: Pipeline, config: Path) -> None:
    record = config.parent / "splits.csv"
    record.write_text("path,label\n")
    ran = pipeline("splits", "redraw", "-c", config)
    assert ran.code == 2
    assert "does not begin with # method=..., so it is not what this package wrote, and is kept" in ran.err
    assert record.read_text() == "path,label\n"


def test_there_may_be_nothing_to_draw(pipeline: Pipeline, project: Path) -> None:
    ran = pipeline("splits", "redraw", "-c", project)
    assert ran.code == 2
    assert "data.split.method is hash, which draws each image by its bytes and remembers nothing" in ran.err
    (project.parent / "loose").mkdir()
    (project.parent / "loose" / "1.png").write_bytes(fakes.numbered(1))
    project.write_text("data: {root: loose, split: {method: stratified}}\n")
    ran = pipeline("splits", "redraw", "-c", project)
    assert ran.code == 2
    assert "there is no split to draw: no image has a label" in ran.err
    assert not (project.parent / "splits.csv").exists()
