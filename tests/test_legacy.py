"""What commit 5c1307c wrote is read today: its cache, models, checkpoint, export and pickles say what they said then.

tests/legacy/make_project.py made the fixture at that commit; it tells what is in it. Only the command line and public
Python are used here, so that code may move. Heads are fitted in another way since then, so models are not made again
to the same bits.
"""

from __future__ import annotations

import json
import pickle
import pickletools
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pipeline as frozenbase
from stages.heads import fitted
from tests.conftest import command
from tests.support import GOLDEN
from tests.support.process import events, run

FIXTURE = GOLDEN / "project-5c1307c.tar.xz"
IMAGES = 40
HEADS = ("logistic", "ridge", "knn", "dense", "both", "grid")
MODELS = (*(f"head/{name}" for name in HEADS), "finetune/last", "first")
SAME = 1e-6
"""How far numbers may lie from what was recorded where machine, BLAS or versions are others."""


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fixture as it was packed, which tests leave alone."""
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(FIXTURE) as tar:
        tar.extractall(folder, filter="data")
    return folder


@pytest.fixture
def srv(unpacked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy, for one test: what was /srv then. The current folder is that of the project cells."""
    shutil.copytree(unpacked, tmp_path / "srv")
    monkeypatch.chdir(tmp_path / "srv" / "cells")
    return tmp_path / "srv"


@pytest.fixture
def said(srv: Path) -> dict[str, Any]:
    """What the commands of that commit said, with the paths of today."""
    text = (srv / "expected" / "said.json").read_text()
    return dict(json.loads(text.replace('"/srv/', json.dumps(f"{srv}/")[:-1])))


def check_same(then: Any, now: Any, within: float = 0.0, where: str = "") -> None:
    """All that was said then is said now, but for intervals; numbers as near as that. More may be said today."""
    if isinstance(then, dict):
        assert isinstance(now, dict), where
        assert then.keys() <= now.keys(), where
        for name, value in ((name, value) for name, value in then.items() if name != "ci"):
            check_same(value, now[name], within, f"{where}.{name}")
    elif isinstance(then, list):
        assert isinstance(now, list), where
        assert len(then) == len(now), where
        for number, (one, other) in enumerate(zip(then, now, strict=True)):
            check_same(one, other, within, f"{where}[{number}]")
    elif isinstance(then, float) and isinstance(now, float | int):
        assert abs(then - now) <= within, where
    else:
        assert then == now, where


def watched(log: Path, *words: str | Path) -> Any:
    """What a command says, in a process that imports nothing heavy."""
    out, _ = run(*words, "--json", FAKE="", WATCH=str(log))
    assert events(log)[-1] == ["imported"]
    return json.loads(out)


def test_no_row_is_computed_again(srv: Path, said: dict[str, Any], tmp_path: Path) -> None:
    """It takes neither TensorFlow nor scikit-learn to find that out."""
    now = watched(tmp_path / "log", "run", "extract", "-c", srv / "cells")
    assert (now["extract"]["computed"], now["extract"]["reused"]) == (0, IMAGES)
    assert now["extract"]["keys"] == said["run"]["extract"]["keys"]


def test_heads_are_trained_again_and_status_says_that_they_are_fitted_in_another_way(srv: Path) -> None:
    """The version of their arithmetic has risen from 3; the old ones stay, and mean what they meant until then."""
    stages = command("status", "--hash", "--json", "-c", srv / "cells", expect=0).json["status"]["stages"]
    heads = [stage for stage in stages if stage["stage"] == "head"]
    assert {stage["name"] for stage in heads} == set(HEADS)
    for stage in heads:
        assert stage["state"] == "MISS"
        assert stage["reason"] == f"heads are fitted in another way: version 3 -> {fitted.VERSION}"
    command("run", "head", "logistic", "-c", srv / "cells", expect=0)
    models = command("models", "--json", "-c", srv / "cells", expect=0).json["models"]
    assert next(model["current"] for model in models if model["name"] == "head/logistic")
    assert len([model for model in models if model["name"] == "head/logistic"]) > 1


def test_models_and_tags_mean_what_they_meant(srv: Path, said: dict[str, Any]) -> None:
    for name in ("cells", "trial"):
        check_same(said["models"][name], command("models", "--json", "-c", srv / name, expect=0).json)
    assert {"first", "v1", "tuned", *MODELS} == set(said["show"])
    for name, then in said["show"].items():
        check_same(then, command("show", name, "--json", expect=0).json)


