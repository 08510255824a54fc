"""head_schema.py: a kind of head that only its row in HEAD_KINDS tells of goes through every command."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import pytest

import pipeline as frozenbase
from pipeline.config.fields import Positive
from pipeline.config.head_schema import HEAD_KINDS, Auto, Dense, HeadConfig, HeadKind, Logistic
from pipeline.config.schema import RunConfig
from stages.data.manifest import Row
from stages.heads.fitted import Head
from stages.heads.labelled_rows import encode, rows_in_split
from stages.heads.matrix import FeatureMatrix
from stages.targets.target import Target
from tests.conftest import Pipeline, counts


class Nearest(HeadConfig):
    kind: Literal["nearest"] = "nearest"
    scale: Positive = 100.0


@dataclass(frozen=True)
class Means:
    """A form that is neither layers nor neighbours: the mean of each class, (classes, dim) float64."""

    means: np.ndarray
    scale: float

    def scores(self, x: np.ndarray, target: Target) -> np.ndarray:
        far = ((x[:, None] - self.means) ** 2).sum(axis=2) / self.scale**2
        return far[:, :1] - far[:, 1:] if len(target) == 2 else -far

    def width(self, target: Target) -> int:
        return self.means.size

    def arrays(self) -> dict[str, np.ndarray]:
        return {"means": self.means}

    def to_json(self) -> dict[str, Any]:
        return {"scale": self.scale}

    @classmethod
    def load(cls, text: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Self:
        return cls(arrays["means"], text["scale"])


def fit(spec: Nearest, features: FeatureMatrix, rows: Sequence[Row], target: Target) -> Head:
    y, train = encode(rows, target), rows_in_split(rows, "train")
    x = features.take(train).astype(np.float64)
    means = np.stack([x[y[train] == column].mean(axis=0) for column in range(len(target))])
    return Head("nearest", target, Means(means, spec.scale), {"scale": spec.scale})


@pytest.fixture
def config(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a head of the new kind, which nothing knows but one row."""
    monkeypatch.setitem(HEAD_KINDS, "nearest", HeadKind(Nearest, __name__, form=Means, exportable=False))
    project.write_text(
        project.read_text()
        + "heads: {near: {kind: nearest}, logistic: {}, grid: {kind: nearest, sweep: {scale: [1, 50]}}}\n"
        "finetune: {last: {head: near, unfreeze_from: block16}}\n"
    )
    return project


def test_a_new_kind_of_head_is_a_row_and_a_module(pipeline: Pipeline, config: Path) -> None:
    def run(*words: str | Path) -> Any:
        ran = pipeline(*words, "-c", config, "--json")
        assert ran.code == 0, ran.out + ran.err
        return ran.json

    heads = run("run")["heads"]
    assert not heads["near"]["hit"]
    assert len(heads["grid"]["points"]) == 2
    assert counts(pipeline("run", "-c", config, "--json")) == (0, 24)
    _, *stages = run("status", "--hash")["status"]["stages"]
    assert {stage["state"] for stage in stages if stage["stage"] == "head"} == {"HIT"}
    _, near, *_ = run("status", "--hash", "--set", "heads.near.scale=7")["status"]["stages"]
    assert (near["name"], near["state"], near["reason"]) == ("near", "MISS", "scale changed: 100.0 -> 7.0")
    saved = frozenbase.open(config).model("head/near")
    assert saved.record["versions"].keys() == {"python", "frozenbase", "scikit-learn", "scipy", "numpy", "h5py"}
    found = run("predict", "near", config.parent / "images")["predict"]
    assert found["images"] == 24
    shown = run("show", "near")["show"]
    assert shown["head"]["chosen"] == {"scale": 100.0}
    assert run("compare", "near", "logistic")["compare"]["images"] > 0
    assert run("crossval", "near", "--folds", "3")["crossval"]["near"]["images"] > 0
    assert run("reproduce", "near")["reproduce"]["arrays_same"]


def test_what_the_row_excludes_is_refused_by_name(pipeline: Pipeline, config: Path) -> None:
    assert pipeline("run", "head", "near", "-c", config).code == 0
    ran = pipeline("export", "near", "--format", "keras", "--output", config.parent / "m.keras", "-c", config)
    assert ran.code == 2
    assert "is a nearest head, which has no layers to write" in ran.err
    ran = pipeline("run", "finetune", "-c", config)
    assert (ran.code, "'near' is of kind nearest; expected logistic or ridge or dense" in ran.err) == (2, True)


def test_mistakes_in_a_new_kind_name_its_fields(pipeline: Pipeline, config: Path) -> None:
    ran = pipeline("run", "-c", config, "--set", "heads.near.scal=1")
    assert (ran.code, "known here are kind, choose, folds, tap, sweep, seed, unknown, scale" in ran.err) == (2, True)
    assert "did you mean heads.near.scale?" in ran.err
    ran = pipeline("run", "-c", config, "--set", "heads.near.kind=farthest")
    assert "kind should be one of logistic, ridge, knn, dense, auto, nearest, got" in " ".join(ran.err.split())


def test_packages_of_a_choice_are_those_of_its_kinds() -> None:
    assert Auto().packages == Logistic().packages == ()
    assert Auto(kinds=["ridge", "dense"]).packages == Dense().packages != ()


def test_auto_on_numbers_tries_those_that_give_numbers_unless_kinds_are_named() -> None:
    def kinds(auto: dict[str, Any], target: str) -> Any:
        data = {"table": "t.csv", "target": {"kind": target}}
        return RunConfig.model_validate({"data": data, "heads": {"best": auto}}).heads["best"].effective()["kinds"]

    assert kinds({"kind": "auto"}, "number") == ["ridge", "knn"]
    assert kinds({"kind": "auto"}, "labels") == ["logistic", "ridge", "knn"]
    assert kinds({"kind": "auto", "kinds": ["logistic", "knn"]}, "number") == ["logistic", "knn"]


@pytest.mark.parametrize(
    ("kind", "chosen", "settled"),
    [
        ("logistic", {"C": 0.1, "iterations": 9}, {"kind": "logistic", "C": 0.1}),
        ("ridge", {"alpha": 10.0, "scale": 2.0}, {"kind": "ridge", "alpha": 10.0}),
        ("knn", {"k": 20}, {"kind": "knn", "k": 20}),
        ("dense", {"epoch": 3}, {"kind": "dense", "epochs": 100}),
        ("auto", {"kind": "ridge", "alpha": 10.0}, {"kind": "ridge", "alpha": 10.0}),
    ],
)
def test_what_a_head_chose_is_what_the_next_one_takes(
    kind: str, chosen: dict[str, Any], settled: dict[str, Any]
) -> None:
    spec = HEAD_KINDS[kind].spec.model_validate({"tap": ["a", "b"], "folds": 3}).settled(chosen)
    assert spec.model_dump().items() >= {**settled, "tap": ["a", "b"], "folds": 3}.items()
