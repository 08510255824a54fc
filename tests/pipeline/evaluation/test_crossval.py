"""crossval.py: heads of pipeline.yaml judged out of fold, on cached rows, without a look at test."""

from __future__ import annotations

import csv
import math
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Pipeline
from tests.support import fakes
from tests.support.disk import read_tree


@pytest.fixture
def config(project: Path, pipeline: Pipeline) -> Path:
    fakes.two_classes(project.parent / "images", 30)
    assert pipeline("run", "-c", project).code == 0
    return project


def judged(pipeline: Pipeline, config: Path, *more: str) -> dict[str, Any]:
    ran = pipeline("crossval", "-c", config, "--json", *more)
    assert ran.code == 0, ran.out
    return dict(ran.json["crossval"])


def test_each_image_of_train_and_val_is_judged_once_and_nothing_is_written(pipeline: Pipeline, config: Path) -> None:
    before = read_tree(config.parent)
    test = pipeline("models", "-c", config, "--json").json["models"][0]["metrics"]["test"]["n"]
    found = judged(pipeline, config)["logistic"]
    assert found["images"] == found["metrics"]["n"] == 60 - test
    assert sum(of["n"] for of in found["per_fold"]) == 60 - test
    assert len(found["per_fold"]) == 5
    assert found["metrics"]["ci"]["accuracy"][0] <= found["metrics"]["accuracy"]
    assert read_tree(config.parent) == before


def test_with_all_test_counts_too(pipeline: Pipeline, config: Path) -> None:
    found = judged(pipeline, config, "--all", "--folds", "3")["logistic"]
    assert (found["images"], len(found["per_fold"])) == (60, 3)
    assert found["splits"] == ["train", "val", "test"]


def test_the_labels_of_test_do_not_matter(pipeline: Pipeline, config: Path) -> None:
    table = config.parent / "manifest.jsonl"
    shutil.copy(next((config.parent / ".features" / "manifests").glob("*.jsonl")), table)
    words = ("--set", "data.table=manifest.jsonl")
    before = judged(pipeline, config, *words)
    lines = table.read_text().splitlines()
    swap = {"bright": "dark", "dark": "bright"}
    for i, line in enumerate(lines):
        if '"split": "test"' in line:
            label = "bright" if '"label": "bright"' in line else "dark"
            lines[i] = line.replace(f'"label": "{label}"', f'"label": "{swap[label]}"')
    table.write_text("\n".join(lines) + "\n")
    assert judged(pipeline, config, *words) == before


def test_heads_are_named_or_all_and_groups_are_kept_together(pipeline: Pipeline, config: Path) -> None:
    config.write_text(
        "data: {group_from: '(\\d)\\.png', split: {val: 0.3, test: 0.2}}\n"
        "extract: {size: 16}\nheads: {one: {}, two: {seed: 1}}\n"
    )
    assert list(judged(pipeline, config, "--folds", "3")) == ["one", "two"]
    found = judged(pipeline, config, "two", "--folds", "3")
    assert list(found) == ["two"]
    assert found["two"]["groups"] == len(found["two"]["metrics"]["per_group"]) > 3
    ran = pipeline("crossval", "three", "-c", config)
    assert (ran.code, "no head 'three' in pipeline.yaml; it has one, two" in ran.err) == (2, True)


def test_a_missing_row_is_said(pipeline: Pipeline, config: Path) -> None:
    fakes.two_classes(config.parent / "images", 3, start=50)
    ran = pipeline("crossval", "-c", config)
    assert ran.code == 4
    assert "pipeline run extract" in ran.err


def test_an_image_that_cannot_be_read_is_left_out_where_the_settings_say_so(pipeline: Pipeline, config: Path) -> None:
    (config.parent / "images" / "dark" / "bad.png").write_bytes(b"no image")
    assert judged(pipeline, config, "--set", "data.on_bad=skip", "--all")["logistic"]["images"] == 60


def test_a_table_for_a_person(pipeline: Pipeline, config: Path) -> None:
    found = judged(pipeline, config)["logistic"]
    out = pipeline("crossval", "-c", config).out
    assert f"logistic: {found['images']} images of train and val, in 5 folds" in out
    low, high = found["metrics"]["ci"]["auroc"]
    assert f"{found['metrics']['auroc']:.3f} ({low:.3f}-{high:.3f})" in out
    assert max(map(len, out.splitlines())) <= 100


def test_predictions_out_of_fold_are_written_for_all_heads_and_heads_are_ranked(
    pipeline: Pipeline, config: Path, tmp_path: Path
) -> None:
    """They give the figures again; one table has the heads by log-loss before those of each."""
    file = tmp_path / "folds.csv"
    sets = ("--set", "heads={one: {}, two: {kind: knn, k: [5]}}", "--folds", "3")
    found = judged(pipeline, config, *sets, "-o", str(file))
    with open(file, newline="") as opened:
        lines = list(csv.DictReader(opened))
    for name, head in found.items():
        mine = [line for line in lines if line["head"] == name]
        assert len({line["id"] for line in mine}) == len(mine) == head["images"]
        assert all(line["path"] and line["split"] in ("train", "val") for line in mine)
        right = sum(line["label"] == line["predicted"] for line in mine) / len(mine)
        assert right == pytest.approx(head["metrics"]["accuracy"])
        losses = [-math.log(max(float(line[f"p_{line['label']}"]), 1e-15)) for line in mine]
        assert sum(losses) / len(mine) == pytest.approx(head["metrics"]["log_loss"])
        folds = [sum(line["fold"] == str(number) for line in mine) for number in (1, 2, 3)]
        assert folds == [of["n"] for of in head["per_fold"]]
    shown = pipeline("crossval", "-c", config, *sets).out.splitlines()
    best = sorted(found, key=lambda name: found[name]["metrics"]["log_loss"])
    assert [line.split()[0] for line in shown[:3]] == ["head", *best]


def test_a_name_that_is_no_table_is_refused_before_anything_is_fitted(pipeline: Pipeline, config: Path) -> None:
    ran = pipeline("crossval", "-c", config, "-o", "folds.txt")
    assert ran.code == 2
    assert "expected a name that ends in .csv or .parquet" in ran.err
