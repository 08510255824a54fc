"""registry.py: what a model may be called, and what is said of one that is not whole."""

from __future__ import annotations

import json
import re
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from cache import hash_index
from cache.hash_index import HashIndex
from pipeline.results import model, registry
from tests.conftest import Pipeline, Ran


def made(pipeline: Pipeline, config: Path, *more: str) -> dict[str, Any]:
    """Name -> HeadReport of the heads of a run."""
    ran = pipeline("run", "-c", config, "--json", *more)
    assert ran.code == 0, ran.out
    return dict(ran.json["heads"])


def seeded(pipeline: Pipeline, project: Path, seed: int) -> dict[str, Any]:
    """The head of a pipeline.yaml with that seed."""
    project.write_text(project.read_text().partition("heads:")[0] + f"heads: {{logistic: {{seed: {seed}}}}}\n")
    return dict(made(pipeline, project)["logistic"])


def at(path: str, seconds: int) -> None:
    """Set when that result was made."""
    record = Path(path) / "record.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "created": seconds}))


def test_models_are_listed_with_their_tags_the_last_run_s_first_and_then_the_latest(
    pipeline: Pipeline, project: Path
) -> None:
    keys = []
    for seed, when in ((0, 300), (1, 900), (2, 100)):
        head = seeded(pipeline, project, seed)
        at(head["path"], when)
        keys.append(head["key"])
    pipeline("tag", keys[0][:6], "v1", "-c", project)
    models = pipeline("models", "-c", project, "--json").json["models"]
    assert [model["key"] for model in models] == [keys[2], keys[1], keys[0]]
    assert [model["tags"] for model in models] == [[], [], ["v1"]]
    assert models[0]["metrics"]["folds"]["n"] > 0
    lines = pipeline("models", "-c", project).out.splitlines()
    assert lines[0].split()[:4] == ["model", "key", "tags", "created"]
    assert lines[1].split()[:2] == ["head/logistic", keys[2][:12]]
    assert time.strftime("%Y-%m-%d %H:%M", time.localtime(300)) in lines[3]


def test_models_of_one_name_are_told_apart_by_the_settings_that_differ(pipeline: Pipeline, project: Path) -> None:
    """Points of a sweep by what is swept; of a head that is alone nothing is said."""
    project.write_text(
        project.read_text() + "heads: {few: {sweep: {C: [0.1, 1], seed: [0, 1]}}, alone: {}, early: {kind: knn}}\n"
    )
    made(pipeline, project)
    made(pipeline, project, "--set", "extract.size=32", "--set", "heads={early: {kind: knn, k: [5, 10]}}")

    def told(model: dict[str, Any]) -> str:
        return " ".join(f"{name}={value}" for name, value in model["differs"].items())

    models = pipeline("models", "-c", project, "--json").json["models"]
    of = {name: sorted(told(m) for m in models if m["name"] == f"head/{name}") for name in ("few", "alone", "early")}
    assert of["few"] == ["C=0.1 seed=0", "C=0.1 seed=1", "C=1.0 seed=0", "C=1.0 seed=1"]
    assert of["alone"] == [""]
    assert of["early"] == [
        "k=[5, 10, 20, 50, 100, 200] extract.size=16",
        "k=[5, 10] extract.size=32",
    ]
    lines = pipeline("models", "-c", project).out.splitlines()
    assert lines[0].split()[3:6] == ["created", "differs", "chosen"]
    assert sum(" C=0.1 seed=1 " in line for line in lines) == 1
    assert sum(" k=[5,10] extract.size=32 " in line for line in lines) == 1


def test_without_any_model_it_says_what_makes_them(pipeline: Pipeline, project: Path) -> None:
    assert pipeline("models", "-c", project) == Ran(0, "no models yet; pipeline run makes them\n", "")
    ran = pipeline("show", "logistic", "-c", project)
    assert ran.code == 2
    assert ran.err.splitlines()[0].startswith("Error: no model 'logistic': there are none in ")


