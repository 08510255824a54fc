"""status.py: every hit and every miss has its reason, and the counts are those of the real run."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from cache.errors import Unusable
from cache.hash_index import HashIndex
from stages.data import images
from stages.extract import opened_bases
from tests.conftest import Pipeline, Ran
from tests.support import fakes

IMAGES = 24


def status(pipeline: Pipeline, project: Path, *more: str) -> dict[str, dict[str, Any]]:
    """Stage name -> its status, of images that are too young to be known by their stat."""
    ran = pipeline("status", "--hash", "-c", project, "--json", *more)
    assert ran.code == 0, ran.out
    return {stage["stage"]: stage for stage in ran.json["status"]["stages"]}


def states(pipeline: Pipeline, project: Path, *more: str) -> list[tuple[str, int, str]]:
    return [(s["state"], s["missing"], s["reason"]) for s in status(pipeline, project, *more).values()]


def test_before_anything_has_run(pipeline: Pipeline, project: Path) -> None:
    assert states(pipeline, project) == [
        ("MISS", IMAGES, "the cache has no rows of these images"),
        ("MISS", IMAGES, "there is no head of that name yet"),
    ]


def test_when_all_is_there(pipeline: Pipeline, project: Path) -> None:
    pipeline("run", "-c", project)
    assert [state for state, *_ in states(pipeline, project)] == ["HIT", "HIT"]
    assert pipeline("status", "-q", "--hash", "-c", project) == Ran(0, "", "")


def test_a_run_right_after_the_images_were_copied_leaves_nothing_stale(pipeline: Pipeline, project: Path) -> None:
    assert pipeline("run", "-c", project).code == 0
    assert pipeline("status", "-q", "-c", project) == Ran(0, "", "")
    assert pipeline("run", "-n", "-c", project, "--json").json["status"]["unhashed"] == 0
    image = project.parent / "images" / "bright" / "0000.png"
    image.write_bytes(fakes.textured(999, bright=True))
    assert pipeline("status", "-q", "-c", project) == Ran(5, "", "")


def test_new_images_are_partial_and_the_estimate_is_for_them(pipeline: Pipeline, project: Path) -> None:
    pipeline("run", "-c", project)
    fakes.two_classes(project.parent / "images", 5, start=100)
    found = status(pipeline, project)
    assert found["extract"]["state"] == "PARTIAL"
    assert found["extract"]["reason"] == "10 of 34 images have no row"
    assert found["extract"]["bytes"] > 0
    assert found["head"]["reason"] == "10 new images"
    assert pipeline("status", "-q", "--hash", "-c", project) == Ran(5, "", "")


@pytest.mark.parametrize(
    ("override", "extract", "head"),
    [
        ("extract.size=32", "size changed: [16, 16] -> [32, 32]", "size changed: [16, 16] -> [32, 32]"),
        ("extract.dtype=float16", "dtype changed: float32 -> float16", "dtype changed: float32 -> float16"),
        ("heads.logistic.seed=7", "all rows are there", "seed changed: 0 -> 7"),
        (
            "data.classes=[dark, bright]",
            "all rows are there",
            "classes changed: ['bright', 'dark'] -> ['dark', 'bright']",
        ),
    ],
)
def test_a_changed_setting_is_named(pipeline: Pipeline, project: Path, override: str, extract: str, head: str) -> None:
    pipeline("run", "-c", project)
    found = status(pipeline, project, "--set", override)
    assert (found["extract"]["reason"], found["head"]["reason"]) == (extract, head)


def test_changed_weights_are_named_by_their_digests(pipeline: Pipeline, project: Path) -> None:
    for name in ("one", "two"):
        (project.parent / f"{name}.weights.h5").write_text(name)
    pipeline("run", "-c", project, "--set", "base.weights=one.weights.h5")
    found = status(pipeline, project, "--set", "base.weights=two.weights.h5")
    assert found["extract"]["reason"] == "weights changed: 7692... -> 3fc4..."
    assert set(found["extract"]["differences"]) == {"base.weights"}


def test_moved_labels_and_splits_are_counted(pipeline: Pipeline, project: Path) -> None:
    pipeline("run", "-c", project)
    images = project.parent / "images"
    (images / "bright" / "0000.png").rename(images / "dark" / "was_bright.png")
    assert status(pipeline, project)["head"]["reason"] == "labels changed: 1 row"
    (images / "dark" / "0001.png").unlink()
    assert status(pipeline, project)["head"]["reason"] == "1 image gone; labels changed: 1 row"
    reason = status(pipeline, project, "--set", "data.split.seed=9")["head"]["reason"]
    assert reason.startswith("1 image gone; labels changed: 1 row; split changed: ")


def test_the_nearest_entry_is_the_one_compared_with(pipeline: Pipeline, project: Path) -> None:
    pipeline("run", "extract", "-c", project, "--set", "extract.size=32", "--set", "extract.fit=crop")
    pipeline("run", "extract", "-c", project)
    found = status(pipeline, project, "--set", "extract.size=32", "--set", "extract.fit=pad")
    assert found["extract"]["reason"] == "fit changed: crop -> pad"


def test_the_nearest_head_is_the_one_compared_with(pipeline: Pipeline, project: Path) -> None:
    pipeline("run", "-c", project)
    pipeline("run", "-c", project, "--set", "heads.logistic.C=1", "--set", "extract.size=32")
    found = status(pipeline, project, "--set", "heads.logistic.seed=7")["head"]
    assert found["reason"] == "seed changed: 0 -> 7"
    (project.parent / "images" / "dark" / "0001.png").unlink()
    pipeline("run", "-c", project)
    found = status(pipeline, project, "--set", "heads.logistic.seed=7")["head"]
    assert found["reason"] == "seed changed: 0 -> 7"


def test_of_a_head_on_several_taps_only_what_is_so_is_said(pipeline: Pipeline, project: Path) -> None:
    taps = "taps: {pooled: {}, top: {pooling: max}, maps: {pooling: none}}"
    text = project.read_text().replace("size: 16", f"size: 16, {taps}")
    project.write_text(text + "heads: {h: {kind: ridge, tap: [top, pooled]}}\n")
    pipeline("run", "-c", project)
    for override, reason in {
        "heads.h.alpha=3": "alpha changed: None -> 3.0",
        "extract.size=20": "size changed: [16, 16] -> [20, 20]",
        "heads.h.tap=[top, maps]": "tap 2's pooling changed: avg -> none",
        "heads.h.tap=[pooled, top]": "pooling changed: max -> avg; tap 2's pooling changed: avg -> max",
        "heads.h.tap=[top, pooled, maps]": "tap 3 is new",
        "heads.h.tap=top": "tap 2 is gone",
    }.items():
        assert status(pipeline, project, "--set", override)["head"]["reason"] == reason, override


def test_another_base_is_named_once(pipeline: Pipeline, project: Path) -> None:
    pipeline("run", "-c", project)
    (project.parent / "w.h5").write_text("weights")
    found = status(pipeline, project, "--set", "base.name=vgg16", "--set", "base.weights=w.h5")
    assert found["extract"]["reason"] == found["head"]["reason"] == "base changed: efficientnet_lite0 -> vgg16"


def test_what_would_be_refused_is_said(pipeline: Pipeline, project: Path) -> None:
    shutil.rmtree(project.parent / "images" / "dark")
    found = status(pipeline, project)
    assert (found["head"]["state"], found["head"]["reason"][:25]) == ("BLOCKED", "there is one class only, ")


def test_a_dry_run_computes_nothing_and_its_counts_come_true(pipeline: Pipeline, project: Path) -> None:
    pipeline("run", "-c", project)
    fakes.two_classes(project.parent / "images", 3, start=50)
    before = sorted((project.parent / ".features").rglob("*"))
    dry = pipeline("run", "-n", "--hash", "-c", project, "--json").json["status"]["stages"]
    assert sorted((project.parent / ".features").rglob("*")) == before
    real = pipeline("run", "-c", project, "--json").json
    assert dry[0]["missing"] == real["extract"]["computed"] == 6
    assert (dry[1]["state"] == "HIT") == real["heads"]["logistic"]["hit"]


@pytest.mark.parametrize("on_bad", ["skip", "fail"])
def test_the_counts_come_true_with_bad_images_too(pipeline: Pipeline, project: Path, on_bad: str) -> None:
    words = ("-c", project, "--json", "--set", f"data.on_bad={on_bad}")
    pipeline("run", "-c", project)
    (project.parent / "images" / "dark" / "empty.png").write_bytes(b"")
    dry = pipeline("run", "-n", "--hash", *words).json["status"]
    real = pipeline("run", *words).json
    assert dry["stages"][0]["missing"] == real["extract"]["computed"] == 0
    assert dry["rejected"] == len(real["extract"]["rejected"]) == 1
    assert dry["stages"][1]["state"] == ("HIT" if on_bad == "skip" else "BLOCKED")
    assert dry["fresh"] == (on_bad == "skip")
    assert ("heads" in real) == (on_bad == "skip")


def old(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no file be too young for its stat to be believed."""
    monkeypatch.setattr(HashIndex.__init__, "__defaults__", (None, 0.0))


