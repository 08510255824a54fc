"""unknown.py: what tells unknown images is fitted once for the heads on the same rows, and added to older ones."""

from __future__ import annotations

import functools
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import pipeline as frozenbase
from stages.unknown import distance, fitting
from tests.conftest import Pipeline
from tests.support import fakes
from tests.support.disk import read_tree


@pytest.fixture
def config(tmp_path: Path, pipeline: Pipeline) -> Path:
    """A project after a run, of as many images as a threshold at 5 % takes, and two heads on the same rows."""
    for label in ("bright", "dark"):
        (tmp_path / "images" / label).mkdir(parents=True)
        for i in range(20):
            data = fakes.textured(5000 + 2 * i + (label == "dark"), label == "bright")
            (tmp_path / "images" / label / f"{i:04d}.png").write_bytes(data)
    path = tmp_path / "pipeline.yaml"
    path.write_text("extract: {size: 16}\nheads: {logistic: {}, ridge: {kind: ridge}}\n")
    assert pipeline("run", "-c", path).code == 0
    return path


def only_folder(config: Path) -> Path:
    (folder,) = (config.parent / "models" / "unknown").iterdir()
    return folder


def metrics(config: Path, name: str = "logistic") -> dict[str, Any]:
    (path,) = config.parent.glob(f"models/head/{name}/*/metrics.json")
    found: dict[str, Any] = json.loads(path.read_bytes())
    return found


def test_two_heads_on_the_same_rows_share_one_and_a_second_run_leaves_it(pipeline: Pipeline, config: Path) -> None:
    folder = only_folder(config)
    before = read_tree(config.parent / "models")
    assert pipeline("run", "-c", config).code == 0
    assert read_tree(config.parent / "models") == before
    told = metrics(config)["unknown"]
    assert told == metrics(config, "ridge")["unknown"]
    assert told["rate"] == 0.05
    assert told["test"]["ci"][0] <= told["test"]["rejected"] <= told["test"]["ci"][1]
    assert sorted(path.name for path in folder.iterdir()) == ["record.json", "unknown.npz"]


def test_an_older_head_predicts_without_it_and_the_next_run_adds_it(pipeline: Pipeline, config: Path) -> None:
    names, heads = read_tree(only_folder(config)).keys(), read_tree(config.parent / "models" / "head")
    shutil.rmtree(config.parent / "models" / "unknown")
    ran = pipeline("predict", "logistic", config.parent / "images", "-c", config, "--json")
    assert ran.code == 0
    assert "unknown_rate" not in ran.json["predict"]
    assert "unknown" not in ran.json["predict"]["predictions"][0]
    assert pipeline("reproduce", "logistic", "-c", config).code == 0
    again = pipeline("run", "-c", config, "--json")
    assert all(head["hit"] for head in again.json["heads"].values())
    assert read_tree(config.parent / "models" / "head") == heads
    assert read_tree(only_folder(config)).keys() == names
    assert "unknown" in pipeline("predict", "logistic", config.parent / "images", "-c", config).out


