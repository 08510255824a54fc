"""project.py: where the cache of a pipeline.yaml lies, and which images are kept in its manifest."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from tests.conftest import Pipeline, opened


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
