"""compare.py: two models on the images that are new to both, with today's labels, across bases and growth."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Pipeline
from tests.support import fakes


def made(pipeline: Pipeline, config: Path, *more: str) -> dict[str, Any]:
    ran = pipeline("run", "-c", config, "--json", *more)
    assert ran.code == 0, ran.out
    return dict(ran.json["heads"]["logistic"])


def compared(pipeline: Pipeline, config: Path, a: str, b: str, *more: str) -> dict[str, Any]:
    ran = pipeline("compare", a, b, "-c", config, "--json", *more)
    assert ran.code == 0, ran.out
    return dict(ran.json["compare"])


@pytest.fixture
def config(project: Path) -> Path:
    fakes.two_classes(project.parent / "images", 30)
    return project


def test_a_model_beside_itself_has_the_figures_of_its_test_set(pipeline: Pipeline, config: Path) -> None:
    model = made(pipeline, config)
    found = compared(pipeline, config, "logistic", model["key"][:8])
    test = model["metrics"]["test"]
    assert found["images"] == test["n"]
    assert found["dropped"] == {"in train or val of A or B": 60 - test["n"]}
    for side in ("a", "b"):
        assert found[side]["key"] == model["key"]
        for name, value in found[side]["metrics"].items():
            assert value == test[name]
    assert {difference["value"] for difference in found["difference"].values()} <= {0, None}
    assert found["mcnemar"]["p_value"] == 1


def test_other_bases_sizes_and_class_orders_are_compared(pipeline: Pipeline, config: Path) -> None:
    a = made(pipeline, config)
    (config.parent / "w.h5").write_bytes(b"weights")
    words = ("base={name: mobilenet_v2, weights: w.h5}", "extract.size=32", "data.classes=[dark, bright]")
    b = made(pipeline, config, *(f"--set={word}" for word in words))
    found = compared(pipeline, config, a["key"], b["key"])
    assert found["images"] == a["metrics"]["test"]["n"]
    assert found["b"]["metrics"]["accuracy"] == b["metrics"]["test"]["accuracy"]
    assert found["b"]["metrics"]["log_loss"] == pytest.approx(b["metrics"]["test"]["log_loss"])


def test_images_seen_by_either_are_dropped_and_new_ones_count(pipeline: Pipeline, config: Path) -> None:
    """Two splits of one dataset, which has grown since: their test sets' intersection, and what came after."""
    a = made(pipeline, config)
    b = made(pipeline, config, "--set", "data.split.seed=7")
    fakes.two_classes(config.parent / "images", 20, start=50)
    made(pipeline, config)
    found = compared(pipeline, config, a["key"], b["key"])
    from pipeline.results.registry import find

    seen = {
        row.id
        for key in (a["key"], b["key"])
        for row in find(config.parent, key).manifest().rows
        if row.split in ("train", "val")
    }
    assert found["images"] == 100 - len(seen)
    assert found["dropped"] == {"in train or val of A or B": len(seen)}


def test_the_labels_are_those_of_today(pipeline: Pipeline, config: Path) -> None:
    model = made(pipeline, config)
    images = config.parent / "images"
    images.rename(images.with_name("old"))
    shutil.copytree(config.parent / "old" / "bright", images / "dark")
    shutil.copytree(config.parent / "old" / "dark", images / "bright")
    found = compared(pipeline, config, "logistic", model["key"])
    assert found["a"]["metrics"]["accuracy"] == pytest.approx(1 - model["metrics"]["test"]["accuracy"])


def test_rows_that_one_lacks_are_counted_and_the_hint_computes_them(pipeline: Pipeline, config: Path) -> None:
    settings = ("extract.size=32", "extract.taps={early: {layer: x, pooling: max}}", "heads.logistic.tap=early")
    b = made(pipeline, config, *(f"--set={word}" for word in settings))
    a = made(pipeline, config)
    fakes.two_classes(config.parent / "images", 5, start=50)
    pipeline("run", "extract", "-c", config)
    found = compared(pipeline, config, a["key"], b["key"])
    assert found["dropped"]["without a row for B"] == 10
    assert list(found["hints"]) == ["B"]
    words = shlex.split(found["hints"]["B"])
    assert words[:3] == ["pipeline", "run", "extract"]
    ran = pipeline(*words[1:], "-c", config)
    assert ran.code == 0, ran.err
    again = compared(pipeline, config, a["key"], b["key"])
    assert again["images"] == found["images"] + 10
    assert again["hints"] == {}
    text = pipeline("compare", a["key"], b["key"], "-c", config).out
    assert f"{again['images']} images that are in the train or val set of neither" in text
    assert max(map(len, text.splitlines())) <= 100


