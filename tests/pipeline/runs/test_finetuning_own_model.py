"""finetuning.py, file_blocks.py: a Keras model of the user's is fine-tuned as a base of the catalogue is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.results import predictions, registry
from pipeline.runs import boundary_rows
from tests.conftest import command, opened
from tests.support import fakes, own_models
from tests.support.process import run

TRUST = ("--set", "base.trust=true")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pipeline.yaml of a project on a transformer, after `run finetune`."""
    folder = tmp_path_factory.mktemp("made")
    fakes.two_classes(folder / "images", 12)
    own_models.vit().save(folder / "vit.keras")
    config = folder / "pipeline.yaml"
    config.write_text(
        "data: {split: {val: 0.3, test: 0.2}}\nbase: {name: vit.keras}\n"
        "extract: {size: 32, taps: {pooled: {pooling: mean}, early: {layer: b1_add2, pooling: mean}, "
        "token: {layer: norm, pooling: none}}}\n"
        "heads: {logistic: {C: 0.01}, both: {C: 0.01, tap: [pooled, early]}, near: {kind: knn},\n"
        "        early: {kind: logistic, C: 0.01, tap: early},\n"
        "        swept: {kind: logistic, C: 0.01, sweep: {tap: [pooled, early]}}}\n"
        "finetune:\n  last: {unfreeze_from: b2_norm1, lr: 1.0e-3, epochs: 2, batch: 8}\n"
    )
    command("run", "finetune", "-c", config, *TRUST, expect=0)
    return config


@pytest.fixture
def copied(made: Path, tmp_path: Path) -> Path:
    """The pipeline.yaml of a copy of that project."""
    shutil.copytree(made.parent, tmp_path / "project")
    return tmp_path / "project" / "pipeline.yaml"


def test_its_boundary_is_cached_and_it_is_reused_without_opening_the_file(made: Path, tmp_path: Path) -> None:
    """Nor is trust needed: the cache remembers where the model can be cut."""
    project = opened(made)
    (boundary,) = boundary_rows.all_specs(project, project.config.finetune["last"])
    assert (boundary.tap.layer, boundary.tap.pooling) == ("b1_add2", "none")
    assert project.rows_of(boundary).rows(list(project.manifest.ids)).shape == (24, 16, 16)
    assert command("run", "finetune", "-c", made, "--json", expect=0).json["finetune"]["last"]["hit"]
    watched = tmp_path / "log"
    out, _ = run("status", "--hash", "-c", made, "--json", WATCH=str(watched), FAKE="")
    states = {(s["stage"], s["name"]): s["state"] for s in json.loads(out)["status"]["stages"]}
    assert states["finetune", "last"] == "HIT"
    assert "tensorflow" not in json.loads(watched.read_text().splitlines()[-1])
    command("cache", "verify", "-c", made, expect=0)


NOTES: list[list[Any]] = [
    [],
    [3],
    [{"a": 1}],
    [["", "b", [1], 1, ""]],
    [[["x"], "y", None, 1, ""]],
    [[["b2_norm1"], "b1_add2", [1e30], 1, ""]],
    [[["b2_norm1"], "b1_add2", [16, 16], 1]],
]


@pytest.mark.parametrize("blocks", NOTES)
def test_a_note_that_is_none_is_left_aside(copied: Path, blocks: list[Any]) -> None:
    """Where a note has no blocks at all, that is what it says."""
    (path,) = copied.parent.glob(".features/blocks/*.json")
    note = json.loads(path.read_text())
    path.write_text(json.dumps({**note, "blocks": blocks}))
    ran = command("run", "finetune", "-n", "--hash", "-c", copied, "--json")
    reason = ran.json["status"]["stages"][-1]["reason"]
    assert ("has no layer to train from" if not blocks else "base.trust: opening") in reason


def test_from_images_each_time_it_comes_out_the_same(copied: Path) -> None:
    words = ("run", "finetune", "-c", copied, "--json", *TRUST, "--set", "finetune.last.mode=full")
    before = registry.find(copied.parent, "finetune/last")
    shutil.rmtree(before.folder)
    command(*words, expect=0)
    after = registry.find(copied.parent, "finetune/last")
    assert after.key == before.key
    then, now = (predictions.read_predictions(model).probabilities for model in (before, after))
    assert np.abs(then - now).max() < 1e-5


