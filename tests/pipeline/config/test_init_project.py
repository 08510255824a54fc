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

STRATIFIED = {"split": {"method": "stratified"}}
"""What new files have other than the default, which is that of files without the field."""


def test_the_written_file_is_the_defaults_but_for_how_splits_are_drawn(tmp_path: Path) -> None:
    fakes.two_classes(tmp_path / "images", 2)
    started = init_project.init(tmp_path, None)
    assert yaml_file.load(started.config) == schema.RunConfig.model_validate({"data": STRATIFIED})


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
    card = {"data_licence": init_project.DEMO_LICENCE}
    data = {"classes": ["functional", "defective"], **STRATIFIED}
    assert settings == schema.RunConfig.model_validate({"data": data, "card": card})
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


def test_init_with_a_table(pipeline: Pipeline, tmp_path: Path) -> None:
    fakes.two_classes(tmp_path / "images", 12)
    paths = sorted(path.relative_to(tmp_path / "images") for path in (tmp_path / "images").rglob("*.png"))
    (tmp_path / "labels.csv").write_text("path,label\n" + "".join(f"{path},{path.parent}\n" for path in paths))
    ran = pipeline("init", tmp_path, "--table", tmp_path / "labels.csv")
    assert ran.code == 0, ran.err
    assert "classes: bright 12, dark 12" in ran.out
    config = yaml_file.load(tmp_path)
    assert (config.data.table, config.data.root, list(config.heads)) == ("labels.csv", "images", ["logistic"])
    assert pipeline("run", "-c", tmp_path, "--set", "extract.size=16").code == 0
    (tmp_path / "pipeline.yaml").unlink()
    (tmp_path / "labels.csv").write_text("path,Label\n1.png,x\n")
    ran = pipeline("init", tmp_path, "--table", tmp_path / "labels.csv")
    assert (ran.code, "no column 'label'; it has 'path', 'Label'" in ran.err) == (2, True)


def test_a_table_added_later_is_no_success_without_a_head(pipeline: Pipeline, tmp_path: Path) -> None:
    """heads: {} as init wrote it for images without labels."""
    fakes.two_classes(tmp_path / "images", 12)
    paths = sorted((tmp_path / "images").rglob("*.png"))
    for number, path in enumerate(paths):
        path.rename(tmp_path / "images" / f"{number}-{path.parent.name}.png")
    assert pipeline("init", tmp_path).code == 0
    ran = pipeline("run", "-c", tmp_path, "--set", "extract.size=16")
    assert (ran.code, "no head was trained: heads is empty in pipeline.yaml" in ran.err) == (0, True)
    names = sorted(path.name for path in (tmp_path / "images").glob("*.png"))
    (tmp_path / "labels.csv").write_text("path,label\n" + "".join(f"{n},{n.split('-')[1][:-4]}\n" for n in names))
    ran = pipeline("run", "-c", tmp_path, "--set", "extract.size=16", "--set", "data.table=labels.csv", "--json")
    assert ran.code == 2
    assert ran.json["extract"]["reused"] == 24
    assert "heads is empty in pipeline.yaml, though the images have labels" in ran.json["error"]["message"]
    assert pipeline("run", "extract", "-c", tmp_path, "--set", "extract.size=16").code == 0


def test_heads_without_any_label_are_refused_before_anything_is_extracted(pipeline: Pipeline, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for number in range(4):
        (tmp_path / "images" / f"{number}.png").write_bytes(fakes.numbered(number))
    (tmp_path / "pipeline.yaml").write_text("extract: {size: 16}")
    ran = pipeline("run", "-c", tmp_path, "--json")
    assert (ran.code, "extract" in ran.json) == (2, False)
    assert ran.json["error"]["message"].startswith("no image has a label")


def test_images_one_level_too_deep(pipeline: Pipeline, tmp_path: Path) -> None:
    fakes.two_classes(tmp_path / "images" / "dataset", 3)
    ran = pipeline("init", tmp_path)
    assert ran.code == 2
    assert "all 6 images are in one folder, dataset, which has the folders bright, dark" in ran.err
    assert f"pipeline init --images {tmp_path}/images/dataset" in ran.err
    assert not (tmp_path / "pipeline.yaml").exists()


def test_links_that_lead_out_and_the_way_out(pipeline: Pipeline, tmp_path: Path) -> None:
    fakes.two_classes(tmp_path / "elsewhere", 12)
    (tmp_path / "images").mkdir()
    for name in ("bright", "dark"):
        (tmp_path / "images" / name).symlink_to(tmp_path / "elsewhere" / name)
    ran = pipeline("init", tmp_path)
    assert ran.code == 2
    assert f"if you trust where the links lead: pipeline init --images {tmp_path}/images --follow-links" in ran.err
    assert pipeline("init", tmp_path, "--follow-links").code == 0
    assert yaml_file.load(tmp_path).data.follow_links == "all"
    ran = pipeline("run", "-c", tmp_path, "--json", "--set", "extract.size=16")
    assert (ran.code, ran.json["extract"]["computed"], ran.json["extract"]["rejected"]) == (0, 24, [])


def test_own_outputs_do_not_become_a_class(pipeline: Pipeline, tmp_path: Path) -> None:
    fakes.two_classes(tmp_path, 12)
    assert pipeline("init", tmp_path, "--images", tmp_path).code == 0
    for words in (("run",), ("plot", "logistic"), ("run",)):
        assert pipeline(*words, "-c", tmp_path).code == 0
    assert (tmp_path / "plots").is_dir()
    assert (tmp_path / "splits.csv").is_file()
    ran = pipeline("status", "-c", tmp_path, "--json")
    assert set(ran.json["status"]["counts"]) == {"bright", "dark"}
