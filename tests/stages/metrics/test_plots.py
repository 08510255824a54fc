"""plots.py and plot.py: which pictures there are, what they show, and where they go."""

from __future__ import annotations

import io
import shutil
import sys
import xml.etree.ElementTree as xml
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stages.metrics import classification, plots
from tests.conftest import Pipeline
from tests.support import fakes

ALL = ["roc", "precision_recall", "reliability", "confusion_val", "confusion_test"]


def problem(k: int, n: int = 120, seed: int = 0) -> plots.Rows:
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.ones(k), n)
    return np.arange(n) % k, p


def drawn(
    k: int, names: Sequence[str] | None = None, form: plots.Format = "png", **splits: plots.Rows
) -> dict[str, bytes]:
    given = splits or {"val": problem(k), "test": problem(k, seed=1)}
    return dict(plots.draw_plots(given, names or [f"class {i}" for i in range(k)], form))


@pytest.mark.parametrize("k", [2, 3, 12])
def test_all_pictures_are_drawn_for_few_and_many_classes(k: int) -> None:
    found = drawn(k, [f"a rather long name of class {i}" for i in range(k)])
    assert list(found) == ALL
    for data in found.values():
        picture = Image.open(io.BytesIO(data)).convert("L")
        assert 400 < picture.width < 3000
        assert 400 < picture.height < 3000
        assert np.asarray(picture).std() > 5


def test_svg_is_well_formed_and_the_same_each_time() -> None:
    found = drawn(3, ["a & b", "$x_1$ < 2", "_c"], "svg")
    assert found == drawn(3, ["a & b", "$x_1$ < 2", "_c"], "svg")
    for data in found.values():
        assert xml.fromstring(data).tag.endswith("svg")


def test_the_area_below_a_curve_is_the_figure() -> None:
    truth, p = problem(2)
    figures = classification.metrics(["ab"[i] for i in truth], p, ("a", "b"))
    x, y, area = plots._Roc().points(truth == 1, p[:, 1])
    assert area == figures.values["auroc"] == pytest.approx((np.diff(x) * (y[1:] + y[:-1])).sum() / 2)
    x, y, area = plots._PrecisionRecall().points(truth == 1, p[:, 1])
    assert area == figures.values["average_precision"] == pytest.approx((np.diff(x) * y[1:]).sum())


def test_above_the_limits_there_are_no_confusion_matrices_and_no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classification, "MOST_CONFUSED", 3)
    assert list(drawn(4)) == ALL[:3]
    monkeypatch.setattr(classification, "MOST_RANKED", 3)
    assert list(drawn(4)) == ALL[2:3]


@pytest.mark.parametrize("k", [2, 3])
def test_an_empty_split_is_left_out_and_one_class_has_no_curve(k: int) -> None:
    empty = np.empty(0, int), np.empty((0, k))
    assert list(drawn(k, val=problem(k), test=empty)) == ALL[:4]
    assert list(drawn(k, val=empty, test=empty)) == []
    _, p = problem(k)
    assert list(drawn(k, val=(np.zeros(len(p), int), p))) == ALL[:4]


def test_pictures_lie_beside_models_or_where_told(pipeline: Pipeline, project: Path, tmp_path: Path) -> None:
    fakes.two_classes(project.parent / "images", 30)
    assert pipeline("run", "-c", project).code == 0
    shutil.rmtree(project.parent / "images")
    model = next((project.parent / "models" / "head" / "logistic").glob("*/record.json")).parent
    before = sorted(path.name for path in model.iterdir())
    ran = pipeline("plot", "logistic", "-c", project, "--json")
    folder = project.parent / "plots" / f"logistic-{model.name[:12]}"
    names = [name.replace("val", "folds") for name in ALL]
    assert ran.json["plot"]["files"] == [str(folder / f"{name}.png") for name in names]
    assert sorted(path.name for path in folder.iterdir()) == sorted(f"{name}.png" for name in names)
    ran = pipeline("plot", "logistic", "-c", project, "-o", tmp_path / "here", "--format", "svg")
    assert (ran.code, len(ran.out.splitlines())) == (0, 5)
    assert (tmp_path / "here" / "roc.svg").exists()
    assert sorted(path.name for path in model.iterdir()) == before


def test_without_matplotlib_the_extra_is_named(
    pipeline: Pipeline, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert pipeline("run", "-c", project).code == 0
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    ran = pipeline("plot", "logistic", "-c", project)
    assert ran.code == 4
    assert "plots need matplotlib" in ran.err
    assert "pip install 'frozenbase[plots]'" in ran.err
    assert not (project.parent / "plots").exists()
