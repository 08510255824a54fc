"""sweeps.py: each point a head of its own, ranked on val; test is told of the winner only."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pipeline as opened
from cache.errors import Unusable
from pipeline.config import yaml_file
from pipeline.config.head_schema import HEAD_KINDS
from pipeline.results import predictions, registry
from pipeline.runs import choices, sweeps, train_heads
from stages.heads import selection
from stages.metrics import classification
from tests.conftest import Pipeline, counts
from tests.support import fakes

GRID = {"C=0.001 seed=0", "C=0.001 seed=1", "C=1 seed=0", "C=1 seed=1"}


@pytest.fixture
def swept(project: Path) -> Path:
    project.write_text(
        project.read_text() + "heads: {few: {sweep: {C: [0.001, 1], seed: [0, 1]}}, plain: {C: 1, seed: 1}}\n"
    )
    return project


def heads(pipeline: Pipeline, project: Path, *more: str) -> dict[str, Any]:
    ran = pipeline("run", "head", "-c", project, "--json", *more)
    assert ran.code == 0, ran.out
    return dict(ran.json["heads"])


def test_points_are_ranked_on_val_and_test_is_told_of_the_winner_only(pipeline: Pipeline, swept: Path) -> None:
    few = heads(pipeline, swept)["few"]
    points = few["points"]
    assert {point["point"] for point in points} == GRID
    losses = [point["metrics"]["folds"]["log_loss"] for point in points]
    assert losses == sorted(losses)
    assert few["point"] == points[0]["point"] == "C=1 seed=0"
    assert few["metrics"]["test"] == points[0]["metrics"]["test"]
    assert points[0]["metrics"]["test"]["n"] > 0
    assert [point["metrics"]["test"] for point in points[1:]] == [None, None, None]
    assert [point["metrics"]["calibration"]["test"] for point in points[1:]] == [None, None, None]


def listed(pipeline: Pipeline, project: Path) -> dict[str, bool]:
    """Key -> whether `pipeline models` tells figures of test, of the points of `few`; table and JSON agree."""
    lines = [line.split() for line in pipeline("models", "-c", project).out.splitlines()]
    told = {line[1]: line.count("-") < 3 for line in lines if line[:1] == ["head/few"]}
    models = pipeline("models", "-c", project, "--json").json["models"]
    few = {model["key"]: model["metrics"] for model in models if model["name"] == "head/few"}
    assert told == {key[:12]: metrics["test"] is not None for key, metrics in few.items()}
    assert all((metrics["test"] is None) == (metrics["calibration"]["test"] is None) for metrics in few.values())
    return {key: metrics["test"] is not None for key, metrics in few.items()}


def test_a_list_of_models_tells_test_of_a_sweep_s_best_point_only(pipeline: Pipeline, swept: Path) -> None:
    few = heads(pipeline, swept)["few"]
    assert listed(pipeline, swept) == {point["key"]: point["key"] == few["key"] for point in few["points"]}
    loser = few["points"][-1]["key"]
    assert pipeline("show", loser, "-c", swept, "--json").json["show"]["metrics"]["test"]["n"] > 0
    wider = heads(pipeline, swept, "--set", "heads.few.sweep.C=[0.001, 1, 10]")["few"]
    assert wider["key"] != few["key"]
    assert [key for key, told in listed(pipeline, swept).items() if told] == [wider["key"]]
    heads(pipeline, swept)  # the first sweep again: its best point is the best of a sweep again
    assert listed(pipeline, swept)[few["key"]]


def test_a_point_that_was_a_head_of_its_own_before_is_one_of_the_sweep_too(pipeline: Pipeline, swept: Path) -> None:
    alone = heads(pipeline, swept, "--set", "heads.few={C: 0.001}")["few"]["key"]
    assert listed(pipeline, swept) == {alone: True}
    few = heads(pipeline, swept)["few"]
    assert few["key"] != alone
    assert listed(pipeline, swept) == {point["key"]: point["key"] == few["key"] for point in few["points"]}
    heads(pipeline, swept, "--set", "heads.few={C: 0.001}")
    assert listed(pipeline, swept)[alone]


def test_points_of_a_sweep_that_broke_off_are_points_all_the_same(
    pipeline: Pipeline, swept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[None] = []
    run_head = train_heads.run_head

    def broken(*arguments: Any) -> Any:
        if made:
            raise Unusable("enough", "")
        made.append(None)
        return run_head(*arguments)

    monkeypatch.setattr(train_heads, "run_head", broken)
    monkeypatch.setattr(sweeps, "_at_once", lambda *arguments: 1)
    assert pipeline("run", "head", "few", "-c", swept).code == 2
    assert list(listed(pipeline, swept).values()) == [False]


def test_of_points_that_an_older_version_made_nothing_is_hidden(pipeline: Pipeline, swept: Path) -> None:
    few = heads(pipeline, swept)["few"]
    last = swept.parent / "models" / "head" / "few" / "last.json"
    last.write_text(json.dumps({"key": few["key"]}))
    assert set(listed(pipeline, swept).values()) == {True}
    assert heads(pipeline, swept)["few"]["hit"]
    assert [key for key, told in listed(pipeline, swept).items() if told] == [few["key"]]


@pytest.mark.parametrize(
    ("head", "points"),
    [
        (
            "kind: dense, sweep: {units: [[], [4]], dropout: [0.2, 0.5], activation: [relu, tanh]}",
            ["units=[] dropout=0.2 activation=relu"]
            + [f"units=[4] dropout={d} activation={a}" for d in (0.2, 0.5) for a in ("relu", "tanh")],
        ),
        ("kind: dense, epochs: 5, sweep: {patience: [3, 5, 9, null]}", ["patience=3", "patience=5"]),
        (
            "kind: knn, sweep: {k: [1, [1], [3, 1], [1, 3]], temperature: [0.1, 0.2]}",
            ["k=1 temperature=0.1", "k=[3,1] temperature=0.1", "k=[3,1] temperature=0.2"],
        ),
        ("kind: logistic, sweep: {C: [1, 1.0], seed: [0, 1]}", ["C=1 seed=0", "C=1 seed=1"]),
    ],
)
def test_points_that_cannot_differ_are_one(project: Path, head: str, points: list[str]) -> None:
    project.write_text(project.read_text() + f"heads: {{h: {{{head}}}}}\n")
    assert list(yaml_file.load(project).heads["h"].points()) == points


def test_taps_of_two_names_that_are_the_same_are_one_point(pipeline: Pipeline, project: Path) -> None:
    text = project.read_text().replace("size: 16", "size: 16, taps: {pooled: {}, twin: {pooling: avg}}")
    project.write_text(text + "heads: {h: {sweep: {tap: [pooled, twin]}}}\n")
    assert [point["point"] for point in heads(pipeline, project)["h"]["points"]] == ["tap=pooled"]
    assert heads(pipeline, project)["h"]["hit"]
    *_, status = pipeline("status", "--hash", "-c", project, "--json").json["status"]["stages"]
    assert status["state"] == "HIT"


def test_each_point_is_cached_on_its_own(pipeline: Pipeline, swept: Path) -> None:
    first = heads(pipeline, swept)["few"]
    assert {point["hit"] for point in first["points"]} == {False}
    folders = {Path(point["path"]) for point in first["points"]}
    assert folders == {path.parent for path in (swept.parent / "models" / "head" / "few").glob("*/record.json")}
    wider = heads(pipeline, swept, "--set", "heads.few.sweep.C=[0.001, 1, 10]")["few"]
    assert not wider["hit"]
    assert {point["point"] for point in wider["points"] if not point["hit"]} == {"C=10 seed=0", "C=10 seed=1"}
    assert heads(pipeline, swept)["few"]["hit"]


def test_the_name_means_the_best_point_and_what_the_last_run_gave(pipeline: Pipeline, swept: Path) -> None:
    def meant(name: str) -> str:
        return str(pipeline("show", name, "-c", swept, "--json").json["show"]["key"])

    found = heads(pipeline, swept)
    assert meant("few") == found["few"]["points"][0]["key"] == found["few"]["key"]
    before = swept.read_text()
    swept.write_text(before.replace("plain: {C: 1, seed: 1}", "plain: {C: 1, seed: 2}"))
    other = heads(pipeline, swept)
    assert meant("plain") == other["plain"]["key"] != found["plain"]["key"]
    swept.write_text(before)
    heads(pipeline, swept)
    assert meant("head/plain") == found["plain"]["key"]


def test_a_trial_does_not_change_what_a_name_means(pipeline: Pipeline, swept: Path) -> None:
    """Neither of a head nor of a sweep, be it by --set or from Python; what it made is found by its key."""
    found = heads(pipeline, swept)
    sets = ("--set", "heads.plain.seed=2", "--set", "heads.few.sweep.C=[0.001, 1, 10]")
    tried = heads(pipeline, swept, *sets)
    opened.open(swept, {"extract.size": 32}).head("plain")
    assert tried["few"]["key"] != found["few"]["key"]
    for name in ("few", "plain"):
        assert registry.find(swept.parent, name).key == found[name]["key"]
        assert registry.find(swept.parent, tried[name]["key"][:12]).key == tried[name]["key"]
    models = pipeline("models", "-c", swept, "--json").json["models"]
    assert {model["key"] for model in models if model["current"]} == {found["few"]["key"], found["plain"]["key"]}


@pytest.mark.parametrize("setting", ["cluster.workers=1", "extract.batch=8", "data.on_leak=warn", "heads.few.C=3"])
def test_a_setting_that_changes_nothing_of_a_head_makes_no_trial_of_it(
    pipeline: Pipeline, project: Path, setting: str
) -> None:
    project.write_text(project.read_text() + "heads: {few: {}, plain: {C: 1}}\n")
    made = heads(pipeline, project, "--set", setting)
    assert registry.find(project.parent, "plain").key == made["plain"]["key"]


def test_a_name_of_trials_alone_means_nothing_and_names_them(pipeline: Pipeline, swept: Path) -> None:
    key = heads(pipeline, swept, "--set", "heads.plain.seed=2")["plain"]["key"]
    shown = pipeline("show", "plain", "-c", swept)
    assert shown.code == 2
    assert f"there are others: head/plain {key[:12]}" in shown.err
    assert f"by its key: head/plain/{key[:12]}" in shown.err


def test_a_last_json_of_an_earlier_commit_is_read(pipeline: Pipeline, swept: Path) -> None:
    old = heads(pipeline, swept, "--set", "heads.plain.seed=2")["plain"]["key"]
    heads(pipeline, swept)
    (swept.parent / "models" / "head" / "plain" / "last.json").write_text(json.dumps({"beaten": [], "key": old}))
    assert registry.find(swept.parent, "plain").key == old


def test_a_point_is_the_head_that_its_settings_alone_would_be(pipeline: Pipeline, swept: Path) -> None:
    found = heads(pipeline, swept)
    (same,) = [point for point in found["few"]["points"] if point["point"] == "C=1 seed=1"]
    assert same["key"] == found["plain"]["key"]
    one, other = (np.load(Path(head["path"]) / "head.npz") for head in (same, found["plain"]))
    assert np.array_equal(one["layer0_weights"], other["layer0_weights"])
    record = json.loads((Path(same["path"]) / "record.json").read_text())
    assert record["config"]["heads"]["few"]["C"] == 1
    assert record["config"]["heads"]["few"]["sweep"] is None


def test_status_counts_the_points_that_are_there(pipeline: Pipeline, swept: Path) -> None:
    def status(*more: str) -> tuple[str, str]:
        stages = pipeline("status", "--hash", "-c", swept, "--json", *more).json["status"]["stages"]
        (few,) = [stage for stage in stages if stage["name"] == "few"]
        return few["state"], few["reason"]

    assert status() == ("MISS", "there is no head of that name yet")
    heads(pipeline, swept)
    assert status() == ("HIT", "all 4 points are there")
    assert status("--set", "heads.few.sweep.seed=[0, 1, 2]") == ("PARTIAL", "4 of 6 points are there")


def test_the_leaderboard_for_a_person(pipeline: Pipeline, swept: Path) -> None:
    ran = pipeline("run", "head", "few", "-c", swept)
    lines = [line.split() for line in ran.out.splitlines()]
    at = lines.index(["few", "folds", "log-loss", "accuracy", "AUROC", "key"])
    board = lines[at + 1 : at + 5]
    assert board[0][:3] == ["C=1", "seed=0", "trained"]
    assert {f"{line[0]} {line[1]}" for line in board} == GRID
    assert [float(line[3]) for line in board] == sorted(float(line[3]) for line in board)


def test_a_point_that_cannot_be_is_named(pipeline: Pipeline, swept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from stages.heads import logistic

    monkeypatch.setattr(logistic, "MOST_WEIGHTS", 3)
    ran = pipeline("run", "head", "few", "-c", swept, "--json")
    assert ran.code == 2
    assert "heads.few at C=" in ran.json["error"]["message"]


def test_taps_are_swept_and_joined_too(pipeline: Pipeline, project: Path) -> None:
    taps = "taps: {pooled: {}, top: {pooling: max}, maps: {pooling: none}}"
    text = project.read_text().replace("size: 16", f"size: 16, {taps}")
    project.write_text(text + "heads: {h: {kind: ridge, sweep: {tap: [pooled, [pooled, top], [top, pooled], maps]}}}\n")
    points = heads(pipeline, project)["h"]["points"]
    found = {point["point"]: point for point in points}
    assert set(found) == {"tap=pooled", "tap=[pooled,top]", "tap=[top,pooled]", "tap=maps"}
    assert len({point["key"] for point in points}) == 4
    record = json.loads((Path(found["tap=[pooled,top]"]["path"]) / "record.json").read_text())
    assert set(record["extract"]) == {"pooled", "top"}
    with np.load(Path(found["tap=[pooled,top]"]["path"]) / "head.npz") as arrays:
        assert arrays["layer0_weights"].shape == (9, 1)
    key = found["tap=[pooled,top]"]["key"]
    again = pipeline("reproduce", key, "-c", project, "--json")
    assert again.json["reproduce"]["reproduced"]
    assert pipeline("show", key, "-c", project).code == 0


@pytest.mark.parametrize("kind", ["logistic", "ridge", "knn"])
def test_heads_of_every_kind_are_reproduced_bitwise(pipeline: Pipeline, project: Path, kind: str) -> None:
    project.write_text(project.read_text() + f"heads: {{h: {{kind: {kind}}}}}\n")
    assert counts(pipeline("run", "-c", project, "--json")) == (24, 0)
    ran = pipeline("reproduce", "h", "-c", project, "--json")
    assert (ran.code, ran.json["reproduce"]["reproduced"], ran.json["reproduce"]["differences"]) == (0, True, {})


def test_dense_points_go_one_after_the_other(
    pipeline: Pipeline, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running: list[str] = []
    most: list[int] = []

    class Watched(fakes.Dense):
        @staticmethod
        def fit(*arguments: Any) -> Any:
            running.append("")
            most.append(len(running))
            head = fakes.Dense.fit(*arguments)
            running.pop()
            return head

    monkeypatch.setitem(sys.modules, "stages.heads.dense", Watched)  # type: ignore[arg-type]
    project.write_text(project.read_text() + "heads: {d: {kind: dense, sweep: {lr: [0.1, 0.01, 0.001]}}}\n")
    assert len(heads(pipeline, project)["d"]["points"]) == 3
    assert most == [1, 1, 1]


def few(pipeline: Pipeline, project: Path, *words: str) -> dict[str, Any]:
    """The metrics of head/few as `pipeline models` and `show` have them, which agree."""
    models = pipeline("models", "-c", project, "--json").json["models"]
    (listed,) = [model["metrics"] for model in models if model["name"] == "head/few" and model["current"]]
    assert pipeline("show", "few", "-c", project, "--json").json["show"]["metrics"] == listed
    return dict(listed)


def test_the_figures_of_the_best_point_are_those_of_the_choice_wherever_they_are_told(
    pipeline: Pipeline, swept: Path
) -> None:
    """And those of folds alone: test, temperature and threshold are the point's own."""
    found = heads(pipeline, swept)["few"]
    own = found["points"][0]["metrics"]
    assert (found["metrics"]["judged"], own["judged"]) == ("nested", "crossfit")
    assert found["choice"] == found["metrics"]["folds"] != own["folds"]
    assert found["metrics"]["test"] == own["test"]
    for field in ("temperature", "threshold", "notes", "test"):
        assert found["metrics"]["calibration"][field] == own["calibration"][field]
    assert few(pipeline, swept) == found["metrics"] == opened.open(swept).head("few").metrics
    model = registry.find(swept.parent, "few")
    told = predictions.read_predictions(model)
    here = np.array([row.split == "train" for row in told.rows])
    truth = np.array([row.label == "dark" for row in told.rows])[here].astype(int)
    assert classification.log_loss(truth, told.probabilities[here]) == pytest.approx(found["choice"]["log_loss"])
    assert model.metrics == json.loads((model.folder / "metrics.json").read_text())  # which reproduce compares
    assert pipeline("reproduce", "few", "-c", swept).code == 0


