"""Labels, numbers and soft labels go through every command, and each mistake in them is one sentence."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import Pipeline, Ran, counts
from tests.support.other_targets import N, write_config, write_table


@dataclass(frozen=True)
class Kind:
    """Its settings, heads, what else a table of predictions has, and the figure that ranks, one in tables, plots."""

    settings: str
    heads: str
    predicted: Sequence[str]
    figure: str
    title: str
    plots: Sequence[str]


KINDS = {
    "labels": Kind(
        "{kind: labels, columns: [light, large, odd]}",
        "{first: {C: 0.1}, second: {kind: knn}}",
        ["predicted", "p_large", "p_light", "p_odd"],
        "log_loss",
        "macro AP",
        ["precision_recall", "roc"],
    ),
    "number": Kind(
        "{kind: number, columns: [level], units: [lx]}",
        "{first: {kind: ridge}, second: {kind: knn}}",
        ["predicted"],
        "relative_error",
        "spearman",
        ["predicted", "residuals"],
    ),
    "soft": Kind(
        "{kind: soft, columns: [bright, dark]}",
        "{first: {C: 0.1}, second: {kind: ridge}}",
        ["predicted", "p_bright", "p_dark"],
        "log_loss",
        "AUROC",
        ["confusion_folds", "confusion_test", "precision_recall", "reliability", "roc"],
    ),
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


@pytest.fixture
def config(tmp_path: Path, kind: Kind) -> Path:
    write_table(tmp_path)
    return write_config(tmp_path, kind.settings, kind.heads)


def done(ran: Ran) -> Any:
    assert ran.code == 0, ran.out + ran.err
    return ran.json


def test_a_run_is_a_hit_afterwards_and_its_models_are_shown(pipeline: Pipeline, config: Path, kind: Kind) -> None:
    ran = done(pipeline("run", "-c", config, "--json"))
    assert {name: head["hit"] for name, head in ran["heads"].items()} == {"first": False, "second": False}
    found = ran["heads"]["first"]["metrics"]["folds"]
    assert found[kind.figure] < (1 if kind.figure == "relative_error" else np.log(2))
    assert len(found["ci"][kind.figure]) == 2
    assert counts(pipeline("run", "-c", config, "--json")) == (0, N)
    _, *stages = done(pipeline("status", "-c", config, "--hash", "--json"))["status"]["stages"]
    assert {stage["state"] for stage in stages} == {"HIT"}
    for words in (("run",), ("status", "--hash"), ("models",), ("show", "first"), ("show", "second")):
        shown = pipeline(*words, "-c", config)
        assert shown.code == 0, shown.err
        assert "Traceback" not in shown.err
    assert kind.title in pipeline("models", "-c", config).out
    assert kind.figure in pipeline("show", "first", "-c", config).out
    assert len(done(pipeline("models", "-c", config, "--json"))["models"]) == 2


@pytest.mark.parametrize(
    ("name", "title", "named"),
    [
        ("labels", ["label"], {"large", "light", "odd", "(none)"}),
        ("number", ["number"], {"level"}),
        ("soft", ["soft", "class"], {"bright", "dark"}),
    ],
)
def test_status_counts_images_by_what_is_predicted(
    pipeline: Pipeline, tmp_path: Path, name: str, title: Sequence[str], named: set[str]
) -> None:
    write_table(tmp_path)
    config = write_config(tmp_path, KINDS[name].settings, KINDS[name].heads)
    status = done(pipeline("status", "-c", config, "--hash", "--json"))["status"]
    assert (status["target"], status["counts"].keys()) == (name, named)
    shown = pipeline("status", "-c", config, "--hash").out
    assert [*title, "train", "val", "test"] in [line.split() for line in shown.splitlines()]


def test_predictions_have_the_columns_of_the_kind(pipeline: Pipeline, config: Path, kind: Kind, tmp_path: Path) -> None:
    done(pipeline("run", "-c", config, "--json"))
    stored = pipeline("predictions", "first", "-c", config)
    rows = list(csv.DictReader(io.StringIO(stored.out)))
    assert list(rows[0]) == ["id", "path", "label", "split", "group", "fold", *kind.predicted]
    assert len(rows) == N
    done(pipeline("predict", "first", tmp_path / "images", "-c", config, "--json", "-o", tmp_path / "new.csv"))
    new = list(csv.DictReader((tmp_path / "new.csv").open(newline="")))
    others = ("at_threshold", "confidence", "low", "high", "unknown", "unknown_score")
    assert [name for name in new[0] if name not in others] == ["id", "path", *kind.predicted]
    test = {row["id"]: row for row in rows if row["split"] == "test"}  # others are out of fold
    assert len(test) > 5
    for row in new:
        assert row["id"] not in test or all(row[name] == test[row["id"]][name] for name in kind.predicted)
    found = done(pipeline("predict", "first", tmp_path / "images", "-c", config, "--json"))["predict"]
    assert (found["images"], found["reused"]) == (N, N)
    assert ("probabilities" in found["predictions"][0]) == (kind.figure != "relative_error")
    assert {"id", "path", "predicted"} <= found["predictions"][0].keys()


def test_they_are_compared_cross_validated_and_made_again(pipeline: Pipeline, config: Path, kind: Kind) -> None:
    done(pipeline("run", "-c", config, "--json"))
    compared = done(pipeline("compare", "first", "second", "-c", config, "--json"))["compare"]
    assert compared["images"] > 0
    assert kind.figure in json.dumps(compared)
    assert pipeline("compare", "first", "second", "-c", config).code == 0
    crossed = done(pipeline("crossval", "first", "-c", config, "--folds", "3", "--json"))["crossval"]["first"]
    assert 30 < crossed["images"] < N
    assert pipeline("crossval", "first", "-c", config, "--folds", "3").code == 0
    for name in ("first", "second"):
        again = done(pipeline("reproduce", name, "-c", config, "--json"))["reproduce"]
        assert (again["arrays_same"], again["weights_difference"], again["differences"]) == (True, 0, {})


def test_they_are_plotted(pipeline: Pipeline, config: Path, kind: Kind) -> None:
    done(pipeline("run", "-c", config, "--json"))
    done(pipeline("plot", "first", "-c", config, "--json", "-o", config.parent / "drawn"))
    files = {path.stem: path.stat().st_size for path in (config.parent / "drawn").iterdir()}
    assert {*kind.plots} == files.keys()
    assert min(files.values()) > 1000


def test_they_train_in_an_export_of_the_cache_and_where_it_is_imported(
    pipeline: Pipeline, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = done(pipeline("run", "-c", config, "--json"))["heads"]["first"]
    done(pipeline("cache", "export", tmp_path / "export", "-c", config, "--json"))
    shutil.move(tmp_path / "images", tmp_path / "gone")
    here = done(pipeline("run", "head", "-c", tmp_path / "export" / "pipeline.yaml", "--json", "--require-cached"))
    assert (here["heads"]["first"]["key"], here["heads"]["first"]["metrics"]) == (there["key"], there["metrics"])
    laptop = tmp_path / "laptop"
    laptop.mkdir()
    monkeypatch.chdir(laptop)
    done(pipeline("cache", "import", tmp_path / "export", "--json"))
    again = done(pipeline("run", "head", "-c", laptop / "pipeline.yaml", "--json", "--require-cached"))
    assert again["heads"]["first"]["metrics"] == there["metrics"]


def test_val_chooses_too(pipeline: Pipeline, config: Path, kind: Kind) -> None:
    config.write_text(config.read_text().replace("first: {", "first: {choose: val, "))
    ran = done(pipeline("run", "-c", config, "--json"))
    assert kind.figure in ran["heads"]["first"]["metrics"]["val"]
    rows = list(csv.DictReader(io.StringIO(pipeline("predictions", "first", "-c", config).out)))
    assert list(rows[0]) == ["id", "path", "label", "split", "group", *kind.predicted]
    assert done(pipeline("reproduce", "first", "-c", config, "--json"))["reproduce"]["arrays_same"]


def run_keys(pipeline: Pipeline, config: Path, *sets: str) -> tuple[str, str]:
    """Of the tap's rows, and of the head."""
    words = [word for text in sets for word in ("--set", f"data.target.{text}")]
    ran = done(pipeline("run", "-c", config, "--json", *words))
    return ran["extract"]["keys"]["pooled"], ran["heads"]["first"]["key"]


