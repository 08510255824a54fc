"""suggest.py and replay.py: unlabelled images are ranked, copies left out, and what it saves is told."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import pipeline as frozenbase
from pipeline.labelling import replay
from tests.conftest import Pipeline
from tests.support import fakes, other_targets
from tests.support.fakes import save_png


def picture(seed: int, bright: int) -> Image.Image:
    """Blurred noise above a level of grey."""
    noise = np.random.default_rng(seed).integers(0, 60, (12, 12, 3), dtype=np.uint8) + bright
    return Image.fromarray(noise.astype(np.uint8)).resize((90, 90), Image.Resampling.BICUBIC)


@pytest.fixture
def config(tmp_path: Path, fake_embed: None, pipeline: Pipeline) -> Path:
    """70 dark and 70 bright pictures with labels; 30 without: 10 dark, 10 bright, 10 between."""
    for i in range(140):
        save_png(picture(i, 120 * (i % 2)), tmp_path / "images" / ("bright" if i % 2 else "dark") / f"{i:03d}.png")
    for i in range(30):
        save_png(picture(500 + i, (0, 60, 120)[i % 3]), tmp_path / "new" / f"{i % 3}-{i:02d}.png")
    config = tmp_path / "pipeline.yaml"
    config.write_text(
        "data: {split: {method: stratified}}\nextract: {size: 32}\nheads: {logistic: {}, knn: {kind: knn}}\n"
    )
    pipeline("run", "-c", config, expect=0)
    return config


def suggested(pipeline: Pipeline, config: Path, *more: str | Path) -> dict[str, Any]:
    ran = pipeline("suggest", "logistic", "-c", config, "--images", config.parent / "new", "--json", *more)
    assert ran.code == 0, ran.err
    return dict(ran.json["suggest"])


def test_unsure_images_come_first_and_their_rows_are_cached(pipeline: Pipeline, config: Path) -> None:
    found = suggested(pipeline, config, "-n", "6", "--replays", "0")
    assert (found["images"], found["computed"], found["reused"]) == (30, 30, 0)
    names = [Path(one["path"]).name for one in found["suggestions"]]
    assert len(set(names)) == 6
    assert sum(name.startswith("1-") for name in names) >= 4
    assert found["suggestions"][0]["confidence"] == min(one["confidence"] for one in found["suggestions"])
    assert {one["predicted"] for one in found["suggestions"]} <= {"dark", "bright"}
    assert (found["replayed"], found["why_not"]) == (None, "")
    again = suggested(pipeline, config, "-n", "6", "--replays", "0")
    assert (again["computed"], again["reused"]) == (0, 30)
    assert again["suggestions"] == found["suggestions"]


def test_copies_and_labelled_images_are_left_out(pipeline: Pipeline, config: Path) -> None:
    new = config.parent / "new"
    for i in range(1, 30, 3):  # each of the unsure ones again, mirrored
        save_png(picture(500 + i, 60).transpose(Image.Transpose.FLIP_LEFT_RIGHT), new / f"copy-{i:02d}.png")
    save_png(picture(0, 0).transpose(Image.Transpose.FLIP_LEFT_RIGHT), new / "copy-of-labelled.png")
    (new / "same.png").write_bytes((config.parent / "images" / "dark" / "000.png").read_bytes())
    found = suggested(pipeline, config, "-n", "41", "--replays", "0")
    assert (found["images"], found["labelled"]) == (41, 1)
    numbers = [Path(one["path"]).stem[-2:] for one in found["suggestions"]]
    assert len(set(numbers)) == len(numbers) == 30
    assert found["copies"] == 11


def test_labelled_images_without_a_file_are_counted_and_the_others_compared(pipeline: Pipeline, config: Path) -> None:
    """In a table whose ids are trusted, files may be missing or have other bytes."""
    pipeline("run", "extract", "-c", config, expect=0)
    table = next(config.parent.glob(".features/manifests/*.jsonl"))
    words = ("-n", "40", "--replays", "0", "--set", f"data.table={table.relative_to(config.parent)}")
    new, dark = config.parent / "new", config.parent / "images" / "dark"
    for name in ("000", "002"):
        with Image.open(dark / f"{name}.png") as image:
            save_png(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), new / f"copy-{name}.png")
    assert (suggested(pipeline, config, *words)["copies"], suggested(pipeline, config, *words)["uncompared"]) == (2, 0)
    (dark / "000.png").unlink()
    found = suggested(pipeline, config, *words)
    assert (found["copies"], found["uncompared"]) == (1, 1)
    save_png(picture(999, 60), dark / "002.png")
    found = suggested(pipeline, config, *words)
    assert (found["copies"], found["uncompared"]) == (0, 2)
    shown = pipeline("suggest", "logistic", "-c", config, "--images", new, *words).out
    assert "not compared with 2 labelled images" in shown


def test_it_is_shown_and_written_and_bad_files_are_named(pipeline: Pipeline, config: Path, tmp_path: Path) -> None:
    (tmp_path / "new" / "bad.png").write_bytes(b"no picture")
    ran = pipeline("suggest", "logistic", "-c", config, "--images", tmp_path / "new", "-n", "5",
                   "-o", tmp_path / "next.csv")  # fmt: skip
    assert ran.code == 3
    assert "bad.png" in ran.err
    rows = list(csv.DictReader((tmp_path / "next.csv").open(newline="")))
    assert [*rows[0]] == ["path", "predicted", "confidence", "why", "id"]
    assert len(rows) == 5
    assert " or " in rows[0]["why"]
    assert "with suggestions" in ran.out
    shown = pipeline("suggest", "logistic", "-c", config, "--images", tmp_path / "new", "-n", "5", "--replays", "0").out
    assert all(row["path"] in shown for row in rows)


def test_what_it_saves_is_told_by_the_labels_that_are_there(pipeline: Pipeline, config: Path) -> None:
    found = suggested(pipeline, config, "-n", "3", "--replays", "5")["replayed"]
    assert (found["figure"], found["replays"], found["level"]) == ("accuracy", 5, 0.9)
    assert found["labels"] == sorted(found["labels"])
    assert len(found["suggested"]) == len(found["random"]) == len(found["labels"])
    assert found["suggested"][0] == pytest.approx(found["random"][0], abs=1e-9)
    assert found["saved"]["low"] <= found["saved"]["high"]


def test_a_few_replays_have_no_interval_and_no_verdict(pipeline: Pipeline, config: Path) -> None:
    words = ("suggest", "logistic", "-c", config, "--images", config.parent / "new", "-n", "3", "--replays", "1")
    saved = pipeline(*words, "--json").json["suggest"]["replayed"]["saved"]
    assert isinstance(saved["value"], float)
    assert (saved["low"], saved["high"]) == (None, None)
    shown = " ".join(pipeline(*words).out.split())
    assert "fewer than 5 replays tell no interval" in shown
    assert "suggestions save" not in shown
    assert "90%" not in shown


@pytest.mark.parametrize("target", ["labels", "number", "soft"])
def test_each_target_has_suggestions(pipeline: Pipeline, fake_embed: None, tmp_path: Path, target: str) -> None:
    other_targets.write_table(tmp_path)
    heads = f"{{first: {{kind: {other_targets.linear(target)}}}}}"
    config = other_targets.write_config(tmp_path, other_targets.TARGETS[target], heads)
    pipeline("run", "-c", config, expect=0)
    for i in range(8):
        (tmp_path / "new").mkdir(exist_ok=True)
        (tmp_path / "new" / f"{i}.png").write_bytes(fakes.textured(900 + i, i % 2 == 0))
    ran = pipeline(
        "suggest", "first", "-c", config, "--images", tmp_path / "new", "-n", "4", "--json", "--replays", "2"
    )
    assert ran.code == 0, ran.err
    found = ran.json["suggest"]
    assert len(found["suggestions"]) == 4
    assert found["replayed"] or "too few to replay" in found["why_not"]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["knn2", "--images", "new"], 2, "knn2"),
        (["logistic", "--images", "nowhere"], 2, "nowhere is not there"),
        (["logistic", "--images", "images"], 2, "no image is without a label"),
        (["logistic", "--images", "new", "-o", "a.txt"], 2, "expected a name that ends in .csv or .parquet"),
        (["logistic", "--images", "new", "--set", "extract.size=64"], 2, "keeps the settings it was made with"),
    ],
)
def test_what_has_no_suggestions_is_one_sentence(
    pipeline: Pipeline, config: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], code: int, said: str
) -> None:
    monkeypatch.chdir(config.parent)
    ran = pipeline("suggest", "-c", config, *words)
    assert (ran.code, said in " ".join(ran.err.split())) == (code, True), ran.err
    assert "Traceback" not in ran.err


def test_it_is_there_in_python_and_goes_on_where_many_are_copies(config: Path) -> None:
    """Each unsure picture is there five times: of twice as many as are asked for too few would be left."""
    for i in range(1, 30, 3):
        for copy in range(4):
            larger = picture(500 + i, 60).resize((100 + copy, 100 + copy), Image.Resampling.BICUBIC)
            save_png(larger, config.parent / "new" / f"copy{copy}-{i:02d}.png")
    found = frozenbase.open(config).suggest("logistic", config.parent / "new", 12, replays=0)
    numbers = [Path(one.path).stem[-2:] for one in found.suggestions]
    assert len(set(numbers)) == len(numbers) == 12


def test_labels_saved_are_read_between_the_steps() -> None:
    budgets, random = [40, 60, 80], np.array([0.4, 0.3, 0.2])
    assert replay.labels_saved(budgets, np.array([0.4, 0.2, 0.1]), random) == pytest.approx(20)
    assert replay.labels_saved(budgets, np.array([0.4, 0.25, 0.15]), random) == pytest.approx(10)
    assert replay.labels_saved(budgets, random, random) == 0
    assert replay.labels_saved(budgets, np.array([0.4, 0.35, 0.3]), random) == pytest.approx(-20)


def test_the_interval_of_labels_saved_is_over_replays() -> None:
    budgets, better = [40, 60, 80], np.array([[0.4, 0.2, 0.1], [0.4, 0.3, 0.2]])
    ends = replay.with_interval(budgets, np.stack([better] * 5), 0)
    assert (ends.value, ends.low, ends.high) == (pytest.approx(20),) * 3
    mixed = np.stack([better, better[::-1]] * 3)
    ends = replay.with_interval(budgets, mixed, 0)
    assert ends.low is not None
    assert ends.high is not None
    assert ends.low < 0 < ends.high
    assert json.dumps(ends._asdict())
    assert replay.with_interval(budgets, np.stack([better] * 4), 0)[1:] == (None, None)
