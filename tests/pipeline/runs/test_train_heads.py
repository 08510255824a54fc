"""train_heads.py and evaluation_tables.py: what metrics.json says of a head, and how a person reads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.data.manifest import Row
from stages.metrics import calibration, classification
from stages.targets import evaluate
from stages.targets.classes import Classes
from tests.conftest import Pipeline, Ran
from tests.support import fakes


def trained(pipeline: Pipeline, config: Path, *more: str) -> tuple[Ran, dict[str, Any]]:
    ran = pipeline("run", "-c", config, *more)
    assert ran.code == 0, ran.err
    (path,) = config.parent.glob("models/head/logistic/*/metrics.json")
    return ran, dict(json.loads(path.read_bytes()))


def test_metrics_have_intervals_details_and_a_calibration(pipeline: Pipeline, project: Path) -> None:
    _, metrics = trained(pipeline, project)
    assert set(metrics) == {"folds", "test", "calibration", "judged", "unknown"}
    for split in ("folds", "test"):
        figures = metrics[split]
        assert set(figures) == {"n", *classification.NAMES, "ci", "confusion", "per_class"}
        assert set(figures["ci"]) == set(classification.NAMES)
        assert sum(map(sum, figures["confusion"])) == figures["n"]
        assert sum(of["support"] for of in figures["per_class"].values()) == figures["n"]
    assert metrics["calibration"]["folds"]["log_loss"] <= metrics["folds"]["log_loss"] + 0.05  # cross-fitted


def test_rows_with_groups_are_judged_over_groups(pipeline: Pipeline, project: Path) -> None:
    project.write_text("data: {group_from: '(\\d)\\.png', split: {val: 0.3, test: 0.3}}\nextract: {size: 16}\n")
    _, metrics = trained(pipeline, project)
    groups = metrics["test"]["per_group"]
    assert sum(of["n"] for of in groups.values()) == metrics["test"]["n"]
    assert set(groups) <= set("0123456789")
    assert f"and {len(groups)} in test" in pipeline("show", "logistic", "-c", project).out


def test_a_table_for_a_person_has_the_interval_beside_the_figure(pipeline: Pipeline, project: Path) -> None:
    ran, metrics = trained(pipeline, project)
    low, high = metrics["folds"]["ci"]["log_loss"]
    assert low < metrics["folds"]["log_loss"] < high
    low, high = metrics["folds"]["ci"]["accuracy"]
    expected = (
        f"logistic trained folds {metrics['folds']['n']} {metrics['folds']['accuracy']:.3f} ({low:.3f}-{high:.3f})"
    )
    assert any(" ".join(line.split()).startswith(expected) for line in ran.out.splitlines())
    assert max(map(len, ran.out.splitlines()[3:7])) <= 100


def test_a_warning_that_several_heads_have_is_printed_once(pipeline: Pipeline, project: Path) -> None:
    (project.parent / "images" / "loose.png").write_bytes(fakes.numbered(7))
    project.write_text(project.read_text() + "heads: {logistic: {}, ridge: {kind: ridge}, knn: {kind: knn}}\n")
    ran = pipeline("run", "-c", project)
    assert ran.code == 0, ran.err
    assert ran.err.count("1 of 25 images have no label; heads leave them out") == 1


def test_tables_of_classes_are_in_the_order_of_data_classes(pipeline: Pipeline, project: Path) -> None:
    project.write_text(project.read_text().replace("data: {", "data: {classes: [dark, bright], "))
    assert pipeline("run", "-c", project).code == 0
    for words in (("status", "--hash"), ("show", "logistic")):
        found = pipeline(*words, "-c", project, "--json").json[words[0]]
        assert list(found["counts"]) == ["dark", "bright"]
        lines = [line.split()[0] for line in pipeline(*words, "-c", project).out.splitlines() if line]
        assert [name for name in lines if name in ("bright", "dark")][:2] == ["dark", "bright"]


def test_show_has_calibration_and_classes(pipeline: Pipeline, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "LEAST_IMAGES", 5)
    monkeypatch.setattr(calibration, "LEAST_OF_CLASS", 2)
    project.write_text(project.read_text() + "heads: {logistic: {C: 0.001, choose: val}}\n")
    ran, metrics = trained(pipeline, project)
    out = pipeline("show", "logistic", "-c", project).out
    assert f"calibrated on val: logits / {metrics['calibration']['temperature']:.3f}" in out
    assert "threshold with the best balanced accuracy on val" in out
    assert ran.err.count("heads.logistic: the temperature is at its limit") == 1
    assert any(line.split()[:2] == ["bright", str(metrics["test"]["per_class"]["bright"]["support"])]
               for line in out.partition("class (test)")[2].splitlines())  # fmt: skip


def test_an_older_model_without_intervals_is_shown_all_the_same(pipeline: Pipeline, project: Path) -> None:
    import hashlib

    project.write_text(project.read_text() + "heads: {logistic: {choose: val}}\n")
    _, metrics = trained(pipeline, project)
    (path,) = project.parent.glob("models/head/logistic/*/metrics.json")
    old = {split: {name: metrics[split][name] for name in ("n", *classification.NAMES)} for split in ("val", "test")}
    path.write_text(json.dumps(old))
    record = json.loads((path.parent / "record.json").read_text())
    record["files"]["metrics.json"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (path.parent / "record.json").write_text(json.dumps(record))
    for words in (["run", "head"], ["show", "logistic"], ["models"], ["reproduce", "logistic"]):
        ran = pipeline(*words, "-c", project)
        assert ran.code == 0, ran.err
        assert f"{old['val']['accuracy']:.3f}" in ran.out


def test_more_than_a_screen_of_classes_and_groups_is_cut_and_counted(capsys: pytest.CaptureFixture[str]) -> None:
    from pipeline.show.evaluation_tables import show_metrics

    rng = np.random.default_rng(0)
    classes = Classes(f"class {i}" for i in range(30))
    rows = [Row("", "", classes[i % 30], ("val", "test")[i % 2], f"g{i % 40}") for i in range(600)]
    show_metrics(evaluate.evaluate_splits(rows, rng.dirichlet(np.ones(30), 600), classes, 0))
    out = capsys.readouterr().out
    assert "and 10 more classes" in out
    assert "and 10 more groups" in out
