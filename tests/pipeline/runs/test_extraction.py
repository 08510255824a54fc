"""extraction.py: what is computed, and what is reused; with a numpy base and a real Dask cluster."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import pytest

from tests.conftest import Pipeline, cache_files, counts, extract, opened
from tests.support import fakes


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
