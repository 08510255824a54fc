"""The commands that README names, on labels, numbers and shares: what they count and write, beside the table."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet
import pytest
import yaml

from stages.extract import opened_bases
from tests.conftest import Pipeline, command
from tests.support import fakes, other_targets
from tests.support.other_targets import NAMES, TARGETS, N

RANKED = {"labels": "log_loss", "numbers": "relative_error", "soft": "log_loss"}


class Made(NamedTuple):
    """A project on that target, and the report of its run."""

    target: str
    config: Path
    heads: dict[str, Any]

    @property
    def folder(self) -> Path:
        return self.config.parent


@pytest.fixture(scope="module", params=RANKED)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    target, folder = request.param, tmp_path_factory.mktemp("made")
    other_targets.write_table(folder)
    own, swept = other_targets.linear(target), "alpha: [0.1, 1000]" if target == "numbers" else "C: [1.0e-5, 1]"
    heads = f"{{first: {{kind: {own}}}, near: {{kind: knn}}, swept: {{kind: {own}, sweep: {{{swept}}}}}}}"
    config = other_targets.write_config(folder, TARGETS[target], heads)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(opened_bases, "open_embed", fakes.FakeEmbed)
        ran = command("run", "-c", config, "--json", expect=0)
    return Made(target, config, ran.json["heads"])


def said_in(made: Made, rows: list[dict[str, Any]]) -> np.ndarray:
    """Numbers or probabilities of rows of a table."""
    start = "predicted_" if made.target == "numbers" else "p_"
    return np.array([[float(row[f"{start}{name}"]) for name in NAMES[made.target]] for row in rows])


def figures(made: Made, rows: list[dict[str, Any]]) -> dict[str, float]:
    truth = other_targets.truth_of(made.target, made.folder, [row["path"] for row in rows])
    return other_targets.figures(made.target, truth, said_in(made, rows))


def test_two_heads_are_compared_on_test_alone(made: Made, tmp_path: Path) -> None:
    found = command("compare", "first", "near", "-c", made.config, "--json", expect=0).json["compare"]
    expected = []
    for side, name in (("a", "first"), ("b", "near")):
        command("predictions", name, "-c", made.config, "-o", tmp_path / f"{name}.parquet", expect=0)
        rows = [
            row
            for row in pyarrow.parquet.read_table(tmp_path / f"{name}.parquet").to_pylist()
            if row["split"] == "test"
        ]
        expected.append(figures(made, rows))
        assert found["images"] == len(rows) > 5
        assert {n: found[side]["metrics"][n] for n in expected[-1]} == pytest.approx(expected[-1])
    assert (found["out_of_fold"], found["dropped"]) == (False, {"in train or val of A or B": N - found["images"]})
    ranked = RANKED[made.target]
    value = found["difference"][ranked]["value"]
    assert value == pytest.approx(expected[1][ranked] - expected[0][ranked])


def test_models_of_another_kind_are_not_compared(made: Made) -> None:
    """Where pipeline.yaml says something else by now."""
    other = "{kind: number, columns: [level]}" if made.target != "numbers" else "{kind: labels, columns: [light]}"
    ran = command("compare", "first", "near", "-c", made.config, "--set", f"data.target={other}",
                  "--set", "heads={}", expect=2)  # fmt: skip
    assert "but data.target.kind is" in " ".join(ran.err.split())


def test_figures_of_crossval_are_those_of_the_file_that_it_writes(made: Made, tmp_path: Path) -> None:
    path = tmp_path / "out.parquet"
    words = ("crossval", "first", "near", "-c", made.config, "--folds", "3", "-o", path, "--json")
    found = command(*words, expect=0).json["crossval"]
    splits = other_targets.splits_of(made.folder)
    table = pyarrow.parquet.read_table(path).to_pylist()
    for name in ("first", "near"):
        rows = [row for row in table if row["head"] == name]
        assert sorted(row["path"] for row in rows) == sorted(path for path in splits if splits[path] != "test")
        expected = figures(made, rows)
        assert {n: found[name]["metrics"][n] for n in expected} == pytest.approx(expected)
        assert {int(row["fold"]) for row in rows} == {1, 2, 3}


def test_the_point_of_a_sweep_with_the_least_loss_wins(made: Made) -> None:
    best, other = made.heads["swept"]["points"]
    ranked = RANKED[made.target]
    assert made.heads["swept"]["key"] == best["key"]
    assert best["metrics"]["folds"][ranked] < other["metrics"]["folds"][ranked] - 0.01


def test_status_counts_images_by_what_they_have(made: Made) -> None:
    table, splits = other_targets.read_table(made.folder), other_targets.splits_of(made.folder)
    expected: dict[str, Counter[str]] = {}
    for path, row in table.items():
        if made.target == "labels":
            names = [name for name in NAMES["labels"] if row[name] == "1"] or ["(none)"]
        elif made.target == "numbers":
            names = NAMES["numbers"]
        else:
            names = [max(NAMES["soft"], key=lambda name: float(row[name]))]
        for name in names:
            expected.setdefault(name, Counter())[splits[path]] += 1
    shown = command("status", "--hash", "-c", made.config, expect=0).out.splitlines()
    start = next(i for i, line in enumerate(shown) if line.split()[-3:] == ["train", "val", "test"])
    found = {line.split()[0]: list(map(int, line.split()[1:])) for line in shown[start + 1 :] if line.strip()}
    assert found == {name: [n["train"], n["val"], n["test"]] for name, n in expected.items()}
    assert "HIT" in " ".join(shown)
    assert command("status", "-q", "--hash", "-c", made.config).code == 0


@pytest.mark.parametrize(
    ("words", "shows"),
    [
        ("run -n --hash", "HIT"),
        ("models", "head/swept"),
        ("models --json", '"head/near"'),
        ("show swept", "settings, every field"),
        ("show first --json", '"target"'),
        ("tag first v1", "v1 names head/first"),
        ("cache ls", "made: head/near"),
        ("cache verify", "0 damaged"),
        ("cache gc -n --max-size 1KB", "are needed"),
        ("splits redraw", "48 images, 0 of them in another split"),
        ("reproduce swept", "bitwise the same"),
        ("reproduce near", "bitwise the same"),
    ],
)
def test_every_command_works(made: Made, words: str, shows: str) -> None:
    ran = command(*words.split(), "-c", made.config, expect=0)
    assert shows in ran.out
    assert "Traceback" not in ran.err


@pytest.mark.parametrize("suffix", ["npz", "parquet"])
def test_features_are_written_with_labels_as_json(made: Made, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"f.{suffix}"
    command("export", "features", "-c", made.config, "-o", path, expect=0)
    if suffix == "npz":
        with np.load(path) as arrays:
            labels, paths = arrays["labels"].tolist(), arrays["paths"].tolist()
    else:
        table = pyarrow.parquet.read_table(path).to_pydict()
        labels, paths = table["labels"], table["paths"]
    truth = other_targets.truth_of(made.target, made.folder, paths)
    for label, row in zip(labels, truth, strict=True):
        has = dict(zip(NAMES[made.target], row, strict=True))
        if made.target == "labels":
            assert json.loads(label) == {name: None if np.isnan(mark) else 1 for name, mark in has.items() if mark != 0}
        else:
            assert json.loads(label) == pytest.approx(has)


@pytest.mark.parametrize("made", ["numbers"], indirect=True)
def test_a_shortlist_is_ranked_by_the_loss_of_the_target(made: Made, pipeline: Pipeline) -> None:
    words = ("bases", "shortlist", "--base", "efficientnet_lite0", "--size", "32", "--sample", "40", "-c", made.config)
    found = pipeline(*words, "--json").json["shortlist"]
    ranked = RANKED[made.target]
    losses = [one["figures"][ranked] for one in found["candidates"]]
    assert losses == sorted(losses)
    assert max(losses) < 1
    ran = pipeline(*words)
    assert ran.out.startswith(f"a {other_targets.linear(made.target)} head on ")
    assert ran.code == 0


WEIGHTS = [
    ("heads", "{deep: {kind: dense, class_weight: balanced}}"),
    ("heads", "{deep: {kind: dense, sweep: {class_weight: [none, balanced]}}}"),
    ("finetune", "{deep: {head: first, unfreeze_from: block16, class_weight: balanced}}"),
]


@pytest.mark.parametrize("made", ["labels", "numbers"], indirect=True)
@pytest.mark.parametrize(("section", "written"), WEIGHTS)
def test_weights_of_classes_are_refused_before_anything_is_computed(made: Made, section: str, written: str) -> None:
    ran = command("run", "extract", "-c", made.config, "--json", "--set", f"{section}={written}", expect=2)
    kind = "number" if made.target == "numbers" else "labels"
    message = f"{section}.deep.class_weight: balanced weighs classes; data.target.kind is {kind}"
    assert message in ran.json["error"]["message"]


@pytest.mark.parametrize("made", ["labels", "numbers"], indirect=True)
def test_init_writes_what_it_guessed_and_the_run_that_it_advises_works(
    made: Made, pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of numbers it guesses one, called `label`."""
    names = ["light", "large", "odd"] if made.target == "labels" else ["label"]
    table = other_targets.read_table(made.folder)
    with (tmp_path / "own.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["path", *names])
        writer.writeheader()
        for path, row in table.items():
            cells = {name: row["level" if name == "label" else name] for name in names}
            writer.writerow({"path": path, **cells})
    monkeypatch.chdir(tmp_path)
    told = pipeline("init", "--table", "own.csv", "--images", made.folder / "images")
    assert told.code == 0, told.err
    target = yaml.safe_load((tmp_path / "pipeline.yaml").read_text())["data"]["target"]
    expected = {"kind": "labels", "columns": names} if made.target == "labels" else {"kind": "number"}
    assert expected.items() <= target.items()
    ran = pipeline("run", "--set", "extract.size=16", "--json")
    assert ran.code == 0, ran.err
    (head,) = ran.json["heads"].values()
    assert head["metrics"]["test"]["n"] > 3
