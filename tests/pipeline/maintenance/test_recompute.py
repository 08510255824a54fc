"""recompute.py: rows that were never computed from their images are found, with a numpy base."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import Pipeline, cache_files, opened


@pytest.fixture
def ready(pipeline: Pipeline, project: Path) -> Path:
    pipeline("run", "extract", "-c", project, "--set", "extract.shard_rows=8", expect=0)
    return project


def forge(project: Path, change: float) -> tuple[str, str]:
    """Replace a shard by one that is whole, and whose first row was changed: (its name, the image)."""
    store = opened(project).store("pooled")
    name = store.names()[0]
    ids, (record,) = store.ids([name]), store.shard_records([name])
    rows = store.read(ids)
    rows[0, 0] += change * np.abs(rows).max()
    store.path(name).unlink()
    store.record_path(name).unlink()
    return opened(project).store("pooled").put(ids, rows, {**record, "device": "of somebody"}), ids[0]


def test_rows_of_this_machine_agree_and_nothing_is_written(pipeline: Pipeline, ready: Path) -> None:
    before = cache_files(ready)
    ran = pipeline("cache", "verify", "--recompute", "5", "-c", ready, "--json")
    found = ran.json["verified"]["recomputed"]
    assert (ran.code, found["images"], found["of"], found["differing"]) == (0, 5, 24, [])
    assert cache_files(ready) == before
    out = pipeline("cache", "verify", "--recompute", "100", "-c", ready).out
    assert "computed 24 of 24 images again, 1 tap: 0 rows differ" in out


def test_a_forged_row_is_found_with_its_shard_and_who_wrote_it(pipeline: Pipeline, ready: Path) -> None:
    shard, image = forge(ready, 0.01)
    assert pipeline("cache", "verify", "-c", ready).code == 0  # its digest is right
    ran = pipeline("cache", "verify", "--recompute", "24", "-c", ready, "--json")
    (row,) = ran.json["verified"]["recomputed"]["differing"]
    path = next(r.path for r in opened(ready).manifest.rows if r.id == image)
    assert (ran.code, row["shard"], row["path"], row["tap"]) == (1, shard, path, "pooled")
    assert "1 of 24 rows are not what this machine computes" in ran.json["error"]["message"]
    assert "on of somebody" in ran.json["error"]["message"]


def test_what_engines_may_differ_by_is_no_forgery(pipeline: Pipeline, ready: Path) -> None:
    forge(ready, 0.5e-4)
    assert pipeline("cache", "verify", "--recompute", "24", "-c", ready).code == 0


def test_without_images_nothing_can_be_computed(pipeline: Pipeline, ready: Path) -> None:
    (ready.parent / "images").rename(ready.parent / "gone")
    digest = json.loads(pipeline("cache", "ls", "-c", ready, "--json").out)["contents"]["entries"][1]["name"]
    table = f"data.table=.features/manifests/{digest}.jsonl"
    ran = pipeline("cache", "verify", "--recompute", "3", "-c", ready, "--set", table)
    assert (ran.code, "has both its rows and its file" in ran.err) == (4, True)
