"""report.py and its sections: what a page says of each kind of model, when it is written, and what it may run."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import Mock

import numpy as np
import pytest

import pipeline as frozenbase
from cache.errors import NotAvailable
from pipeline.report import confusion, image_map, learning, pictures, report, scores
from pipeline.report.material import Judged, Material
from stages.metrics.figures import Figures
from stages.targets.classes import Classes
from tests.conftest import Pipeline, opened
from tests.support import fakes, other_targets
from tests.support.disk import read_tree

HOSTILE = ["<script>alert(1)</script>", '"><img src=x onerror=alert(2)>', "{{ 7 * 7 }}", "long" * 100]


class Page(HTMLParser):
    """What is in a page: its tags with their attributes, its text, its data."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.source = file.read_text("utf-8")
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self._within: list[str] = []
        self.data: dict[str, Any] = {}
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._within.append(tag)

    def handle_endtag(self, tag: str) -> None:
        self._within.append("")

    def handle_data(self, data: str) -> None:
        if self.tags and self._within[-1] == "script":
            if self.tags[-1][1].get("type") == "application/json":
                self.data = json.loads(data)
        elif self._within[-1:] != ["style"]:
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [found for name, found in self.tags if name == tag]


def reported(pipeline: Pipeline, config: Path, *more: str | Path) -> Page:
    pipeline("report", "-c", config, *more, expect=0)
    return Page(config.parent / "report.html")


@pytest.fixture
def mixed(tmp_path: Path, pipeline: Pipeline) -> Path:
    """A project with two heads, and some images under the wrong label, which are mistakes."""
    fakes.two_classes(tmp_path / "images", 24)
    for i in range(5):
        (tmp_path / "images" / "dark" / f"wrong{i}.png").write_bytes(fakes.textured(900 + i, True))
    config = tmp_path / "pipeline.yaml"
    config.write_text(
        "data: {split: {method: stratified, val: 0.2, test: 0.4}}\nextract: {size: 16}\n"
        "heads: {logistic: {C: 0.1}, near: {kind: knn, k: 3}}\ncard: {intended_use: to sort, data_licence: CC0}\n"
    )
    pipeline("run", "-c", config, expect=0)
    return config


def test_it_says_what_the_model_is_and_how_good(pipeline: Pipeline, mixed: Path) -> None:
    page = reported(pipeline, mixed, "head/logistic")
    metrics = frozenbase.open(mixed).model("head/logistic").metrics["test"]
    for said in (
        "head/logistic", f"{metrics['accuracy']:.3f}", "always dark", "head/near", "to sort", "CC0", "Apache-2.0",
        "pipeline reproduce", "efficientnet_lite0", "taken for",
    ):  # fmt: skip
        assert said in page.text, said
    assert [found["id"] for found in page.all("section")] == [
        "figures", "confusion", "mistakes", "curves", "learning", "findings", "map", "origin", "card"
    ]  # fmt: skip
    assert len(page.all("polyline")) >= 6


def test_cells_count_the_pictures_that_they_open(pipeline: Pipeline, mixed: Path) -> None:
    page = reported(pipeline, mixed, "head/logistic")
    data = page.data
    triples = list(zip(data["set"], data["truthClass"], data["guessClass"], strict=True))
    cells = [found for found in page.all("button") if "data-set" in found]
    assert len(cells) >= 4
    for cell in cells:
        place = tuple(int(cell[f"data-{name}"] or -1) for name in ("set", "truth", "guess"))
        assert f", {triples.count(cast(Any, place))} image" in (cell["aria-label"] or "")
    assert all(place >= 0 for place in data["place"])


def test_every_picture_and_chart_says_what_it_is(pipeline: Pipeline, mixed: Path) -> None:
    page = reported(pipeline, mixed)
    assert len(page.all("img")) > 10
    assert all(found["alt"] for found in page.all("img"))
    assert all(found.get("aria-label") or found.get("aria-hidden") for found in page.all("svg"))


