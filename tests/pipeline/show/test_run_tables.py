"""run_tables.py: what a person reads of a run, said once and only where it helps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.runs.extraction import ExtractReport
from pipeline.show.run_tables import show_result
from tests.conftest import Ran
from tests.support import fakes

Pipeline = Callable[..., Ran]


def test_why_an_image_was_rejected_is_said_once(pipeline: Pipeline, project: Path) -> None:
    bad = project.parent / "images" / "dark"
    (bad / "one.png").write_bytes(b"1")
    ran = pipeline("run", "-c", project)
    assert "Error: 1 of 25 images was rejected: dark/one.png: not an image of a known format\n" in ran.err
    assert ran.err.count("one.png") == 1
    (bad / "two.png").write_bytes(b"2")
    ran = pipeline("run", "-c", project)
    assert "Error: 2 of 26 images were rejected; the first: dark/one.png: not an image of a known format\n" in ran.err
    assert (ran.err.count("one.png"), ran.err.count("  rejected dark/two.png: not an image")) == (1, 1)
    ran = pipeline("run", "-c", project, "--set", "data.on_bad=skip")
    assert [line.split(":")[0] for line in ran.err.splitlines()[:3]] == [
        "WARNING",
        "  rejected dark/one.png",
        "  rejected dark/two.png",
    ]


@pytest.mark.parametrize("heads", ["logistic: {}", "several: {sweep: {C: [1, 2]}}, knn: {kind: knn}"])
def test_how_to_go_on_is_said_after_the_first_heads_only(pipeline: Pipeline, project: Path, heads: str) -> None:
    project.write_text(project.read_text() + f"heads: {{{heads}}}\n")
    assert "\nnext: " in pipeline("run", "-c", project).out
    assert "\nnext: " not in pipeline("run", "-c", project).out
    fakes.two_classes(project.parent / "images", 5, start=100)
    assert "\nnext: " not in pipeline("run", "-c", project).out


def test_images_a_second_are_not_told_of_a_run_that_is_mostly_start_up(capsys: pytest.CaptureFixture[str]) -> None:
    for seconds, told in ((2.0, "   2.0 s"), (20.0, "   5 images/s, 20.0 s"), (0.0, "")):
        report = ExtractReport({}, 100, 100, 100, seconds=seconds, images_per_second=5.0)
        show_result("run", {"extract": report}, None, False, None)
        assert capsys.readouterr().out.splitlines()[1].rstrip() == f"computed  100{told}"
