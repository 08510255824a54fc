"""upkeep.py and `pipeline cache`: what is needed stays, what is damaged is found, and all of it is said."""

from __future__ import annotations

import errno
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from cache import atomic_files, registrations
from cache.hash_index import HashIndex, default_index_path
from tests.conftest import Pipeline


def ls(pipeline: Pipeline, project: Path, *more: str) -> dict[str, Any]:
    ran = pipeline("cache", "ls", "-c", project, "--json", *more)
    assert ran.code == 0, ran.out
    return {entry["name"]: entry for entry in ran.json["contents"]["entries"]}


def gc(pipeline: Pipeline, project: Path, *more: str) -> set[str]:
    """Names of what went."""
    ran = pipeline("cache", "gc", "-c", project, "--json", *more)
    assert ran.code == 0, ran.out
    return {entry["name"] for entry in ran.json["gc"]["removed"]}


def extracted(pipeline: Pipeline, project: Path, *more: str) -> str:
    """The key of rows that are there now."""
    return str(pipeline("run", "extract", "-c", project, "--json", *more).json["extract"]["keys"]["pooled"])


@pytest.fixture
def two_sizes(pipeline: Pipeline, project: Path) -> tuple[str, str]:
    """Keys of rows that the project had once, and has now."""
    return extracted(pipeline, project, "--set", "extract.size=32"), extracted(pipeline, project)


def test_ls_tells_what_is_there_who_needs_it_and_what_was_made_of_it(pipeline: Pipeline, project: Path) -> None:
    run = pipeline("run", "-c", project, "--json").json
    pipeline("tag", "head/logistic", "v1", "-c", project)
    key = run["extract"]["keys"]["pooled"]
    rows = ls(pipeline, project)[key]
    assert (rows["kind"], rows["rows"], rows["components"]["pixels"]["size"]) == ("features", 24, [16, 16])
    assert rows["bytes"] > 24 * 6 * 4
    assert abs(time.time() - rows["used"]) < 60
    assert rows["needed_by"] == [str(project), f"tag v1 of {project.parent}"]
    assert rows["models"] == [f"head/logistic {run['heads']['logistic']['key'][:12]} (v1)"]
    lines = pipeline("cache", "ls", "-c", project).out.splitlines()
    assert lines[1].split()[:2] == [key[:12], "24"]
    assert lines[1].strip().endswith("efficientnet_lite0 16x16 squash, output avg")


def test_ls_tells_what_a_project_asks_for_from_what_its_last_run_did(pipeline: Pipeline, project: Path) -> None:
    key = extracted(pipeline, project)
    overridden = extracted(pipeline, project, "--set", "extract.size=32")
    found = ls(pipeline, project)
    assert found[key]["needed_by"] == [str(project)]
    assert found[overridden]["needed_by"] == [f"the last run of {project}"]


def test_gc_without_limits_takes_no_rows(pipeline: Pipeline, project: Path, two_sizes: tuple[str, str]) -> None:
    assert gc(pipeline, project) == set()


def test_gc_takes_what_nobody_needs_and_the_next_run_makes_it_again(
    pipeline: Pipeline, project: Path, two_sizes: tuple[str, str]
) -> None:
    once, now = two_sizes
    assert once in gc(pipeline, project, "--max-size", "0", "-n")
    assert once in ls(pipeline, project)
    assert once in gc(pipeline, project, "--max-size", "0")
    assert once not in ls(pipeline, project)
    assert now in ls(pipeline, project)
    assert pipeline("run", "extract", "-c", project, "--json").json["extract"]["computed"] == 0
    again = pipeline("run", "extract", "-c", project, "--json", "--set", "extract.size=32").json["extract"]
    assert (again["computed"], again["keys"]["pooled"]) == (24, once)


def test_gc_in_a_project_that_was_moved_keeps_its_rows(pipeline: Pipeline, project: Path, tmp_path: Path) -> None:
    key = extracted(pipeline, project)
    for note in (project.parent / ".features" / "roots").iterdir():
        note.unlink()
    assert key not in gc(pipeline, project, "--max-size", "0")
    assert str(project) in ls(pipeline, project)[key]["needed_by"]


