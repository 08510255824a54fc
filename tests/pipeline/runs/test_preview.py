"""A preview says what the run then does, whatever is wrong with a project."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Pipeline


def images_gone(project: Path) -> None:
    """A table whose images are all missing on the disk, and unknown."""
    with open(project.parent / "labels.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label"])
        for path in sorted((project.parent / "images").rglob("*.png")):
            writer.writerow([path.relative_to(project.parent / "images"), path.parent.name])
    shutil.rmtree(project.parent / "images")
    (project.parent / "images").mkdir()
    project.write_text(project.read_text().replace("data: {", "data: {table: labels.csv, "))


def some_gone(project: Path) -> None:
    images_gone_but = project.parent / "images" / "dark" / "0000.png"
    kept = images_gone_but.read_bytes()
    images_gone(project)
    images_gone_but.parent.mkdir()
    images_gone_but.write_bytes(kept)


def all_bad(project: Path) -> None:
    for path in (project.parent / "images").rglob("*.png"):
        path.write_bytes(b"not an image: " + path.name.encode() + path.parent.name.encode())


def one_bad(project: Path) -> None:
    (project.parent / "images" / "dark" / "0000.png").write_bytes(b"not an image")


def one_bad_skipped(project: Path) -> None:
    one_bad(project)
    project.write_text(project.read_text().replace("data: {", "data: {on_bad: skip, "))


def one_class(project: Path) -> None:
    shutil.rmtree(project.parent / "images" / "dark")


def two_labels(project: Path) -> None:
    images = project.parent / "images"
    shutil.copy(images / "dark" / "0000.png", images / "bright" / "again.png")


def weights_gone(project: Path) -> None:
    project.write_text(project.read_text() + "base: {weights: nowhere.h5}\n")


def weights_not_downloaded(project: Path) -> None:
    project.write_text(project.read_text() + "base: {name: vgg16}\n")


def nothing(project: Path) -> None:
    pass


@pytest.mark.parametrize(
    "spoil",
    [nothing, images_gone, some_gone, all_bad, one_bad, one_bad_skipped, one_class, two_labels, weights_gone],
)
def test_a_preview_is_blocked_where_the_run_stops_and_counts_what_it_computes(
    pipeline: Pipeline, project: Path, spoil: Callable[[Path], None]
) -> None:
    spoil(project)
    before = pipeline("run", "-n", "--hash", "-c", project, "--json")
    stages = before.json["status"]["stages"]
    states = {stage["stage"]: stage["state"] for stage in stages}
    assert before.code == 0
    ran = pipeline("run", "-c", project, "--json")
    computed = ran.json["extract"]["computed"] if "extract" in ran.json else 0
    assert (states["extract"] != "BLOCKED") == (computed > 0), (states, ran.json)
    assert stages[0]["missing"] == computed or states["extract"] == "BLOCKED"
    assert (states["head"] == "BLOCKED") == (ran.code != 0), (states, ran.json)
    assert before.json["status"]["stops"] == (ran.code == 3)
    if ran.code == 0:
        assert pipeline("status", "-q", "-c", project).code == 0
    else:
        assert pipeline("status", "-q", "-c", project).code == 5


def test_weights_that_a_run_would_download_do_not_end_a_preview(
    pipeline: Pipeline, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    weights_not_downloaded(project)
    for words in (("status",), ("run", "-n"), ("status", "--hash")):
        ran = pipeline(*words, "-c", project, "--json")
        assert ran.code == 0, ran.out
        extract, _ = ran.json["status"]["stages"]
        assert (extract["state"], extract["missing"]) == ("MISS", 24)
        assert extract["reason"] == "the weights are not here: a run downloads them first"


def test_the_images_that_a_preview_times_are_not_all_that_the_next_one_counts(
    pipeline: Pipeline, project: Path
) -> None:
    first, second = (pipeline("run", "-n", "-c", project, "--json").json["status"] for _ in range(2))
    assert first["unhashed"] == second["unhashed"] == 24
    assert first["counts"] == second["counts"] == {}
