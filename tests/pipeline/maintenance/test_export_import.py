"""export_import.py: what was made on one machine serves on another, in one folder, and not a byte is believed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest
import yaml

from cache.atomic_files import sha256_of as sha
from cache.hash_index import HashIndex
from stages.bases import catalogue
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


def theirs(exported: Path, text: str) -> None:
    """Put `text` at the end of the export's pipeline.yaml, as a stranger would."""
    path = exported / "pipeline.yaml"
    tree = {**yaml.safe_load(path.read_text()), **yaml.safe_load(text)}
    path.write_text(yaml.safe_dump(tree))


STRANGE = """
cluster: {scheduler: 'tcp://203.0.113.7:8786', workers: 9}
cache: {dir: ../../elsewhere}
data: {root: /etc, table: manifest.jsonl, group_from: '(a+)+$', on_bad: skip}
finetune: {last: {head: logistic, unfreeze_from: block16, log_dir: /tmp/logs}}
"""


def test_an_import_takes_over_no_trust_and_no_places(pipeline: Pipeline, exported: Path, tmp_path: Path) -> None:
    laptop = tmp_path / "a" / "b" / "laptop"
    laptop.mkdir(parents=True)
    theirs(exported, STRANGE)
    ran = pipeline("cache", "import", exported, "-c", laptop, "--json")
    assert (ran.code, ran.json["moved"]["rows"]) == (0, 24)
    assert set(ran.json["moved"]["left_out"]) == {
        "cluster.scheduler", "cluster.workers", "cache.dir", "data.root", "data.group_from",
        "finetune.last.log_dir", "finetune.last.unfreeze_from",
    }  # fmt: skip
    config = yaml.safe_load((laptop / "pipeline.yaml").read_text())
    assert set(config) == {"data", "base", "extract", "heads"}
    assert config["data"] == {"on_bad": "skip", "table": "manifest.jsonl"}
    assert config["base"] == {"name": "efficientnet_lite0", "preprocess": None, "weights": "imagenet"}
    assert (laptop / ".features" / "CACHE.json").exists()
    assert not (tmp_path / "a" / "elsewhere").exists()
    assert head(pipeline, laptop / "pipeline.yaml")


def test_what_an_import_leaves_out_is_said_with_the_way_to_put_it_back(
    pipeline: Pipeline, exported: Path, tmp_path: Path
) -> None:
    (tmp_path / "laptop").mkdir()
    theirs(exported, STRANGE)
    ran = pipeline("cache", "import", exported, "-c", tmp_path / "laptop")
    assert "left out of pipeline.yaml: " in ran.out
    assert "cluster.scheduler" in ran.out
    assert "--set" in ran.out


def test_a_model_in_the_export_is_named_by_its_digest_and_not_trusted(
    pipeline: Pipeline, exported: Path, tmp_path: Path
) -> None:
    """The model lies in the gift, and its digest is right."""
    model, digest = exported / "gift.keras", hashlib.sha256(b"runs code").hexdigest()
    model.write_bytes(b"runs code")
    note = json.dumps(
        {"base": catalogue.choose_base(str(model)).name, "setting": str(model), "sha256": digest}
    ).encode()
    (exported / ".features" / "weights" / f"{hashlib.sha256(note).hexdigest()}.json").write_bytes(note)
    theirs(exported, f"base: {{name: {model}, trust: true}}")
    (tmp_path / "laptop").mkdir()
    ran = pipeline("cache", "import", exported, "-c", tmp_path / "laptop", "--json")
    assert set(ran.json["moved"]["left_out"]) == {"base.name", "base.trust"}
    base = yaml.safe_load((tmp_path / "laptop" / "pipeline.yaml").read_text())["base"]
    assert base == {"name": "gift.keras", "preprocess": None, "weights": f"sha256:{digest}"}
    shutil.copytree(tmp_path / "gone", tmp_path / "laptop" / "images")
    ran = pipeline("run", "extract", "-c", tmp_path / "laptop")
    assert (ran.code, "give the file's path as base.name" in ran.err) == (4, True)
    shutil.copy(model, tmp_path / "laptop")
    ran = pipeline("run", "extract", "-c", tmp_path / "laptop")
    assert (ran.code, "pipeline bases trust" in ran.err) == (2, True)


