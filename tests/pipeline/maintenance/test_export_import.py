"""export_import.py: what was made on one machine serves on another, in one folder, and not a byte is believed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from cache.atomic_files import sha256_of as sha
from cache.hash_index import HashIndex
from tests.conftest import Pipeline
from tests.support import crash


@pytest.fixture
def exported(pipeline: Pipeline, project: Path, tmp_path: Path) -> Path:
    """An export of a project whose images are gone since."""
    pipeline("run", "-c", project, "--set", "extract.shard_rows=8")
    assert pipeline("cache", "export", tmp_path / "export", "-c", project).code == 0
    shutil.move(project.parent / "images", tmp_path / "gone")
    return tmp_path / "export"


def head(pipeline: Pipeline, config: Path) -> dict[str, object]:
    ran = pipeline("run", "head", "-c", config, "--json", "--require-cached")
    assert ran.code == 0, ran.out
    return dict(ran.json["heads"]["logistic"])


def test_heads_are_trained_in_the_export_itself(pipeline: Pipeline, project: Path, exported: Path) -> None:
    there = head(pipeline, exported / "pipeline.yaml")
    key = there["key"]
    recorded = json.loads((project.parent / "models" / "head" / "logistic" / str(key) / "metrics.json").read_bytes())
    assert there["metrics"] == recorded


def test_only_what_the_settings_need_is_exported(pipeline: Pipeline, project: Path, tmp_path: Path) -> None:
    pipeline("run", "extract", "-c", project, "--set", "extract.size=32")
    pipeline("run", "extract", "-c", project)
    pipeline("cache", "export", tmp_path / "export", "-c", project)
    assert len(list((tmp_path / "export").glob(".features/features/*"))) == 1


def test_an_export_is_brought_up_to_date(pipeline: Pipeline, project: Path, tmp_path: Path) -> None:
    from tests.support import fakes

    pipeline("run", "extract", "-c", project)
    words = ("cache", "export", tmp_path / "export", "-c", project, "--json")
    assert pipeline(*words).json["moved"]["rows"] == 24
    fakes.two_classes(project.parent / "images", 3, start=100)
    missing = pipeline(*words)
    assert (missing.code, missing.json["error"]["code"]) == (4, "not_available")
    pipeline("run", "extract", "-c", project)
    again = pipeline(*words).json["moved"]
    assert (again["rows"], again["there"]) == (6, len(list((tmp_path / "export").rglob("*.h5"))) - again["shards"])


def test_an_import_into_an_empty_folder_is_a_project(
    pipeline: Pipeline, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    laptop = tmp_path / "laptop"
    laptop.mkdir()
    monkeypatch.chdir(laptop)
    ran = pipeline("cache", "import", exported, "--json")
    assert (ran.code, ran.json["moved"]["rows"], ran.json["moved"]["shards"]) == (0, 24, 3)
    shutil.rmtree(exported)
    assert head(pipeline, laptop / "pipeline.yaml")["hit"] is False


def test_an_import_into_a_project_spares_its_extraction(pipeline: Pipeline, project: Path, exported: Path) -> None:
    shutil.rmtree(project.parent / ".features")
    before = project.read_bytes()
    assert pipeline("cache", "import", exported, "-c", project).code == 0
    assert project.read_bytes() == before
    shutil.move(exported.parent / "gone", project.parent / "images")
    assert pipeline("run", "extract", "-c", project, "--json").json["extract"]["computed"] == 0
    assert pipeline("cache", "import", exported, "-c", project, "--json").json["moved"]["there"] == 3


def test_a_bare_cache_can_be_imported(pipeline: Pipeline, project: Path, exported: Path) -> None:
    shutil.rmtree(project.parent / ".features")
    ran = pipeline("cache", "import", exported / ".features", "-c", project, "--json")
    assert (ran.code, ran.json["moved"]["rows"]) == (0, 24)


@pytest.mark.parametrize("what", ["shard", "record", "spec", "manifest of the cache"])
def test_what_is_damaged_is_refused_and_the_rest_comes(
    pipeline: Pipeline, project: Path, exported: Path, what: str
) -> None:
    kinds = {"shard": "shards/*.h5", "record": "shards/*.json", "spec": "spec.json"}
    if what in kinds:
        path = next(exported.glob(f".features/features/*/{kinds[what]}"))
    else:
        path = exported / ".features" / "manifests" / f"{'ab' * 32}.jsonl"
        path.write_bytes(b"  ")
    path.write_bytes(path.read_bytes()[:-2] + b"??")
    shutil.rmtree(project.parent / ".features")
    ran = pipeline("cache", "import", exported, "-c", project, "--json")
    assert (ran.code, ran.json["error"]["code"]) == (1, "damaged")
    assert len(ran.json["moved"]["refused"]) == 1
    assert ran.json["moved"]["rows"] == {"shard": 16, "record": 16, "spec": 0}.get(what, 24)
    assert path.exists()  # what is somebody else's is not moved
    assert pipeline("cache", "verify", "-c", project).code == 0


def test_a_torn_manifest_is_refused_before_anything_is_written(
    pipeline: Pipeline, exported: Path, tmp_path: Path
) -> None:
    manifest = exported / "manifest.jsonl"
    manifest.write_bytes(b"".join(manifest.read_bytes().splitlines(keepends=True)[:9]))
    (tmp_path / "laptop").mkdir()
    ran = pipeline("cache", "import", exported, "-c", tmp_path / "laptop")
    assert (ran.code, f"{manifest} was changed after the export" in ran.err) == (2, True)
    assert list((tmp_path / "laptop").iterdir()) == []


def test_what_was_imported_is_kept_by_gc(pipeline: Pipeline, exported: Path, tmp_path: Path) -> None:
    (tmp_path / "laptop").mkdir()
    pipeline("cache", "import", exported, "-c", tmp_path / "laptop")
    ran = pipeline("cache", "gc", "-c", tmp_path / "laptop", "--max-size", "0", "--json").json["gc"]
    assert ran["removed"] == []
    assert ran["needed"] == ran["left"] > 0


def test_another_project_is_no_export(pipeline: Pipeline, project: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / "pipeline.yaml"
    shutil.copytree(project.parent / "images", other.parent / "images")
    other.write_text("extract: {size: 32}  # mine\n")
    for config in (project, other):
        pipeline("run", "extract", "-c", config)
    assert pipeline("cache", "export", other.parent, "-c", project).code == 2
    assert other.read_text().endswith("# mine\n")


def test_an_export_that_was_killed_can_be_gone_on_with(pipeline: Pipeline, project: Path, tmp_path: Path) -> None:
    pipeline("run", "extract", "-c", project)
    with crash.standing(crash.Shim()) as shim:
        pipeline("cache", "export", tmp_path / "whole", "-c", project)
    for at in range(0, shim.count, 7):
        target = tmp_path / str(at)
        with crash.standing(crash.Shim(crash.dead_from(at))):
            crash.dies(lambda: pipeline("cache", "export", target, "-c", project))  # noqa: B023
        assert pipeline("cache", "export", target, "-c", project).code == 0
        assert head(pipeline, target / "pipeline.yaml")


def test_an_export_without_a_shard_is_not_called_done(
    pipeline: Pipeline, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline("run", "extract", "-c", project)
    monkeypatch.setattr(HashIndex, "digest", lambda self, path: path.stem if path.suffix == ".h5" else sha(path))
    shard = next((project.parent / ".features").glob("features/*/shards/*.h5"))
    shard.write_bytes(shard.read_bytes()[:-1] + b"?")
    ran = pipeline("cache", "export", tmp_path / "export", "-c", project, "--json")
    assert (ran.code, ran.json["error"]["code"], len(ran.json["moved"]["refused"])) == (1, "damaged", 1)


def test_an_import_does_not_overwrite_a_manifest_of_one_s_own(
    pipeline: Pipeline, exported: Path, tmp_path: Path
) -> None:
    (tmp_path / "laptop").mkdir()
    (tmp_path / "laptop" / "manifest.jsonl").write_text("mine")
    ran = pipeline("cache", "import", exported, "-c", tmp_path / "laptop" / "second.yaml")
    assert (ran.code, "manifest.jsonl exists already" in ran.err) == (2, True)
    assert sorted(path.name for path in (tmp_path / "laptop").iterdir()) == ["manifest.jsonl"]


def test_labels_corrected_in_the_export_do_not_hinder_an_import_into_a_project(
    pipeline: Pipeline, project: Path, exported: Path
) -> None:
    manifest = exported / "manifest.jsonl"
    manifest.write_bytes(manifest.read_bytes().replace(b"dark", b"bright", 1))
    assert pipeline("cache", "import", exported, "-c", project).code == 0


def test_without_images_an_imported_project_takes_corrected_labels_from_a_table_that_has_ids(
    pipeline: Pipeline, project: Path, exported: Path, tmp_path: Path
) -> None:
    """Of a table without ids the files are needed."""
    here = tmp_path / "here" / "pipeline.yaml"
    here.parent.mkdir()
    shutil.copy(project, here)
    named = Path(pipeline("cache", "import", exported, "-c", here, "--json").json["moved"]["manifest"])
    rows = [json.loads(line) for line in named.read_text().splitlines()]
    rows[0]["label"] = "dark" if rows[0]["label"] == "bright" else "bright"
    (here.parent / "labels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for columns in (["id", "path", "label"], ["path", "label"]):
        lines = [columns, *([row[column] for column in columns] for row in rows)]
        (here.parent / f"{columns[0]}.csv").write_text("".join(",".join(line) + "\n" for line in lines))
    before = head(pipeline, exported / "pipeline.yaml")
    for table in ("labels.jsonl", "id.csv"):
        ran = pipeline("run", "-c", here, "--json", "--set", f"data.table={table}")
        assert (ran.code, ran.json["extract"]["computed"], ran.json["extract"]["reused"]) == (0, 0, 24)
        assert ran.json["heads"]["logistic"]["key"] != before["key"]
    assert pipeline("run", "-c", here, "--set", "data.table=path.csv").code == 3


def test_only_the_weights_in_use_travel_and_none_makes_a_name_ambiguous(
    pipeline: Pipeline, project: Path, tmp_path: Path
) -> None:
    weights = project.parent / "my.weights.h5"
    project.write_text(project.read_text() + "base: {weights: my.weights.h5}\n")
    for content in ("old", "new"):
        weights.write_text(content)
        pipeline("run", "extract", "-c", project)
    pipeline("cache", "export", tmp_path / "export", "-c", project)
    assert head(pipeline, tmp_path / "export" / "pipeline.yaml")
    weights.write_text("theirs")
    other = tmp_path / "other" / "pipeline.yaml"
    other.parent.mkdir()
    other.write_text(project.read_text() + f"data: {{root: {project.parent}/images}}\n".replace("data", "#"))
    shutil.copytree(project.parent / "images", other.parent / "images")
    shutil.copy(weights, other.parent)
    pipeline("run", "extract", "-c", other)
    (other.parent / "my.weights.h5").unlink()
    assert head(pipeline, other)
    pipeline("cache", "import", tmp_path / "export", "-c", other)
    assert head(pipeline, other)["hit"]


def test_what_is_no_export_is_refused(pipeline: Pipeline, project: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(b"x")
    ran = pipeline("cache", "import", tmp_path / "photos", "-c", project)
    assert ran.code == 2
    assert "is neither an export nor a cache" in ran.err
    pipeline("run", "extract", "-c", project)
    ran = pipeline("cache", "export", tmp_path / "photos", "-c", project)
    assert (ran.code, "exists, and is not an export" in ran.err) == (2, True)
    ran = pipeline("cache", "export", project.parent, "-c", project)
    assert ran.code == 2
