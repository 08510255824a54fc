"""Owns what is told about the fields of pipeline.yaml: their meanings, and a JSON Schema for editors. Not their checks.

The schema knows types, choices, limits and names; what fields demand of each other only reading the file can tell.
"""

import ast
import inspect
import itertools
import json
from functools import cache
from pathlib import Path
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from pipeline.config.fields import Section
from pipeline.config.head_schema import HEAD_KINDS
from pipeline.config.schema import RunConfig

DRAFT = "http://json-schema.org/draft-07/schema#"
"""The version of JSON Schema that editors know; what is used of it is the same in later ones."""
FILE = "pipeline.schema.json"
"""Its name beside pipeline.yaml."""
EDITOR_LINE = f"# yaml-language-server: $schema={FILE}"
"""By which editors find it."""
_STANDARD = {
    "ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum", "prefixItems": "items",
}  # fmt: skip
"""How that version calls what pydantic calls otherwise."""


def meanings(section: type[Section]) -> dict[str, str]:
    """What each field of a section means, by its name: the text that follows it in the source."""
    found = {}
    for owner in reversed([part for part in section.__mro__ if issubclass(part, Section) and part is not Section]):
        body = _classes(Path(inspect.getfile(owner)))[owner.__name__].body
        for field, text in itertools.pairwise(body):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and _is_text(text):
                found[field.target.id] = inspect.cleandoc(text.value.value).replace("\n", " ")  # type: ignore[attr-defined]
    return {name: found[name] for name in section.model_fields if name in found}


def make_schema() -> dict[str, Any]:
    """The JSON Schema of pipeline.yaml, as plain JSON values."""
    schema = RunConfig.model_json_schema(schema_generator=_Generator)
    heads = schema["properties"]["heads"]
    heads["additionalProperties"] = {"anyOf": [_head(kind, schema["$defs"]) for kind in HEAD_KINDS]}
    for named in (heads, schema["properties"]["finetune"]):
        named["propertyNames"] = {"pattern": r"^[A-Za-z0-9][\w.-]*$"}
    plain: dict[str, Any] = _plain(schema)
    return {"$schema": DRAFT, "title": "pipeline.yaml", **plain}


def format_schema() -> bytes:
    """The same as the text of a file."""
    return (json.dumps(make_schema(), indent=1) + "\n").encode("utf-8")


class _Generator(GenerateJsonSchema):
    """Adds meanings, and texts that stand for a group; a head is any value, to be filled in."""

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        section = schema["cls"]
        made = super().model_schema(schema)
        for name, text in meanings(section).items():
            made["properties"][name]["description"] = text
        return {"anyOf": [{"type": "string"}, made]} if section.short is not None else made

    def function_plain_schema(self, schema: core_schema.PlainValidatorFunctionSchema) -> JsonSchemaValue:
        return {}


def _head(kind: str, definitions: dict[str, Any]) -> dict[str, Any]:
    """The fields of a kind of head, which names it unless that is the default."""
    made = HEAD_KINDS[kind].spec.model_json_schema(schema_generator=_Generator)
    definitions |= made.pop("$defs", {})
    return made if kind == "logistic" else {**made, "required": ["kind"]}


def _plain(part: Any) -> Any:
    """With standard names, and without titles that repeat a name."""
    if isinstance(part, list):
        return [_plain(one) for one in part]
    if not isinstance(part, dict):
        return part
    titled = isinstance(part.get("title"), str)
    return {
        _STANDARD.get(name, name): _plain(value) for name, value in part.items() if not (titled and name == "title")
    }


@cache
def _classes(file: Path) -> dict[str, ast.ClassDef]:
    tree = ast.parse(file.read_text("utf-8"))
    return {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