def test_a_model_goes_by_name_tag_and_the_first_digits_of_its_key(pipeline: Pipeline, project: Path) -> None:
    old = made(pipeline, project)["logistic"]
    at(old["path"], 100)
    new = seeded(pipeline, project, 1)
    pipeline("tag", old["key"], "v1", "-c", project)
    for text in ("head/logistic", "logistic", new["key"], new["key"][:6], new["key"][:9].upper()):
        assert registry.find(project.parent, text).key == new["key"]
    for text in ("v1", old["key"][:6], f"head/logistic/{old['key'][:6]}"):
        assert registry.find(project.parent, text).key == old["key"]


def test_digits_that_several_keys_begin_with_name_none(pipeline: Pipeline, project: Path) -> None:
    """Two heads with the same settings have one key, so the candidates are named in full."""
    project.write_text("extract: {size: 16}\nheads: {one: {}, two: {}}\ndata: {split: {val: 0.3, test: 0.2}}\n")
    key = made(pipeline, project)["one"]["key"]
    ran = pipeline("show", key[:7], "-c", project, "--json")
    assert (ran.code, ran.json["error"]["code"]) == (2, "unusable")
    assert f"may mean 2 models: head/one {key[:12]}, head/two {key[:12]}" in ran.json["error"]["message"]
    assert ran.json["error"]["hint"].endswith(f"head/one/{key[:12]}")
    assert registry.find(project.parent, f"head/two/{key[:12]}").name == "head/two"


@pytest.mark.parametrize("text", ["nothing", "abcd", "0" * 12, "head/other", "../logistic", ""])
def test_what_names_nothing_is_told_what_there_is(pipeline: Pipeline, project: Path, text: str) -> None:
    made(pipeline, project)
    pipeline("tag", "logistic", "v1", "-c", project)
    ran = pipeline("show", text, "-c", project)
    assert ran.code == 2
    message, hint = ran.err.splitlines()
    assert message.startswith(f"Error: no model {text!r} in ")
    assert message.endswith("there are head/logistic; and the tags v1")
    assert hint == "  pipeline models"


@pytest.mark.parametrize("how", ["changed", "gone", "record"])
def test_a_damaged_model_is_listed_as_such_and_refused(pipeline: Pipeline, project: Path, how: str) -> None:
    head = made(pipeline, project)["logistic"]
    folder = Path(head["path"])
    if how == "changed":
        (folder / "metrics.json").write_text("{}")
    elif how == "gone":
        (folder / "head.npz").unlink()
    else:
        (folder / "record.json").write_text("{")
    listed = pipeline("models", "-c", project)
    assert listed.code == 0
    assert listed.out.splitlines()[1].split()[-1] == "damaged"
    assert pipeline("models", "-c", project, "--json").json["models"][0]["damaged"]
    for words in (["show", "logistic"], ["tag", "logistic", "v1"], ["reproduce", head["key"]]):
        ran = pipeline(*words, "-c", project)
        assert ran.code == 2
        assert f"Error: head/logistic {head['key'][:12]} is damaged: files in {folder}" in ran.err


