"""reproduce.py: a recorded model made again, bitwise, wherever its images lie now; or why not."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from pipeline.runs import train_heads
from stages.bases import recipe
from stages.heads import fitted, logistic
from stages.targets.classes import Classes
from tests.conftest import Pipeline, edit_record, opened
from tests.support import fakes
from tests.support.disk import read_tree

IMAGES = 24


@pytest.fixture
def made(pipeline: Pipeline, project: Path) -> Path:
    """The project after a run; returns the folder of its model."""
    ran = pipeline("run", "-c", project, "--json")
    assert ran.code == 0, ran.out
    return Path(ran.json["heads"]["logistic"]["path"])


def reproduced(pipeline: Pipeline, project: Path, *more: str | Path, code: int = 0) -> dict[str, Any]:
    """What `reproduce --json` says; it leaves models/ as it was."""
    before = read_tree(project.parent / "models")
    ran = pipeline("reproduce", "logistic", "-c", project, "--json", *more)
    assert ran.code == code, ran.out + ran.err
    assert read_tree(project.parent / "models") == before
    return dict(ran.json)


def record_of(model: Path) -> dict[str, Any]:
    return dict(json.loads((model / "record.json").read_text()))


def shuffle_images(images: Path) -> None:
    """Rename one image, relabel another, move all of them, and add some."""
    (images / "bright" / "0000.png").rename(images / "bright" / "renamed.png")
    (images / "bright" / "0001.png").rename(images / "dark" / "relabelled.png")
    fakes.two_classes(images, 4, start=50)
    images.rename(images.with_name("moved"))


def test_it_is_bitwise_the_same_on_cached_rows(pipeline: Pipeline, project: Path, made: Path) -> None:
    done = reproduced(pipeline, project)["reproduce"]
    assert (done["images"], done["computed"], done["absent"], done["differences"]) == (IMAGES, 0, [], {})
    assert done["reproduced"]
    assert done["arrays_same"]
    assert done["weights_difference"] == 0
    for split in ("folds", "test"):
        for figure in done["metrics"][split].values():
            assert figure["recorded"] == figure["now"]


@pytest.mark.parametrize("how", ["cached", "emptied", "recompute"])
def test_moved_renamed_and_relabelled_images_are_found_by_their_bytes(
    pipeline: Pipeline, project: Path, made: Path, how: str
) -> None:
    shuffle_images(project.parent / "images")
    project.write_text("data: {root: moved, split: {val: 0.1, seed: 5}}\nextract: {size: 32}\nheads: {other: {}}\n")
    if how == "emptied":
        shutil.rmtree(project.parent / ".features")
    words = ("--recompute",) if how == "recompute" else ()
    done = reproduced(pipeline, project, *words)["reproduce"]
    assert (done["computed"], done["reproduced"]) == (0 if how == "cached" else IMAGES, True)


def test_with_recompute_the_cache_is_neither_read_nor_written(
    pipeline: Pipeline, project: Path, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = project.parent / "elsewhere"
    monkeypatch.setenv("PIPELINE_CACHE_DIR", str(elsewhere))
    shutil.copytree(project.parent / ".features", elsewhere)
    before = read_tree(elsewhere / "features")
    assert reproduced(pipeline, project, "--recompute")["reproduce"]["computed"] == IMAGES
    assert read_tree(elsewhere / "features") == before


def test_rows_that_are_missing_are_computed_into_the_cache(pipeline: Pipeline, project: Path, made: Path) -> None:
    shutil.rmtree(project.parent / ".features")
    assert reproduced(pipeline, project)["reproduce"]["computed"] == IMAGES
    assert reproduced(pipeline, project)["reproduce"]["computed"] == 0


def test_images_are_not_needed_where_the_rows_are(pipeline: Pipeline, project: Path, made: Path) -> None:
    shutil.rmtree(project.parent / "images")
    assert reproduced(pipeline, project)["reproduce"]["reproduced"]


def test_images_that_are_gone_with_their_rows_are_listed_and_left_out(
    pipeline: Pipeline, project: Path, made: Path
) -> None:
    gone = ["bright/0003.png", "dark/0005.png"]
    for path in gone:
        (project.parent / "images" / path).unlink()
    shutil.rmtree(project.parent / ".features")
    ran = reproduced(pipeline, project, code=1)
    assert [absent["path"] for absent in ran["reproduce"]["absent"]] == gone
    assert {absent["reason"] for absent in ran["reproduce"]["absent"]} == {"no image below data.root has its bytes"}
    assert not ran["reproduce"]["reproduced"]
    assert ran["error"]["code"] == "not_reproduced"
    assert "does not come out bitwise the same: metrics differ by up to " in ran["error"]["message"]
    assert ran["error"]["hint"].startswith(f"what differs: 2 of {IMAGES} images are absent")
    shown = pipeline("reproduce", "logistic", "-c", project)
    assert ["absent", "2"] in [line.split() for line in shown.out.splitlines()]
    assert "  absent bright/0003.png: no image below data.root has its bytes" in shown.err.splitlines()


def test_an_image_that_changed_since_is_absent(pipeline: Pipeline, project: Path, made: Path) -> None:
    path = project.parent / "images" / "dark" / "0005.png"
    path.write_bytes(path.read_bytes() + b"\0")
    absent = reproduced(pipeline, project, "--recompute", code=1)["reproduce"]["absent"]
    assert [image["path"] for image in absent] == ["dark/0005.png"]


def test_a_file_that_a_table_names_wrongly_is_absent_with_its_reason(
    pipeline: Pipeline, project: Path, made: Path
) -> None:
    """A table's ids are believed until its files are read."""
    rows = [json.loads(line) for line in (made / "manifest.jsonl").read_text().splitlines()]
    rows[0]["path"], rows[1]["path"] = rows[1]["path"], "nowhere.png"
    (project.parent / "table.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ("--set", "data.table=table.jsonl", "--recompute")
    absent = reproduced(pipeline, project, *words, code=1)["reproduce"]["absent"]
    assert [image["id"] for image in absent] == [rows[0]["id"], rows[1]["id"]]
    assert "its bytes are not those of its id" in absent[0]["reason"]


@pytest.mark.parametrize("how", ["all", "a class"])
def test_where_too_little_is_left_it_says_so(pipeline: Pipeline, project: Path, made: Path, how: str) -> None:
    shutil.rmtree(project.parent / ".features")
    shutil.rmtree(project.parent / "images" / ("dark" if how == "a class" else ""))
    error = reproduced(pipeline, project, code=4)["error"]
    gone = IMAGES if how == "all" else IMAGES // 2
    assert f"{gone} of the {IMAGES} images of head/logistic {made.name[:12]} cannot be found" in error["message"]
    assert "--set data.root=DIR" in error["hint"]


def test_unlabelled_images_are_no_part_of_it(pipeline: Pipeline, project: Path) -> None:
    loose = project.parent / "images" / "loose.png"
    loose.write_bytes(fakes.numbered(1))
    pipeline("run", "-c", project)
    loose.unlink()
    shutil.rmtree(project.parent / ".features")
    done = reproduced(pipeline, project)["reproduce"]
    assert (done["images"], done["absent"], done["reproduced"]) == (IMAGES, [], True)


def test_a_setting_that_would_make_another_model_is_refused(pipeline: Pipeline, project: Path) -> None:
    pipeline("run", "-c", project)
    ran = pipeline("reproduce", "logistic", "-c", project, "--set", "extract.size=32")
    assert ran.code == 2
    assert "--set extract.size=32: a model keeps the settings it was made with" in ran.err


def test_weights_are_those_of_the_record_wherever_they_are_now(pipeline: Pipeline, project: Path) -> None:
    one, other = project.parent / "one.weights.h5", project.parent / "other.weights.h5"
    one.write_text("one")
    project.write_text(project.read_text() + "base: {weights: one.weights.h5}\n")
    pipeline("run", "-c", project)
    one.rename(other)
    assert reproduced(pipeline, project)["reproduce"]["reproduced"]
    assert reproduced(pipeline, project, "--recompute", "--set", "base.weights=other.weights.h5")["exit_code"] == 0
    one.write_text("another")
    error = reproduced(pipeline, project, "--recompute", code=4)["error"]
    assert "the weights of efficientnet_lite0 (one.weights.h5, sha256 7692c3ad3540...)" in error["message"]
    assert error["hint"] == "give the file's path as base.weights"


def test_code_that_makes_other_rows_is_refused(
    pipeline: Pipeline, project: Path, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipe, "VERSION", 2)
    error = reproduced(pipeline, project, code=2)["error"]
    assert "today's code makes other rows of the same settings (version 1 -> 2); head/logistic " in error["message"]
    assert error["message"].endswith("was made by frozenbase 0.1.0")
    assert error["hint"].endswith("pip install frozenbase==0.1.0")


def test_code_that_fits_otherwise_is_told_among_the_differences(
    pipeline: Pipeline, project: Path, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heads_version = fitted.VERSION
    monkeypatch.setattr(fitted, "VERSION", 1000)
    done = reproduced(pipeline, project)["reproduce"]
    assert done["differences"]["head_version"] == {"recorded": heads_version, "now": 1000}
    assert done["differences"]["head key"]["recorded"] == made.name


def test_a_setting_that_is_no_more_is_refused_with_the_version_that_wrote_it(
    pipeline: Pipeline, project: Path, made: Path
) -> None:
    config = record_of(made)["config"]
    edit_record(made, config={**config, "extract": {**config["extract"], "sharpen": True}})
    error = reproduced(pipeline, project, code=2)["error"]
    assert "unknown field extract.sharpen" in error["message"]
    assert error["message"].endswith("was made by frozenbase 0.1.0")


def test_other_versions_and_machines_are_named(
    pipeline: Pipeline, project: Path, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions = record_of(made)["versions"]
    edit_record(made, versions={**versions, "numpy": "1.0"}, machine="Abacus", rows_made_by=["fake on a GPU"])
    done = reproduced(pipeline, project)["reproduce"]
    assert done["differences"]["versions.numpy"] == {"recorded": "1.0", "now": versions["numpy"]}
    assert set(done["differences"]) == {"versions.numpy", "machine", "rows_made_by"}
    monkeypatch.setattr(logistic, "PATH", logistic.PATH[:2])
    shown = pipeline("reproduce", "logistic", "-c", project)
    assert shown.code == 1
    assert ["machine", "Abacus"] in [line.split()[:2] for line in shown.out.splitlines()]
    assert "what differs: machine Abacus -> " in shown.err
    assert "; rows_made_by fake on a GPU -> fake on none; versions.numpy 1.0 -> " in shown.err


def test_where_nothing_recorded_differs_it_is_called_not_deterministic(
    pipeline: Pipeline, project: Path, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logistic, "PATH", logistic.PATH[:2])
    ran = reproduced(pipeline, project, code=1)
    assert ran["error"]["hint"] == "nothing recorded differs: it is not deterministic"
    assert ran["reproduce"]["weights_difference"] > 0


def test_an_older_model_with_fewer_facts_and_figures_is_reproduced_too(
    pipeline: Pipeline, project: Path, made: Path
) -> None:
    older = record_of(made)
    for field in ("machine", "blas", "rows_versions", "head_version"):
        del older[field]
    del older["versions"]["scipy"]
    figures = json.loads((made / "metrics.json").read_text())
    del figures["test"]["ece"]
    (made / "metrics.json").write_text(json.dumps(figures))
    older["files"]["metrics.json"] = hashlib.sha256((made / "metrics.json").read_bytes()).hexdigest()
    (made / "record.json").write_text(json.dumps(older))
    done = reproduced(pipeline, project)["reproduce"]
    assert (done["reproduced"], done["differences"]) == (True, {})


def test_a_model_on_several_classes_and_groups_comes_out_the_same(pipeline: Pipeline, project: Path) -> None:
    for i in range(8):
        (project.parent / "images" / "grey").mkdir(exist_ok=True)
        (project.parent / "images" / "grey" / f"{i:04d}.png").write_bytes(fakes.textured(1000 + i, False))
    shutil.copy(project.parent / "images" / "dark" / "0001.png", project.parent / "images" / "dark" / "copy.png")
    project.write_text(
        "data: {split: {val: 0.3, test: 0.2}, group_from: '(\\d\\d)\\.png', classes: [grey, dark, bright]}\n"
        "extract: {size: 16, dtype: float16, taps: {a: {}, b: {pooling: max}}}\nheads: {logistic: {tap: b, seed: 3}}\n"
    )
    ran = pipeline("run", "-c", project)
    assert ran.code == 0, ran.err
    project.write_text("")
    done = reproduced(pipeline, project, "--recompute")["reproduce"]
    assert (done["computed"], done["reproduced"], done["differences"]) == (IMAGES + 8, True, {})


@pytest.mark.parametrize("name", ["one", "two"])
def test_each_head_of_several_stands_on_the_rows_of_its_own_tap(pipeline: Pipeline, project: Path, name: str) -> None:
    project.write_text(
        "data: {split: {val: 0.3, test: 0.2}}\nextract: {size: 16, taps: {a: {}, b: {pooling: max}}}\n"
        "heads: {one: {tap: a}, two: {tap: b}}\n"
    )
    assert pipeline("run", "-c", project).code == 0
    shutil.rmtree(project.parent / ".features")
    done = pipeline("reproduce", name, "-c", project, "--json").json["reproduce"]
    assert (done["computed"], done["reproduced"]) == (IMAGES, True)
    assert len(list((project.parent / ".features" / "features").iterdir())) == 1


def test_a_base_that_is_no_more_is_refused_with_the_version_that_knew_it(
    pipeline: Pipeline, project: Path, made: Path
) -> None:
    config = record_of(made)["config"]
    edit_record(made, config={**config, "base": {"name": "lenet", "weights": "imagenet"}})
    error = reproduced(pipeline, project, code=2)["error"]
    assert "lenet" in error["message"]
    assert error["message"].endswith("was made by frozenbase 0.1.0")


def test_fitting_without_writing_is_what_a_run_does(pipeline: Pipeline, project: Path, made: Path) -> None:
    there = opened(project)
    fitted = train_heads.fit_head(there, there.config.heads["logistic"], there.manifest, Classes(("bright", "dark")))
    assert fitted.head.to_files()["head.json"] == (made / "head.json").read_bytes()