@pytest.mark.parametrize("name", MODELS)
def test_models_predict_the_same(srv: Path, said: dict[str, Any], name: str) -> None:
    then = said["predict"][name]
    paths = [row["path"] for row in then["predict"]["predictions"]]
    now = command("predict", name, *paths, "--json", expect=0).json
    assert (now["predict"]["computed"], now["predict"]["reused"]) == (0, len(paths))
    check_same(as_today(then), now, 1e-5 if name == "finetune/last" else SAME)


def as_today(then: dict[str, Any]) -> dict[str, Any]:
    """What `predict` printed, in today's names: `predicted` applied the threshold, `likeliest` did not. Two classes."""
    rows = []
    for row in then["predict"]["predictions"]:
        likeliest, confidence = row["likeliest"], row["confidence"]
        now = {name: value for name, value in row.items() if name != "likeliest"} | {"predicted": likeliest}
        now["confidence"] = confidence if row["predicted"] == likeliest else 1 - confidence
        rows.append(now | ({"at_threshold": row["predicted"]} if then["predict"]["threshold"] is not None else {}))
    return {**then, "predict": {**then["predict"], "predictions": rows}}


def test_a_comparison_comes_to_the_same(srv: Path, said: dict[str, Any]) -> None:
    now = command("compare", "head/logistic", "finetune/last", "--json", expect=0).json
    check_same(said["compare"], now, SAME)


def test_rows_are_bitwise_what_they_were_from_python_too(srv: Path) -> None:
    project = frozenbase.open(srv / "cells")
    with np.load(srv / "expected" / "rows.npz") as then:
        for tap in ("pooled", "early"):
            now = project.features(tap=tap, compute=False)
            assert list(now.ids) == list(then["ids"])
            assert now.X.tobytes() == then[tap].tobytes()


