"""pipeline/graph.py: what is computed, what is reused, and why; with a numpy base and a real Dask cluster."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline import head_config
from pipeline.graph import Options, Project
from pipeline.keyed import KEYED
from pipeline.progress import reporter
from tests import fakes
from tests.conftest import Ran

Pipeline = Callable[..., Ran]


def counts(ran: Ran) -> tuple[int, int]:
    """(computed, reused) of a run that went well."""
    assert ran.code == 0, ran.out + ran.err
    return ran.json["extract"]["computed"], ran.json["extract"]["reused"]


def extract(pipeline: Pipeline, config: Path, *more: str) -> tuple[int, int]:
    return counts(pipeline("run", "extract", "-c", config, "--json", *more))


def cache_files(config: Path) -> dict[Path, tuple[int, int]]:
    root = config.parent / ".features" / "features"
    return {p: (p.stat().st_ino, p.stat().st_mtime_ns) for p in root.rglob("*") if p.is_file()}


def opened(config: Path, *overrides: str) -> Project:
    from rich.console import Console

    return Project(config, Options(overrides), reporter(Console(), quiet=True))


def test_first_run_computes_all_and_the_second_none(pipeline: Pipeline, project: Path) -> None:
    assert extract(pipeline, project) == (24, 0)
    assert extract(pipeline, project) == (0, 24)


def test_adding_images_computes_those_and_rewrites_nothing(pipeline: Pipeline, project: Path) -> None:
    extract(pipeline, project)
    before = cache_files(project)
    fakes.two_classes(project.parent / "images", 5, start=100)
    assert extract(pipeline, project) == (10, 24)
    after = cache_files(project)
    assert {path: after[path] for path in before} == before


def test_rename_move_relabel_resplit_touch_and_delete_compute_nothing(pipeline: Pipeline, project: Path) -> None:
    extract(pipeline, project)
    images = project.parent / "images"
    (images / "bright" / "0000.png").rename(images / "bright" / "renamed.png")
    (images / "bright" / "0001.png").rename(images / "dark" / "relabelled.png")
    os.utime(images / "bright" / "0002.png")
    images.rename(project.parent / "moved")
    assert extract(pipeline, project, "--set", "data.root=moved", "--set", "data.split.seed=9") == (0, 24)
    (project.parent / "moved" / "dark" / "0003.png").unlink()
    assert extract(pipeline, project, "--set", "data.root=moved") == (0, 23)


def test_moving_the_whole_project_computes_nothing(pipeline: Pipeline, project: Path, tmp_path: Path) -> None:
    extract(pipeline, project)
    shutil.move(project.parent / "images", tmp_path / "elsewhere" / "images")
    shutil.move(project.parent / ".features", tmp_path / "elsewhere" / ".features")
    shutil.move(project, tmp_path / "elsewhere" / "pipeline.yaml")
    assert extract(pipeline, tmp_path / "elsewhere" / "pipeline.yaml") == (0, 24)


def test_one_changed_byte_computes_one(pipeline: Pipeline, project: Path) -> None:
    extract(pipeline, project)
    path = project.parent / "images" / "dark" / "0004.png"
    path.write_bytes(path.read_bytes() + b"\0")
    assert extract(pipeline, project) == (1, 23)


def test_the_same_bytes_under_three_names_are_computed_once(pipeline: Pipeline, project: Path) -> None:
    dark = project.parent / "images" / "dark"
    for name in ("copy.png", "again.png"):
        shutil.copy(dark / "0000.png", dark / name)
    ran = pipeline("run", "extract", "-c", project, "--json")
    assert counts(ran) == (24, 0)
    assert (ran.json["extract"]["images"], ran.json["extract"]["unique"]) == (26, 24)


OTHER_VALUE = {
    "data.root": "other",
    "data.table": "table.jsonl",
    "data.columns.path": "path2",
    "data.columns.label": "label2",
    "data.columns.split": "split2",
    "data.columns.group": "group2",
    "data.group_from": r"'(\d\d)\.png'",
    "data.classes": "[dark, bright]",
    "data.split.val": "0.4",
    "data.split.test": "0.35",
    "data.split.seed": "5",
    "data.on_bad": "skip",
    "data.on_leak": "warn",
    "base.name": "mobilenet_v2",
    "base.weights": "other.weights.h5",
    "base.trust": "true",
    "base.preprocess": "{scale: 2, order: bgr}",
    "extract.size": "32",
    "extract.fit": "crop",
    "extract.resize": "keras",
    "extract.decode": "full",
    "extract.taps.*.layer": "block3_add",
    "extract.taps.*.pooling": "max",
    "extract.numerics": "tensorflow-bf16",
    "extract.engine": "tensorflow",
    "extract.batch": "3",
    "extract.shard_rows": "5",
    "extract.dtype": "float16",
    "heads.*.kind": "ridge",
    "heads.*.C": "0.5",
    "heads.*.seed": "1",
    "heads.*.alpha": "2",
    "heads.*.folds": "3",
    "heads.*.k": "[1, 3]",
    "heads.*.temperature": "0.1",
    "heads.*.units": "[]",
    "heads.*.activation": "linear",
    "heads.*.dropout": "0.1",
    "heads.*.standardise": "false",
    "heads.*.optimizer": "rmsprop",
    "heads.*.lr": "0.01",
    "heads.*.weight_decay": "0.1",
    "heads.*.label_smoothing": "0.1",
    "heads.*.class_weight": "balanced",
    "heads.*.batch": "4",
    "heads.*.epochs": "2",
    "heads.*.patience": "null",
    "heads.*.log_dir": "logs",
    "cluster.workers": "2",
    "cluster.scheduler": "tcp://127.0.0.1:9",
    "cache.dir": "other-cache",
}
ONE_VALUE_SO_FAR = {"data.split.method"}
BY_ANOTHER_TEST = {
    "heads.*.tap",  # test_a_head_s_key_sees_what_its_tap_is_not_how_it_is_called
    "heads.*.sweep",  # test_sweeps.py
}


def kind_with(field: str) -> str:
    """The first kind of head that has the field."""
    name = field.rpartition(".")[2] if field.startswith("heads.") else "kind"
    return next(kind for kind, spec in head_config.KINDS.items() if name in spec.model_fields)


def test_the_walk_covers_every_field() -> None:
    tuned = {field for field in KEYED if field.startswith("finetune.")}  # test_finetuning.py
    assert set(OTHER_VALUE) | ONE_VALUE_SO_FAR | BY_ANOTHER_TEST | tuned == set(KEYED)


@pytest.mark.parametrize("field", OTHER_VALUE)
def test_every_field_moves_the_keys_it_should_and_no_other(
    pipeline: Pipeline, project: Path, field: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "stages.dense", fakes.Dense)  # type: ignore[arg-type]
    folder = project.parent
    (folder / "w.weights.h5").write_bytes(b"weights")
    (folder / "own.h5").write_bytes(b"a model of one's own")
    (folder / "other.weights.h5").write_bytes(b"other weights")
    shutil.copytree(folder / "images", folder / "other")
    paths = sorted(path.relative_to(folder / "images") for path in (folder / "images").rglob("*.png"))
    columns = {"split2": None, "group2": None}
    rows = [
        {"path": str(p), "path2": str(p), "label": p.parent.name, "label2": p.parent.name, **columns} for p in paths
    ]
    (folder / "table.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    kind = "" if field == "heads.*.kind" else f", kind: {kind_with(field)}"
    base = "name: own.h5, trust: true" if field == "base.preprocess" else "weights: w.weights.h5"
    table = "  table: table.jsonl\n" if field.startswith("data.columns") else ""
    project.write_text(
        f"data:\n{table}  split: {{val: 0.3, test: 0.2}}\n"
        f"base: {{{base}}}\nextract: {{size: 16, taps: {{p: {{}}}}}}\n"
        f"heads: {{h: {{tap: p{kind}}}}}\n"
    )
    first = pipeline("run", "-c", project, "--json")
    assert counts(first) == (24, 0)
    dotted = field.replace("taps.*", "taps.p").replace("heads.*", "heads.h")
    changed = pipeline("run", "-c", project, "--json", "--set", f"{dotted}={OTHER_VALUE[field]}")
    kind = KEYED[field]
    fresh = kind == "extract" or field == "cache.dir"
    assert counts(changed) == ((24, 0) if fresh else (0, 24))
    assert (changed.json["extract"]["keys"] != first.json["extract"]["keys"]) == (kind == "extract")
    assert changed.json["heads"]["h"]["hit"] == (kind == "none")
    back = pipeline("run", "-c", project, "--json")
    assert counts(back) == (0, 24)
    assert back.json["heads"]["h"]["hit"]


def test_a_head_s_key_sees_what_its_tap_is_not_how_it_is_called(pipeline: Pipeline, project: Path) -> None:
    first = pipeline("run", "-c", project, "--json")
    text = (
        "data: {split: {val: 0.3, test: 0.2}}\nheads: {logistic: {tap: renamed}}\nextract: {size: 16, taps: {renamed: "
    )
    project.write_text(text + "{layer: head_activation}}}")
    again = pipeline("run", "-c", project, "--json")
    assert counts(again) == (0, 24)
    assert again.json["heads"]["logistic"]["hit"]
    assert again.json["extract"]["keys"]["renamed"] == first.json["extract"]["keys"]["pooled"]
    project.write_text(text + "{pooling: max}}}")
    other = pipeline("run", "-c", project, "--json")
    assert other.json["heads"]["logistic"]["key"] != first.json["heads"]["logistic"]["key"]


def test_a_second_tap_computes_that_tap_only(pipeline: Pipeline, project: Path) -> None:
    extract(pipeline, project)
    before = cache_files(project)
    project.write_text("extract: {size: 16, taps: {pooled: {}, maps: {pooling: none}, same: {layer: output}}}\n")
    ran = pipeline("run", "extract", "-c", project, "--json")
    assert counts(ran) == (24, 0)
    keys = ran.json["extract"]["keys"]
    assert keys["pooled"] == keys["same"] != keys["maps"]
    after = cache_files(project)
    assert {path: after[path] for path in before} == before
    assert {path.parts[-3] for path in set(after) - set(before) if path.suffix == ".h5"} == {keys["maps"]}


@pytest.mark.parametrize("shard_rows", ["1", "7", "300"])
def test_row_id_label_and_path_agree(pipeline: Pipeline, tmp_path: Path, shard_rows: str) -> None:
    """300 pictures that carry their number, named in an order that has nothing to do with it."""
    for number in range(300):
        folder = tmp_path / "images" / f"class{number % 7}"
        folder.mkdir(parents=True, exist_ok=True)
        name = hashlib.md5(str(number).encode()).hexdigest()
        (folder / f"{name}_{number}.png").write_bytes(fakes.numbered(number))
    config = tmp_path / "pipeline.yaml"
    config.write_text("extract: {size: 16}\n")
    assert extract(pipeline, config, "--set", f"extract.shard_rows={shard_rows}") == (300, 0)
    project = opened(config)
    manifest = project.manifest
    rows = project.store("pooled").read([row.id for row in manifest.rows])
    for row, feature in zip(manifest.rows, rows, strict=True):
        number = int(row.path.removesuffix(".png").rpartition("_")[2])
        assert feature[:3].tolist() == [number % 256, number // 256, 7]
        assert row.label == f"class{number % 7}"
        assert row.id == hashlib.sha256(fakes.numbered(number)).hexdigest()


def test_a_damaged_shard_costs_its_rows_only(pipeline: Pipeline, project: Path) -> None:
    extract(pipeline, project, "--set", "extract.shard_rows=8")
    shard = next(path for path in cache_files(project) if path.suffix == ".h5")
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    assert extract(pipeline, project) == (8, 16)


def test_require_cached_exits_4_instead_of_computing(pipeline: Pipeline, project: Path) -> None:
    ran = pipeline("run", "extract", "-c", project, "--json", "--require-cached")
    assert (ran.code, ran.json["error"]["code"]) == (4, "not_available")
    assert "24 of 24 images have no feature row" in ran.json["error"]["message"]
    extract(pipeline, project)
    assert extract(pipeline, project, "--require-cached") == (0, 24)


def test_where_the_cache_lies(pipeline: Pipeline, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Flag, then environment, then file, then beside pipeline.yaml."""
    folder = project.parent
    assert opened(project).cache.root == folder / ".features"
    project.write_text("cache: {dir: from-file}")
    assert opened(project).cache.root == folder / "from-file"
    monkeypatch.setenv("PIPELINE_CACHE_DIR", str(folder / "from-environment"))
    assert opened(project).cache.root == folder / "from-environment"
    assert opened(project, "cache.dir=from-flag").cache.root == folder / "from-flag"


def test_the_saved_manifest_names_good_rows(pipeline: Pipeline, project: Path) -> None:
    (project.parent / "images" / "dark" / "empty.png").write_bytes(b"")
    ran = pipeline("run", "extract", "-c", project, "--json", "--set", "data.on_bad=skip")
    saved = project.parent / ".features" / "manifests" / f"{ran.json['extract']['manifest']}.jsonl"
    assert hashlib.sha256(saved.read_bytes()).hexdigest() == saved.stem
    rows = [json.loads(line) for line in saved.read_text().splitlines()]
    assert len(rows) == 24
    assert opened(project).store("pooled").missing([row["id"] for row in rows]) == []
