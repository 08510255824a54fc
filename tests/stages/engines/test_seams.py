"""select.py, bases/formats.py: an engine and a kind of base are a row each; nothing else has to know of them."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pipeline as frozenbase
from cache.errors import Unusable
from pipeline.runs import extraction
from stages.bases import trust
from stages.bases.formats import BUILT, FORMATS, BaseFormat, load_function
from stages.bases.recipe import FrozenBase
from stages.engines.select import ENGINES, EngineKind
from stages.extract import opened_bases
from tests.conftest import command, counts, opened
from tests.support import fakes

HERE = "tests.stages.engines.test_seams"


class ToyEmbed:
    """Each row is the mean colour times the number in the weight file."""

    provenance: dict[str, Any] = {"engine": "toy", "device": "abacus", "versions": {"toy": "1"}}  # noqa: RUF012

    def __init__(self, base: FrozenBase, batch: int | None, factor: float) -> None:
        self.factor, self.taps, self.batch = factor, base.taps, batch or 4

    def __call__(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        rows = self.factor * pixels.astype(np.float32)
        return {name: rows if tap.pooling == "none" else rows.mean(axis=(1, 2)) for name, tap in self.taps.items()}


def open_toy(base: FrozenBase, batch: int | None) -> ToyEmbed:
    return ToyEmbed(base, batch, float(base.weights.read_text()))


def open_catalogued(base: FrozenBase, batch: int | None) -> ToyEmbed:
    return ToyEmbed(base, batch, 1.0)


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row in each table, and nothing else."""
    engine = EngineKind("toy", ("toy-int3",), {BUILT.name: f"{HERE}:open_catalogued"})
    monkeypatch.setitem(ENGINES, engine.name, engine)
    monkeypatch.setitem(FORMATS, "toy", BaseFormat("toy", (".toy",), {"toy": f"{HERE}:open_toy"}))


@pytest.fixture
def on_a_toy(project: Path) -> Path:
    """A project on my.toy, in the engine's own numerics."""
    (project.parent / "my.toy").write_text("0.5")
    base = "base: {name: my.toy, preprocess: {scale: 2}}\nextract: {size: 16, numerics: toy-int3}\n"
    project.write_text(f"data: {{split: {{val: 0.3, test: 0.2}}}}\n{base}")
    return project


def test_the_main_job_runs_on_them(toys: None, on_a_toy: Path) -> None:
    words = ("-c", on_a_toy, "--json")
    ran = command("run", *words)
    assert counts(ran) == (24, 0)
    assert ran.json["extract"]["engine"] == "toy"
    assert ran.json["heads"]["logistic"]["metrics"]["test"]["accuracy"] == 1
    assert counts(command("run", *words)) == (0, 24)
    assert [stage["state"] for stage in command("status", "--hash", *words).json["status"]["stages"]] == ["HIT", "HIT"]
    new = on_a_toy.parent / "images" / "dark" / "new.png"
    new.write_bytes(fakes.textured(99, bright=False))
    said = command("predict", "logistic", new, *words, expect=0).json["predict"]
    assert (said["computed"], said["predictions"][0]["predicted"]) == (1, "dark")
    assert command("reproduce", "head/logistic", *words).code == 0
    X, _, _ = frozenbase.open(on_a_toy).features()
    assert X.shape == (25, 3)


def test_a_key_names_the_format_the_file_and_the_numerics(toys: None, on_a_toy: Path) -> None:
    key = command("run", "extract", "-c", on_a_toy, "--json").json["extract"]["keys"]["pooled"]
    components = next(entry for entry in _spec(on_a_toy) if entry["key"] == key)["components"]
    assert components["base"]["name"] == "toy"
    assert components["numerics"] == "toy-int3"
    (on_a_toy.parent / "my.toy").write_text("0.25")
    assert counts(command("run", "extract", "-c", on_a_toy, "--json")) == (24, 0)


def _spec(config: Path) -> list[dict[str, Any]]:
    project = frozenbase.open(config)._project
    return [{"key": store.key, "components": store.components} for store in project.cache.stores()]


def test_the_engine_runs_bases_of_the_catalogue_too(toys: None, project: Path) -> None:
    ran = command("run", "-c", project, "--json", "--set", "extract.numerics=toy-int3")
    assert counts(ran) == (24, 0)
    assert ran.json["extract"]["engine"] == "toy"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("run", "--set", "extract.numerics=f32"), "extract.numerics: no engine runs a base of the kind 'toy' in f32"),
        (("run", "--set", "extract.engine=openvino"), "toy-int3 is the arithmetic of toy; engine: openvino cannot do"),
        (
            ("run", "--set", "extract.engine=abacus"),
            "expected 'auto', 'openvino', 'tensorflow', 'onnxruntime' or 'toy', got 'abacus'",
        ),
        (("export", "logistic", "--format", "keras", "--output", "m.keras"), "of which no .keras file can be made"),
        (
            ("run", "finetune", "--set", "finetune.last={head: logistic, unfreeze_from: block1}"),
            "is no Keras network, so finetune.last, on",
        ),
    ],
)
def test_what_they_cannot_do_is_one_sentence(toys: None, on_a_toy: Path, words: tuple[str, ...], message: str) -> None:
    assert command("run", "-c", on_a_toy).code == 0
    ran = command(*words, "-c", on_a_toy)
    assert ran.code == 2, ran.out
    assert message in " ".join(ran.err.split())


def test_a_format_that_runs_code_takes_trust(toys: None, on_a_toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = BaseFormat("toy", (".toy",), {"toy": f"{HERE}:open_toy"}, runs_code=True)
    monkeypatch.setitem(FORMATS, "toy", kind)
    assert "base.trust" in command("run", "-c", on_a_toy, expect=2).err
    assert command("run", "-c", on_a_toy, "--set", "base.trust=true").code == 0


def test_a_worker_needs_no_trust_of_its_own(toys: None, on_a_toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process that sends the tasks decides; a worker may be another user, on another host."""
    kind = BaseFormat("toy", (".toy",), {"toy": f"{HERE}:open_toy"}, runs_code=True)
    monkeypatch.setitem(FORMATS, "toy", kind)
    project = opened(on_a_toy)
    (spec,) = project.specs.values()
    recipe = spec.recipe
    with pytest.raises(Unusable, match=r"base\.trust"):
        extraction.make_job(project, recipe, offline=True)
    sha256 = trust.trust_file(on_a_toy.parent / "my.toy")
    job = extraction.make_job(project, recipe, offline=True)
    assert trust.forget(sha256)
    assert opened_bases.open_embed(pickle.loads(pickle.dumps(job)), {spec.key: spec.tap}).batch == 4


def test_without_a_row_there_is_no_such_base(on_a_toy: Path) -> None:
    on_a_toy.write_text("base: {name: my.toy}\nextract: {size: 16}\n")
    assert "toy-int3" in command("run", "-c", on_a_toy, "--set", "extract.numerics=toy-int3", expect=2).err
    with pytest.raises(Unusable, match=r"base 'my\.toy' is unknown"):
        frozenbase.open(on_a_toy).features()


def test_each_function_that_a_row_names_is_there() -> None:
    named = [name for kind in ENGINES.values() for name in kind.formats.values()]
    named += [name for kind in FORMATS.values() for name in (*kind.engines.values(), kind.layers) if name]
    assert len(named) >= 6
    assert all(callable(load_function(name)) for name in named)
