"""job_shares.py: parts of an extraction are disjoint, together everything, and may run at the same time."""

from __future__ import annotations

import csv
import hashlib
import json
from itertools import chain
from pathlib import Path

import pytest

from cache.errors import Unusable
from pipeline.project.job_shares import Part
from tests.conftest import Pipeline, Ran, counts, opened
from tests.support import fakes, pictures
from tests.support.process import run, start


def there(project: Path) -> set[str]:
    """The ids that have a row."""
    now = opened(project)
    return set(now.manifest.ids) - set(now.store("pooled").missing(now.manifest.ids))


def extract(pipeline: Pipeline, project: Path, part: str, *more: str) -> Ran:
    return pipeline("run", "extract", "-c", project, "--json", "--part", part, *more)


def test_each_image_is_of_one_part() -> None:
    ids = [hashlib.sha256(bytes([i])).hexdigest() for i in range(200)]
    for n in (1, 2, 7, 300):
        of = [[i for i in ids if Part(number, n).has(i)] for number in range(1, n + 1)]
        assert sorted(chain(*of)) == sorted(ids)
    frozen = [sum(Part(number, 4).has(image) for image in ids) for number in (1, 2, 3, 4)]
    assert frozen == [51, 53, 39, 57]


@pytest.mark.parametrize("text", ["0/4", "5/4", "x", "", "1/", "1/0", "-1/4", "1.0/4", "1/4/4", "\u0661/\u0664"])
def test_what_is_no_part_is_said(pipeline: Pipeline, project: Path, text: str) -> None:
    with pytest.raises(Unusable):
        Part.parse(text)
    ran = extract(pipeline, project, text)
    message = f"--part {text}: expected I/N with I from 1 to N, such as 2/8"
    assert (ran.code, ran.json["error"]["message"]) == (2, message)


@pytest.mark.parametrize("words", [("run",), ("run", "head"), ("run", "finetune"), ("run", "extract", "-n")])
def test_nothing_but_extraction_goes_by_parts(pipeline: Pipeline, project: Path, words: tuple[str, ...]) -> None:
    ran = pipeline(*words, "-c", project, "--part", "1/2")
    assert ran.code == 2
    assert ("--part and -n" if "-n" in words else "--part goes with") in ran.err


def test_two_processes_at_once_share_the_work(project: Path) -> None:
    """Photographs this time, and the plain run after them finds nothing left to do."""
    for number in range(20):
        data = pictures.encoded(pictures.photograph(size=(96 - number, 64)), "JPEG")
        (project.parent / "images" / "bright" / f"photograph{number}.jpg").write_bytes(data)
    words = ("run", "extract", "-c", project, "--json", "--set", "extract.shard_rows=4")
    both = [start(*words, "--part", f"{number}/2", FAKE_DELAY="0.05") for number in (1, 2)]
    ran = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], ran
    reports = [json.loads(out)["extract"] for out, _ in ran]
    assert [report["part"] for report in reports] == [{"number": 1, "of": 2}, {"number": 2, "of": 2}]
    assert [report["computed"] for report in reports] == [report["images"] for report in reports]
    assert sum(report["computed"] for report in reports) == 44
    assert min(report["computed"] for report in reports) > 8
    rows = [json.loads(path.read_text())["rows"] for path in project.parent.glob(".features/features/*/shards/*.json")]
    assert sum(rows) == 44
    told = f"part 2 of 2: {reports[1]['computed']} of 44 images"
    assert told in ran[1][1]
    plain = json.loads(run("run", "-c", project, "--json")[0])
    assert (plain["extract"]["computed"], plain["extract"]["reused"]) == (0, 44)
    assert plain["extract"]["manifest"] in [report["manifest"] for report in reports]