@pytest.mark.parametrize("words", [(), ("--part", "1/1")])
def test_what_the_last_run_rejected_is_no_row_to_compute(
    pipeline: Pipeline, project: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    old(monkeypatch)
    bad = project.parent / "images" / "dark" / "bad.png"
    bad.write_bytes(b"no image")
    pipeline("run", "extract", "-c", project, *words)
    monkeypatch.setattr(images, "decode", None)
    found = pipeline("status", "-c", project, "--json").json["status"]
    assert [(s["state"], s["missing"]) for s in found["stages"]] == [("HIT", 0), ("BLOCKED", IMAGES)]
    assert (found["rejected"], found["stops"]) == (1, True)
    assert found["stages"][1]["reason"] == "1 image is rejected (data.on_bad: fail)"
    assert "a run stops after extraction, with exit 3" in pipeline("status", "-c", project).out
    found = pipeline("status", "-c", project, "--json", "--set", "data.on_bad=skip").json["status"]
    assert [(s["state"], s["reason"]) for s in found["stages"]][1] == ("MISS", "there is no head of that name yet")
    bad.write_bytes(fakes.numbered(400))  # mended
    found = pipeline("status", "-c", project, "--json").json["status"]
    assert (found["stages"][0]["missing"], found["rejected"]) == (1, 0)


def test_a_list_of_rejects_that_is_not_ours_is_nothing_to_go_by(pipeline: Pipeline, project: Path) -> None:
    for text in ("", "path,reason\na,b\n", "id\n\0\n"):
        (project.parent / "rejects.csv").write_text(text)
        assert status(pipeline, project)["extract"]["missing"] == IMAGES
        assert pipeline("status", "-c", project).code == 0


def test_where_no_image_can_be_decoded_the_base_is_not_opened(
    pipeline: Pipeline, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opened_bases, "open_embed", None)
    for path in (project.parent / "images").rglob("*.png"):
        path.write_bytes(path.name.encode())
    assert pipeline("status", "-c", project).code == 0


def test_a_dry_run_of_one_stage_shows_that_stage(pipeline: Pipeline, project: Path) -> None:
    stages = pipeline("run", "extract", "-n", "-c", project, "--json").json["status"]["stages"]
    assert [stage["stage"] for stage in stages] == ["extract"]


def test_output_for_a_person(pipeline: Pipeline, project: Path) -> None:
    pipeline("run", "-c", project)
    ran = pipeline("status", "--hash", "-v", "-c", project, "--set", "extract.size=32")
    assert ran.out.splitlines()[1].split()[:6] == ["extract", "pooled", "MISS", "24", "of", "24"]
    assert "  extract pooled: pixels.size: [16, 16] -> [32, 32]" in ran.out.splitlines()
    assert ran.out.splitlines()[-3].split() == ["class", "train", "val", "test"]
    assert "fewer than 5 images, too few to trust a figure: " in ran.err


def test_files_that_are_not_hashed_count_as_at_most(pipeline: Pipeline, project: Path) -> None:
    pipeline("run", "-c", project)
    for path in (project.parent / "images").rglob("*.png"):
        path.touch()
    ran = pipeline("status", "-c", project, "--json").json["status"]
    assert ran["unhashed"] == IMAGES
    assert [(s["state"], s["missing"], s["at_most"]) for s in ran["stages"]] == [("MISS", IMAGES, True)] * 2
    assert pipeline("status", "-q", "-c", project).code == 5
    assert f"at most {IMAGES} of {IMAGES}" in pipeline("status", "-c", project).out


def test_once_hashed_no_file_is_read_again(pipeline: Pipeline, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old(monkeypatch)
    pipeline("run", "-c", project)
    fakes.two_classes(project.parent / "images", 2, start=100)
    ran = pipeline("status", "-c", project, "--json").json["status"]
    extract, head = ran["stages"]
    assert (ran["unhashed"], extract["state"], extract["missing"], extract["at_most"]) == (4, "PARTIAL", 4, True)
    assert head["reason"] == "4 files are not hashed yet (--hash makes it exact)"
    assert pipeline("status", "--hash", "-c", project, "--json").json["status"]["unhashed"] == 0
    assert pipeline("status", "-c", project, "--json").json["status"]["unhashed"] == 0  # --hash told the index


def test_where_no_rows_tell_how_long_it_takes_some_images_are_timed(pipeline: Pipeline, project: Path) -> None:
    found = status(pipeline, project)["extract"]
    assert found["seconds"] >= 0
    assert found["bytes"] == IMAGES * 6 * 4  # FakeEmbed gives six float32
    assert list((project.parent / ".features").glob("features/*")) == []


def test_rows_that_cannot_be_computed_here_are_blocked(pipeline: Pipeline, project: Path, tmp_path: Path) -> None:
    pipeline("run", "extract", "-c", project)
    pipeline("cache", "export", tmp_path / "export", "-c", project)
    shutil.rmtree(project.parent / "images")
    found = status(pipeline, tmp_path / "export", "--set", "extract.size=32")
    assert [found[stage]["state"] for stage in ("extract", "head")] == ["BLOCKED", "BLOCKED"]
    assert "24 of 24 images have neither a row nor a file" in found["extract"]["reason"]


def test_a_tap_that_does_not_fit_is_blocked(pipeline: Pipeline, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise Unusable("extract.taps: no layer 'x'")

    monkeypatch.setattr(opened_bases, "open_embed", refuse)
    found = status(pipeline, project)["extract"]
    assert (found["state"], found["reason"]) == ("BLOCKED", "extract.taps: no layer 'x'")


@pytest.mark.parametrize("head", ["tap: [pooled, early]", "sweep: {tap: [pooled, early]}"])
def test_a_head_on_several_taps_is_blocked_by_any(
    pipeline: Pipeline, project: Path, monkeypatch: pytest.MonkeyPatch, head: str
) -> None:
    pipeline("run", "extract", "-c", project)
    project.write_text(
        f"extract: {{size: 16, taps: {{pooled: {{}}, early: {{layer: x}}}}}}\nheads: {{h: {{{head}}}}}\n"
    )
    assert status(pipeline, project)["head"]["state"] == "MISS"

    def refuse(*_: object) -> None:
        raise Unusable("extract.taps: no layer 'x'")

    monkeypatch.setattr(opened_bases, "open_embed", refuse)
    found = status(pipeline, project)["head"]
    assert (found["state"], found["reason"]) == ("BLOCKED", "its rows cannot be computed")


def test_counts_of_classes_and_splits(pipeline: Pipeline, project: Path) -> None:
    counts = pipeline("status", "--hash", "-c", project, "--json").json["status"]["counts"]
    assert {label: sum(by.values()) for label, by in counts.items()} == {"bright": 12, "dark": 12}
