"""A model of a person's own as base: what names it, what opens it, and what it cannot do; without opening one."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

import pytest
import yaml

import pipeline as frozenbase
from cache.atomic_files import sha256_of
from cache.errors import Unusable
from pipeline.config import yaml_file
from pipeline.python.transformer import BottleneckFeatures
from stages.bases import trust
from tests.conftest import Pipeline, Ran, opened

_TRUSTING = "data: {split: {val: 0.3, test: 0.2}}\nbase: {name: my.keras, trust: true}\nextract: {size: 16}\n"
"""As files of earlier versions are, and a stranger's; its `trust` does not count."""


@pytest.fixture
def strange(project: Path) -> Path:
    """A project on my.keras, which nobody opens here; returns the path of its pipeline.yaml."""
    (project.parent / "my.keras").write_bytes(b"a model")
    project.write_text(_TRUSTING)
    return project


@pytest.fixture
def own(strange: Path) -> Path:
    """The same, with a model that the user trusts."""
    trust.trust_file(strange.parent / "my.keras")
    return strange


def counts(ran: Ran) -> tuple[int, int]:
    assert ran.code == 0, ran.out + ran.err
    return ran.json["extract"]["computed"], ran.json["extract"]["reused"]


def test_the_trust_in_a_file_does_not_count(pipeline: Pipeline, strange: Path) -> None:
    words, model = ("-c", strange, "--json"), strange.parent / "my.keras"
    ran = pipeline("run", *words)
    assert (ran.code, ran.json["error"]["code"]) == (2, "unusable")
    assert ran.json["error"]["message"].startswith("base.trust: opening the model file my.keras can run code")
    advised, _, once = ran.json["error"]["hint"].removeprefix("if you trust its author: ").partition("; ")
    assert "--set base.trust=true" in once
    (stage, *_) = pipeline("status", *words).json["status"]["stages"]
    assert (stage["state"], stage["reason"][:10]) == ("BLOCKED", "base.trust")
    assert pipeline("run", *words, "--set", "base.weights=imagenet").code == 2, "its own trust stays without effect"
    assert pipeline("run", *words, "--set", "base={name: my.keras}").code == 2
    assert pipeline(*shlex.split(advised)[1:]).code == 0
    assert counts(pipeline("run", "extract", *words)) == (24, 0)
    assert pipeline("bases", "trust", model, "--forget").code == 0
    assert counts(pipeline("run", *words)) == (0, 24), "rows that are there need no model, nor do heads on them"
    assert pipeline("run", *words, "--set", "extract.size=32").code == 2


def test_what_is_trusted_are_its_bytes(pipeline: Pipeline, own: Path) -> None:
    shutil.move(own.parent / "my.keras", own.parent / "copy.keras")
    assert counts(pipeline("run", "-c", own, "--json", "--set", "base.name=copy.keras")) == (24, 0)
    (own.parent / "my.keras").write_bytes(b"another model")
    assert pipeline("run", "-c", own).code == 2