def test_two_heads_are_compared_by_the_predictions_that_judge_the_choice(pipeline: Pipeline, swept: Path) -> None:
    text = swept.read_text().replace("test: 0.2", "test: 0.0").replace("plain: {C: 1, seed: 1}", "plain: {C: 1}")
    swept.write_text(text)
    found = heads(pipeline, swept)
    compared = pipeline("compare", "few", "plain", "-c", swept, "--json").json["compare"]
    assert compared["out_of_fold"]
    assert compared["a"]["metrics"]["log_loss"] == pytest.approx(found["few"]["choice"]["log_loss"])


def test_a_choice_is_judged_once_and_again_where_the_points_change(
    pipeline: Pipeline, swept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged: list[int] = []
    nest = selection.nest

    def counted(spec: Any, candidates: Any, *more: Any) -> Any:
        judged.append(len(candidates))
        return nest(spec, candidates, *more)

    monkeypatch.setattr(selection, "nest", counted)
    first = heads(pipeline, swept)["few"]
    again = heads(pipeline, swept)["few"]
    assert judged == [4]
    assert (first["hit"], again["hit"]) == (False, True)
    assert again["metrics"] == first["metrics"]
    wider = heads(pipeline, swept, "--set", "heads.few.sweep.C=[0.001, 1, 10]")["few"]
    assert judged == [4, 6]
    assert wider["choice"] != first["choice"]
    assert heads(pipeline, swept)["few"]["hit"]
    assert few(pipeline, swept) == first["metrics"]
    assert judged == [4, 6]


def test_a_choice_that_is_not_there_is_missed_and_judged(pipeline: Pipeline, swept: Path) -> None:
    """As in a project of an earlier version, whose last.json knows no choice either."""
    found = heads(pipeline, swept)["few"]
    folder = swept.parent / "models" / "head" / "few"
    shutil.rmtree(folder / "choices")
    last = json.loads((folder / "last.json").read_text())
    assert last.pop("chosen")
    (folder / "last.json").write_text(json.dumps(last))
    assert few(pipeline, swept) == found["points"][0]["metrics"]
    *_, status, _ = pipeline("status", "--hash", "-c", swept, "--json").json["status"]["stages"]
    assert (status["name"], status["state"]) == ("few", "PARTIAL")
    assert "the choice among them is to be judged" in status["reason"]
    again = heads(pipeline, swept)["few"]
    assert (again["hit"], again["metrics"]) == (False, found["metrics"])
    (choice,) = (folder / "choices").glob("*/metrics.json")
    choice.write_text("{}")  # damaged
    assert heads(pipeline, swept)["few"]["metrics"] == found["metrics"]


def test_a_point_that_is_a_head_without_a_sweep_again_has_its_own_figures(pipeline: Pipeline, swept: Path) -> None:
    found = heads(pipeline, swept)["few"]
    heads(pipeline, swept, "--set", "heads.few={C: 1}")  # a trial, which leaves what the name means
    heads(pipeline, swept, "--set", "heads.few.sweep.C=[0.0001, 1]")
    assert few(pipeline, swept) == found["metrics"]
    swept.write_text(swept.read_text().replace("few: {sweep: {C: [0.001, 1], seed: [0, 1]}}", "few: {C: 1}"))
    alone = heads(pipeline, swept)["few"]
    assert alone["key"] == found["key"]
    assert few(pipeline, swept) == alone["metrics"] == found["points"][0]["metrics"]


def test_many_images_are_cross_fitted_and_val_chooses_as_before(
    pipeline: Pipeline, swept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selection, "MOST_NESTED", 10)
    found = heads(pipeline, swept)["few"]
    assert found["metrics"]["judged"] == "crossfit"
    assert found["choice"] == found["metrics"]["folds"]
    swept.write_text(swept.read_text().replace("heads: {few: {", "heads: {few: {choose: val, "))
    found = heads(pipeline, swept)["few"]
    assert "judged" not in found["metrics"]
    assert "choice" not in found
    assert found["metrics"] == found["points"][0]["metrics"]


def test_the_best_kind_is_judged_as_a_choice_too(pipeline: Pipeline, project: Path) -> None:
    """A sweep over it is judged once more."""
    project.write_text(
        project.read_text() + "heads: {a: {kind: auto, kinds: [ridge, knn]}, s: {kind: auto, kinds: [knn],"
        " sweep: {kinds: [[knn], [ridge, knn]]}}}\n"
    )
    found = heads(pipeline, project)
    assert found["a"]["metrics"]["judged"] == found["s"]["metrics"]["judged"] == "nested"
    assert [point["metrics"]["judged"] for point in found["s"]["points"]].count("nested") == 1
    again = pipeline("reproduce", "a", "-c", project, "--json").json["reproduce"]
    assert (again["reproduced"], again["differences"]) == (True, {})
    shown = pipeline("predictions", "a", "-c", project).out.splitlines()[0].split(",")
    assert "fold" in shown


def test_the_leaderboard_says_that_its_figures_only_rank(pipeline: Pipeline, swept: Path) -> None:
    ran = pipeline("run", "head", "few", "-c", swept)
    assert "figures that rank the points; the best of many flatters itself" in " ".join(ran.out.split())


def test_versions_of_choosing_move_what_is_chosen_so_and_nothing_else(
    pipeline: Pipeline, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    auto = "kind: auto, kinds: [ridge, knn]"
    project.write_text(
        project.read_text()
        + f"heads: {{few: {{sweep: {{C: [0.001, 1]}}}}, a: {{{auto}}}, v: {{{auto}, choose: val}}}}\n"
    )
    before = heads(pipeline, project)
    monkeypatch.setattr(choices, "VERSION", 2)
    monkeypatch.setitem(HEAD_KINDS, "auto", replace(HEAD_KINDS["auto"], choosing=5))
    now = heads(pipeline, project)
    assert {name for name in now if now[name]["key"] != before[name]["key"]} == {"a", "v"}
    assert {name for name in now if not now[name]["hit"]} == {"a", "few", "v"}
    assert all(point["hit"] for point in now["few"]["points"])
    assert now["few"]["metrics"] == before["few"]["metrics"]
    assert len(list((project.parent / "models" / "head" / "few" / "choices").iterdir())) == 2