def test_it_loads_nothing_and_runs_one_script(pipeline: Pipeline, mixed: Path) -> None:
    page = reported(pipeline, mixed)
    (policy,) = [tag["content"] for tag in page.all("meta") if tag.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert "unsafe" not in policy
    assert [found for found in page.all("script") if "src" in found] == []
    assert page.all("link") == []
    assert {(found["src"] or "").partition(":")[0] for found in page.all("img")} == {"data"}
    assert re.findall(r"""(?:src|href)=["']?(?:https?:)?//""", page.source) == []


def test_it_is_written_again_only_if_something_of_it_changed(pipeline: Pipeline, mixed: Path) -> None:
    first = pipeline("report", "-c", mixed, "--json", expect=0).json["report"]
    written = (mixed.parent / "report.html").stat().st_mtime_ns
    again = pipeline("report", "-c", mixed, expect=0)
    assert not first["reused"]
    assert "is up to date" in again.out
    assert (mixed.parent / "report.html").stat().st_mtime_ns == written
    pipeline("tag", "-c", mixed, first["model"]["name"], "v1", expect=0)
    assert "written in" in pipeline("report", "-c", mixed, expect=0).out
    (mixed.parent / "images" / "dark" / "0000.png").rename(mixed.parent / "images" / "dark" / "new.png")
    assert "dark/new.png" in reported(pipeline, mixed).data["path"]
    assert "limited" in reported(pipeline, mixed, "--set", "card.limits=limited").text


def test_a_page_that_lacked_something_for_a_time_is_made_again(
    pipeline: Pipeline, mixed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(learning, "learning_curve", Mock(side_effect=NotAvailable("no rows for now", "")))
        assert "no learning curve: no rows for now" in reported(pipeline, mixed, "head/logistic").text
    assert "no learning curve" not in reported(pipeline, mixed, "head/logistic").text
    assert "is up to date" in pipeline("report", "-c", mixed, "head/logistic", expect=0).out


def test_a_model_that_learnt_to_tell_unknown_images_has_another_page(pipeline: Pipeline, mixed: Path) -> None:
    shutil.rmtree(mixed.parent / "models" / "unknown")
    assert "for any picture, whatever is on it" in reported(pipeline, mixed, "head/logistic").text
    pipeline("run", "-c", mixed, expect=0)
    assert "at a false alarm rate of 5%" in reported(pipeline, mixed, "head/logistic").text


def test_a_page_of_the_user_s_is_not_replaced(pipeline: Pipeline, mixed: Path) -> None:
    (mixed.parent / "report.html").write_text("<p>mine")
    refused = pipeline("report", "-c", mixed, expect=2)
    assert "report.html is there, and is no report" in " ".join(refused.err.split())
    assert (mixed.parent / "report.html").read_text() == "<p>mine"


def test_only_the_page_and_the_map_are_written(pipeline: Pipeline, mixed: Path) -> None:
    before = read_tree(mixed.parent)
    pipeline("report", "-c", mixed, expect=0)
    after = read_tree(mixed.parent)
    new = {Path(path) for path in after if after[path] is not None and after[path] != before.get(path)}
    assert {path.name for path in new} == {"report.html", "places.npz", "record.json"}
    assert {path.parts[:2] for path in new if path.name != "report.html"} == {("models", "map")}


def test_without_a_name_it_is_of_the_model_that_ranks_best(pipeline: Pipeline, mixed: Path) -> None:
    models = pipeline("models", "-c", mixed, "--json", expect=0).json["models"]
    best = min(models, key=lambda one: one["metrics"]["folds"]["log_loss"])["name"]
    assert pipeline("report", "-c", mixed, "--json", expect=0).json["report"]["model"]["name"] == best
    assert frozenbase.open(mixed).report(mixed.parent / "other.html").model.name == best


def test_what_takes_long_can_be_left_out(pipeline: Pipeline, mixed: Path) -> None:
    sets = [word for part in ("audit", "map", "activation") for word in ("--without", part)]
    page = reported(pipeline, mixed, *sets)
    assert page.data["maps"] == {}
    assert "no map: it was left out" in page.text
    assert "findings" not in {found["id"] for found in page.all("section")}
    assert page.all("canvas") == []


def test_images_are_placed_again_only_where_rows_or_the_arithmetic_change(
    pipeline: Pipeline, mixed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    placed: list[int] = []

    def place(x: np.ndarray) -> dict[str, np.ndarray]:
        placed.append(len(x))
        return {"t-SNE": (1000 * x[:, :2]).astype(np.int32)}

    monkeypatch.setattr(image_map, "_coordinates", place)

    def maps(model: str) -> object:
        rest = [word for part in ("audit", "curve", "activation") for word in ("--without", part)]
        return reported(pipeline, mixed, model, *rest).data["maps"]

    first = maps("head/logistic")
    assert maps("head/near") == first
    mixed.write_text(mixed.read_text().replace("C: 0.1", "C: 10"))
    pipeline("run", "-c", mixed, expect=0)
    assert maps("head/logistic") == first
    assert placed == [53]
    (kept,) = mixed.parent.glob("models/map/*/places.npz")
    kept.write_bytes(b"damaged")
    assert maps("head/near") == first
    monkeypatch.setattr(image_map, "VERSION", image_map.VERSION + 1)
    (mixed.parent / "report.html").unlink()
    maps("head/logistic")
    fakes.two_classes(mixed.parent / "images", 25)
    pipeline("run", "-c", mixed, expect=0)
    maps("head/near")
    assert placed == [53, 53, 53, 55]


def test_without_pictures_or_rows_it_says_what_is_missing(pipeline: Pipeline, mixed: Path) -> None:
    (mixed.parent / "images").rename(mixed.parent / "gone")
    page = reported(pipeline, mixed, "head/logistic")
    assert "pictures are not here" in page.text
    assert "no class activation maps: the pictures are not here" in page.text
    assert "no audit: " in page.text
    assert page.all("img") == []
    assert len(page.data["maps"]["t-SNE"][0]) == 53
    (mixed.parent / ".features").rename(mixed.parent / "no-features")
    page = reported(pipeline, mixed, "head/logistic")
    assert "no map: " in page.text
    assert "no nearest images: " in page.text


@pytest.mark.parametrize("target", other_targets.TARGETS)
def test_other_targets_have_what_makes_sense_of_them(
    pipeline: Pipeline, fake_embed: None, tmp_path: Path, target: str
) -> None:
    config = other_targets.write_project(tmp_path, target)
    pipeline("run", "-c", config, expect=0)
    page = reported(pipeline, config)
    sections = {found["id"] for found in page.all("section")}
    assert ("confusion" in sections) == (target in ("soft", "shares"))
    assert {"figures", "mistakes", "curves", "map"} <= sections
    assert ("always the mean of train" in page.text) == (target not in ("soft", "shares"))
    assert any(name in page.text for name in other_targets.NAMES[target])


def test_numbers_are_in_their_units(pipeline: Pipeline, fake_embed: None, tmp_path: Path) -> None:
    config = other_targets.write_project(tmp_path, "numbers")
    pipeline("run", "-c", config, expect=0)
    material = Material(opened(config), report.best_model(tmp_path))
    table = other_targets.read_table(tmp_path)
    expected = [float(table[row.path]["level"]) for row in material.predicted.rows]
    assert material.numbers[:, 0] == pytest.approx(expected)
    constant, _ = scores.guess_constantly(material)
    assert constant["folds"].values["relative_error"] == pytest.approx(1, abs=0.05)


def test_a_perfect_model_has_no_mistakes(pipeline: Pipeline, project: Path) -> None:
    pipeline("run", "-c", project, expect=0)
    page = reported(pipeline, project)
    assert "None: all of the" in page.text
    assert "guessed right" in page.text


def test_names_are_text_whatever_is_in_them(pipeline: Pipeline, fake_embed: None, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    with (tmp_path / "t.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label"])
        for i in range(48):
            name = f"{i}\"'><b onclick=alert(3)>&amp;.png"
            (images / name).write_bytes(fakes.textured(i, i % 2 == 0))
            writer.writerow([name, HOSTILE[i % 4]])
    config = tmp_path / "pipeline.yaml"
    config.write_text("data: {table: t.csv}\nextract: {size: 16}\ncard: {limits: '<img src=y onerror=alert(4)>'}\n")
    pipeline("run", "-c", config, expect=0)
    page = reported(pipeline, config)
    assert len(page.all("script")) == 2
    assert page.all("b") == []
    assert {found["src"] for found in page.all("img") if not (found["src"] or "").startswith("data:")} == set()
    assert [found for _, found in page.tags if any(name.startswith("on") for name in found)] == []
    assert "<script>alert(1)</script>" in page.text
    assert "49" not in page.data["label"]
    assert "{{ 7 * 7 }}" in page.data["label"]
    assert max(map(len, page.data["path"] + page.data["label"])) <= 80


def test_paths_that_are_no_utf_8_are_shown_escaped(pipeline: Pipeline, fake_embed: None, tmp_path: Path) -> None:
    fakes.two_classes(tmp_path / "images", 12)
    odd = os.path.join(os.fsencode(tmp_path), b"images", b"dark", b"caf\xe9\x1b[31m.png")
    with open(odd, "wb") as file:
        file.write(fakes.textured(901, True))
    config = tmp_path / "pipeline.yaml"
    config.write_text("extract: {size: 16}\n")
    pipeline("run", "-c", config, expect=0)
    assert r"dark/caf\udce9\x1b[31m.png" in reported(pipeline, config).data["path"]


@pytest.mark.parametrize("k", [2, 20, 21, 1000])
def test_a_matrix_is_for_few_classes_and_of_many_the_worst_confusions_are_listed(k: int) -> None:
    truth = np.arange(3 * k) % k
    p = np.full((3 * k, k), 0.1)
    p[np.arange(3 * k), np.where(np.arange(3 * k) < 2 * k, truth, (truth + 1) % k)] = 0.9
    judged = Judged("test", np.arange(3 * k), Figures(3 * k, {}))
    target = Classes(f"c{i:04d}" for i in range(k))
    predicted = SimpleNamespace(probabilities=p)
    material = SimpleNamespace(classes=truth, judged=[judged], target=target, predicted=predicted)
    found = confusion.section(cast(Material, material))
    assert found is not None
    (one,) = found.content["sets"]
    assert found.content["few"] == (k <= 20)
    assert len(one["cells"]) == (k if k <= 20 else 0)
    assert one["pairs"] == k
    assert len(one["listed"]) == min(k, 30)
    assert one["listed"][0] == {"truth": 0, "guess": 1, "n": 1, "of": 3}
    if k <= 20:
        assert sum(cell["n"] for row in one["cells"] for cell in row) == 3 * k


def test_of_many_images_a_stated_number_is_shown(
    pipeline: Pipeline, mixed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_map, "MOST", 30)
    page = reported(pipeline, mixed, "head/logistic")
    assert len(page.data["path"]) == 30
    assert "30 of 53 images" in page.text
    wrong = sum(page.data["wrong"])
    assert 0 < wrong <= 10


def test_sheets_of_pictures_stay_small_whatever_is_in_them(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, pictures.TILE, pictures.TILE, 3), dtype=np.uint8)
    found = {f"{i:04d}": one for i, one in enumerate(noise)}
    good = pictures.make_sheets(found)
    monkeypatch.setattr(pictures, "SHEET_BYTES", sum(map(len, good.uris)) // 4)
    assert sum(map(len, pictures.make_sheets(found).uris)) < sum(map(len, good.uris)) / 2
    assert good.place["0299"] == 299


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["-o", "report.pdf"], 2, "expected a name that ends in .html"),
        (["nothing"], 2, "no model 'nothing'"),
        (["-o", "/proc/report.html"], 1, "/proc/report.html"),
    ],
)
def test_what_cannot_be_is_one_sentence(
    pipeline: Pipeline, mixed: Path, words: Sequence[str], code: int, said: str
) -> None:
    ran = pipeline("report", "-c", mixed, *words)
    assert ran.code == code, ran.err
    assert said in ran.err
    assert "Traceback" not in ran.err


def test_a_project_without_models_says_so(pipeline: Pipeline, project: Path) -> None:
    ran = pipeline("report", "-c", project)
    assert (ran.code, "there are no models" in ran.err, "pipeline run makes them" in ran.err) == (2, True, True)