def test_a_base_of_which_no_digest_is_known_is_refused(pipeline: Pipeline, exported: Path, tmp_path: Path) -> None:
    theirs(exported, "base: {weights: /home/them/my.weights.h5}")
    (tmp_path / "laptop").mkdir()
    ran = pipeline("cache", "import", exported, "-c", tmp_path / "laptop")
    assert (ran.code, "the export has 0 digests of it; expected 1" in ran.err) == (2, True)
    assert list((tmp_path / "laptop").iterdir()) == []


def test_an_export_names_a_weight_file_by_its_digest(pipeline: Pipeline, project: Path, tmp_path: Path) -> None:
    weights = project.parent / "my.weights.h5"
    weights.write_bytes(b"weights")
    project.write_text(project.read_text() + f"base: {{weights: {weights}}}\n")
    pipeline("run", "extract", "-c", project)
    pipeline("cache", "export", tmp_path / "export", "-c", project)
    base = yaml.safe_load((tmp_path / "export" / "pipeline.yaml").read_text())["base"]
    assert base["weights"] == f"sha256:{hashlib.sha256(b'weights').hexdigest()}"
    assert str(tmp_path) not in (tmp_path / "export" / "pipeline.yaml").read_text()
    assert head(pipeline, tmp_path / "export" / "pipeline.yaml")
    (tmp_path / "laptop").mkdir()
    assert pipeline("cache", "import", tmp_path / "export", "-c", tmp_path / "laptop").code == 0
    assert head(pipeline, tmp_path / "laptop" / "pipeline.yaml")


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", ["pipeline.yaml", "EXPORT.json", "manifest.jsonl"])
@pytest.mark.parametrize("what", ["pipe", "device", "link", "deep", "huge"])
def test_what_is_no_file_of_an_export_is_refused_in_a_sentence(
    pipeline: Pipeline, exported: Path, tmp_path: Path, name: str, what: str
) -> None:
    path = exported / name
    if what == "link":
        path.rename(tmp_path / "secret")
        path.symlink_to(tmp_path / "secret")
    else:
        path.unlink()
        if what == "pipe":
            os.mkfifo(path)
        elif what == "device":
            path.symlink_to("/dev/zero")
        elif what == "deep":
            path.write_text("[" * 100_000)
        else:
            path.touch()
            os.truncate(path, 10**12)
    (tmp_path / "laptop").mkdir()
    ran = pipeline("cache", "import", exported, "-c", tmp_path / "laptop")
    assert (ran.code, ran.err.count("\n") <= 2, str(path) in ran.err) == (2, True, True), ran.err
    assert list((tmp_path / "laptop").iterdir()) == []


def test_rows_that_pipeline_yaml_never_used_are_not_needed_after_an_import(
    pipeline: Pipeline, exported: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other" / "pipeline.yaml"
    shutil.copytree(tmp_path / "gone", other.parent / "images")
    other.write_text("extract: {size: 32}\n")
    pipeline("run", "extract", "-c", other)
    assert pipeline("cache", "import", exported, "-c", other, "--json").json["moved"]["rows"] == 24
    needed = [entry["needed_by"] for entry in pipeline("cache", "ls", "-c", other, "--json").json["contents"]["entries"]
              if entry["kind"] == "features"]  # fmt: skip
    assert sorted(needed) == [[], [str(other)]]
    gone = pipeline("cache", "gc", "-c", other, "--max-size", "0", "--json").json["gc"]["removed"]
    assert [entry["kind"] for entry in gone if entry["kind"] != "converted"] == ["features"]
    assert pipeline("run", "extract", "-c", other, "--json").json["extract"]["computed"] == 0