def test_a_part_computes_its_share_whatever_is_there_already(pipeline: Pipeline, project: Path) -> None:
    ids = opened(project).manifest.ids
    second = {image for image in ids if Part(2, 3).has(image)}
    assert counts(extract(pipeline, project, "2/3")) == (len(second), 0)
    assert there(project) == second
    assert counts(extract(pipeline, project, "1/3"))[0] == sum(Part(1, 3).has(image) for image in ids)
    assert counts(extract(pipeline, project, "2/3")) == (0, len(second))
    fakes.two_classes(project.parent / "images", 6, start=50)
    new = {image for image in opened(project).manifest.ids if Part(2, 3).has(image)} - second
    assert counts(extract(pipeline, project, "2/3")) == (len(new), len(second))


def test_only_the_last_part_saves_a_manifest_and_that_of_all(pipeline: Pipeline, project: Path) -> None:
    saved = [extract(pipeline, project, f"{number}/3").json["extract"]["manifest"] for number in (3, 1, 2)]
    assert saved[:2] == [None, None]
    assert saved[2] == opened(project).manifest.digest
    assert [path.stem for path in project.parent.glob(".features/manifests/*.jsonl")] == [saved[2]]


def test_a_part_tells_of_its_own_rejects(pipeline: Pipeline, project: Path) -> None:
    """The list of the whole run takes the place of theirs; the last part knows the others' from work to be done."""
    bad = {f"{i}.png": f"no picture {i}".encode() for i in range(6)}
    for name, data in bad.items():
        (project.parent / "images" / "dark" / name).write_bytes(data)
    (project.parent / "images" / "dark" / "gone.png").symlink_to("/etc/hostname")  # it has no id
    skip = ("--set", "data.on_bad=skip")
    for number in (1, 2):
        own = {f"dark/{name}" for name, data in bad.items() if Part(number, 2).has(hashlib.sha256(data).hexdigest())}
        own |= {"dark/gone.png"} if number == 1 else set()
        assert len(own) > 1
        ran = extract(pipeline, project, f"{number}/2")
        assert (ran.code, ran.json["extract"]["manifest"]) == (3, None)
        assert {reject["path"] for reject in ran.json["extract"]["rejected"]} == own
        with open(project.parent / f"rejects-{number}-of-2.csv", newline="") as file:
            assert {row["path"] for row in csv.DictReader(file)} == own
        assert f"rejects-{number}-of-2.csv" in ran.json["error"]["hint"]
    last = extract(pipeline, project, "2/2", *skip)
    assert (last.code, len(last.json["extract"]["rejected"])) == (0, len(own))
    whole = pipeline("run", "extract", "-c", project, "--json", *skip)
    assert last.json["extract"]["manifest"] == whole.json["extract"]["manifest"] is not None
    assert [path.name for path in project.parent.glob("rejects*")] == ["rejects.csv"]


def test_a_part_without_images_and_one_of_rejects_only_are_done(pipeline: Pipeline, project: Path) -> None:
    text = b"no picture"
    (project.parent / "images" / "dark" / "bad.png").write_bytes(text)
    number = int(hashlib.sha256(text).hexdigest()[:16], 16) % 10_000 + 1
    alone = extract(pipeline, project, f"{number}/10000", "--set", "data.on_bad=skip")
    assert (alone.code, alone.json["extract"]["images"], len(alone.json["extract"]["rejected"])) == (0, 1, 1)
    empty = next(n for n in range(1, 100) if not any(Part(n, 10_000).has(i) for i in opened(project).manifest.ids))
    assert counts(extract(pipeline, project, f"{empty}/10000")) == (0, 0)


def test_a_boundary_is_extracted_by_parts_too(pipeline: Pipeline, project: Path) -> None:
    project.write_text(
        project.read_text()
        + "finetune: {last: {head: logistic, unfreeze_from: block16, augment: {flip: both}, views: 2}}"
    )
    words = ("run", "extract", "-c", project, "--json", "--for", "finetune/last")
    for number in (1, 2):
        assert pipeline(*words, "--part", f"{number}/2").code == 0
    keys = list(project.parent.glob(".features/features/*"))
    before = {path for key in keys for path in key.rglob("*.h5")}
    assert len(keys) == 3  # the head's rows, and the boundary of two views
    assert counts(pipeline(*words)) == (0, 24)
    assert {path for key in keys for path in key.rglob("*.h5")} == before
