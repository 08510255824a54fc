"""parity.py: an engine that makes other rows adds none; one that agrees does, and is asked once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import Pipeline, Ran, counts
from tests.support import fakes


def other_engine(by: float, calls: list[int] | None = None) -> type[fakes.FakeEmbed]:
    """An engine of another version, whose rows differ by that share of their scale."""

    class Other(fakes.FakeEmbed):
        provenance: dict[str, Any] = {"engine": "fake", "device": "other", "versions": {"fake": "2"}}  # noqa: RUF012

        def __call__(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
            if calls is not None:
                calls.append(len(pixels))
            return {key: rows + by * np.abs(rows).max() for key, rows in super().__call__(pixels).items()}

    return Other


def grown(pipeline: Pipeline, project: Path, monkeypatch: pytest.MonkeyPatch, other: Any, *words: str) -> Ran:
    """24 rows by one engine, and then one image more by the other."""
    assert pipeline("run", "extract", "-c", project, *words).code == 0
    (project.parent / "images" / "dark" / "new.png").write_bytes(fakes.textured(999, bright=False))
    monkeypatch.setattr("stages.extract.shard_task.open_embed", other)
    monkeypatch.setattr("stages.extract.shard_task._embeds", {})
    return pipeline("run", "extract", "-c", project, "--json", *words)


def test_rows_that_differ_stop_the_run_with_both_figures(
    pipeline: Pipeline, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = grown(pipeline, project, monkeypatch, other_engine(1e-3))
    assert ran.code == 1
    said = ran.json["error"]["message"]
    assert (
        "fake 2 on other computes other rows of efficientnet_lite0 at output than those stored by fake on none" in said
    )
    assert "they differ by 0." in said
    assert "is allowed (1.0e-04 of their largest value)" in said
    assert "extract.engine" in ran.json["error"]["hint"]
    status = pipeline("status", "--hash", "-c", project, "--json").json["status"]
    assert status["stages"][0]["missing"] == 1, "nothing was added"


@pytest.mark.parametrize(("by", "words"), [(5e-5, ()), (1e-2, ("--set", "extract.numerics=openvino-bf16"))])
def test_rows_that_agree_are_added_and_compared_once(
    pipeline: Pipeline, project: Path, monkeypatch: pytest.MonkeyPatch, by: float, words: tuple[str, ...]
) -> None:
    calls: list[int] = []
    assert counts(grown(pipeline, project, monkeypatch, other_engine(by, calls), *words)) == (1, 24)
    assert calls == [4, 4, 1], "eight that were there, by batches of four, and the new one"
    (project.parent / "images" / "dark" / "newer.png").write_bytes(fakes.textured(998, bright=False))
    monkeypatch.setattr("stages.extract.shard_task._embeds", {})
    monkeypatch.setattr("stages.extract.shard_task._checked", set())
    assert counts(pipeline("run", "extract", "-c", project, "--json", *words)) == (1, 25)
    assert calls == [4, 4, 1, 1]


def test_where_no_image_is_at_hand_it_is_said_and_goes_on(
    pipeline: Pipeline, project: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert pipeline("run", "extract", "-c", project).code == 0
    for path in (project.parent / "images").rglob("*.png"):
        path.unlink()
    fakes.two_classes(project.parent / "images", 2, start=500)
    monkeypatch.setattr("stages.extract.shard_task.open_embed", other_engine(1e-3))
    monkeypatch.setattr("stages.extract.shard_task._embeds", {})
    caplog.set_level("INFO")
    assert counts(pipeline("run", "extract", "-v", "-c", project, "--json")) == (4, 0)
    assert "none is at hand to compare with" in caplog.text


def test_float16_rows_may_round_to_either_side(
    pipeline: Pipeline, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("--set", "extract.dtype=float16")
    assert counts(grown(pipeline, project, monkeypatch, other_engine(5e-5), *words)) == (1, 24)