def test_a_second_list_reads_no_file_that_has_not_changed(
    pipeline: Pipeline, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline("run", "-c", project)
    monkeypatch.setattr(model, "_index", lambda: index)
    index = HashIndex(tmp_path / "index.sqlite", 0.0)
    (first,) = registry.list_models(project.parent)
    assert not first.damaged
    with monkeypatch.context() as patch:
        patch.setattr(hash_index, "_hash", lambda path: pytest.fail(f"{path} is read again"))
        (again,) = registry.list_models(project.parent)
        assert not again.damaged
    data = bytearray((first.folder / "head.npz").read_bytes())
    data[-1] ^= 1
    (first.folder / "head.npz").write_bytes(data)
    (changed,) = registry.list_models(project.parent)
    assert changed.damaged


def test_a_result_without_a_record_does_not_exist(pipeline: Pipeline, project: Path) -> None:
    (Path(made(pipeline, project)["logistic"]["path"]) / "record.json").unlink()
    assert registry.list_models(project.parent) == []


def test_a_tag_stays_where_it_is_until_it_is_forced_or_deleted(pipeline: Pipeline, project: Path) -> None:
    old = made(pipeline, project)["logistic"]
    new = made(pipeline, project, "--set", "heads.logistic.seed=1")["logistic"]
    ran = pipeline("tag", old["key"], "v3", "-c", project)
    assert ran == Ran(0, f"v3 names head/logistic {old['key'][:12]}\n", "")
    path = project.parent / "models" / "tags" / "v3.json"
    written = path.read_bytes()
    assert set(json.loads(written)) == {"model", "key", "created"}
    assert pipeline("tag", old["key"], "v3", "-c", project).code == 0
    assert path.read_bytes() == written
    ran = pipeline("tag", new["key"], "v3", "-c", project)
    assert ran.code == 2
    assert f"the tag v3 names head/logistic {old['key'][:12]} already" in ran.err
    assert "--force" in ran.err
    assert pipeline("tag", new["key"], "v3", "--force", "-c", project).code == 0
    assert registry.find(project.parent, "v3").key == new["key"]
    assert pipeline("tag", "--delete", "v3", "-c", project).code == 0
    assert registry.tags(project.parent) == {}
    ran = pipeline("tag", "--delete", "v3", "-c", project)
    assert ran.code == 2
    assert "no tag 'v3'" in ran.err


@pytest.mark.parametrize(
    "tag", ["abcdef", "ABCDEF12", "a/b", "..", ".hidden", "", "a b", "-x", "é", "x" * 101, "logistic"]
)
def test_a_tag_is_a_safe_file_name_and_no_key_nor_head(pipeline: Pipeline, project: Path, tag: str) -> None:
    made(pipeline, project)
    ran = pipeline("tag", "-c", project, "--", "logistic", tag)
    assert ran.code == 2
    assert "cannot be a tag" in ran.err
    assert not (project.parent / "models" / "tags").exists()


@pytest.mark.parametrize("words", [["logistic"], [], ["logistic", "v1", "--delete", "v2"]])
def test_half_a_tag_is_wrong_usage(pipeline: Pipeline, project: Path, words: list[str]) -> None:
    assert pipeline("tag", *words, "-c", project).code == 2


@pytest.mark.parametrize("words", [["models"], ["tag", "logistic", "v1"], ["tag", "--delete", "v1"]], ids=" ".join)
def test_a_folder_that_is_not_there_is_not_called_empty(pipeline: Pipeline, tmp_path: Path, words: list[str]) -> None:
    ran = pipeline(*words, "-c", tmp_path / "nowhere" / "pipeline.yaml")
    assert ran.code == 2
    assert "has neither pipeline.yaml nor models/" in ran.err


def test_what_tagged_models_were_made_of_is_told(pipeline: Pipeline, project: Path) -> None:
    head = made(pipeline, project)["logistic"]
    folder = project.parent
    registry.set_tag(folder, "logistic", "v1")
    registry.set_tag(folder, "logistic", "best")
    kept = registry.tagged_records(folder)
    assert set(kept) == {"best", "v1"}
    assert kept["best"] is not None
    assert kept["best"]["extract"]["pooled"]["key"]
    shutil.rmtree(head["path"])
    (folder / "models" / "tags" / "best.json").write_text("[]")
    assert registry.tagged_records(folder) == {"best": None, "v1": None}
    assert "pipeline tag --delete v1" in pipeline("show", "v1", "-c", project).err


def test_show_tells_what_made_it_and_ends_with_settings_one_could_run(pipeline: Pipeline, project: Path) -> None:
    from pipeline.config.yaml_file import load

    head = made(pipeline, project)["logistic"]
    pipeline("tag", "logistic", "v1", "-c", project)
    out = pipeline("show", "v1", "-c", project).out
    record = json.loads((Path(head["path"]) / "record.json").read_text())
    for text in (head["key"][:12], "v1", record["manifest"], record["extract"]["pooled"]["key"], "fake on none"):
        assert text in out
    assert record["extract"]["pooled"]["base"]["weights"] in out
    assert record["machine"] in " ".join(out.split())
    assert "\\n" not in out
    assert max(map(len, out.splitlines())) <= 100 + len(head["path"])
    again = project.with_name("again.yaml")
    again.write_text(out.partition("settings, every field:")[2])
    assert load(again).model_dump() == record["config"]
    details = pipeline("show", "v1", "-c", project, "--json").json["show"]
    assert details["record"] == record
    assert sum(details["counts"]["bright"].values()) == 12
    assert details["metrics"] == head["metrics"]
    assert details["head"]["chosen"]["C"] > 0


def test_a_record_of_before_these_fields_is_shown_all_the_same(pipeline: Pipeline, project: Path) -> None:
    path = Path(made(pipeline, project)["logistic"]["path"]) / "record.json"
    older = json.loads(path.read_text())
    for field in ("machine", "blas", "rows_versions", "head_version"):
        del older[field]
    path.write_text(json.dumps(older))
    ran = pipeline("show", "logistic", "-c", project)
    assert ran.code == 0
    assert re.search(r"^rows by +fake on none$", ran.out, re.MULTILINE)
    assert "fitted on" not in ran.out


def test_models_of_other_images_labels_or_splits_are_told_apart_and_their_figures_marked(
    pipeline: Pipeline, project: Path
) -> None:
    """A split seed and a label: once as a setting that differs, once as other images; test sets get numbers."""
    before = project.read_text()
    first = made(pipeline, project)["logistic"]["key"]
    assert "[1]" not in pipeline("models", "-c", project).out
    project.write_text(before.replace("test: 0.2", "test: 0.2, seed: 7"))
    seeded = made(pipeline, project)["logistic"]["key"]
    project.write_text(before)
    (project.parent / "images" / "bright" / "0001.png").rename(project.parent / "images" / "dark" / "moved.png")
    labelled = made(pipeline, project)["logistic"]["key"]
    models = {model["key"]: model for model in pipeline("models", "-c", project, "--json").json["models"]}
    assert models[seeded]["differs"]["data.split.seed"] == 7
    assert models[first]["differs"]["manifest"] != models[labelled]["differs"]["manifest"]
    assert models[seeded]["image_sets"]["test"] not in (models[first]["image_sets"]["test"], None)
    lines = {line.split()[1]: line for line in pipeline("models", "-c", project).out.splitlines() if "head/" in line}
    assert lines[labelled[:12]].endswith("current")
    assert not lines[first[:12]].endswith("current")
    numbers = [re.findall(r"\[\d\]", lines[key[:12]])[-1] for key in (first, seeded)]
    assert len(set(numbers)) == 2


@pytest.mark.parametrize("field", ["created", "seconds", "manifest", "classes", "config", "extract", "versions"])
@pytest.mark.parametrize("value", [None, "x", [[1]], 10**300])
def test_a_field_of_another_type_is_a_damaged_model_and_the_rest_goes_on(
    pipeline: Pipeline, project: Path, field: str, value: object
) -> None:
    path = Path(made(pipeline, project)["logistic"]["path"]) / "record.json"
    record = json.loads(path.read_text())
    if isinstance(value, type(record[field])):
        value = 7
    path.write_text(json.dumps({**record, field: value}))
    (found,) = [m for m in pipeline("models", "-c", project, "--json").json["models"] if m["name"] == "head/logistic"]
    assert found["damaged"]
    for command in (("status",), ("status", "--set", "data.split.seed=7"), ("models", "-v")):
        assert pipeline(*command, "-c", project).code == 0
    ran = pipeline("show", "logistic", "-c", project)
    assert (ran.code, "is damaged" in ran.err) == (2, True)
