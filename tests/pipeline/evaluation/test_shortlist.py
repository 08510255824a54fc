"""shortlist.py: which candidates are tried, on which images, and which is picked."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.config.extract_schema import TapConfig
from pipeline.evaluation import shortlist
from pipeline.evaluation.shortlist import Candidate
from stages.data.manifest import Manifest, Row
from stages.metrics.figures import Figures
from tests.conftest import Pipeline, extract, opened
from tests.support import fakes


def listed(pipeline: Pipeline, config: Path, *more: str) -> dict[str, Any]:
    ran = pipeline("bases", "shortlist", "-c", config, "--json", "--sample", "40", *more)
    assert ran.code == 0, ran.out + ran.err
    return dict(ran.json["shortlist"])


@pytest.fixture
def more_images(project: Path) -> Path:
    fakes.two_classes(project.parent / "images", 40)
    return project


def test_it_tries_bases_and_sizes_and_names_one(pipeline: Pipeline, more_images: Path) -> None:
    words = ("--base", "efficientnet_lite0", "--size", "32", "--size", "48")
    found = listed(pipeline, more_images, *words)
    assert (found["images"], found["all_images"], found["classes"]) == (40, 80, ["bright", "dark"])
    tried = {(one["base"], one["size"], one["layer"], one["pooling"]) for one in found["candidates"]}
    assert tried == {
        ("efficientnet_lite0", size, layer, "avg") for size in (32, 48) for layer in ("output", "block16_project_bn")
    }
    losses = [one["figures"]["log_loss"] for one in found["candidates"]]
    assert losses == sorted(losses)
    assert all(one["figures"]["ci"]["accuracy"] for one in found["candidates"])
    assert all(one["bytes"] > 0 and one["seconds"] > 0 for one in found["candidates"])
    assert found["pick"] in found["candidates"]
    assert found["choice"]["n"] == 40
    setting = f"extract.taps.pooled={{size: {found['pick']['size']}, layer: {found['pick']['layer']}}}"
    assert pipeline("run", "-c", more_images, "--set", setting).code == 0
    shown = pipeline("bases", "shortlist", "-c", more_images, "--sample", "40", *words).out
    assert "pipeline run --set 'extract.taps.pooled={" in shown


def test_its_rows_are_kept_and_used(pipeline: Pipeline, more_images: Path) -> None:
    words = ("--base", "efficientnet_lite0", "--size", "32")
    listed(pipeline, more_images, *words)
    assert extract(pipeline, more_images, "--set", "extract.size=32") == (40, 40)
    assert not list(more_images.parent.glob("models/*"))


def test_test_is_not_looked_at_and_classes_keep_their_shares() -> None:
    rows = [Row(f"{i:064x}", f"{i}.png", "ab"[i % 4 == 0], ("train", "val", "test")[i % 3]) for i in range(600)]
    chosen = shortlist.choose_images(Manifest(tuple(rows)), 100)
    assert {row.split for row in chosen.rows} == {"train"}
    assert not {row.id for row in chosen.rows} & {row.id for row in rows if row.split == "test"}
    assert Counter(row.label for row in chosen.rows) == {"a": 75, "b": 25}


def test_groups_are_tried_whole_or_not_at_all() -> None:
    rows = [Row(f"{i:064x}", f"{i}.png", "ab"[i // 5 % 2], "train", f"group {i // 5}") for i in range(200)]
    chosen = shortlist.choose_images(Manifest(tuple(rows)), 50)
    assert set(Counter(row.group for row in chosen.rows).values()) == {5}
    assert len(chosen.rows) == 50


def test_own_taps_are_tried_for_their_base_alone(project: Path) -> None:
    config = opened(project, "extract.taps={pooled: {}, early: {layer: block3_add, pooling: max}}").config
    taps = shortlist.list_candidates(config, ["efficientnet_lite0", "efficientnet_lite1"], [64])
    assert {(tap.base.name if tap.base else "own", tap.layer) for tap in taps.values()} == {
        ("own", "output"),
        ("own", "block16_project_bn"),
        ("own", "block3_add"),
        ("efficientnet_lite1", "output"),
        ("efficientnet_lite1", "block21_project_bn"),
    }


def test_networks_that_do_not_fit_in_memory_together_run_one_after_the_other(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taps = "{a: {size: 32}, b: {size: 32, pooling: max}, c: {size: 48}, d: {base: efficientnet_lite1, size: 32}}"
    tried = opened(project, f"extract.taps={taps}", "heads={}")
    assert [len(part) for part in shortlist._passes(tried)] == [4]
    monkeypatch.setattr(shortlist, "_AT_ONCE", 7_500_000)  # two of lite0, of 3.4 million each
    passes = list(shortlist._passes(tried))
    assert [len(part) for part in passes] == [3, 1]
    assert {spec.key for part in passes for spec in part} == {*tried.keys.values()}


def candidate(losses: list[float], seconds: float) -> Candidate:
    values = {"log_loss": float(np.mean(losses))}
    return Candidate(TapConfig(), "b", 224, Figures(len(losses), values), seconds, 1, np.array(losses))


def test_the_fastest_of_those_as_good_is_picked() -> None:
    rng = np.random.default_rng(0)
    loss = rng.uniform(0, 1, 200)
    best, same = candidate(list(loss), 30.0), candidate(list(loss + rng.normal(0.001, 0.1, 200)), 10.0)
    worse = candidate(list(loss + 0.05), 1.0)
    assert shortlist.choose([best, same, worse]) is same
    assert shortlist.choose([best, worse]) is best


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--base", "vgg99"), "base 'vgg99' is unknown"),
        (("--base", "efficientnet_lite0", "--size", "16"), "name larger sizes with --size"),
        (("--size", "3"), "--size"),
    ],
)
def test_what_it_cannot_do_is_one_sentence(
    pipeline: Pipeline, project: Path, words: tuple[str, ...], message: str
) -> None:
    ran = pipeline("bases", "shortlist", "-c", project, *words)
    assert (ran.code, message in " ".join(ran.err.split())) == (2, True), ran.err
