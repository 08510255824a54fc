"""init_project.py: a first look, and a pipeline.yaml that runs as it stands."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.config import init_project, schema, yaml_file
from tests.conftest import Pipeline
from tests.support import fakes


def test_the_written_file_is_the_defaults(tmp_path: Path) -> None:
    fakes.two_classes(tmp_path / "images", 2)
    started = init_project.init(tmp_path, None)
    assert yaml_file.load(started.config) == schema.RunConfig()


def test_init_says_what_it_found(pipeline: Pipeline, tmp_path: Path) -> None:
    fakes.two_classes(tmp_path / "photos", 3)
    (tmp_path / "photos" / "notes.txt").write_text("x")
    ran = pipeline("init", tmp_path, "--images", tmp_path / "photos")
    assert ran.code == 0
    assert ran.out.splitlines() == [
        f"6 images in {tmp_path}/photos",
        "classes: bright 3, dark 3",
        "1 other files are ignored: .txt 1",
        f"wrote {tmp_path}/pipeline.yaml; next: pipeline run -c {tmp_path}/pipeline.yaml",
    ]
    assert yaml_file.load(tmp_path / "pipeline.yaml").data.root == "photos"


def test_init_in_the_folder_of_the_images_says_how(pipeline: Pipeline, tmp_path: Path) -> None:
    fakes.two_classes(tmp_path, 1)
    ran = pipeline("init", tmp_path)
    assert ran.code == 2
    assert f"pipeline init --images {tmp_path}" in ran.err


def test_images_elsewhere_are_named_by_their_whole_path(pipeline: Pipeline, tmp_path: Path) -> None:
    fakes.two_classes(tmp_path / "a b: #c" / "photos", 1)
    ran = pipeline("init", tmp_path / "project", "--images", tmp_path / "a b: #c" / "photos")
    assert ran.code == 0, ran.err
    assert yaml_file.load(tmp_path / "project" / "pipeline.yaml").data.root == str(tmp_path / "a b: #c" / "photos")


def test_init_then_run(pipeline: Pipeline, tmp_path: Path) -> None:
    fakes.two_classes(tmp_path / "images", 15)
    assert pipeline("init", tmp_path).code == 0
    assert pipeline("run", "-c", tmp_path / "pipeline.yaml").code == 0


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda folder: (folder / "pipeline.yaml").write_text("mine"), "pipeline.yaml exists already"),
        (lambda folder: None, "images is not there"),
        (lambda folder: (folder / "images").write_bytes(b""), "images is a file; expected a folder of images"),
    ],
)
def test_init_overwrites_nothing_and_says_what_it_lacks(
    pipeline: Pipeline, tmp_path: Path, prepare: Callable[[Path], object], message: str
) -> None:
    prepare(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    ran = pipeline("init", tmp_path)
    assert ran.code == 2
    assert message in ran.err
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_the_demo_is_2624_real_images_in_two_classes(tmp_path: Path) -> None:
    started = init_project.init_demo(tmp_path)
    assert Counter(row.label for row in started.found.rows) == {"functional": 1803, "defective": 821}
    assert len({hashlib.sha256(path.read_bytes()).digest() for path in (tmp_path / "images").rglob("*.png")}) == 2624
    settings = yaml_file.load(started.config)
    assert settings.data.classes == ["functional", "defective"]
    assert settings == schema.RunConfig.model_validate({"data": {"classes": ["functional", "defective"]}})
    assert "CC BY-NC-SA" in started.config.read_text()


@pytest.mark.parametrize("layout", ["no folders", "one class"])
def test_without_two_classes_the_run_that_is_advised_works(pipeline: Pipeline, tmp_path: Path, layout: str) -> None:
    folder = tmp_path / "images" / ("" if layout == "no folders" else "cat")
    folder.mkdir(parents=True)
    for number in range(4):
        (folder / f"{number}.png").write_bytes(fakes.numbered(number))
    assert pipeline("init", tmp_path).code == 0
    ran = pipeline("run", "-c", tmp_path, "--json", "--set", "extract.size=16")
    assert (ran.code, ran.json["extract"]["computed"]) == (0, 4)
    assert "# logistic: {kind: logistic" in (tmp_path / "pipeline.yaml").read_text()


def test_the_demo_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pipeline: Pipeline) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    ran = pipeline("init", tmp_path, "--demo")
    assert ran.code == 2
    assert "pip install '.[demo]'" in ran.err
