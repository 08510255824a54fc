"""audit.py: what is planted in a project is found, shown and written, and nothing of the project changes."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from PIL import Image

import pipeline as frozenbase
from pipeline.evaluation.audit_findings import Copy, find_contradictions
from pipeline.results import csv_parquet
from stages.data import tables
from stages.data.manifest import Row
from tests.conftest import Pipeline
from tests.support.disk import read_tree
from tests.support.fakes import save_png


def draw(seed: int, bright: bool) -> Image.Image:
    """Blurred noise, dark or bright."""
    noise = np.random.default_rng(seed).integers(0, 120, (12, 12, 3), dtype=np.uint8) + (130 if bright else 0)
    return Image.fromarray(noise.astype(np.uint8)).resize((90, 90), Image.Resampling.BICUBIC)


@pytest.fixture
def config(tmp_path: Path, fake_embed: None, pipeline: Pipeline) -> Path:
    """40 dark and 40 bright pictures; three mirrored copies, one of them under the other label; one wrong label."""
    for i in range(80):
        save_png(draw(i, i >= 40), tmp_path / "images" / ("bright" if i >= 40 else "dark") / f"{i:02d}.png")
    for i, label in ((1, "dark"), (2, "dark"), (3, "bright")):
        mirrored = draw(i, False).transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        save_png(mirrored, tmp_path / "images" / label / f"copy{i}.png")
    save_png(draw(99, True), tmp_path / "images" / "dark" / "wrong.png")
    config = tmp_path / "pipeline.yaml"
    config.write_text("data: {split: {method: stratified}}\nextract: {size: 32}\n")
    pipeline("run", "extract", "-c", config, expect=0)
    return config


def audited(pipeline: Pipeline, config: Path, *more: str | Path) -> dict[str, Any]:
    ran = pipeline("audit", "-c", config, "--json", *more)
    assert ran.code == 0, ran.out
    return dict(ran.json["audit"])


def test_copies_and_wrong_labels_are_found_and_nothing_is_written(pipeline: Pipeline, config: Path) -> None:
    before = read_tree(config.parent)
    found = audited(pipeline, config)
    pairs = {
        frozenset((Path(one["image"]["path"]).stem, Path(one["of"]["path"]).stem)) for one in found["copies"]["pairs"]
    }
    assert pairs == {frozenset((f"{i:02d}", f"copy{i}")) for i in (1, 2, 3)}
    assert (found["images"], found["copies"]["groups"]) == (84, 3)
    suspects = [one["image"]["path"] for one in found["labels"]["suspects"]]
    assert {*suspects[:2]} == {"dark/wrong.png", "bright/copy3.png"}
    assert {one["instead"] for one in found["labels"]["suspects"][:2]} == {"dark", "bright"}
    assert found["labels"]["accuracy"] > 0.9
    assert found["left_out"] == []
    assert read_tree(config.parent) == before


def test_it_is_shown_and_findings_are_a_table(pipeline: Pipeline, config: Path, tmp_path: Path) -> None:
    shown = pipeline("audit", "-c", config, "-o", tmp_path / "found.csv", expect=0).out
    assert "3 pairs of images look like copies, in 3 groups" in shown
    assert "1 with two labels" in shown
    assert "copies made of some of your images are as alike: resized 100%" in shown
    assert "dark/wrong.png" in shown
    assert f"wrote {tmp_path / 'found.csv'}" in shown
    rows = list(csv.DictReader((tmp_path / "found.csv").open(newline="")))
    assert [*rows[0]] == ["finding", "id", "path", "label", "split", "group", "score", "other"]
    assert [row["finding"] for row in rows].count("copy") == 3
    (wrong,) = [row for row in rows if row["finding"] == "suspect label" and row["path"] == "dark/wrong.png"]
    assert (wrong["other"], float(wrong["score"]) < 0.5) == ("bright", True)


def test_the_table_of_groups_keeps_copies_in_one_split(pipeline: Pipeline, config: Path, tmp_path: Path) -> None:
    audited(pipeline, config, "--write-groups", tmp_path / "groups.csv")
    rows = {row["path"]: row for row in csv.DictReader((tmp_path / "groups.csv").open(newline=""))}
    assert len(rows) == 84
    assert rows["bright/copy3.png"]["group"] == rows["dark/03.png"]["group"] != ""
    assert rows["dark/10.png"]["group"] == ""
    sets = ("--set", "data.table=groups.csv", "--set", "data.split.seed=1")
    pipeline("run", "head", "-c", config, *sets, expect=0)
    splits = {
        row.path: row.split for row in frozenbase.open(config, ["data.table=groups.csv", "data.split.seed=1"]).manifest
    }
    assert splits["bright/copy3.png"] == splits["dark/03.png"]
    assert splits["dark/copy1.png"] == splits["dark/01.png"]


def test_without_pictures_labels_are_still_judged(pipeline: Pipeline, config: Path, tmp_path: Path) -> None:
    saved = next((tmp_path / ".features" / "manifests").glob("*.jsonl"))
    (tmp_path / "images").rename(tmp_path / "gone")
    found = audited(pipeline, config, "--set", f"data.table={saved}")
    assert found["copies"] is None
    assert "copies and odd pictures are not looked for" in found["left_out"][0]
    assert len(found["labels"]["suspects"]) >= 2
    assert (found["shortcuts"], found["odd_pictures"]) == (None, None)
    ran = pipeline("audit", "-c", config, "--set", f"data.table={saved}", "--write-groups", tmp_path / "groups.jsonl")
    assert ran.code == 4, ran.err
    assert not (tmp_path / "groups.jsonl").exists()


def test_groups_keep_the_splits_of_folders(
    pipeline: Pipeline, fake_embed: None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for i in range(24):
        split = "test" if i % 4 == 0 else "train"
        save_png(draw(i, i % 2 == 1), tmp_path / "images" / split / ("bright" if i % 2 else "dark") / f"{i:02d}.png")
    save_png(
        draw(2, False).transpose(Image.Transpose.FLIP_LEFT_RIGHT), tmp_path / "images" / "train" / "dark" / "copy2.png"
    )
    config = tmp_path / "pipeline.yaml"
    config.write_text("extract: {size: 32}\n")
    pipeline("run", "extract", "-c", config, expect=0)
    audited(pipeline, config, "--write-groups", tmp_path / "groups.csv")
    rows = list(csv.DictReader((tmp_path / "groups.csv").open(newline="")))
    assert {row["split"] for row in rows} == {"train", "test"}
    assert all(row["path"].startswith(row["split"]) for row in rows)
    grouped = [row["path"] for row in rows if row["group"]]
    assert grouped == ["train/dark/02.png", "train/dark/copy2.png"]


def write_table(folder: Path, name: str) -> list[dict[str, Any]]:
    """All images of `config` with two columns more, and two groups: one of a pair of copies, one of others."""
    paths = sorted(path.relative_to(folder / "images").as_posix() for path in (folder / "images").rglob("*.png"))
    groups = {"dark/01.png": "night", "dark/30.png": "pair", "dark/31.png": "pair"}
    rows = [
        {"note": "=1+1; a" if i % 2 else "", "path": path, "label": path.split("/")[0], "group": groups.get(path),
         "weight": i / 8}
        for i, path in enumerate(paths)
    ]  # fmt: skip
    if name.endswith(".csv"):
        with (folder / name).open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter=";")
            writer.writeheader()
            writer.writerows(rows)
    elif name.endswith(".jsonl"):
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        csv_parquet.import_parquet()[1].write_table(pyarrow.Table.from_pylist(rows), folder / name)
    return rows


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl", "t.parquet"])
def test_a_table_is_written_anew_with_its_groups_and_those_of_copies(
    pipeline: Pipeline, config: Path, tmp_path: Path, name: str
) -> None:
    before = write_table(tmp_path, name)
    sets = ("--set", f"data.table={name}", "--set", "data.on_leak=warn")
    new = tmp_path / f"new{Path(name).suffix}"
    found = audited(pipeline, config, *sets, "--write-groups", new)
    assert {"accuracy", "across_copies", "accuracy_ci", "across_copies_ci"} <= {*found["labels"]}
    assert found["labels"]["copied"]
    read = tables.read_records
    old, rows = read(tmp_path / name, []), read(new, [])
    assert [*rows[0]] == [*before[0]]
    assert [{**row, "group": 0} for row in rows] == [{**row, "group": 0} for row in old]
    group = {row["path"]: row["group"] or None for row in rows}
    assert group["dark/01.png"] == group["dark/copy1.png"] == "night"
    assert group["dark/30.png"] == group["dark/31.png"] == "pair"
    assert group["dark/03.png"] == group["bright/copy3.png"] == "bright/copy3.png"
    assert sum(name is not None for name in group.values()) == 8
    project = frozenbase.open(config, [f"data.table={new.name}"])
    assert {row.path: row.group for row in project.manifest} == group


def test_a_table_without_groups_gets_a_column_and_rows_that_were_left_out_keep_none(
    pipeline: Pipeline, config: Path, tmp_path: Path
) -> None:
    paths = sorted(path.relative_to(tmp_path / "images").as_posix() for path in (tmp_path / "images").rglob("*.png"))
    lines = [f"{path.upper() if '/02' in path else path},{path.split('/')[0]}" for path in paths]
    (tmp_path / "t.csv").write_text("\n".join(["path,label", *lines, "dark/absent.png,dark"]) + "\n")
    sets = ("--set", "data.table=t.csv", "--set", "data.on_bad=skip")
    shown = pipeline("audit", "-c", config, *sets, "--write-groups", tmp_path / "new.csv", expect=0).out
    assert "accuracy out of fold: " in shown
    assert "where they may be in two" in shown
    rows = list(csv.DictReader((tmp_path / "new.csv").open(newline="")))
    assert [*rows[0]] == ["path", "label", "group"]
    assert rows[-1] == {"path": "dark/absent.png", "label": "dark", "group": ""}
    group = {row["path"]: row["group"] for row in rows}
    assert group["DARK/02.PNG"] == group["dark/copy2.png"] == "dark/02.png"
    for name, said in (("t.csv", "is data.table itself"), ("new.parquet", "expected a name that ends in .csv")):
        ran = pipeline("audit", "-c", config, *sets, "--write-groups", tmp_path / name)
        assert (ran.code, said in ran.err) == (2, True), ran.err


def test_a_sample_is_said_to_be_one(pipeline: Pipeline, config: Path, tmp_path: Path) -> None:
    found = audited(pipeline, config, "--sample", "40")
    assert (found["images"], found["of"]) == (40, 84)
    assert "40 images, a random sample of 84, by rows" in pipeline("audit", "-c", config, "--sample", "40").out
    assert audited(pipeline, config, "--sample", "900")["images"] == 84
    ran = pipeline("audit", "-c", config, "--sample", "40", "--write-groups", tmp_path / "g.csv")
    assert (ran.code, "--write-groups takes all images" in ran.err) == (2, True)


def test_odd_pictures_and_shortcuts_are_found_and_shown(pipeline: Pipeline, config: Path, tmp_path: Path) -> None:
    (tmp_path / "cameras/old").mkdir(parents=True)
    (tmp_path / "cameras/new").mkdir()
    lines = ["path,label"]
    for i in range(40):
        bright = i % 2 == 1
        place = f"{'new' if bright else 'old'}/{i}.jpg"
        draw(i, bright).resize((90, 80) if bright else (70, 80)).save(tmp_path / "cameras" / place)
        lines.append(f"{place},{'day' if bright else 'night'}")
    save_png(Image.new("RGB", (90, 80), (20, 90, 30)), tmp_path / "cameras/new/one.png")
    (tmp_path / "c.csv").write_text("\n".join([*lines, "new/one.png,day"]) + "\n")
    sets = ("--set", "data.root=cameras", "--set", "data.table=c.csv")
    pipeline("run", "extract", "-c", config, *sets, expect=0)
    found = audited(pipeline, config, *sets)
    assert [(one["image"]["path"], one["kind"]) for one in found["odd_pictures"]] == [("new/one.png", "one colour")]
    told = {one["by"]: one for one in found["shortcuts"]}
    assert {"size", "folder"} <= {*told}
    assert told["size"]["accuracy"] == told["folder"]["accuracy"] == 1
    assert told["folder"]["majority"] < 0.6
    shown = pipeline("audit", "-c", config, *sets, "-o", tmp_path / "f.csv", expect=0).out
    assert "the class can be told from size alone: accuracy 1.000 (0.91" in shown
    assert "1 picture is odd as such" in shown
    rows = list(csv.DictReader((tmp_path / "f.csv").open(newline="")))
    assert [row["other"] for row in rows if row["finding"] == "odd picture"] == ["one colour"]


def test_of_numbers_copies_and_odd_images_are_looked_for_and_what_copies_flatter(
    pipeline: Pipeline, config: Path, tmp_path: Path
) -> None:
    paths = sorted(path.relative_to(tmp_path / "images") for path in (tmp_path / "images").rglob("*.png"))
    (tmp_path / "t.csv").write_text("path,mass\n" + "".join(f"{path},{i / 7:.3f}\n" for i, path in enumerate(paths)))
    sets = ("--set", "data.table=t.csv", "--set", "data.target={kind: number, columns: [mass]}", "--set", "heads={}")
    found = audited(pipeline, config, *sets)
    assert found["labels"] is None
    assert found["left_out"] == ["labels are not judged: that takes one class for each image"]
    assert len(found["copies"]["pairs"]) == 3
    figure = found["out_of_fold"]
    assert (figure["figure"], figure["images"]) == ("relative_error", len(paths))
    assert figure["ci"][0] <= figure["value"] <= figure["ci"][1]
    assert figure["value"] != figure["across_copies"]
    shown = pipeline("audit", "-c", config, *sets, expect=0).out
    assert "unlike the rest of the data set" in shown
    assert f"{figure['value']:.3f} (" in shown
    assert "where they may be in two" in shown


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--tap", "none"], 2, "no tap 'none'"),
        (["-o", "found.txt"], 2, "expected a name that ends in .csv or .parquet"),
        (["--set", "extract.size=40"], 4, "run extract"),
        (["--set", "extract.size=40", "--set", "data.on_bad=skip"], 4, "no image has a row"),
        (["-o", "a.csv", "--write-groups", "a.csv"], 2, "a.csv is named twice"),
    ],
)
def test_what_cannot_be_audited_is_one_sentence(
    pipeline: Pipeline, config: Path, words: list[str], code: int, said: str
) -> None:
    ran = pipeline("audit", "-c", config, *words)
    assert ran.code == code, ran.err
    assert said in ran.err
    assert "Traceback" not in ran.err


def test_it_is_there_in_python(config: Path) -> None:
    found = frozenbase.open(config).audit()
    assert found.copies is not None
    assert found.copies.of_two_labels == 1
    assert json.dumps(found.to_json())


def test_one_file_under_two_labels_is_a_finding_and_the_audit_goes_on(
    pipeline: Pipeline, config: Path, tmp_path: Path
) -> None:
    (tmp_path / "images/bright/same.png").write_bytes((tmp_path / "images/dark/05.png").read_bytes())
    (tmp_path / "images/dark/twin.png").write_bytes((tmp_path / "images/dark/06.png").read_bytes())
    found = audited(pipeline, config)
    assert [(one["image"]["path"], one["of"]["path"]) for one in found["identical"]] == [
        ("bright/same.png", "dark/05.png")
    ]
    assert found["labels"]["images"] == 83  # the 84th has no label of its own
    assert not Copy(Row("a", "1", "x"), Row("a", "2", None), 1.0).of_two_labels
    shown = pipeline("audit", "-c", config, "-o", tmp_path / "found.csv", expect=0).out
    assert "1 pair of files is the same byte for byte, under two labels or in two splits" in shown
    rows = list(csv.DictReader((tmp_path / "found.csv").open(newline="")))
    assert (rows[0]["finding"], rows[0]["other"]) == ("identical", "dark/05.png")


def test_one_file_in_two_splits_is_a_finding_but_without_a_label_in_one_it_is_none() -> None:
    same = [Row("a", "1", "x", "train"), Row("a", "2", "x", "test"), Row("a", "3", None, "train"), Row("b", "4", "x")]
    assert [(one.image.path, one.of.path) for one in find_contradictions(same)] == [("1", "2")]
    assert find_contradictions([Row("a", "1", "x", "train"), Row("a", "2", None, "train")]) == []
