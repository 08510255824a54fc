"""yaml_file.py: one sentence for each mistake in a pipeline.yaml, and what --set puts on top of it."""

from __future__ import annotations

import math
import re
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from cache.errors import Unusable
from pipeline.config import head_schema, yaml_file
from pipeline.config.data_schema import Data
from pipeline.config.extract_schema import BaseChoice, Extract
from pipeline.config.finetune_schema import FineTune
from pipeline.config.schema import RunConfig
from pipeline.config.unkeyed_schema import Cluster


def load(tmp_path: Path, text: str, *overrides: str) -> RunConfig:
    path = tmp_path / "pipeline.yaml"
    path.write_text(text)
    return yaml_file.load(path, overrides)


def test_an_empty_file_is_all_defaults(tmp_path: Path) -> None:
    assert load(tmp_path, "# nothing\n") == RunConfig()


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("extrct: {}", "unknown field extrct; known here are data, base,", "did you mean extract?"),
        (
            "extract: {sise: 3}",
            r"unknown field extract\.sise; known here are size, fit",
            r"did you mean extract\.size?",
        ),
        ("extract: {taps: {p: {lyer: x}}}", r"unknown field extract\.taps\.p\.lyer", "taps.p.layer"),
        (
            "heads: {a: {D: 1}}",
            r"unknown field heads\.a\.D; known here are kind, choose, folds, tap, sweep, seed, unknown, C",
            "",
        ),
        ("heads: {a: {kind: dense, dropuot: 1}}", r"unknown field heads\.a\.dropuot", "did you mean heads.a.dropout?"),
        ("heads: {a: {kind: svm}}", r"heads\.a: kind should be one of logistic, ridge, knn, dense, auto, got", ""),
        ("heads: {a: {kind: knn, k: 0}}", r"heads\.a\.k: expected at least 1 or a list, got 0", ""),
        ("heads: {a: {tap: []}}", r"heads\.a\.tap: expected text or at least 1 entry, got \[\]", ""),
        ("heads: {a: {tap: [pooled, x]}}", r"heads\.a\.tap: no tap 'x' in extract\.taps; there are pooled", ""),
        (
            "heads: {a: {sweep: {D: [1]}}}",
            r"heads\.a: sweep: no field 'D' can vary; expected one of choose, folds, tap, seed, unknown, C",
            "",
        ),
        ("heads: {a: {sweep: {C: [1, -1]}}}", r"heads\.a: sweep\.C: expected more than 0, got -1", ""),
        ("heads: {a: {sweep: {tap: [x]}}}", r"heads\.a\.tap: no tap 'x' in extract\.taps; there are pooled", ""),
        ("heads: {a: {tap: [pooled, pooled]}}", r"heads\.a\.tap: expected each entry once; pooled is there twice", ""),
        ("heads: {a: {sweep: {tap: [[x, x]]}}}", r"heads\.a: sweep\.tap: expected each entry once; x is there", ""),
        (
            "finetune: {a: {head: logistic, unfreeze_from: b, seeds: [0, 1, 0]}}",
            r"finetune\.a\.seeds: expected each",
            "",
        ),
        ("extract: {size: [224]}", r"extract\.size: expected pixels a side, or \[height, width\], got \[224\]", ""),
        ("extract: {size: [32, 32, 3]}", r"extract\.size: expected pixels a side, or \[height, width\], got \[32", ""),
        ("extract: {size: big}", r"extract\.size: expected a whole number, got 'big'", ""),
        ("extract: {size: 0}", r"extract\.size: expected at least 16, got 0", ""),
        ("extract: {fit: fill}", r"extract\.fit: expected 'squash', 'crop' or 'pad', got 'fill'", ""),
        (
            "base: {name: m.keras, weights: w.h5}",
            r"base: weights: m\.keras contains its weights; leave weights out, or give sha256:DIGEST",
            "",
        ),
        (
            "base: {preprocess: {scale: 2}}",
            "base: preprocess: efficientnet_lite0 has its own; set it only where base.name is a model file",
            "",
        ),
        (
            "base: {name: m.h5, preprocess: {std: [1, 0, 1]}}",
            r"base\.preprocess\.std\.1: expected more than 0",
            "",
        ),
        (
            "base: {name: m.h5, preprocess: {means: 1}}",
            r"unknown field base\.preprocess\.means; known here are scale, mean",
            "base.preprocess.mean",
        ),
        (
            "base: {name: m.h5}\nextract: {numerics: tensorflow-bf16}",
            r"extract\.numerics: a user model computes in the dtypes it was saved with; leave it at f32",
            "",
        ),
        ("extract: {taps: {}}", r"extract\.taps: expected at least 1 entry, got \{\}", ""),
        ("data: {split: {val: 0.5, test: 0.5}}", r"data\.split: val 0\.5 and test 0\.5 leave nothing to train on", ""),
        ("heads: {a: {tap: x}}", r"heads\.a\.tap: no tap 'x' in extract\.taps; there are pooled", ""),
        ("heads: {../up: {}}", r"heads: '\.\./up' cannot name a folder", ""),
        ("a: 1\na: 2\n", "not valid YAML at line 2, column 1: the key 'a' is repeated", "check that line"),
        ("data: [", "not valid YAML at line 1", "colons, brackets, and spaces"),
        ("on_bad: skip", "unknown field on_bad", "did you mean data.on_bad?"),
        (
            "cluster: {workers: 0}",
            r"workers: expected 'auto' or at least 1, got 0$",
            "",
        ),
        (
            "cluster: {workers: yes}",
            "workers: expected 'auto' or a number, got yes$",
            "YAML reads yes, no, on and off",
        ),
        ("heads: {a: {C: yes}}", r"heads\.a\.C: expected a number, got yes", "YAML reads yes, no, on and off"),
        ("heads: {a: {C: .inf}}", r"heads\.a\.C: expected a finite number, got \.inf", ""),
        ("heads: {a: {kind: ridge, alpha: .nan}}", r"heads\.a\.alpha: expected a finite number, got \.nan", ""),
        ("heads: {a: {kind: dense, lr: .inf}}", r"heads\.a\.lr: expected a finite number, got \.inf", ""),
        ("heads: {a: {kind: dense, epochs: 2.5}}", r"heads\.a\.epochs: expected a whole number, got 2\.5$", ""),
        ("heads: {a: {kind: knn, k: [5, yes]}}", r"heads\.a\.k\.1: expected a number, got yes$", "YAML reads yes"),
        ("heads: {a: {sweep: {C: [1, on]}}}", r"heads\.a: sweep\.C: expected a number, got true", ""),
        (
            "heads: {a: {sweep: [C]}}",
            r"heads\.a\.sweep: expected fields below it, each as `name: value`, got \['C'\]",
            "",
        ),
        ("heads: {a: logistic}", r"heads\.a: expected fields below it, .*, got 'logistic'", ""),
        ("heads:", "heads: expected fields below it, .*, got nothing", ""),
        ("base: [resnet50]", r"base: expected fields below it, .*, got \['resnet50'\]", ""),
        ("base: {name: m.h5, preprocess: {std: [1, 1]}}", r"std\.2: it is missing, and has no default", ""),
        ("finetune: {last: {}}", r"finetune\.last\.unfreeze_from: it is missing, and has no default", ""),
        (
            "data: {classes: [007, 010]}",
            r"data\.classes\.0: expected text, got 007 \(and 1 more\)$",
            "in quotes: '007'",
        ),
        ("data: {classes: [1_0]}", r"data\.classes\.0: expected text, got 1_0$", "in quotes: '1_0'"),
        ("data: {classes: [1.10]}", r"data\.classes\.0: expected text, got 1\.10$", "in quotes: '1.10'"),
        ("data: {classes: [cat, no]}", r"data\.classes\.1: expected text, got no", "put the word in quotes"),
        ("data: {classes: [0, 1]}", r"data\.classes\.0: expected text, got 0 \(and 1 more\)", "put in quotes: '0'"),
        ("data: {root: 2024-01-01}", r"data\.root: expected text, got 2024-01-01", "put in quotes: '2024-01-01'"),
        ("data: {split: {val: 20%}}", r"data\.split\.val: expected a number, got '20%'", ""),
        ("data: {split: {val: 20}}", r"data\.split\.val: expected less than 1, got 20", ""),
        ("{{a: b}}: 1", "a key is not a plain word", ""),
        ("- data", "holds a list; expected fields", ""),
        ("data: !!python/object/apply:os.system [ls]", "not valid YAML", ""),
    ],
)
def test_a_mistake_is_one_sentence(tmp_path: Path, text: str, message: str, hint: str) -> None:
    with pytest.raises(Unusable, match=rf"pipeline\.yaml.*{message}") as caught:
        load(tmp_path, text)
    assert hint.replace("\\", "") in caught.value.hint
    assert "\n" not in str(caught.value)