@pytest.mark.parametrize("command", ["ls", "gc", "verify"])
def test_a_folder_that_is_no_cache_is_left_alone(
    pipeline: Pipeline, project: Path, tmp_path: Path, command: str
) -> None:
    theirs = tmp_path / "photos" / ".x.tmp"
    theirs.parent.mkdir()
    theirs.write_bytes(b"mine")
    os.utime(theirs, (0, 0))
    ran = pipeline("cache", command, "-c", project, "--set", f"cache.dir={theirs.parent}")
    assert (ran.code, "is not a cache: it has no CACHE.json" in ran.err) == (2, True)
    assert theirs.exists()
    ran = pipeline("cache", command, "-c", project)
    assert (ran.code, ".features does not exist yet" in ran.err) == (2, True)


def test_gc_by_age(pipeline: Pipeline, project: Path, two_sizes: tuple[str, str]) -> None:
    once, _ = two_sizes
    for key in two_sizes:
        when = time.time() - 10 * 86_400
        os.utime(project.parent / ".features" / "features" / key / "spec.json", (when, when))
    assert gc(pipeline, project, "--older-than", "11d") == set()
    assert gc(pipeline, project, "--older-than", "9d") == {once}


def test_gc_keeps_what_a_tagged_model_was_made_of(pipeline: Pipeline, project: Path) -> None:
    ran = pipeline("run", "-c", project, "--json", "--set", "extract.size=32").json
    assert pipeline("tag", ran["heads"]["logistic"]["key"][:12], "v1", "-c", project).code == 0
    once, now = ran["extract"]["keys"]["pooled"], extracted(pipeline, project)
    assert not {once, now, ran["extract"]["manifest"]} & gc(pipeline, project, "--max-size", "0")
    assert pipeline("tag", "--delete", "v1", "-c", project).code == 0
    assert once in gc(pipeline, project, "--max-size", "0")


def test_gc_keeps_what_another_project_on_the_same_cache_needs(
    pipeline: Pipeline, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIPELINE_CACHE_DIR", str(tmp_path / "shared"))
    other = tmp_path / "other" / "pipeline.yaml"
    other.parent.mkdir()
    other.write_text(f"data: {{root: {project.parent}/images}}\nextract: {{size: 32}}\n")
    theirs, ours = extracted(pipeline, other), extracted(pipeline, project)
    assert gc(pipeline, project, "--max-size", "0") == set()
    other.write_text("extract: {size: oops")  # unreadable: as it was when it ran last
    assert gc(pipeline, project, "--max-size", "0") == set()
    shutil.rmtree(other.parent)  # or its disk is not mounted today
    assert gc(pipeline, project, "--max-size", "0") == set()
    for note in (tmp_path / "shared" / "roots").iterdir():
        os.utime(note, (0, 0))
    assert theirs in gc(pipeline, project, "--max-size", "0")
    assert ours in ls(pipeline, project)
    assert [root.path for root in registrations.list_registrations(tmp_path / "shared")] == [project]


def test_gc_keeps_a_tag_s_rows_when_its_project_has_moved(pipeline: Pipeline, project: Path, tmp_path: Path) -> None:
    shared = ("--set", f"cache.dir={tmp_path / 'shared'}")
    ran = pipeline("run", "-c", project, "--json", *shared).json
    pipeline("tag", "head/logistic", "v1", "-c", project)
    pipeline("run", "-c", project, *shared)
    other = tmp_path / "other.yaml"
    other.write_text("data: {root: moved/images}\nextract: {size: 32}\n")
    (tmp_path / "moved").mkdir()
    for name in ("pipeline.yaml", "images", "models"):
        shutil.move(project.parent / name, tmp_path / "moved" / name)
    pipeline("run", "extract", "-c", other, *shared)
    assert ran["extract"]["keys"]["pooled"] not in gc(pipeline, other, "--max-size", "0", *shared)


def test_one_tag_without_its_model_takes_nothing_from_the_others(pipeline: Pipeline, project: Path) -> None:
    kept = []
    for size, tag in (("32", "v1"), ("48", "v2")):
        ran = pipeline("run", "-c", project, "--json", "--set", f"extract.size={size}").json
        pipeline("tag", ran["heads"]["logistic"]["key"][:12], tag, "-c", project)
        kept.append(ran["extract"]["keys"]["pooled"])
    shutil.rmtree(ran["heads"]["logistic"]["path"])
    pipeline("run", "-c", project)
    assert not set(kept) & gc(pipeline, project, "--max-size", "0")


def test_a_tag_is_known_to_the_cache_that_its_rows_came_from(pipeline: Pipeline, project: Path, tmp_path: Path) -> None:
    other = tmp_path / "other-cache"
    key = pipeline("run", "-c", project, "--json", "--set", f"cache.dir={other}").json["extract"]["keys"]["pooled"]
    pipeline("tag", "logistic", "v1", "-c", project)
    (root,) = registrations.list_registrations(other)
    assert key in root.tags["v1"]


def test_a_run_with_a_bad_image_keeps_the_last_good_manifest(pipeline: Pipeline, project: Path) -> None:
    manifest = pipeline("run", "extract", "-c", project, "--json").json["extract"]["manifest"]
    (project.parent / "images" / "dark" / "empty.png").write_bytes(b"")
    assert pipeline("run", "extract", "-c", project).code == 3
    assert manifest not in gc(pipeline, project, "--max-size", "0")


def test_a_dry_gc_writes_nothing(pipeline: Pipeline, project: Path, two_sizes: tuple[str, str]) -> None:
    root = project.parent / ".features"
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}
    gc(pipeline, project, "--max-size", "0", "-n")
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()} == before