@pytest.mark.parametrize(
    ("target", "change"),
    [
        ("{kind: labels, columns: [light, large]}", ["columns=[light, odd]"]),
        ("{kind: labels, columns: [light, large]}", ["columns=[light, large, odd]"]),
        ("{kind: labels, columns: [tags]}", ["separator=b"]),
        ("{kind: labels, columns: [light]}", ["kind=soft"]),
        ("{kind: soft, columns: [bright, dark]}", ["columns=[bright]"]),
        ("{}", ["kind=labels"]),
        ("{kind: number, columns: [level]}", ["columns=[depth]"]),
        ("{kind: number, columns: [level]}", ["columns=[depth, level]"]),
    ],
)
def test_what_is_predicted_moves_the_head_and_not_the_rows(
    pipeline: Pipeline, tmp_path: Path, target: str, change: Sequence[str]
) -> None:
    write_table(tmp_path)
    config = write_config(tmp_path, target, "{first: {kind: knn}}")
    before, after = run_keys(pipeline, config), run_keys(pipeline, config, *change)
    assert before[0] == after[0]
    assert before[1] != after[1]


def test_units_move_neither(pipeline: Pipeline, tmp_path: Path) -> None:
    write_table(tmp_path)
    config = write_config(tmp_path, "{kind: number, columns: [level]}", "{first: {kind: ridge}}")
    assert run_keys(pipeline, config) == run_keys(pipeline, config, "units=[lx]")


