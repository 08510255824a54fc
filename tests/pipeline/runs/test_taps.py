"""Taps of several sizes and bases in one project: what is computed, joined, served and said of them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from stages.data import images
from tests.conftest import Pipeline, counts, extract, opened

TWO_SIZES = "extract: {size: 16, taps: {pooled: {}, large: {size: 32, fit: crop}}}\n"
JOINED = "heads: {logistic: {}, both: {tap: [pooled, large]}}\n"


@pytest.fixture
def two_sizes(project: Path) -> Path:
    project.write_text("data: {split: {val: 0.3, test: 0.2}}\n" + TWO_SIZES + JOINED)
    return project


def shards(config: Path) -> dict[str, list[str]]:
    """The shards of each key."""
    folders = (config.parent / ".features" / "features").iterdir()
    return {folder.name: sorted(path.name for path in folder.glob("shards/*.h5")) for folder in folders}


def test_a_size_that_is_added_is_all_that_is_computed(pipeline: Pipeline, project: Path) -> None:
    assert extract(pipeline, project) == (24, 0)
    before = shards(project)
    project.write_text(TWO_SIZES)
    assert extract(pipeline, project) == (24, 0)
    after = shards(project)
    assert {key: after[key] for key in before} == before
    assert len(after) == 2
    pooled, large = opened(project).store("pooled"), opened(project).store("large")
    assert (pooled.key in before, large.key in before) == (True, False)
    assert extract(pipeline, project) == (0, 24)


def test_rows_are_those_of_a_project_with_that_size_alone(pipeline: Pipeline, two_sizes: Path) -> None:
    extract(pipeline, two_sizes)
    alone = ("--set", "extract.size=32", "--set", "extract.fit=crop", "--set", "extract.taps={pooled: {}}")
    assert extract(pipeline, two_sizes, "--set", "heads={}", *alone) == (0, 24)


def test_each_image_is_decoded_once(pipeline: Pipeline, two_sizes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: Counter[tuple[int, ...]] = Counter()
    decode = images._decode

    def counted(data: bytes, specs: Any) -> Any:
        decoded[tuple(spec.height for spec in specs)] += 1
        return decode(data, specs)

    monkeypatch.setattr(images, "_decode", counted)
    extract(pipeline, two_sizes)
    assert decoded == {(16, 32): 25}  # the first one twice: whether any can be, before a base is opened


def test_heads_join_sizes_and_everything_knows_it(pipeline: Pipeline, two_sizes: Path) -> None:
    first = pipeline("run", "-c", two_sizes, "--json")
    assert counts(first) == (24, 0)
    again = pipeline("run", "-c", two_sizes, "--json")
    assert counts(again) == (0, 24)
    assert all(head["hit"] for head in again.json["heads"].values())
    states = {s["name"]: s["state"] for s in pipeline("status", "-c", two_sizes, "--json").json["status"]["stages"]}
    assert states == dict.fromkeys(("pooled", "large", "logistic", "both"), "HIT")
    assert pipeline("reproduce", "head/both", "-c", two_sizes).code == 0
    assert pipeline("reproduce", "head/both", "-c", two_sizes, "--recompute").code == 0
    assert pipeline("compare", "head/both", "head/logistic", "-c", two_sizes).code == 0
    assert set(pipeline("crossval", "-c", two_sizes, "--json").json["crossval"]) == {"logistic", "both"}
    image = next((two_sizes.parent / "images" / "dark").iterdir())
    image.write_bytes(image.read_bytes() + b"\0")  # other bytes, the same pixels
    found = pipeline("predict", "head/both", image, "-c", two_sizes, "--json").json["predict"]
    assert (found["computed"], found["predictions"][0]["predicted"]) == (1, "dark")


def test_a_model_of_several_sizes_keeps_them_when_the_project_changes(pipeline: Pipeline, two_sizes: Path) -> None:
    pipeline("run", "-c", two_sizes)
    two_sizes.write_text("extract: {size: 48}\n")
    assert pipeline("reproduce", "head/both", "-c", two_sizes).code == 0


def test_status_says_of_each_tap_what_is_missing(pipeline: Pipeline, project: Path) -> None:
    extract(pipeline, project)
    project.write_text(TWO_SIZES)
    stages = {s["name"]: s for s in pipeline("status", "-c", project, "--json").json["status"]["stages"]}
    assert (stages["pooled"]["state"], stages["large"]["state"]) == ("HIT", "MISS")
    assert stages["large"]["seconds"] is not None
    assert stages["large"]["differences"].keys() == {"pixels.size", "pixels.fit"}


def test_a_tap_of_another_base_has_its_weights_in_its_key(pipeline: Pipeline, project: Path) -> None:
    of_its_own = "{base: {name: vgg16, weights: w.weights.h5}, size: 32}"
    for name in ("w", "other"):
        (project.parent / f"{name}.weights.h5").write_bytes(name.encode())
    project.write_text(
        f"extract: {{size: 16, taps: {{pooled: {{}}, vgg: {of_its_own}}}}}\n{JOINED.replace('large', 'vgg')}"
    )
    assert counts(pipeline("run", "-c", project, "--json")) == (24, 0)
    first = opened(project)
    assert first.spec("vgg").recipe.base == "vgg16"
    changed = opened(project, "extract.taps.vgg.base.weights=other.weights.h5")
    assert changed.store("vgg").key != first.store("vgg").key
    assert changed.store("pooled").key == first.store("pooled").key


def test_a_tap_whose_weights_are_not_here_leaves_the_others_as_they_are(pipeline: Pipeline, project: Path) -> None:
    extract(pipeline, project)
    project.write_text(
        "extract: {size: 16, taps: {pooled: {}, vgg: {base: {weights: none.h5, name: vgg16}, size: 32}}}\n"
    )
    stages = {s["name"]: s for s in pipeline("status", "-c", project, "--json").json["status"]["stages"]}
    assert (stages["pooled"]["state"], stages["vgg"]["state"]) == ("HIT", "BLOCKED")
    assert stages["logistic"]["state"] == "MISS"
    assert pipeline("run", "-c", project).code == 4


def test_an_export_takes_the_weights_of_each_tap_along(pipeline: Pipeline, project: Path, tmp_path: Path) -> None:
    (project.parent / "w.weights.h5").write_bytes(b"w")
    tap = "{base: {name: vgg16, weights: w.weights.h5}, size: 32}"
    project.write_text(
        f"extract: {{size: 16, taps: {{pooled: {{}}, vgg: {tap}}}}}\nheads: {{logistic: {{tap: vgg}}}}\n"
    )
    assert pipeline("run", "-c", project).code == 0
    assert pipeline("cache", "export", tmp_path / "out", "-c", project).code == 0
    ran = pipeline("run", "-c", tmp_path / "out" / "pipeline.yaml", "--json", "--require-cached")
    assert counts(ran) == (0, 24)
    assert opened(tmp_path / "out" / "pipeline.yaml").config.extract.taps["vgg"].base.weights.startswith("sha256:")
    assert pipeline("cache", "import", tmp_path / "out", "-c", tmp_path / "in" / "pipeline.yaml").code == 0


@pytest.mark.parametrize(
    ("tap", "message"),
    [
        ("{base: {name: vgg99}}", "vgg99"),
        ("{size: 3}", "extract.taps.pooled.size: expected at least 16, got 3"),
        ("{numerics: half}", "extract.taps.pooled.numerics"),
        ("{base: {name: vgg16, trust: true}}", "unknown field extract.taps.pooled.base.trust"),
    ],
)
def test_a_mistake_in_a_tap_is_one_sentence(pipeline: Pipeline, project: Path, tap: str, message: str) -> None:
    project.write_text(f"extract: {{taps: {{pooled: {tap}}}}}\n")
    ran = pipeline("run", "-c", project)
    assert (ran.code, message in " ".join(ran.err.split())) == (2, True), ran.err


def test_a_base_may_be_its_name_alone(pipeline: Pipeline, project: Path) -> None:
    project.write_text("base: vgg16\nextract: {taps: {pooled: {base: resnet50}}}\n")
    config = opened(project).config
    assert (config.base.name, [choice.name for choice in config.bases]) == ("vgg16", ["resnet50"])
    assert opened(project, "base.weights=w.h5").config.base.model_dump(exclude_defaults=True) == {
        "name": "vgg16",
        "weights": "w.h5",
    }
