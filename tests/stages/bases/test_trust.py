"""trust.py, and `pipeline bases trust`: a model file is trusted by its bytes, in the user's own configuration."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from cache.errors import Unusable
from stages.bases import trust
from tests.conftest import Pipeline

SHA256 = hashlib.sha256(b"a model").hexdigest()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "my model.keras"
    path.write_bytes(b"a model")
    return path


def test_the_note_is_in_the_user_s_configuration_and_can_be_taken_back(model: Path) -> None:
    assert not trust.is_trusted(SHA256)
    assert trust.trust_file(model) == trust.trust_file(model) == SHA256
    (note,) = (path for path in Path(os.environ["XDG_CONFIG_HOME"]).rglob("*") if path.is_file())
    assert note.relative_to(os.environ["XDG_CONFIG_HOME"]) == Path("frozenbase", "trusted", f"{SHA256}.json")
    assert str(model) in note.read_text()
    assert trust.is_trusted(SHA256)
    assert not trust.is_trusted("0" * 64)
    assert (trust.forget(SHA256), trust.forget(SHA256), trust.is_trusted(SHA256)) == (True, False, False)


@pytest.mark.parametrize("place", ["relative", RuntimeError("no home")])
def test_without_a_home_only_the_environment_trusts(
    model: Path, monkeypatch: pytest.MonkeyPatch, place: str | Exception
) -> None:
    """A folder below the current one may be a stranger's, note and all."""

    def find(name: str) -> str:
        if isinstance(place, Exception):
            raise place
        return place

    monkeypatch.chdir(model.parent)
    monkeypatch.setattr("platformdirs.user_config_dir", find)
    Path("relative", "trusted").mkdir(parents=True)
    Path("relative", "trusted", f"{SHA256}.json").write_text("{}")
    assert not trust.is_trusted(SHA256)
    assert not trust.forget(SHA256)
    with pytest.raises(Unusable, match="no home folder") as error:
        trust.trust_file(model)
    assert f"PIPELINE_TRUST={SHA256}" in error.value.hint
    monkeypatch.setenv("PIPELINE_TRUST", SHA256)
    assert trust.is_trusted(SHA256)


def test_the_command_says_what_it_means(pipeline: Pipeline, model: Path) -> None:
    ran = pipeline("bases", "trust", model)
    assert (ran.code, f"sha256 {SHA256}" in " ".join(ran.out.split())) == (0, True)
    assert "which runs the code in it as you" in ran.out
    ran = pipeline("bases", "trust", SHA256, "--forget")
    assert (ran.code, SHA256 in ran.out) == (0, True)
    assert not trust.is_trusted(SHA256)
    ran = pipeline("bases", "trust", model, "--json")
    assert ran.json["bases"] == [{"file": str(model), "sha256": SHA256, "trusted": True}]
    assert not pipeline("bases", "trust", model, "--forget", "--json").json["bases"][0]["trusted"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("trust",), "Missing argument 'PATH'"),
        (("vgg16", "--forget"), "No such option"),
        (("fetch", "vgg16", "--forget"), "No such option"),
        (("trust", "vgg16"), "vgg16 is no model file"),
        (("trust", "none.keras"), "none.keras is not there"),
        (("trust", "0" * 64, "--forget"), "is not trusted"),
    ],
)
def test_what_it_cannot_do_is_one_sentence(pipeline: Pipeline, words: tuple[str, ...], message: str) -> None:
    ran = pipeline("bases", *words)
    assert (ran.code, message in " ".join(ran.err.split())) == (2, True), ran.err


def test_layers_of_a_trusted_file_are_listed(pipeline: Pipeline, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.cli.bases.load_function", lambda reference: lambda base, file, size: [])
    assert pipeline("bases", model, "--layers").code == 2
    assert f"pipeline bases trust '{model}'" in " ".join(pipeline("bases", model, "--layers").err.split())
    assert pipeline("bases", model, "--layers", "--trust").code == 0
    trust.trust_file(model)
    assert pipeline("bases", model, "--layers").code == 0
