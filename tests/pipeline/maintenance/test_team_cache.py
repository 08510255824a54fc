"""team_cache.py: `cache pull` and `cache push` of a project, with a folder as object store."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from tests.conftest import Pipeline


@pytest.fixture
def shared(pipeline: Pipeline, project: Path, tmp_path: Path) -> Path:
    """A project with all its rows, and an empty team's cache."""
    pipeline("run", "extract", "-c", project, "--set", "extract.shard_rows=8", expect=0)
    project.write_text(
        project.read_text() + f'cache: {{remote: {{url: "file://{tmp_path}/remote", mode: read-write}}}}\n'
    )
    return project


def fresh(tmp_path: Path, digest: str) -> Path:
    """A folder with nothing but settings."""
    config = tmp_path / "fresh" / "pipeline.yaml"
    config.parent.mkdir()
    config.write_text(
        f'base: {{weights: "{digest}"}}\nextract: {{size: 16}}\ncache: {{remote: "file://{tmp_path}/remote"}}\n'
    )
    return config


def test_a_push_and_a_pull_of_its_manifest(pipeline: Pipeline, shared: Path, tmp_path: Path) -> None:
    pushed = pipeline("cache", "push", "-c", shared, "--json").json["exchanged"]
    assert (pushed["traffic"]["pushed"]["shards"], pushed["traffic"]["pushed"]["there"], pushed["missing"]) == (3, 0, 0)
    config = fresh(tmp_path, pushed["weights"]["base.weights"])
    pulled = pipeline("cache", "pull", "-c", config, "--manifest", pushed["manifest"][:8], "--json")
    assert (pulled.code, pulled.json["exchanged"]["traffic"]["pulled"]["rows"]) == (0, 24)
    assert pulled.json["exchanged"]["missing"] == 0
    table = Path(pulled.json["exchanged"]["manifest"]).relative_to(config.parent)
    ran = pipeline("run", "head", "-c", config, "--require-cached", "--set", f"data.table={table}")
    assert ran.code == 0, ran.err


def test_what_is_printed_is_what_to_do_next(pipeline: Pipeline, shared: Path, tmp_path: Path) -> None:
    out = pipeline("cache", "push", "-c", shared, expect=0).out
    digits = out.split("--manifest ")[1].split()[0]
    weights = out.split("base.weights: ")[1].split()[0]
    config = fresh(tmp_path, weights)
    next_line = pipeline("cache", "pull", "-c", config, "--manifest", digits, expect=0).out.split("next: pipeline ")[1]
    assert pipeline(*next_line.split()).code == 0


def test_a_second_push_sends_nothing(pipeline: Pipeline, shared: Path, tmp_path: Path) -> None:
    pipeline("cache", "push", "-c", shared, expect=0)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "remote").rglob("*")}
    again = pipeline("cache", "push", "-c", shared, "--json").json["exchanged"]["traffic"]["pushed"]
    assert (again["shards"], again["there"]) == (0, 3)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "remote").rglob("*")} == before


def test_no_more_travels_than_rows_and_manifests(pipeline: Pipeline, shared: Path, tmp_path: Path) -> None:
    pipeline("cache", "push", "-c", shared, expect=0)
    kinds = {path.relative_to(tmp_path / "remote").parts[:2] for path in (tmp_path / "remote").rglob("*.*")}
    assert kinds == {("v1", "features"), ("v1", "manifests")}


def test_a_damaged_shard_is_not_pushed(pipeline: Pipeline, shared: Path, tmp_path: Path) -> None:
    path = next(shared.parent.glob(".features/features/*/shards/*.h5"))
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    ran = pipeline("cache", "push", "-c", shared, "--json")
    assert len(list((tmp_path / "remote").rglob("*.h5"))) == 2
    assert (ran.json["exchanged"]["missing"], ran.json["exchanged"]["traffic"]["pushed"]["shards"]) == (8, 2)


@pytest.mark.parametrize(
    ("settings", "said"),
    [("", "names no team's cache"), ("cache: {remote: 's3://team/x'}\n", "cache.remote.mode is read")],
)
def test_a_push_needs_a_place_and_the_right_to_write(
    pipeline: Pipeline, project: Path, settings: str, said: str
) -> None:
    pipeline("run", "extract", "-c", project, expect=0)
    project.write_text(project.read_text() + settings)
    ran = pipeline("cache", "push", "-c", project)
    assert (ran.code, said in ran.err) == (2, True)