def test_gc_takes_what_killed_trainings_left(pipeline: Pipeline, project: Path) -> None:
    assert pipeline("run", "extract", "-c", project).code == 0
    folder = project.parent / "models" / "finetune" / "last" / ("0" * 64)
    folder.mkdir(parents=True)
    old = {".checkpoint.npz.host-1-0123456789ab.tmp": 2, ".young.npz.host-1-0123456789ab.tmp": 0}
    for name, days in {**old, "checkpoint.npz": 29}.items():
        (folder / name).write_bytes(b"some bytes")
        os.utime(folder / name, (time.time() - 86_400 * days,) * 2)
    assert pipeline("cache", "gc", "-c", project).code == 0
    assert sorted(path.name for path in folder.iterdir()) == [".young.npz.host-1-0123456789ab.tmp", "checkpoint.npz"]
    os.utime(folder / "checkpoint.npz", (time.time() - 86_400 * 31,) * 2)
    assert pipeline("cache", "gc", "-c", project).code == 0
    assert sorted(path.name for path in folder.iterdir()) == [".young.npz.host-1-0123456789ab.tmp"]


def test_gc_forgets_digests_of_files_that_are_gone(pipeline: Pipeline, project: Path, tmp_path: Path) -> None:
    assert pipeline("run", "extract", "-c", project).code == 0
    index, files = HashIndex(default_index_path(), 0.0), [tmp_path / "stays", tmp_path / "goes"]
    for file in files:
        file.write_bytes(b"x")
    index.digests([str(file) for file in files])
    files[1].unlink()
    assert pipeline("cache", "gc", "-c", project).code == 0
    assert index._load("files", sorted(str(file) for file in files)).keys() == {str(files[0])}


def test_gc_keeps_what_a_running_job_needs(pipeline: Pipeline, project: Path, two_sizes: tuple[str, str]) -> None:
    once, _ = two_sizes
    with registrations.running_job(project.parent / ".features", [once]):
        assert once not in gc(pipeline, project, "--max-size", "0")
    assert once in gc(pipeline, project, "--max-size", "0")


