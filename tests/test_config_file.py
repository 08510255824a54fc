"""pipeline/config_file.py: one sentence for each mistake in a pipeline.yaml, and what --set puts on top of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from cache.errors import Unusable
from pipeline import config_file
from pipeline.config import RunConfig


def load(tmp_path: Path, text: str, *overrides: str) -> RunConfig:
    path = tmp_path / "pipeline.yaml"
    path.write_text(text)
    return config_file.load(path, overrides)


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
        ("heads: {a: {D: 1}}", r"unknown field heads\.a\.D; known here are kind, tap, sweep, seed, C", ""),
        ("heads: {a: {kind: dense, dropuot: 1}}", r"unknown field heads\.a\.dropuot", "did you mean heads.a.dropout?"),
        ("heads: {a: {kind: svm}}", r"heads\.a: kind should be one of logistic, ridge, knn, dense, got", ""),
        ("heads: {a: {kind: knn, k: 0}}", r"heads\.a\.k: input should be greater than or equal to 1 or", ""),
        ("heads: {a: {tap: []}}", r"heads\.a\.tap: input should be a valid string or list should have at least 1", ""),
        ("heads: {a: {tap: [pooled, x]}}", r"heads\.a\.tap: no tap 'x' in extract\.taps; there are pooled", ""),
        (
            "heads: {a: {sweep: {D: [1]}}}",
            r"heads\.a: sweep: there is no varying 'D'; expected one of tap, seed, C",
            "",
        ),
        ("heads: {a: {sweep: {C: [1, -1]}}}", r"heads\.a: sweep\.C: input should be greater than 0, got -1", ""),
        ("heads: {a: {sweep: {tap: [x]}}}", r"heads\.a\.tap: no tap 'x' in extract\.taps; there are pooled", ""),
        ("extract: {size: big}", r"extract\.size: input should be a valid integer.*, got 'big'", ""),
        ("extract: {size: 0}", r"extract\.size: input should be greater than or equal to 16, got 0", ""),
        ("extract: {fit: fill}", r"extract\.fit: input should be 'squash', 'crop' or 'pad', got 'fill'", ""),
        (
            "base: {name: m.keras, weights: w.h5}",
            r"base: weights: m\.keras has its weights in it; leave weights out, or give sha256:DIGEST",
            "",
        ),
        (
            "base: {preprocess: {scale: 2}}",
            "base: preprocess: efficientnet_lite0 has its own; it is for a model file",
            "",
        ),
        (
            "base: {name: m.h5, preprocess: {std: [1, 0, 1]}}",
            r"base\.preprocess\.std\.1: input should be greater than 0",
            "",
        ),
        (
            "base: {name: m.h5, preprocess: {means: 1}}",
            r"unknown field base\.preprocess\.means; known here are scale, mean",
            "base.preprocess.mean",
        ),
        (
            "base: {name: m.h5}\nextract: {numerics: tensorflow-bf16}",
            r"extract\.numerics: a model of one's own computes as it was saved; leave it at f32",
            "",
        ),
        ("extract: {taps: {}}", r"extract\.taps: dictionary should have at least 1 item", ""),
        ("data: {split: {val: 0.5, test: 0.5}}", r"data\.split: val 0\.5 and test 0\.5 leave nothing to train on", ""),
        ("heads: {a: {tap: x}}", r"heads\.a\.tap: no tap 'x' in extract\.taps; there are pooled", ""),
        ("heads: {../up: {}}", r"heads: the name '\.\./up' cannot be a folder's", ""),
        ("a: 1\na: 2\n", "not valid YAML at line 2, column 1: the key 'a' stands twice", "look at that line"),
        ("data: [", "not valid YAML at line 1", "colons, brackets, and spaces"),
        ("on_bad: skip", "unknown field on_bad", "did you mean data.on_bad?"),
        (
            "cluster: {workers: 0}",
            r"workers: input should be 'auto' or input should be greater than or equal to 1, got 0$",
            "",
        ),
        ("{{a: b}}: 1", "a key is no plain word", ""),
        ("- data", "holds a list; expected fields", ""),
        ("data: !!python/object/apply:os.system [ls]", "not valid YAML", ""),
    ],
)
def test_a_mistake_is_one_sentence(tmp_path: Path, text: str, message: str, hint: str) -> None:
    with pytest.raises(Unusable, match=rf"pipeline\.yaml.*{message}") as caught:
        load(tmp_path, text)
    assert hint.replace("\\", "") in caught.value.hint
    assert "\n" not in str(caught.value)


def test_a_mistake_in_set_is_not_blamed_on_the_file_alone(tmp_path: Path) -> None:
    with pytest.raises(Unusable, match=r"pipeline\.yaml with --set: extract\.size: .*, got 'huge'"):
        load(tmp_path, "", "extract.size=huge")


def test_a_folder_means_the_file_in_it(tmp_path: Path) -> None:
    (tmp_path / "pipeline.yaml").write_text("extract: {size: 64}")
    assert config_file.load(tmp_path).extract.size == 64


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(Unusable, match="is not there") as caught:
        config_file.load(tmp_path / "pipeline.yaml")
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
