"""pipeline/predictions.py: what a model says of each image, joined with where it lay, as CSV or Parquet."""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pyarrow import parquet

from tests import fakes
from tests.conftest import Ran

Pipeline = Callable[..., Ran]


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
    assert list(rows[0]) == ["id", "path", "label", "split", "group", "predicted", "p_bright", "p_dark"]
    assert len(rows) == 24
    metrics = pipeline("models", "-c", config, "--json").json["models"][0]["metrics"]
    for split in ("val", "test"):
        mine = [row for row in rows if row["split"] == split]
        assert len(mine) == metrics[split]["n"]
        right = np.mean([row["label"] == row["predicted"] for row in mine])
        assert right == pytest.approx(metrics[split]["accuracy"])
        loss = -np.mean([np.log(float(row[f"p_{row['label']}"])) for row in mine])
        assert loss == pytest.approx(metrics[split]["log_loss"])
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


def test_another_format_is_refused(pipeline: Pipeline, config: Path, tmp_path: Path) -> None:
    ran = pipeline("predictions", "logistic", "-o", tmp_path / "out.xlsx", "-c", config)
    assert ran.code == 2
    assert "expected a name that ends in .csv or .parquet" in ran.err


def test_without_pyarrow_the_extra_is_named(
    pipeline: Pipeline, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    ran = pipeline("predictions", "logistic", "-o", tmp_path / "out.parquet", "-c", config)
    assert ran.code == 4
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