def test_new_images_join_the_old_rows_and_models_take_them(srv: Path, said: dict[str, Any]) -> None:
    """The base makes rows that agree with those of then: else the run would stop, or other classes be predicted."""
    for path in (srv / "new").iterdir():
        shutil.copy(path, srv / "cells" / "images" / path.stem)
    now = command("run", "extract", "--for", "finetune/last", "--json", expect=0).json["extract"]
    assert (now["computed"], now["reused"]) == (2, IMAGES)
    for name, then in said["predict_new"].items():
        again = command("predict", name, "../new", "--json", expect=0).json
        assert (again["predict"].pop("computed"), then["predict"].pop("computed")) == (0, 2)
        assert (again["predict"].pop("reused"), then["predict"].pop("reused")) == (2, 0)
        check_same(as_today(then), again, 1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_models_are_reproduced(srv: Path, said: dict[str, Any], name: str) -> None:
    """From the rows of then; they come out as today's arithmetic has it, and its version is named as what differs."""
    ran = command("reproduce", name, "--json")
    assert ran.code in (0, 1), ran.out + ran.err
    again = ran.json["reproduce"]
    assert (again["computed"], again["absent"], again["images"]) == (0, [], IMAGES if name != "first" else IMAGES // 2)
    if name != "finetune/last":
        assert again["differences"]["head_version"] == {"recorded": 3, "now": fitted.VERSION}
        assert "head key" in again["differences"]
    for split in ("val", "test"):
        figures = again["metrics"][split]
        assert figures["n"]["recorded"] == figures["n"]["now"]
        check_same(figures["auroc"]["recorded"], figures["auroc"]["now"], 0.4)  # of a dozen images


def test_a_fine_tuning_that_was_killed_begins_anew_and_its_checkpoint_stays(srv: Path, said: dict[str, Any]) -> None:
    """It would start from another head now; a checkpoint that nothing goes on from is removed by gc after 30 days."""
    config, then = srv / "trial", said["trial"]
    checkpoint = srv / "trial" / "models" / "finetune" / "long" / then["key"] / "checkpoint.npz"
    before = checkpoint.read_bytes()
    ran = command("run", "finetune", "--json", "-c", config, "--set", "finetune.long.epochs=1", expect=0)
    assert "resumes" not in ran.err
    assert ran.json["extract"]["computed"] == 0
    assert checkpoint.read_bytes() == before


@pytest.mark.parametrize("into", ["an empty folder", "a project"])
def test_an_export_brings_all_rows(srv: Path, said: dict[str, Any], tmp_path: Path, into: str) -> None:
    there = tmp_path / "there"
    if into == "a project":
        shutil.copytree(srv / "cells" / "images", there / "images")
        shutil.copy(srv / "cells" / "pipeline.yaml", there)
    else:
        there.mkdir()
    moved = command("cache", "import", srv / "export", "--json", "-c", there / "pipeline.yaml", expect=0).json["moved"]
    assert (moved["rows"], moved["there"], moved["refused"]) == (2 * IMAGES, 0, [])
    words = ("run", "head", "logistic", "both", "--require-cached", "--json", "-c", there)
    now = command(*words, expect=0).json
    assert (now["extract"]["computed"], now["extract"]["reused"]) == (0, IMAGES)
    assert {now["heads"][name]["hit"] for name in ("logistic", "both")} == {False}


def test_the_cache_is_whole_and_knows_who_needs_what(srv: Path, said: dict[str, Any]) -> None:
    """Projects of another host are taken as they were noted then."""
    assert command("cache", "verify", "--json", expect=0).json["verified"]["damaged"] == []
    now = {e["name"]: e for e in command("cache", "ls", "--json", expect=0).json["contents"]["entries"]}
    then = {e["name"]: e for e in said["cache"]["contents"]["entries"] if e["kind"] != "converted"}
    assert now.keys() == then.keys()
    assert sum("/srv/archive/pipeline.yaml on example" in entry["needed_by"] for entry in now.values()) == 2
    for name, entry in then.items():
        check_same({field: entry[field] for field in ("kind", "rows", "bytes", "components")}, now[name])
        who = [one for one in entry["needed_by"] if one != "a running job"]  # which was the one that was killed
        assert bool(now[name]["needed_by"]) == bool(who)


def test_gc_takes_only_what_nobody_needed_then(srv: Path, said: dict[str, Any]) -> None:
    (left_by_the_killed,) = (srv / "cells" / ".features" / "jobs").iterdir()
    removed = command("cache", "gc", "--max-size", "0", "--json", expect=0).json["gc"]["removed"]
    assert [entry["name"] for entry in removed] == [(srv / "expected" / "unneeded.txt").read_text()]
    assert not left_by_the_killed.exists()
    for name in ("cells", "trial"):
        now = command("run", "extract", "--require-cached", "--json", "-c", srv / name, expect=0).json["extract"]
        assert (now["computed"], now["reused"]) == (0, IMAGES)


@pytest.mark.parametrize("name", ["fitted", "unfitted"])
def test_a_pickled_transformer_makes_the_same_rows(srv: Path, said: dict[str, Any], name: str) -> None:
    features = pickle.loads((srv / "pickles" / f"{name}.pickle").read_bytes())
    assert type(features) is frozenbase.BottleneckFeatures
    assert hasattr(features, "extract_key_") == (name == "fitted")
    rows = features.transform([f"chelsea/{number:02d}.png" for number in range(20)])
    assert features.fit([]).extract_key_ == said["run"]["extract"]["keys"]["pooled"]
    ids = {row.path: row.id for row in frozenbase.open(srv / "cells").manifest}
    with np.load(srv / "expected" / "rows.npz") as then:
        found = dict(zip(then["ids"], then["pooled"], strict=True))
    assert np.array_equal(rows, [found[ids[f"chelsea/{number:02d}.png"]] for number in range(20)])


def test_pickles_name_the_package_and_those_of_then_a_module_that_must_stay(unpacked: Path) -> None:
    old = (unpacked / "pickles" / "fitted.pickle").read_bytes()
    assert frozenbase.BottleneckFeatures.__module__ == "pipeline"
    modules = {"pipeline", "pipeline.transformer"}
    assert modules & names(old) == {"pipeline.transformer"}
    assert modules & names(pickle.dumps(pickle.loads(old))) == {"pipeline"}


def names(pickled: bytes) -> set[object]:
    """All texts in a pickle, modules and classes among them."""
    return {argument for _, argument, _ in pickletools.genops(pickled)}
