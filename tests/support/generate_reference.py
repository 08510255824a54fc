"""Writes docs/reference/*.md from the code: `python -m tests.support.generate_reference`, as `make docs` does.

The texts are those of fields, commands, errors and docstrings; nothing is written by hand here but what joins them.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator
from typing import Any

import rich_click as click

from cache import errors
from pipeline import BottleneckFeatures
from pipeline.cli.main import COMMANDS, load_command
from pipeline.cli.run import STALE
from pipeline.config import json_schema
from pipeline.config.fields import Keyed, Section
from pipeline.config.head_schema import HEAD_KINDS, HeadConfig
from pipeline.config.schema import RunConfig
from pipeline.evaluation.audit_findings import Audit
from pipeline.labelling.curve import Learned
from pipeline.labelling.suggest import Suggested
from pipeline.python import api
from pipeline.report.report import Written
from pipeline.results.model import Model
from pipeline.serving.dataset import Features
from pipeline.serving.predict import Predicted
from stages.data.manifest import Row
from stages.heads.fitted import Head
from tests.support import REPOSITORY

FOLDER = REPOSITORY / "docs" / "reference"
MADE = "<!-- Written by `make docs` from the code: change it there. -->\n"
ENTERS = {
    "extract": "rows", "samples": "labelled images", "head": "head", "finetune": "fine-tuned model", "none": "none",
}  # fmt: skip
RESULTS = (api.TrainedHead, Model, Features, Predicted, Audit, Learned, Suggested, Written, Row)
"""What methods of an opened pipeline.yaml give."""


def make_pages() -> dict[str, str]:
    """The name of each page, and its text."""
    made = {"fields.md": _fields, "commands.md": _commands, "exit_codes.md": _exit_codes, "python.md": _python}
    return {name: MADE + "\n".join(page()).rstrip() + "\n" for name, page in made.items()}


def _fields() -> Iterator[str]:
    schema = json_schema.make_schema()
    yield "# Fields of pipeline.yaml\n"
    yield (
        "Every field may be left out, unless its default is “required”. The column *key* says what is computed anew "
        "when a field changes: rows (and all that is made of them), the set of labelled images (and what is trained "
        "on it), a head, a fine-tuned model, or none; “by content”: what the field refers to is in that key, not its "
        "value. "
        "Where a text stands in place of the fields of `base`, it is `base.name`; of `cache.remote`, its `url`. "
        "`pipeline schema` prints all of this for editors.\n"
    )
    for name, info in RunConfig.model_fields.items():
        yield f"## {name}\n"
        yield f"{json_schema.meanings(RunConfig)[name]}\n"
        if name == "heads":
            yield from _heads(schema)
        else:
            group = _group(info.annotation)
            assert group is not None
            prefix = f"{name}.NAME." if _is_named(info.annotation) else f"{name}."
            yield from _table(_rows(group, prefix, schema))


def _heads(schema: dict[str, Any]) -> Iterator[str]:
    yield "### Heads of every kind\n"
    shared = schema["properties"]["heads"]["additionalProperties"]["anyOf"][0]
    yield from _table(_rows(HeadConfig, "heads.NAME.", schema, shared))
    for row, own in zip(
        HEAD_KINDS.items(), schema["properties"]["heads"]["additionalProperties"]["anyOf"], strict=True
    ):
        kind, spec = row[0], row[1].spec
        yield f"### Heads of kind {kind}\n"
        yield from _table(_rows(spec, "heads.NAME.", schema, own, without={*HeadConfig.model_fields}))


def _table(rows: Iterator[str]) -> Iterator[str]:
    yield "| field | values | default | key | meaning |\n|---|---|---|---|---|"
    yield from rows
    yield ""


def _rows(
    section: type[Section], prefix: str, schema: dict[str, Any], own: Any = None, without: Any = ()
) -> Iterator[str]:
    """A row for each field of a section, and of the sections in it."""
    shape = own or _shape(schema["$defs"][section.__name__])
    for name, info in section.model_fields.items():
        if name in without:
            continue
        group = _group(info.annotation)
        if group is None:
            default = "required" if info.is_required() else f"`{_yaml(info.default)}`"
            values = _values(shape["properties"][name], schema["$defs"])
            if issubclass(section, HeadConfig) and name == "kind":
                values, default = " &#124; ".join(f"`{kind}`" for kind in HEAD_KINDS), "`logistic`"
            meaning = _cell(json_schema.meanings(section)[name])
            yield f"| `{prefix}{name}` | {values} | {default} | {_enters(section.places()[name])} | {meaning} |"
        else:
            yield from _rows(group, f"{prefix}{name}.{'NAME.' if _is_named(info.annotation) else ''}", schema)


def _enters(place: Keyed) -> str:
    return ENTERS[place.stage] + ("" if place.by_value else ", by content")


def _group(annotation: Any) -> type[Section] | None:
    """The section that a field holds, alone, by names, or if it is not null."""
    parts = (annotation, *getattr(annotation, "__args__", ()))
    return next((part for part in parts if isinstance(part, type) and issubclass(part, Section)), None)


def _is_named(annotation: Any) -> bool:
    return getattr(annotation, "__origin__", None) is dict


def _shape(definition: dict[str, Any]) -> dict[str, Any]:
    """Of a group that a text may stand for, the group."""
    return definition["anyOf"][1] if "anyOf" in definition else definition


def _values(part: dict[str, Any], definitions: dict[str, Any]) -> str:
    """What a field takes, in words."""
    if "$ref" in part:
        return _values(definitions[part["$ref"].rpartition("/")[2]], definitions)
    if "anyOf" in part or "oneOf" in part:
        choices = part.get("anyOf", part.get("oneOf", []))
        return " &#124; ".join(dict.fromkeys(_values(one, definitions) for one in choices))
    if "enum" in part or "const" in part:
        return " &#124; ".join(f"`{one}`" for one in part.get("enum", [part.get("const")]))
    words = {"integer": "whole number", "number": "number", "string": "text", "boolean": "`true` &#124; `false`"}
    kind = part.get("type")
    if kind == "null":
        return "`null`"
    if kind == "object":
        return "a list of values by field" if part.get("additionalProperties") else "fields"
    if kind == "array":
        inner = part.get("items", {})
        if isinstance(inner, list):
            return f"list of {len(inner)}: {_values(inner[0], definitions)}"
        return f"list of {_values(inner, definitions)}" if inner else "list"
    if kind is None:
        return "any"
    names = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    limits = [f"{sign} {part[name]:g}" for name, sign in names.items() if name in part]
    return " ".join([words[kind], ", ".join(limits)]).strip()


def _yaml(value: Any) -> str:
    from pipeline.config.yaml_file import format_value

    return value if isinstance(value, str) else format_value([*value] if isinstance(value, tuple) else value)


def _cell(text: str) -> str:
    return text.replace("|", "&#124;")


def commands() -> Iterator[tuple[str, click.Command, click.Context]]:
    """Every command with its name, `cache ls`, those of groups after the group."""
    root = click.Context(click.Group("pipeline"), info_name="pipeline")
    for name in COMMANDS:
        command = load_command(name)
        context = click.Context(command, info_name=name, parent=root)
        yield name, command, context
        if isinstance(command, click.Group):
            for inner, below in command.commands.items():
                yield f"{name} {inner}", below, click.Context(below, info_name=inner, parent=context)


def _commands() -> Iterator[str]:
    yield "# Commands\n"
    yield "`pipeline COMMAND --help` prints the same. What a command exits with: [exit codes](exit_codes.md).\n"
    for name, command, context in commands():
        yield f"## pipeline {name}\n"
        yield f"```text\n{command.get_usage(context).removeprefix('Usage: ')}\n```\n"
        yield f"{inspect.cleandoc(command.help or '')}\n"
        options = [one for one in command.get_params(context) if isinstance(one, click.Option)]
        shown = [one for one in options if not one.hidden and one.name != "help"]
        if shown:
            yield "| option | default | meaning |\n|---|---|---|"
            yield from (_option(option, context) for option in shown)
            yield ""


def _option(option: click.Option, context: click.Context) -> str:
    metavar = "" if option.is_flag else f" {option.make_metavar(context)}"
    names = ", ".join(option.opts)
    default = f"`{option.default}`" if option.show_default and option.default is not None else ""
    environment = f" (environment: `{option.envvar}`)" if option.envvar else ""
    return f"| `{names}{_cell(metavar)}` | {default} | {_cell(option.help or '')}{environment} |"


def _exit_codes() -> Iterator[str]:
    """From the errors, each with its code, and `status -q`."""
    yield "# Exit codes\n"
    yield "| code | `error.code` with `--json` | in Python | meaning |\n|---|---|---|---|"
    yield "| 0 | | | Done; of `status` and `run -n` also where a stage is BLOCKED: they say why, and what to do. |"
    found = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, errors.PipelineError)]
    lines = [(error.exit_code, error.code, error.__name__, _first_paragraph(error)) for error in found]
    lines.append((STALE, "", "", "Of `status -q`: a run would compute something."))
    for number, code, name, text in sorted(lines, key=lambda line: line[0]):
        shown = "130, 143" if number == errors.Interrupted.exit_code else number
        cells = [f"`{cell}`" if cell else "" for cell in (code, name)]
        yield f"| {shown} | {' | '.join(cells)} | {_cell(text)} |"
    yield (
        "\nErrors are written to stderr: what was found, what was expected, and the next step. With `--json` they are "
        "in the object on stdout: `error.code`, `error.message`, `error.hint`. In Python they are raised, each a "
        "`cache.errors.PipelineError` with `message` and `hint`."
    )


def _first_paragraph(of: Any) -> str:
    return inspect.cleandoc(of.__doc__ or "").partition("\n\n")[0].replace("\n", " ")


def _python() -> Iterator[str]:
    yield "# Python\n"
    yield "```python\nimport pipeline\nfrom pipeline import BottleneckFeatures\n```\n"
    yield from _function("pipeline.open", api.open, 2)
    yield "## OpenPipeline\n"
    yield from _class(api.OpenPipeline)
    yield "## BottleneckFeatures\n"
    yield f"```text\n{inspect.cleandoc(BottleneckFeatures.__doc__ or '')}\n```\n"
    for name in ("fit", "transform"):
        yield from _function(f"BottleneckFeatures.{name}", getattr(BottleneckFeatures, name), 3)
    for result in RESULTS:
        yield f"## {result.__name__}\n"
        yield from _class(result)


def _class(owner: type) -> Iterator[str]:
    yield f"{_text(owner.__doc__)}\n"
    if dataclasses.is_dataclass(owner):
        own = [field for field in dataclasses.fields(owner) if not field.name.startswith("_")]
        yield "| attribute | type |\n|---|---|"
        yield from (f"| `{field.name}` | {_type(field.type)} |" for field in own)
        yield ""
    for name, member in _members(owner):
        if isinstance(member, property):
            assert member.fget is not None
            yield f"### {owner.__name__}.{name}\n"
            yield f"Attribute, {_type(inspect.signature(member.fget).return_annotation)}. {_text(member.__doc__)}\n"
        else:
            yield from _function(f"{owner.__name__}.{name}", member, 3)


def _members(owner: type) -> Iterator[tuple[str, Any]]:
    """Public properties and methods, those of its own package's bases too, in the order of the source."""
    seen = set()
    for base in (owner, *(one for one in owner.__mro__[1:] if one in (Head,) or one.__name__ == "Tabular")):
        for name, member in vars(base).items():
            known = isinstance(member, property) or inspect.isfunction(member)
            if known and not name.startswith("_") and name not in seen and member.__doc__:
                seen.add(name)
                yield name, member


def _function(name: str, function: Any, level: int) -> Iterator[str]:
    signature = re.sub(r"\(self(, )?", "(", _short(str(inspect.signature(function))))
    yield f"{'#' * level} {name}\n"
    yield f"```text\n{name}{signature}\n```\n"
    yield f"{_text(function.__doc__)}\n"


def _type(annotation: Any) -> str:
    """An annotation as code, in a cell too."""
    written = _short(annotation if isinstance(annotation, str) else inspect.formatannotation(annotation))
    return f"<code>{_cell(written)}</code>"


def _short(signature: str) -> str:
    """Without modules, and without the quotes of annotations that are text."""
    return re.sub(r"(?<!')\b(?!os\.)(?:[a-z_]+\.)+(?=[A-Za-z])", "", re.sub(r"(: |-> )'([^']*)'", r"\1\2", signature))


def _text(docstring: str | None) -> str:
    """A docstring as Markdown."""
    return re.sub(r"(?<!`)<(?!`)", "&lt;", inspect.cleandoc(docstring or ""))


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for page, text in make_pages().items():
        (FOLDER / page).write_text(text)
