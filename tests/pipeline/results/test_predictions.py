"""predictions.py: what a model says of each image, joined with where it lay, as CSV or Parquet."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from pyarrow import parquet

from pipeline.config.data_schema import Columns
from pipeline.results import predictions
from stages.data import tables
from tests.conftest import Pipeline
from tests.support import fakes


@pytest.fixture
def config(project: Path, pipeline: Pipeline) -> Path:
    """With a copy, a file without a label, groups, and a name with a comma."""
    images = project.parent / "images"
    shutil.copy(images / "dark" / "0001.png", images / "dark" / "copy, of 0001.png")
    (images / "loose.png").write_bytes(fakes.numbered(3))
    project.write_text("data: {group_from: '(\\d\\d)\\.png', split: {val: 0.3, test: 0.2}}\nextract: {size: 16}\n")
    assert pipeline("run", "-c", project).code == 0
    return project


def table(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_each_labelled_image_has_a_line_with_the_figures_of_the_model(pipeline: Pipeline, config: Path) -> None:
    ran = pipeline("predictions", "logistic", "-c", config)
    assert (ran.code, ran.err) == (0, "")
    rows = table(ran.out)
    assert list(rows[0]) == ["id", "path", "label", "split", "group", "fold", "predicted", "p_bright", "p_dark"]
    assert len(rows) == 24
    metrics = pipeline("models", "-c", config, "--json").json["models"][0]["metrics"]
    for split, name in (("train", "folds"), ("test", "test")):
        mine = [row for row in rows if row["split"] == split]
        assert {row["fold"] > "0" for row in mine} == {name == "folds"}
        assert len(mine) == metrics[name]["n"]
        right = np.mean([row["label"] == row["predicted"] for row in mine])
        assert right == pytest.approx(metrics[name]["accuracy"])
        loss = -np.mean([np.log(float(row[f"p_{row['label']}"])) for row in mine])
        assert loss == pytest.approx(metrics[name]["log_loss"])
    for row in rows:
        assert Path(row["path"]).parts[0] == row["label"]
        assert row["group"] == Path(row["path"]).stem[-2:]
        assert float(row["p_bright"]) + float(row["p_dark"]) == pytest.approx(1)


def test_paths_are_those_of_the_day_it_was_made_and_nothing_else_is_needed(pipeline: Pipeline, config: Path) -> None:
    before = pipeline("predictions", "logistic", "-c", config).out
    shutil.rmtree(config.parent / "images")
    shutil.rmtree(config.parent / ".features")
    config.unlink()
    assert pipeline("predictions", "logistic", "-c", config.parent).out == before


def test_parquet_holds_the_same_as_csv(pipeline: Pipeline, config: Path, tmp_path: Path) -> None:
    out = tmp_path / "new folder"
    for name in ("out.csv", "out.parquet"):
        ran = pipeline("predictions", "logistic", "-o", out / name, "-c", config)
        assert ran.out == f"24 images: {out / name}\n"
    rows, columns = table((out / "out.csv").read_text()), parquet.read_table(out / "out.parquet").to_pydict()
    assert list(columns) == list(rows[0])
    for name, values in columns.items():
        assert [row[name] for row in rows] == [str(value) if value is not None else "" for value in values]
    ran = pipeline("predictions", "logistic", "-o", out / "out.csv", "-c", config, "--json")
    assert ran.json["predictions"] == {"path": str(out / "out.csv"), "images": 24}


def test_the_table_lies_in_the_model_s_folder_to_the_last_bit(pipeline: Pipeline, config: Path) -> None:
    (folder,) = config.parent.glob("models/head/logistic/*/")
    text = (folder / "predictions.csv").read_text("utf-8")
    assert text == pipeline("predictions", "logistic", "-c", config).out
    with np.load(folder / "predictions.npz") as arrays:
        for row, image, p in zip(table(text), arrays["ids"], arrays["probabilities"], strict=True):
            assert row["id"] == image
            assert [float(row["p_bright"]), float(row["p_dark"])] == p.tolist()


def test_a_model_of_before_there_was_a_table_is_read_all_the_same(pipeline: Pipeline, config: Path) -> None:
    (path,) = config.parent.glob("models/head/logistic/*/record.json")
    record = json.loads(path.read_text())
    del record["files"]["predictions.csv"]
    path.write_text(json.dumps(record))
    expected = (path.parent / "predictions.csv").read_text("utf-8")
    (path.parent / "predictions.csv").unlink()
    assert pipeline("predictions", "logistic", "-c", config).out == expected
    assert pipeline("reproduce", "logistic", "-c", config).code == 0


def test_very_many_are_kept_of_val_and_test_alone_and_without_a_table(
    pipeline: Pipeline, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config.write_text(config.read_text() + "heads: {logistic: {choose: val}}\n")
    assert pipeline("run", "-c", config).code == 0
    before = table(pipeline("predictions", "logistic", "-c", config).out)
    shutil.rmtree(config.parent / "models")
    monkeypatch.setattr(predictions, "MOST", 10)
    assert pipeline("run", "-c", config).code == 0
    assert table(pipeline("predictions", "logistic", "-c", config).out) == [r for r in before if r["split"] != "train"]
    (folder,) = config.parent.glob("models/head/logistic/*/")
    assert not (folder / "predictions.csv").exists()
    assert pipeline("plot", "logistic", "-c", config).code == 0
    assert pipeline("reproduce", "logistic", "-c", config).code == 0


def test_very_many_of_train_are_kept_where_they_are_judged_out_of_fold(
    pipeline: Pipeline, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = table(pipeline("predictions", "logistic", "-c", config).out)
    shutil.rmtree(config.parent / "models")
    monkeypatch.setattr(predictions, "MOST", 10)
    assert pipeline("run", "-c", config).code == 0
    assert table(pipeline("predictions", "logistic", "-c", config).out) == before


def test_more_than_can_be_judged_are_refused_before_a_head_is_fitted(
    pipeline: Pipeline, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(config.parent / "models")
    config.write_text(config.read_text() + "heads: {logistic: {choose: val}}\n")
    monkeypatch.setattr(predictions, "MOST", 10)
    monkeypatch.setattr(predictions, "MOST_JUDGED", 19)
    ran = pipeline("run", "-c", config)
    assert ran.code == 2
    assert "images that are judged times 2 classes are " in ran.err
    assert list(config.parent.glob("models/**/record.json")) == []


def test_another_format_is_refused(pipeline: Pipeline, config: Path, tmp_path: Path) -> None:
    ran = pipeline("predictions", "logistic", "-o", tmp_path / "out.xlsx", "-c", config)
    assert ran.code == 2
    assert "expected a name that ends in .csv or .parquet" in ran.err


def test_without_pyarrow_the_extra_is_named(
    pipeline: Pipeline, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    ran = pipeline("predictions", "logistic", "-o", tmp_path / "out.parquet", "-c", config)
    assert ran.code == 2
    assert "pip install 'frozenbase[parquet]'" in ran.err
    assert not (tmp_path / "out.parquet").exists()


def test_a_name_that_is_not_utf8_comes_out_escaped(pipeline: Pipeline, config: Path, tmp_path: Path) -> None:
    (config.parent / "images" / "dark" / "caf\udce9.png").write_bytes(fakes.numbered(4))
    assert pipeline("run", "-c", config).code == 0
    out = tmp_path / "out.csv"
    assert pipeline("predictions", "logistic", "-o", out, "-c", config).code == 0
    assert "caf\\udce9.png" in out.read_text("utf-8")
    assert pipeline("predictions", "logistic", "-o", tmp_path / "out.parquet", "-c", config).code == 0


def test_json_without_an_output_is_wrong_usage(pipeline: Pipeline, config: Path) -> None:
    assert pipeline("predictions", "logistic", "-c", config, "--json").code == 2


def test_formulas_in_paths_and_labels_are_escaped_and_read_back_as_a_table(pipeline: Pipeline, project: Path) -> None:
    images = project.parent / "images"
    (images / "bright").rename(images / "=1+1")
    for path in sorted((images / "dark").iterdir())[:1]:
        path.rename(path.with_name("@SUM(A1).png"))
    assert pipeline("run", "-c", project).code == 0
    table = next(project.parent.glob("models/head/logistic/*/predictions.csv"))
    text = table.read_text()
    assert ",'=1+1/" in text
    assert ",'=1+1," in text
    assert ",=" not in text
    found = tables.read_table(table, Columns().model_dump(), images)
    assert {row.label for row in found.rows} == {"=1+1", "dark"}
    assert sum((images / row.path).exists() for row in found.rows) == 24


def test_formulas_in_the_list_of_rejects_are_escaped(pipeline: Pipeline, project: Path) -> None:
    (project.parent / "images" / "=cmd|x").mkdir()
    (project.parent / "images" / "=cmd|x" / "a.png").write_bytes(b"no image")
    assert pipeline("run", "extract", "-c", project).code == 3
    assert "\n'=cmd|x/a.png," in (project.parent / "rejects.csv").read_text().replace("\r", "")