def test_it_predicts_is_reproduced_averaged_and_exported(copied: Path) -> None:
    folder = copied.parent
    model = registry.find(folder, "finetune/last")
    then = predictions.read_predictions(model)
    words = ("predict", "finetune/last", folder / "images", "-c", copied, "--json")
    refused = command(*words, expect=2).json["error"]["message"]
    assert refused.startswith("base.trust: opening the model file vit.keras can run code")
    found = command(*words, *TRUST, expect=0).json["predict"]
    said = {row["id"]: list(row["probabilities"].values()) for row in found["predictions"]}
    for row, p in zip(then.rows, then.probabilities, strict=True):
        assert said[row.id] == pytest.approx(p, rel=1e-5)
    more = ("--set", "finetune.last.seeds=[0, 1]", "--set", "finetune.last.average=true")
    tuned = command("run", "finetune", "-c", copied, "--json", *TRUST, *more, expect=0).json["finetune"]["last"]
    assert [one["hit"] for one in tuned["seeds"]] == [True, False]
    for name in ("finetune/last", tuned["key"]):
        again = command("reproduce", name, "-c", copied, "--json", *TRUST, expect=0).json["reproduce"]
        assert again["reproduced"]
        file = folder / f"{name[-4:]}.keras"
        command("export", name, "-o", file, "-c", copied, *TRUST, expect=0)
        about = json.loads(file.with_name(f"{file.name}.json").read_text())
        assert about["check"]["max_difference"] < 1e-5
        assert about["licences"]["weights"] == "not known"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["unfreeze_from=b2_nrm1"], "vit.keras has no layer 'b2_nrm1' that training can start from"),
        (["unfreeze_from=b2_mlp1"], "cannot be trained from 'b2_mlp1' on, since not all paths run through it"),
        (["head=near"], "finetune.last.head: 'near' is of kind knn; expected logistic or ridge or dense"),
        (["head=both"], "'both' uses pooled and early; expected one tap, any of the model's layers"),
        (["head=swept"], "'swept' chooses among taps of several layers"),
        (["head=early"], "vit.keras has no layer 'b2_norm1' that training can start from"),
    ],
)
def test_what_cannot_be_trained_is_refused(made: Path, changes: list[str], message: str) -> None:
    words = [word for change in changes for word in ("--set", f"finetune.last.{change}")]
    ran = command("run", "finetune", "-c", made, "--json", *TRUST, *words, expect=2)
    assert message in ran.json["error"]["message"]
    assert "\n" not in ran.json["error"]["message"]


def test_a_head_on_an_earlier_layer_is_tuned_up_to_it(copied: Path) -> None:
    words = ("--set", "finetune.last.head=early", "--set", "finetune.last.unfreeze_from=b1_norm1")
    tuned = command("run", "finetune", "-c", copied, "--json", *TRUST, *words, expect=0).json["finetune"]["last"]
    assert tuned["metrics"]["start"]["difference"] < 1e-5
    trained = {name.partition("/")[0] for name in registry.find(copied.parent, tuned["key"]).tail}
    assert trained == {f"b1_{part}" for part in ("norm1", "attention", "norm2", "mlp1", "mlp2")}


def test_nothing_is_opened_or_computed_without_trust(made: Path, tmp_path: Path) -> None:
    for name in ("images", "vit.keras", "pipeline.yaml"):
        (shutil.copytree if name == "images" else shutil.copy)(made.parent / name, tmp_path / name)
    config = tmp_path / "pipeline.yaml"
    ran = command("run", "finetune", "-c", config, "--json", expect=2)
    assert ran.json["error"]["message"].startswith("base.trust: opening the model file vit.keras can run code")
    assert not list(tmp_path.glob(".features/features/*/shards/*"))
    assert command("cache", "ls", "-c", config).code == 0, "which keys it needs is not known, and need not be"
    stages = command("run", "finetune", "-n", "-c", config, "--json").json["status"]["stages"]
    assert [s["state"] for s in stages if s["stage"] == "finetune"] == ["BLOCKED"]
    (tmp_path / "vit.keras").unlink()


def test_bases_lists_the_layers_of_a_file_that_can_be_started_from(made: Path) -> None:
    file = made.parent / "vit.keras"
    assert "can run code that it contains" in command("bases", file, expect=2).err
    found = command("bases", file, "--trust", "--json", expect=0).json["bases"]
    assert [(row["block"], row["boundary"]) for row in found][-3:] == [
        ("b2_norm1", "b1_add2"),
        ("b2_norm2", "b2_add1"),
        ("norm", "b2_add2"),
    ]
    assert (found[-1]["shape"], found[-1]["kilobytes"]) == ([16, 16], 1.0)
    shown = command("bases", file, "--trust", expect=0).out
    assert "unfreeze_from LAYER trains that layer and all after the boundary" in shown
    assert ["b2_norm1", "b1_add2", "16", "x", "16", "1"] in [line.split() for line in shown.splitlines()]
