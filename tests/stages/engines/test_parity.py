"""parity.py: an engine that makes other rows adds none; one that agrees does, and is asked once."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cache.errors import PipelineError
from cache.hash_index import MIN_AGE_S
from pipeline import BottleneckFeatures
from stages.engines import parity
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
    monkeypatch.setattr("stages.extract.opened_bases.open_embed", other)
    monkeypatch.setattr("stages.extract.opened_bases._embeds", {})
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
    monkeypatch.setattr("stages.extract.opened_bases._embeds", {})
    assert counts(pipeline("run", "extract", "-c", project, "--json", *words)) == (1, 25)
    assert calls == [4, 4, 1, 1]


def replace_images(project: Path) -> None:
    """Four others in the place of those that have rows."""
    for path in (project.parent / "images").rglob("*.png"):
        path.unlink()
    fakes.two_classes(project.parent / "images", 2, start=500)


def use(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stages.extract.opened_bases.open_embed", engine)
    monkeypatch.setattr("stages.extract.opened_bases._embeds", {})


def unchecked_shards(project: Path) -> int:
    records = (project.parent / ".features").glob("features/*/shards/*.json")
    return sum(json.loads(path.read_text()).get("unchecked", False) for path in records)


@pytest.mark.parametrize(("by", "wrong"), [(5e-5, False), (1e-3, True)])
def test_where_no_image_is_at_hand_it_is_recorded_and_checked_later(
    pipeline: Pipeline,
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    by: float,
    wrong: bool,
) -> None:
    assert pipeline("run", "extract", "-c", project).code == 0
    replace_images(project)
    use(other_engine(by), monkeypatch)
    caplog.set_level("INFO")
    assert counts(pipeline("run", "extract", "-v", "-c", project, "--json")) == (4, 0)
    assert "cannot be checked" in caplog.text
    assert unchecked_shards(project) >= 1
    use(fakes.FakeEmbed, monkeypatch)
    fakes.two_classes(project.parent / "images", 1, start=600)
    assert counts(pipeline("run", "extract", "-c", project, "--json")) == (2, 4)
    assert unchecked_shards(project) == 0
    assert ("moved to quarantine: fake on none computes other rows" in caplog.text) == wrong
    assert counts(pipeline("run", "extract", "-c", project, "--json")) == ((4, 2) if wrong else (0, 6))


def test_the_engine_of_unchecked_rows_is_itself_checked_once_images_are_there(
    pipeline: Pipeline, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert pipeline("run", "extract", "-c", project).code == 0
    replace_images(project)
    use(other_engine(1e-3), monkeypatch)
    assert counts(pipeline("run", "extract", "-c", project, "--json")) == (4, 0)
    fakes.two_classes(project.parent / "images", 12)
    (project.parent / "images" / "dark" / "new.png").write_bytes(fakes.textured(999, bright=False))
    use(other_engine(1e-3), monkeypatch)
    ran = pipeline("run", "extract", "-c", project, "--json")
    assert (ran.code, "computes other rows" in ran.json["error"]["message"]) == (1, True)
    assert unchecked_shards(project) == 0, "what it added before is gone"


def exported(pipeline: Pipeline, folder: Path, engine: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An export of the rows of four other images, computed by that engine."""
    fakes.two_classes(folder / "images", 2, start=500)
    config = folder / "pipeline.yaml"
    config.write_text("extract: {size: 16}\n")
    use(engine, monkeypatch)
    assert pipeline("run", "extract", "-c", config).code == 0
    assert pipeline("cache", "export", folder / "out", "-c", config).code == 0
    use(fakes.FakeEmbed, monkeypatch)
    return folder / "out"


@pytest.mark.parametrize(("by", "wrong"), [(5e-5, False), (1e-3, True)])
def test_imported_rows_of_another_engine_are_checked_by_the_next_run(
    pipeline: Pipeline,
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    by: float,
    wrong: bool,
) -> None:
    out = exported(pipeline, project.parent / "theirs", other_engine(by), monkeypatch)
    assert pipeline("run", "extract", "-c", project).code == 0
    shards = len(list(out.rglob("*.h5")))
    assert pipeline("cache", "import", out, "-c", project, "--json").json["moved"]["rows"] == 4
    assert unchecked_shards(project) == shards >= 1
    fakes.two_classes(project.parent / "images", 2, start=500)
    fakes.two_classes(project.parent / "images", 1, start=600)
    use(fakes.FakeEmbed, monkeypatch)  # as in a new process
    caplog.set_level("INFO")
    assert counts(pipeline("run", "extract", "-v", "-c", project, "--json")) == (2, 28)
    assert unchecked_shards(project) == 0
    assert ("moved to quarantine: fake on none computes other rows" in caplog.text) == wrong
    assert counts(pipeline("run", "extract", "-c", project, "--json")) == ((4, 26) if wrong else (0, 30))


def test_imported_rows_are_not_marked_where_there_are_none_or_some_of_their_engine(
    pipeline: Pipeline, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    same = exported(pipeline, project.parent / "same", fakes.FakeEmbed, monkeypatch)
    other = exported(pipeline, project.parent / "theirs", other_engine(0), monkeypatch)
    assert pipeline("run", "extract", "-c", project).code == 0
    assert pipeline("cache", "import", same, "-c", project).code == 0
    assert unchecked_shards(project) == 0
    (project.parent / "new").mkdir()
    assert pipeline("cache", "import", other, "-c", project.parent / "new").code == 0
    assert len(list((project.parent / "new").rglob("*.h5"))) >= 1
    assert unchecked_shards(project.parent / "new" / "pipeline.yaml") == 0


def test_only_versions_of_the_engine_tell_engines_apart() -> None:
    one = {"engine": "fake", "device": "none", "versions": {"fake": "1", "numpy": "2.0", "pillow": "11"}}
    newer = {**one, "versions": {"fake": "1", "numpy": "2.1", "frozenbase": "0.2"}}
    other = {**one, "versions": {"fake": "2", "numpy": "2.0"}}
    marked = {"unchecked": True}
    assert parity.note_unchecked([one], newer) == {}
    assert parity.note_unchecked([one], other) == parity.note_unchecked([one], {**one, "device": "x"}) == marked
    assert parity.note_unchecked([one], {"versions": None}) == marked, "as others may have written it"
    assert parity.note_unchecked([{**one, **marked}], other) == {}, "there is nothing checked to compare it with"
    assert parity.note_unchecked([one, {**other, **marked}], other) == marked


@pytest.mark.parametrize("way", ["predict", "transform"])
def test_images_elsewhere_are_references_too(
    pipeline: Pipeline, project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, way: str
) -> None:
    """Both ask for rows of images of which none is in the cache."""
    time.sleep(MIN_AGE_S)  # or the index would not remember the images
    assert pipeline("run", "-c", project).code == 0
    (tmp_path / "new.png").write_bytes(fakes.textured(999, bright=False))
    use(other_engine(1e-3), monkeypatch)
    if way == "predict":
        ran = pipeline("predict", "logistic", tmp_path / "new.png", "--keep", "-c", project, "--json")
        assert (ran.code, "computes other rows" in ran.json["error"]["message"]) == (1, True)
    else:
        features = BottleneckFeatures(cache_dir=project.parent / ".features", size=16)
        with pytest.raises(PipelineError, match="computes other rows"):
            features.transform([tmp_path / "new.png"])
    assert unchecked_shards(project) == 0


def test_float16_rows_may_round_to_either_side(
    pipeline: Pipeline, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("--set", "extract.dtype=float16")
    assert counts(grown(pipeline, project, monkeypatch, other_engine(5e-5), *words)) == (1, 24)