@pytest.mark.parametrize(("digits", "of"), [("ffffffffff", 0), ("", 1)])
def test_a_manifest_is_named_by_digits_of_its_digest(pipeline: Pipeline, shared: Path, digits: str, of: int) -> None:
    pipeline("cache", "push", "-c", shared, expect=0)
    ran = pipeline("cache", "pull", "-c", shared, "--manifest", digits)
    assert (ran.code, f"has {of} manifests whose digest begins with" in ran.err) == (2, True)


def test_a_pull_counts_what_neither_side_has(pipeline: Pipeline, shared: Path, tmp_path: Path) -> None:
    ran = pipeline("cache", "pull", "-c", shared, "--set", "extract.size=32", "--json")
    assert (ran.code, ran.json["exchanged"]["missing"]) == (0, 24)
    assert "lack rows still" in pipeline("cache", "pull", "-c", shared, "--set", "extract.size=32").out


def test_a_changed_manifest_is_not_taken(pipeline: Pipeline, shared: Path, tmp_path: Path) -> None:
    digest = pipeline("cache", "push", "-c", shared, "--json").json["exchanged"]["manifest"]
    path = tmp_path / "remote" / "v1" / "manifests" / f"{digest}.jsonl"
    path.write_text(json.dumps({"id": "a" * 64, "path": "x", "label": "dark"}) + "\n")
    ran = pipeline("cache", "pull", "-c", shared, "--manifest", digest)
    assert (ran.code, "not its name" in ran.err) == (4, True)


@pytest.mark.parametrize("data", [b"no json\n", b'{"name": "no row"}\n', b"\xff\n"])
def test_a_manifest_that_is_none_is_one_sentence_and_not_kept(
    pipeline: Pipeline, shared: Path, tmp_path: Path, data: bytes
) -> None:
    digest = hashlib.sha256(data).hexdigest()
    path = tmp_path / "remote" / "v1" / "manifests" / f"{digest}.jsonl"
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    ran = pipeline("cache", "pull", "-c", shared, "--manifest", digest)
    assert (ran.code, "is no table of images" in " ".join(ran.err.split())) == (2, True), ran.err
    assert not (shared.parent / ".features" / "manifests" / path.name).exists()


def test_the_remote_is_listed_and_tidied_after_a_preview(pipeline: Pipeline, shared: Path, tmp_path: Path) -> None:
    pipeline("cache", "push", "-c", shared, expect=0)
    listed = pipeline("cache", "ls", "--remote", "-c", shared)
    assert ("24" in listed.out, "efficientnet_lite0 16x16" in listed.out, "manifest: 1 file" in listed.out) == (
        True,
    ) * 3
    for path in (tmp_path / "remote").rglob("*"):
        os.utime(path, (0, 0))
    other = tmp_path / "other" / "pipeline.yaml"  # of another cache, which needs none of this
    other.parent.mkdir()
    other.write_text(
        f'extract: {{size: 32}}\ncache: {{remote: {{url: "file://{tmp_path}/remote", mode: read-write}}}}\n'
    )
    words = ("cache", "gc", "--remote", "--older-than", "30d")
    assert pipeline(*words, "--yes", "-c", shared, "--json").json["gc"]["going"] == []
    preview = pipeline(*words, "-c", other)
    assert (preview.code, "would remove 1 key, 1 manifest" in preview.out) == (0, True)
    assert len(list((tmp_path / "remote").rglob("*.h5"))) == 3
    assert len(pipeline(*words, "--yes", "-n", "-c", other, "--json").json["gc"]["going"]) == 2
    assert "removed 1 key, 1 manifest" in pipeline(*words, "--yes", "-c", other).out
    assert [path for path in (tmp_path / "remote").rglob("*") if path.is_file()] == []


def test_tidying_the_remote_needs_the_right_to_write_and_an_age(pipeline: Pipeline, shared: Path) -> None:
    pipeline("cache", "push", "-c", shared, expect=0)
    words = ("cache", "gc", "--remote", "-c", shared)
    assert pipeline(*words, "--yes").code == 2
    assert pipeline("cache", "gc", "--yes", "-c", shared).code == 2
    shared.write_text(shared.read_text().replace("read-write", "read"))
    assert pipeline(*words, "--older-than", "1d").code == 0
    ran = pipeline(*words, "--older-than", "1d", "--yes")
    assert (ran.code, "cache.remote.mode is read" in ran.err) == (2, True)