def test_a_trial_of_another_target_remembers_no_splits(pipeline: Pipeline, tmp_path: Path) -> None:
    write_table(tmp_path)
    config = write_config(tmp_path, "{kind: number, columns: [level]}", "{first: {kind: ridge}}")
    done(pipeline("run", "-c", config, "--json", "--set", "data.target.columns=[depth]"))
    assert not (tmp_path / "splits.csv").exists()
    done(pipeline("run", "-c", config, "--json"))
    assert (tmp_path / "splits.csv").exists()


def test_show_says_how_many_images_know_each_label(pipeline: Pipeline, tmp_path: Path) -> None:
    write_table(tmp_path)
    config = write_config(tmp_path, "{kind: labels, columns: [light, odd]}")
    done(pipeline("run", "-c", config, "--json"))
    lines = [line.split() for line in pipeline("show", "first", "-c", config).out.splitlines()]
    assert ["labels", "light,", "odd"] in lines
    start = lines.index(["label", "(test)", "images", "known", "ap", "AUROC", "f1"])
    assert all(int(row[1]) <= int(row[2]) <= 10 for row in lines[start + 1 : start + 3])


def test_images_without_a_label_have_a_name_in_tables(pipeline: Pipeline, tmp_path: Path) -> None:
    write_table(tmp_path)
    config = write_config(tmp_path, "{kind: labels, columns: [light, large]}")
    shown = pipeline("status", "-c", config, "--hash")
    assert [line.split()[0] for line in shown.out.splitlines() if line.strip()][-3:] == ["(none)", "large", "light"]


def test_labels_that_one_image_each_has_are_folded(pipeline: Pipeline, tmp_path: Path) -> None:
    write_table(tmp_path)
    config = write_config(tmp_path, "{kind: labels, columns: [level]}", "{first: {kind: knn}}")
    assert done(pipeline("run", "-c", config, "--json"))["heads"]["first"]["metrics"]["folds"]["n"] > 30