def test_one_of_an_earlier_version_stays_as_it_is(
    pipeline: Pipeline, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A head of that version goes by it, also where another on the same rows has today's; and it is reproduced."""
    shutil.rmtree(config.parent / "models")
    fit = fitting.fit
    monkeypatch.setattr(distance, "VERSION", 1)
    monkeypatch.setattr(fitting, "fit", functools.partial(fit, version=1))
    assert pipeline("run", "head", "logistic", "-c", config).code == 0
    words = ("predict", "logistic", config.parent / "images", "-c", config, "--json")
    before, files = pipeline(*words).json["predict"]["predictions"], read_tree(config.parent / "models")
    monkeypatch.undo()
    (told,) = config.parent.glob("models/head/logistic/*/metrics.json")
    told.write_bytes(told.read_bytes().replace(b'"version": 1,', b""))  # which had none
    assert pipeline("run", "-c", config).code == 0
    assert files.keys() < read_tree(config.parent / "models").keys()
    assert pipeline(*words).json["predict"]["predictions"] == before
    assert pipeline("reproduce", "logistic", "-c", config).code == 0
    assert metrics(config, "ridge")["unknown"]["version"] == distance.VERSION


def test_where_rows_allow_none_no_run_tries_again(
    pipeline: Pipeline, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(config.parent / "models" / "unknown")
    tries: list[int] = []
    monkeypatch.setattr(fitting, "fit", lambda *_: tries.append(1))
    for _ in range(2):
        assert pipeline("run", "-c", config).code == 0
    assert len(tries) == 1
    ran = pipeline("predict", "logistic", config.parent / "images", "-c", config, "--json")
    assert "unknown_rate" not in ran.json["predict"]


def test_a_damaged_one_counts_as_absent_and_is_made_again(pipeline: Pipeline, config: Path) -> None:
    file = only_folder(config) / "unknown.npz"
    before = file.read_bytes()
    file.write_bytes(before[:-1])
    assert "unknown" not in pipeline("predict", "logistic", config.parent / "images", "-c", config).out
    assert pipeline("run", "-c", config).code == 0
    assert file.read_bytes() == before


def test_the_rate_is_in_a_head_s_key_but_for_the_default(pipeline: Pipeline, config: Path) -> None:
    def hit(rate: str) -> bool:
        found = pipeline("run", "head", "logistic", "-c", config, "--json", "--set", f"heads.logistic.unknown={rate}")
        return bool(found.json["heads"]["logistic"]["hit"])

    assert hit("0.05")
    assert not hit("0.2")
    assert not hit("0")
    assert hit("0.2")
    assert only_folder(config)  # whatever the rate
    rates = {
        json.loads(path.read_bytes()).get("unknown", {}).get("rate")
        for path in config.parent.glob("models/head/logistic/*/metrics.json")
    }
    assert rates == {0.05, 0.2, None}


def test_a_rate_that_is_none_is_refused(pipeline: Pipeline, config: Path) -> None:
    ran = pipeline("run", "-c", config, "--set", "heads.logistic.unknown=1")
    assert ran.code == 2
    assert "heads.logistic.unknown" in ran.err


def test_predictions_have_it_in_all_forms(pipeline: Pipeline, config: Path, tmp_path: Path) -> None:
    new = tmp_path / "new"
    new.mkdir()
    shutil.copyfile(config.parent / "images" / "dark" / "0000.png", new / "known.png")
    stripes = np.zeros((40, 40, 3), np.uint8)
    stripes[::4, :, 0] = 255
    Image.fromarray(stripes).save(new / "stripes.png")
    ran = pipeline("predict", "logistic", new, "-c", config)
    assert ran.code == 0, ran.err
    assert [line.split()[2:-1] for line in ran.out.splitlines()] == [["unknown"], [], ["yes"]]
    assert "unknown: 1 of 2 images" in ran.err
    told = pipeline("predict", "logistic", new, "-c", config, "--json").json["predict"]
    assert told["unknown_rate"] == 0.05
    assert [row["unknown"] for row in told["predictions"]] == [False, True]
    assert told["predictions"][0]["unknown_score"] <= 1 < told["predictions"][1]["unknown_score"]
    found = frozenbase.open(config).predict("logistic", [str(new)])
    assert found.unknown is not None
    assert found.unknown.tolist() == [False, True]
    assert found.to_frame()["unknown_score"].tolist() == [row["unknown_score"] for row in told["predictions"]]
    assert pipeline("predict", "logistic", new, "-o", tmp_path / "p.csv", "-c", config).code == 0
    assert (tmp_path / "p.csv").read_text().splitlines()[0].split(",")[-4:-2] == ["unknown", "unknown_score"]


def test_what_comes_out_otherwise_is_not_reproduced(
    pipeline: Pipeline, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert pipeline("reproduce", "logistic", "-c", config).code == 0
    monkeypatch.setattr(fitting, "POWER", 0.3)
    ran = pipeline("reproduce", "logistic", "-c", config)
    assert ran.code == 1
    assert "does not come out bitwise the same" in ran.err