def test_the_command_the_environment_and_python_can_trust_it_too(
    pipeline: Pipeline, strange: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words, digest = ("-c", strange, "--json", "--set"), sha256_of(strange.parent / "my.keras")
    assert counts(pipeline("run", *words, "base.trust=true")) == (24, 0)
    assert counts(pipeline("run", *words, "base={name: my.keras, trust: true}", "--set", "extract.size=17")) == (24, 0)
    assert len(frozenbase.open(strange, {"base.trust": True, "extract.size": 18}).features().X) == 24
    for given, size in ((digest, 19), (f"{'0' * 64}, sha256:{digest.upper()}", 20)):
        monkeypatch.setenv("PIPELINE_TRUST", given)
        assert counts(pipeline("run", *words, f"extract.size={size}")) == (24, 0)
    for given, said in (("0" * 64, "base.trust: opening"), ("1", "PIPELINE_TRUST: '1' is no digest")):
        monkeypatch.setenv("PIPELINE_TRUST", given)
        ran = pipeline("run", *words, "extract.size=21")
        assert (ran.code, ran.json["error"]["message"][: len(said)]) == (2, said)


def test_a_run_with_trust_is_no_trial(pipeline: Pipeline, strange: Path) -> None:
    assert pipeline("run", "-c", strange, "--set", "base.trust=true").code == 0
    assert not opened(strange, "base.trust=true").is_trial("head", "logistic")
    assert pipeline("show", "head/logistic", "-c", strange).code == 0


def test_its_bytes_name_it_not_its_path(pipeline: Pipeline, own: Path) -> None:
    folder = own.parent
    assert counts(pipeline("run", "-c", own, "--json")) == (24, 0)
    (folder / "elsewhere").mkdir()
    shutil.move(folder / "my.keras", folder / "elsewhere" / "other.keras")
    moved = ("-c", own, "--json", "--set", "base.name=elsewhere/other.keras")
    assert counts(pipeline("run", *moved)) == (0, 24)
    (folder / "elsewhere" / "other.keras").write_bytes(b"another model")
    trust.trust_file(folder / "elsewhere" / "other.keras")
    assert counts(pipeline("run", *moved)) == (24, 0)


def test_a_host_without_it_goes_by_memory_or_by_a_digest(pipeline: Pipeline, own: Path) -> None:
    ran = pipeline("run", "-c", own, "--json")
    key = ran.json["extract"]["keys"]["pooled"]
    spec = yaml.safe_load((own.parent / ".features" / "features" / key / "spec.json").read_text())
    (own.parent / "my.keras").unlink()
    assert counts(pipeline("run", "-c", own, "--json")) == (0, 24)
    digest = f"base.weights=sha256:{spec['base']['weights']}"
    assert counts(pipeline("run", "-c", own, "--json", "--set", "base.name=new.keras", "--set", digest)) == (0, 24)
    ran = pipeline("run", "-c", own, "--json", "--set", "extract.size=32")
    assert ran.code == 4
    assert ran.json["error"]["hint"] == "give the file's path as base.name"
    ran = pipeline("run", "-c", own, "--json", "--set", "base.name=new.keras")
    assert (ran.code, ran.json["error"]["message"][:9]) == (4, "base.name")


def test_a_saved_model_finds_it_where_it_lies_now_and_asks_for_trust_today(pipeline: Pipeline, own: Path) -> None:
    assert pipeline("run", "-c", own).code == 0
    folder = own.parent
    shutil.copytree(folder / "images" / "dark", folder / "new")
    (folder / "new" / "0000.png").write_bytes((folder / "images" / "bright" / "0000.png").read_bytes() + b"\0")
    (folder / "my.keras").rename(folder / "moved.keras")
    assert trust.forget(sha256_of(folder / "moved.keras"))
    own.write_text("data: {split: {val: 0.3, test: 0.2}}\nextract: {size: 16}\n")
    predict = ("predict", "logistic", folder / "new", "-c", own, "--json", "--set", "base.name=moved.keras")
    ran = pipeline(*predict)
    assert (ran.code, ran.json["error"]["message"][:10]) == (2, "base.trust")
    ran = pipeline(*predict, "--set", "base.trust=true")
    assert ran.code == 0, ran.out
    ran = pipeline("predict", "logistic", folder / "new", "-c", own, "--set", "base.name=vgg16")
    assert ran.code == 2
    assert "a model keeps the settings it was made with" in ran.err


def test_an_export_takes_neither_the_model_nor_the_trust(pipeline: Pipeline, own: Path) -> None:
    assert pipeline("run", "-c", own).code == 0
    ran = pipeline("cache", "export", own.parent / "out", "-c", own)
    assert ran.code == 0, ran.err
    exported = own.parent / "out" / "pipeline.yaml"
    assert not yaml_file.load(exported).base.trust
    assert counts(pipeline("run", "-c", exported, "--json")) == (0, 24)


def test_a_fine_tuning_of_what_is_no_model_is_refused_before_a_row_is_computed(pipeline: Pipeline, own: Path) -> None:
    own.write_text(_TRUSTING + "finetune: {last: {head: logistic, unfreeze_from: block5}}\n")
    ran = pipeline("run", "finetune", "-c", own, "--json")
    assert ran.code == 2
    assert "my.keras is not a Keras model" in ran.json["error"]["message"]
    assert not list(own.parent.glob(".features/features/*/shards/*"))


def test_the_transformer_takes_one(fake_embed: None, strange: Path) -> None:
    images = sorted((strange.parent / "images").rglob("*.png"))[:9]
    own_model = {"base": str(strange.parent / "my.keras"), "cache_dir": strange.parent / ".features", "size": 16}
    rows = BottleneckFeatures(**own_model, trust=True, preprocess={"scale": 2}).fit_transform(images)
    assert len(rows) == 9
    with pytest.raises(Unusable, match=r"base\.trust"):
        BottleneckFeatures(**own_model).transform(images)