def test_a_run_is_a_running_job(pipeline: Pipeline, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.runs import train_heads

    seen = []
    fit = train_heads.run_head

    def look(*arguments: Any) -> Any:
        found = registrations.list_jobs(project.parent / ".features", time.time())
        seen.extend((needs, runs) for _, needs, runs in found)
        return fit(*arguments)

    monkeypatch.setattr(train_heads, "run_head", look)
    ran = pipeline("run", "-c", project, "--json").json
    assert seen == [(frozenset(ran["extract"]["keys"].values()), True)]
    assert list((project.parent / ".features" / "jobs").iterdir()) == []


def test_verify_finds_every_damage_and_the_next_run_mends_it(pipeline: Pipeline, project: Path) -> None:
    run = pipeline("run", "extract", "-c", project, "--json", "--set", "extract.shard_rows=8").json["extract"]
    assert pipeline("cache", "verify", "-c", project, "--json").json["verified"]["shards"] == 3
    root = project.parent / ".features"
    shard = next(root.glob("features/*/shards/*.h5"))
    manifest = root / "manifests" / f"{run['manifest']}.jsonl"
    spec = root / "features" / run["keys"]["pooled"] / "spec.json"
    for path in (shard, manifest):
        path.write_bytes(path.read_bytes()[:-2] + b"??")
    spec.write_bytes(spec.read_bytes().replace(b"16", b"17"))
    ran = pipeline("cache", "verify", "-c", project, "--json")
    assert (ran.code, ran.json["error"]["code"]) == (1, "damaged")
    assert {found["path"] for found in ran.json["verified"]["damaged"]} == {str(p) for p in (shard, manifest, spec)}
    assert pipeline("run", "extract", "-c", project, "--json").json["extract"]["computed"] == 8
    assert pipeline("cache", "verify", "-c", project).code == 0
    assert run["manifest"] in ls(pipeline, project)
    assert len(list((root / "quarantine").iterdir())) == 3


def test_verify_reads_what_the_index_believes(
    pipeline: Pipeline, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Damage below the file system leaves every stat as it was."""
    from cache.hash_index import HashIndex

    extracted(pipeline, project)
    shard = next((project.parent / ".features").glob("features/*/shards/*.h5"))
    shard.write_bytes(shard.read_bytes()[:-1] + b"?")
    digest = HashIndex.digest
    monkeypatch.setattr(HashIndex, "digest", lambda self, path: path.stem if path == shard else digest(self, path))
    assert pipeline("run", "extract", "-c", project, "--json").json["extract"]["computed"] == 0
    ran = pipeline("cache", "verify", "-c", project, "--json")
    assert [found["path"] for found in ran.json["verified"]["damaged"]] == [str(shard)]
    assert not shard.exists()


def test_a_damaged_spec_is_mended_by_a_run_that_computes_nothing(pipeline: Pipeline, project: Path) -> None:
    key = extracted(pipeline, project)
    spec = project.parent / ".features" / "features" / key / "spec.json"
    whole = spec.read_bytes()
    spec.write_bytes(whole.replace(b"16", b"17"))
    assert "its spec.json is damaged" in pipeline("cache", "ls", "-c", project).out
    assert pipeline("cache", "verify", "-c", project).code == 1
    assert pipeline("run", "extract", "-c", project, "--json").json["extract"]["computed"] == 0
    assert spec.read_bytes() == whole
    assert pipeline("cache", "verify", "-c", project).code == 0


def test_verify_tells_of_what_cannot_be_read_and_goes_on(
    pipeline: Pipeline, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline("run", "extract", "-c", project, "--set", "extract.shard_rows=8")
    bad, *others = sorted((project.parent / ".features").glob("features/*/shards/*.h5"))
    real = atomic_files.sha256_of

    def failing(path: Path) -> str:
        if path == bad:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(path)

    monkeypatch.setattr(atomic_files, "sha256_of", failing)
    ran = pipeline("cache", "verify", "-c", project, "--json")
    assert ran.code == 1
    assert ran.json["verified"]["damaged"] == [{"path": str(bad), "reason": "cannot be read: Input/output error"}]
    assert ran.json["verified"]["bytes"] == sum(path.stat().st_size for path in others)
    assert bad.exists()


def test_the_smallest_part_is_one_shard(pipeline: Pipeline, project: Path) -> None:
    extracted(pipeline, project)
    assert pipeline("cache", "verify", "-c", project, "--json", "--subset", "1%").json["verified"]["shards"] == 1


def test_verify_a_part(pipeline: Pipeline, project: Path) -> None:
    pipeline("run", "extract", "-c", project, "--set", "extract.shard_rows=1")
    found = pipeline("cache", "verify", "-c", project, "--json", "--subset", "25%").json["verified"]
    assert (found["shards"], found["of"]) == (6, 24)
    assert "read 6 of 24 shards" in pipeline("cache", "verify", "-c", project, "--subset", "25%").out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["gc", "--older-than", "soon"], "'soon': expected a number and one of h, d, w: 30d"),
        (["gc", "--max-size", "10XB"], "'10XB': expected a number and one of B, KB, MB, GB, TB: 10GB"),
        (["verify", "--subset", "0%"], "'0%': expected a percentage, such as 10%"),
    ],
)
def test_wrong_amounts_are_usage_errors(pipeline: Pipeline, project: Path, words: list[str], message: str) -> None:
    ran = pipeline("cache", *words, "-c", project)
    assert ran.code == 2
    assert message in " ".join(ran.err.replace("│", " ").split())