def test_a_group_that_was_trained_on_is_dropped_whole(pipeline: Pipeline, config: Path) -> None:
    """New images of old groups are no new evidence; those of new groups are."""
    config.write_text("data: {group_from: '(\\d\\d)\\.png', split: {val: 0.3, test: 0.3}}\nextract: {size: 16}\n")
    model = made(pipeline, config)
    for label in ("bright", "dark"):
        for number in (*range(100, 130), 150, 151):
            path = config.parent / "images" / label / f"{number:04d}.png"
            path.write_bytes(fakes.textured(2 * number + (label == "dark"), label == "bright"))
    pipeline("run", "extract", "-c", config)
    found = compared(pipeline, config, "logistic", model["key"])
    test = model["metrics"]["test"]["n"]
    assert found["images"] == 2 * test + 4
    assert found["dropped"] == {
        "in train or val of A or B": 60 - test,
        "of a group in train or val of A or B": 60 - test,
    }
    assert found["groups"] == test // 2 + 2
    assert "intervals are over groups" in pipeline("compare", "logistic", model["key"], "-c", config).out


def test_images_without_a_label_or_of_another_class_are_dropped(pipeline: Pipeline, config: Path) -> None:
    model = made(pipeline, config)
    images = config.parent / "images"
    (images / "green").mkdir()
    (images / "green" / "1.png").write_bytes(fakes.numbered(1))
    (images / "loose.png").write_bytes(fakes.numbered(2))
    found = compared(pipeline, config, "logistic", model["key"])
    assert found["dropped"]["without a label"] == 1
    assert found["dropped"]["of a class they don't know"] == 1


def test_models_of_other_classes_are_refused(pipeline: Pipeline, config: Path) -> None:
    a = made(pipeline, config)
    (config.parent / "images" / "dark").rename(config.parent / "images" / "black")
    b = made(pipeline, config)
    ran = pipeline("compare", a["key"], b["key"], "-c", config)
    assert ran.code == 2
    assert "has the classes bright, dark, but head/logistic" in ran.err
    assert "only models of the same classes can be compared" in ran.err


def test_nothing_left_to_compare_on_is_said_with_what_was_dropped(pipeline: Pipeline, config: Path) -> None:
    model = made(pipeline, config, "--set", "data.split.test=0", "--set", "heads.logistic.choose=val")
    ran = pipeline("compare", model["key"], model["key"], "-c", config, "--set", "data.split.test=0")
    assert ran.code == 2
    assert "no image is left to compare" in ran.err
    assert "60 in train or val of A or B" in ran.err


def test_heads_without_other_images_are_compared_out_of_fold(pipeline: Pipeline, project: Path) -> None:
    """Not one of val with one of folds, nor of other folds."""
    heads = "{one: {}, two: {kind: ridge}, seeded: {seed: 7}, on_val: {choose: val}}"
    project.write_text(f"data: {{split: {{val: 0.3, test: 0}}}}\nextract: {{size: 16}}\nheads: {heads}\n")
    assert pipeline("run", "-c", project).code == 0
    ran = pipeline("compare", "one", "two", "-c", project, "--json")
    assert ran.code == 0, ran.err
    done = ran.json["compare"]
    assert (done["images"], done["out_of_fold"], done["dropped"]) == (24, True, {})
    figures = pipeline("show", "one", "-c", project, "--json").json["show"]["metrics"]["folds"]
    assert done["a"]["metrics"]["log_loss"] == pytest.approx(figures["log_loss"])
    shown = pipeline("compare", "one", "two", "-c", project).out
    assert "predicted by heads that were not fitted on their fold" in " ".join(shown.split())
    for other in ("seeded", "on_val"):
        assert pipeline("compare", "one", other, "-c", project).code == 2