def numeric(model: type[BaseModel], at: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Dotted name and annotation of each field that takes a number, below the settings `model`."""
    for name, field in model.model_fields.items():
        text = str(field.annotation) + str(field.metadata)
        inner = [part for part in typing.get_args(field.annotation) if isinstance(part, type)] or [field.annotation]
        groups = [part for part in inner if isinstance(part, type) and issubclass(part, BaseModel)]
        if groups:
            yield from numeric(groups[0], f"{at}{name}.")
        elif re.search(r"\b(int|float)\b", text):
            yield f"{at}{name}", field


NUMERIC = {
    f"{model.__name__}.{name}": field
    for model in (
        Data,
        BaseChoice,
        Extract,
        Cluster,
        FineTune,
        *(kind.spec for kind in head_schema.HEAD_KINDS.values()),
    )
    for name, field in numeric(model)
}


@pytest.mark.parametrize("name", NUMERIC)
def test_true_is_a_number_nowhere(name: str) -> None:
    field = NUMERIC[name]
    adapter: TypeAdapter[Any] = TypeAdapter(Annotated[field.annotation, *field.metadata, None])
    for value in (True, [True], [True, True, True], math.inf, [math.nan] * 3):
        with pytest.raises(ValidationError):
            adapter.validate_python(value)


def test_the_fields_that_take_numbers_are_found() -> None:
    known = (
        "Data.split.val",
        "BaseChoice.preprocess.std",
        "Extract.batch",
        "FineTune.augment.rotate",
        "FineTune.seeds",
    )
    assert {*known, "Dense.units", "Dense.dropout", "Knn.k", "Logistic.C", "Ridge.alpha"} <= set(NUMERIC)
    assert len(NUMERIC) > 30


def test_a_mistake_in_set_is_not_blamed_on_the_file_alone(tmp_path: Path) -> None:
    with pytest.raises(Unusable, match=r"pipeline\.yaml with --set: extract\.size: .*, got 'huge'"):
        load(tmp_path, "", "extract.size=huge")


def test_a_folder_means_the_file_in_it(tmp_path: Path) -> None:
    (tmp_path / "pipeline.yaml").write_text("extract: {size: 64}")
    assert yaml_file.load(tmp_path).extract.size == 64


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(Unusable, match="is not there") as caught:
        yaml_file.load(tmp_path / "pipeline.yaml")
    assert caught.value.hint == "pipeline init --images PATH writes one"


def test_overrides(tmp_path: Path) -> None:
    changed = load(tmp_path, "extract: {size: 160}", "extract.size=96", "data.split.seed=3", "data.group_from=(a)_")
    assert (changed.extract.size, changed.data.split.seed, changed.data.group_from) == (96, 3, "(a)_")


def test_an_override_reaches_a_named_head(tmp_path: Path) -> None:
    changed = load(tmp_path, "heads: {a: {seed: 1}, b: {seed: 2}}", "heads.a.seed=5")
    assert (changed.heads["a"].seed, changed.heads["b"].seed) == (5, 2)


@pytest.mark.parametrize("override", ["extract.size", "=3", "extract.size=["])
def test_a_bad_override_is_named(tmp_path: Path, override: str) -> None:
    with pytest.raises(Unusable, match="--set "):
        load(tmp_path, "", override)


def test_yaml_numbers_written_like_text(tmp_path: Path) -> None:
    assert load(tmp_path, "data: {split: {val: 1e-1}}").data.split.val == 0.1
