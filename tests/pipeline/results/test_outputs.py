"""Whatever a command writes outside of the cache is whole or not there, and where it cannot be, the command says so."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from cache.errors import PipelineError
from pipeline.python import api
from tests.conftest import Pipeline
from tests.support import crash

MODEL = "head/logistic"


@pytest.fixture
def done(pipeline: Pipeline, project: Path, fake_embed: None) -> Path:
    """A project with its rows and its head."""
    assert pipeline("run", "-c", project).code == 0
    return project


def full(_: int, name: str, arguments: tuple[Any, ...]) -> None:
    """A disk that takes half of what is written, and then no more."""
    if name == "write":
        os.write(arguments[0], arguments[1][: len(arguments[1]) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    ("words", "target"),
    [
        (("predict", MODEL, "images", "-o", "out/p.csv"), "out/p.csv"),
        (("predictions", MODEL, "-o", "out/p.csv"), "out/p.csv"),
        (("predictions", MODEL, "-o", "out/p.parquet"), "out/p.parquet"),
        (("plot", MODEL, "-o", "out"), "out/"),
        (("cache", "export", "out"), "out/EXPORT.json"),
        (("run",), "models/unknown/"),
        (("run", "head"), "models/unknown/"),
        (("tag", MODEL, "v1"), "models/tags/v1.json"),
    ],
    ids=lambda value: " ".join(value[:3]) if isinstance(value, tuple) else "",
)
def test_a_full_disk_is_said_with_the_path_and_nothing_half_written_is_left(
    pipeline: Pipeline, done: Path, words: tuple[str, ...], target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(done.parent)
    if words[0] == "run":
        shutil.rmtree("models")
    before = {path for path in Path().rglob("*") if path.is_file()}
    with crash.standing(crash.Shim(full)):
        ran = pipeline(*words, "--json")
    assert ran.code == 1
    error = ran.json["error"]
    place, _, reason = error["message"].partition(" cannot be written: ")
    assert str(Path(place).resolve()).startswith(f"{Path().resolve()}/{target}")
    assert reason == "No space left on device"
    assert "make room" in error["hint"]
    assert {path for path in Path().rglob("*") if path.is_file()} == before
    again = pipeline(*words)
    assert again.code == 0


def test_a_list_of_rejects_is_not_left_half_written(pipeline: Pipeline, done: Path) -> None:
    """It is no reason to fail; the old list stays."""
    (done.parent / "images" / "dark" / "0000.png").write_bytes(b"no image")
    pipeline("run", "extract", "-c", done, "--set", "data.on_bad=skip")
    before = (done.parent / "rejects.csv").read_bytes()
    (done.parent / "images" / "dark" / "0001.png").write_bytes(b"no image either")
    with crash.standing(crash.Shim(full)):
        ran = pipeline("run", "extract", "-c", done, "--set", "data.on_bad=skip")
    assert ran.code == 0
    assert f"not up to date: {done.parent / 'rejects.csv'} cannot be written: No space left" in ran.err
    assert (done.parent / "rejects.csv").read_bytes() == before
    assert not list(done.parent.glob(".rejects*"))


def test_from_python_it_is_a_pipeline_error_too(done: Path) -> None:
    shutil.rmtree(done.parent / "models")
    with crash.standing(crash.Shim(full)), pytest.raises(PipelineError, match=r"cannot be written: No space left"):
        api.open(done).head("logistic")
