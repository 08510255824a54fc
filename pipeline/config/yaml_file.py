"""Owns reading pipeline.yaml, --set on top of it, and one sentence for each mistake. Not the fields (schema.py)."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from cache.errors import Unusable
from pipeline.config import head_schema, messages
from pipeline.config.schema import RunConfig, field_names

_UNION_PARTS = ("int", "str", "literal['auto']", "constrained-int", "constrained-float", "float")
"""What pydantic puts into a location for the ways a field may be written; others begin with a word and a bracket."""


def config_path(config: Path) -> Path:
    """The file that is meant: `config`, or the pipeline.yaml in the folder `config`."""
    return config / "pipeline.yaml" if config.is_dir() else config


def load(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read the file that `path` means, put `a.b=value` overrides on top, and check it all.

    Raises Unusable, naming the file or --set, the field, what was found and the nearest known field.
    """
    path = config_path(path)
    tree = _read(path, _Loader, overrides)
    try:
        return RunConfig.model_validate(tree)
    except ValidationError as error:
        written = _read(path, yaml.BaseLoader, overrides)  # all values as text
        raise _explain(f"{path} with --set" if overrides else str(path), error, written) from error


def validate(tree: Mapping[str, Any], source: str) -> RunConfig:
    """The settings in `tree`. Raises Unusable, naming `source`, the field and what was found."""
    try:
        return RunConfig.model_validate(tree)
    except ValidationError as error:
        raise _explain(source, error, {}) from error


def _read(path: Path, loader: type[Any], overrides: Sequence[str]) -> dict[str, Any]:
    try:
        tree = yaml.load(path.read_text("utf-8"), Loader=loader) or {}
    except FileNotFoundError as error:
        raise Unusable(f"{path} is not there", "pipeline init --images PATH writes one") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
        raise Unusable(
            f"{path} is not valid YAML{where}: {error.problem}",
            "look at that line and the one above: colons, brackets, and spaces (no tabs) before names",
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise Unusable(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    except OSError as error:
        raise Unusable(f"{path} cannot be read: {error.strerror}") from error
    if not isinstance(tree, dict):
        raise Unusable(f"{path} holds a {type(tree).__name__}; expected fields such as data: and base:")
    for override in overrides:
        _override(tree, override, loader)
    return tree


class _Loader(yaml.SafeLoader):
    """Safe, and strict: a key that stands twice is an error, not a silent last word."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key is no plain word", key_node.start_mark)
            if key_node.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key_node.value!r} stands twice", key_node.start_mark
                )
            seen.add(key_node.value)
        return dict(super().construct_mapping(node, deep))


def _override(tree: dict[str, Any], text: str, loader: type[Any]) -> None:
    path, equals, value = text.partition("=")
    if not equals or not path:
        raise Unusable(f"--set {text!r}: expected FIELD=VALUE", "for example --set extract.size=160")
    *parents, last = path.split(".")
    for parent in parents:
        child = tree.get(parent)
        tree[parent] = tree = dict(child) if isinstance(child, dict) else {}
    try:
        tree[last] = yaml.load(value, Loader=loader)
    except yaml.YAMLError as error:
        raise Unusable(f"--set {text!r}: the value is not valid YAML") from error


def _explain(source: str, error: ValidationError, written: Any) -> Unusable:
    """The first problem, as one sentence; the ways a field may be written are one problem. written: values as text."""
    problems: dict[str, list[Any]] = {}
    for problem in error.errors():
        where = ".".join(str(part) for part in _written(problem["loc"]))
        problems.setdefault(where, []).append(problem)
    where, same = next(iter(problems.items()))
    inside = [deeper for deeper in problems if deeper.startswith(f"{where}.")]
    if inside:  # a list that could have been a single value: what is wrong is in it
        del problems[where]
        where, same = inside[0], problems[inside[0]]
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    if same[0]["type"] == "extra_forbidden":
        parent, _, name = where.rpartition(".")
        siblings = _children(parent, same[0]["loc"])
        near = [f"{parent}.{n}" if parent else n for n in difflib.get_close_matches(name, siblings, n=1)]
        near = near or [field for field in field_names() if field.endswith(f".{name}")]
        return Unusable(
            f"{source}: unknown field {where}{more}; known here are {', '.join(siblings)}",
            f"did you mean {near[0]}?" if near else "",
        )
    text = _text_at(written, _written(same[0]["loc"]))
    message = messages.describe(same, text)
    return Unusable(f"{source}: {where + ': ' if where else ''}{message}{more}", messages.yaml_hint(same, text))


def _written(location: tuple[Any, ...]) -> list[Any]:
    """`location` as it is in the file: pydantic's names for a kind of head, or for a way to write a field, left out."""
    parts = [*location[:2], *location[3:]] if location[:1] == ("heads",) else list(location)
    return [part for part in parts if part not in _UNION_PARTS and "[" not in str(part)]


def _text_at(tree: Any, location: list[Any]) -> str | None:
    for part in location:
        try:
            tree = tree[part]
        except (LookupError, TypeError):
            return None
    return tree if isinstance(tree, str) else None


def _children(parent: str, location: tuple[Any, ...]) -> list[str]:
    """Names of the fields directly below `parent` ("" for the top); of a head, those of its kind."""
    here = parent.split(".") if parent else []
    if here[:1] == ["heads"] and len(here) == 2:
        return list(head_schema.KINDS[location[2]].model_fields)
    out: dict[str, None] = {}
    for name in field_names(deep=True):
        parts = name.split(".")
        if len(parts) > len(here) and all(a in (b, "*") for a, b in zip(parts, here, strict=False)):
            out[parts[len(here)]] = None
    return list(out)