def test_labels_in_one_column_are_those_that_it_names(pipeline: Pipeline, tmp_path: Path) -> None:
    write_table(tmp_path)
    config = write_config(tmp_path, "{kind: labels, columns: [tags]}", "{first: {kind: ridge}}")
    done(pipeline("run", "-c", config, "--json"))
    rows = list(csv.DictReader(io.StringIO(pipeline("predictions", "first", "-c", config).out)))
    assert [name for name in rows[0] if name[:2] == "p_"] == ["p_a", "p_b"]
    assert {row["predicted"] for row in rows} <= {"", "a", "b", "a;b"}


def test_several_numbers_have_a_column_each(pipeline: Pipeline, tmp_path: Path) -> None:
    write_table(tmp_path)
    config = write_config(tmp_path, "{kind: number, columns: [level, depth]}", "{first: {kind: ridge}}")
    ran = done(pipeline("run", "-c", config, "--json"))
    assert {*ran["heads"]["first"]["metrics"]["folds"]["per_number"]} == {"level", "depth"}
    rows = list(csv.DictReader(io.StringIO(pipeline("predictions", "first", "-c", config).out)))
    assert [name for name in rows[0] if "predicted" in name] == ["predicted_level", "predicted_depth"]
    found = np.array([float(row["predicted_level"]) for row in rows])
    assert 900 < found.mean() < 1300  # in the unit of the table
    for words in (("show", "first"), ("compare", "first", "first"), ("plot", "first")):
        assert pipeline(*words, "-c", config).code == 0


@pytest.mark.parametrize(
    ("target", "heads", "message"),
    [
        ("{kind: number, columns: [size]}", "{a: {kind: ridge}}", "no column 'size'; it has"),
        ("{kind: labels, columns: [light, size]}", "{a: {}}", "no column 'size'; it has"),
        ("{kind: number, columns: [words]}", "{a: {kind: ridge}}", "line 6: words is 'old', which is no number"),
        ("{kind: number, columns: [huge]}", "{a: {kind: ridge}}", "line 4: huge is infinite"),
        ("{kind: number, columns: [same]}", "{a: {kind: ridge}}", "same is 7 for all images, so there is nothing"),
        ("{kind: labels, columns: [light, none]}", "{a: {}}", "no image has the label 'none', so there is nothing"),
        ("{kind: labels, columns: [level, light]}", "{a: {}}", "line 2: level is '"),
        (
            "{kind: number, columns: [level]}",
            "{a: {kind: logistic}}",
            "a logistic head gives probabilities, no numbers; expected ridge, knn",
        ),
        ("{kind: labels, columns: [light, odd]}", "{a: {kind: ridge}}", "7 images have labels that are unknown"),
        ("{kind: soft, columns: [bright, wrong]}", "{a: {}}", "line 2: bright + wrong is 1."),
        ("{kind: soft, columns: [level, dark]}", "{a: {}}", "a share is 0 to 1"),
        ("{kind: classes, columns: [light]}", "{a: {}}", "columns: a class is in one column, data.columns.label"),
        ("{kind: labels, columns: [light, light]}", "{a: {}}", "has a name twice"),
        ("{kind: labels, units: [mm]}", "{a: {}}", "units: only numbers have any; kind is labels"),
        ("{kind: number, columns: [level], units: [a, b]}", "{a: {}}", "units: 2 for 1 numbers; give one for each"),
        (
            "{kind: numbers}",
            "{a: {}}",
            "data.target.kind: expected 'classes', 'labels', 'number' or 'soft', got 'numbers'",
        ),
    ],
)
def test_a_mistake_is_one_sentence(pipeline: Pipeline, tmp_path: Path, target: str, heads: str, message: str) -> None:
    write_table(tmp_path)
    ran = pipeline("run", "-c", write_config(tmp_path, target, heads))
    assert ran.code == 2, ran.out + ran.err
    assert message in " ".join(ran.err.split())
    assert "Traceback" not in ran.err
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize("kind", ["labels", "number", "soft"])
def test_folders_give_classes_alone(pipeline: Pipeline, project: Path, kind: str) -> None:
    ran = pipeline("run", "-c", project, "--set", f"data.target.kind={kind}")
    assert ran.code == 2
    assert f"target.kind: {kind} is in a table; name it with table" in " ".join(ran.err.split())
