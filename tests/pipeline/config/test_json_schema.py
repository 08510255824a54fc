"""json_schema.py: a meaning for each field, and a schema that says of a file what reading it says."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from pydantic import ValidationError

from pipeline.config import json_schema, yaml_file
from pipeline.config.fields import Section
from pipeline.config.head_schema import HEAD_KINDS
from pipeline.config.schema import RunConfig
from tests.conftest import Pipeline
from tests.support import REPOSITORY

CHECKER = jsonschema.Draft7Validator(json_schema.make_schema())
ONLY_READING_KNOWS = {"value_error", "sides", "twice", "missing", "unknown_kind", "finite_number"}
"""Kinds of pydantic's problems that the schema need not see: what fields demand of each other."""


def sections(section: type[Section] = RunConfig) -> Iterator[type[Section]]:
    yield section
    for info in section.model_fields.values():
        parts = (info.annotation, *getattr(info.annotation, "__args__", ()))
        for part in parts:
            if isinstance(part, type) and issubclass(part, Section):
                yield from sections(part)


def projects() -> Iterator[dict[str, Any]]:
    """Every text in the tests that is YAML with fields of pipeline.yaml at its top."""
    for path in sorted((REPOSITORY / "tests").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                try:
                    tree = yaml.safe_load(node.value)
                except (yaml.YAMLError, ValueError, RecursionError):
                    continue
                if isinstance(tree, dict) and tree and set(tree) <= set(RunConfig.model_fields):
                    yield tree


def as_editors_read(value: Any) -> Any:
    """YAML 1.2, in which 1e-4 is a number; in the 1.1 of PyYAML it is text, of which pydantic makes one."""
    if isinstance(value, dict):
        return {name: as_editors_read(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [as_editors_read(inner) for inner in value]
    return float(value) if isinstance(value, str) and re.fullmatch(r"[-+]?[\d.]+e[-+]?\d+", value) else value


def problems(tree: dict[str, Any]) -> list[str]:
    """The kinds of problems that reading finds; none: it is accepted."""
    try:
        RunConfig.model_validate(tree)
    except ValidationError as error:
        return [problem["type"] for problem in error.errors()]
    return []


@pytest.mark.parametrize("section", [*dict.fromkeys(sections()), *(kind.spec for kind in HEAD_KINDS.values())])
def test_each_field_has_a_meaning_beside_it(section: type[Section]) -> None:
    found = json_schema.meanings(section)
    assert [*found] == [*section.model_fields]
    assert all(text[-1] == "." for text in found.values())


def test_the_schema_is_one_and_agrees_with_reading_on_what_the_tests_write() -> None:
    jsonschema.Draft7Validator.check_schema(CHECKER.schema)
    accepted, refused = 0, 0
    for tree in projects():
        found, valid = problems(tree), CHECKER.is_valid(as_editors_read(tree))
        if not found:
            accepted += 1
            assert valid, tree
        elif not set(found) & ONLY_READING_KNOWS:
            refused += 1
            assert not valid, (tree, found)
    assert accepted > 60
    assert refused > 10


@pytest.mark.parametrize(
    "text",
    [
        "data: {splits: {}}", "extract: {size: 8}", "extract: {size: [224]}", "extract: {engine: torch}",
        "base: {name: x.onnx, preprocess: imagnet}", "heads: {a: {kind: svm}}", "heads: {a: {kind: knn, C: 1}}",
        "heads: {a: {C: -1}}", "heads: {a: {sweep: {C: 1}}}", "heads: {'a/b': {}}", "finetune: {last: {}}",
        "cache: {remote: {mode: write, url: 's3://a'}}", "data: {split: {val: 1}}", "data: []",
    ],
)  # fmt: skip
def test_a_mistake_is_one_in_editors_too(text: str) -> None:
    tree = yaml.safe_load(text)
    assert problems(tree)
    assert not CHECKER.is_valid(tree)


def test_a_text_stands_for_a_group_in_both() -> None:
    for text in ("base: vgg16", "cache: {remote: 's3://a/b'}", "base: {name: x.onnx, preprocess: clip}"):
        assert not problems(yaml.safe_load(text))
        assert CHECKER.is_valid(yaml.safe_load(text))
    assert not CHECKER.is_valid(yaml.safe_load("data: images"))


def test_init_writes_it_beside_and_names_it(pipeline: Pipeline, project: Path) -> None:
    project.unlink()
    assert pipeline("init", project.parent).code == 0
    first = project.read_text().splitlines()[0]
    assert first == "# yaml-language-server: $schema=pipeline.schema.json"
    written = (project.parent / "pipeline.schema.json").read_text()
    assert pipeline("schema").out == written
    assert CHECKER.is_valid(yaml_file.read(project))


def test_schema_writes_the_file_that_is_named(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = pipeline("schema", "-o", "pipeline.schema.json")
    assert (ran.code, ran.out) == (0, "wrote pipeline.schema.json\n")
    assert (tmp_path / "pipeline.schema.json").read_bytes() == json_schema.format_schema()
