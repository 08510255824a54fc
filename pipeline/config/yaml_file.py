"""Owns reading pipeline.yaml, applying --set, and one sentence for each mistake. Not the fields (schema.py)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from cache import regular_files
from cache.errors import Unusable
from pipeline.config import head_schema, messages, published_fields
from pipeline.config.schema import RunConfig, field_places
from stages.runtime.suggest import suggest

MOST_BYTES = 4_000_000
_MOST_NODES = 100_000
_UNION_PARTS = ("int", "str", "literal['auto']", "constrained-int", "constrained-float", "float")
"""What pydantic adds to a location for the types that a field may have; others begin with a word and a bracket."""


def config_path(config: Path) -> Path:
    """`config`, or if it is a folder the pipeline.yaml in it."""
    return config / "pipeline.yaml" if config.is_dir() else config


def load(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read pipeline.yaml, apply `a.b=value` overrides, and validate; `base.trust` counts in the overrides only.

    Raises Unusable, naming the file or --set, the field, what was found and the nearest known field.
    """
    path = config_path(path)
    text = _read(path)
    tree = published_fields.fill(_parse(text, path, _Loader, overrides), path.parent)
    try:
        config = RunConfig.model_validate(tree)
    except ValidationError as error:
        written = _parse(text, path, yaml.BaseLoader, overrides)  # all values as text
        raise _explain(f"{path} with --set" if overrides else str(path), tree, error, written) from error
    return config if _set_trust(overrides) else _without_trust(config)


def _set_trust(overrides: Sequence[str]) -> bool:
    """Whether the overrides have a word on base.trust."""
    said: dict[str, Any] = {}
    for text in overrides:
        _override(said, text, _Loader)
    base = said.get("base")
    return isinstance(base, dict) and "trust" in base


def _without_trust(config: RunConfig) -> RunConfig:
    """The settings without base.trust: a file that others may have written cannot say that a model is to be trusted."""
    return config.model_copy(update={"base": config.base.model_copy(update={"trust": False})})


def read(path: Path) -> dict[str, Any]:
    """The fields in a file, unchecked. Raises Unusable for what is not YAML."""
    return _parse(_read(path), path, _Loader, ())


def override(tree: dict[str, Any], source: str, overrides: Sequence[str]) -> RunConfig:
    """The settings in `tree` with `a.b=value` overrides on top. Raises Unusable as `load` does."""
    for text in overrides:
        _override(tree, text, _Loader)
    return validate(tree, f"{source} with --set" if overrides else source)


def validate(tree: Mapping[str, Any], source: str) -> RunConfig:
    """The settings in `tree`. Raises Unusable, naming `source`, the field and what was found."""
    try:
        return RunConfig.model_validate(tree)
    except ValidationError as error:
        raise _explain(source, tree, error, {}) from error


def format_value(value: Any) -> str:
    """A value as YAML on one line."""
    return str(yaml.safe_dump(value, default_flow_style=True, width=10_000).splitlines()[0])


def _read(path: Path) -> str:
    try:
        return regular_files.read_bytes(path, MOST_BYTES).decode("utf-8")
    except FileNotFoundError as error:
        raise Unusable(f"{path} is not there", "pipeline init --images PATH writes one") from error
    except OSError as error:
        raise Unusable(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:  # too large, or not UTF-8
        raise Unusable(f"{path} is not valid YAML: {error}") from error


def _parse(text: str, path: Path, loader: type[Any], overrides: Sequence[str]) -> dict[str, Any]:
    """The tree of a file, with the overrides on top."""
    try:
        tree = yaml.load(text, Loader=loader) or {}
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
        raise Unusable(
            f"{path} is not valid YAML{where}: {error.problem}",
            "check that line and the one above: colons, brackets, and spaces (no tabs) before names",
        ) from error
    except RecursionError as error:
        raise Unusable(f"{path} is nested too deeply") from error
    except (yaml.YAMLError, ValueError) as error:
        raise Unusable(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(tree, dict):
        raise Unusable(f"{path} holds a {type(tree).__name__}; expected fields such as data: and base:")
    for override in overrides:
        _override(tree, override, loader)
    return tree


class _Loader(yaml.SafeLoader):
    """Safe, and strict: a repeated key is an error, and aliases of aliases cannot grow without bound."""

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self._sizes: dict[int, int] = {}

    def compose_node(self, parent: Any, index: Any) -> Any:
        node: Any = super().compose_node(parent, index)  # for an alias, the node it stands for
        if id(node) not in self._sizes:
            children = node.value if isinstance(node, yaml.CollectionNode) else ()
            parts = [part for child in children for part in (child if isinstance(child, tuple) else (child,))]
            self._sizes[id(node)] = 1 + sum(self._sizes.get(id(part), 1) for part in parts)
        if self._sizes[id(node)] > _MOST_NODES:
            raise yaml.composer.ComposerError(None, None, f"more than {_MOST_NODES:,} values", node.start_mark)
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key is not a plain word", key_node.start_mark)
            if key_node.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key_node.value!r} is repeated", key_node.start_mark
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
        if parent == "base" and isinstance(child, str):
            child = {"name": child}
        if child is not None and not isinstance(child, dict):
            what = f"--set {text!r}: {parent} is {child!r}, which has no fields"
            raise Unusable(what, f"write it so: {parent}: {{...}}")
        tree[parent] = tree = dict(child) if isinstance(child, dict) else {}
    try:
        tree[last] = yaml.load(value, Loader=loader)
    except yaml.YAMLError as error:
        raise Unusable(f"--set {text!r}: the value is not valid YAML") from error


def _explain(source: str, tree: Mapping[str, Any], error: ValidationError, written: Any) -> Unusable:
    """The first problem, as one sentence; one for each type that a field may have count as one problem.

    written: the same tree with all values as text.
    """
    problems: dict[str, list[Any]] = {}
    for problem in error.errors():
        where = ".".join(str(part) for part in _written(problem["loc"]))
        problems.setdefault(where, []).append(problem)
    where, same = next(iter(problems.items()))
    inside = [deeper for deeper in problems if deeper.startswith(f"{where}.")]
    if inside:  # a list where a single value is allowed too: the problem is in an entry
        del problems[where]
        where, same = inside[0], problems[inside[0]]
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    if same[0]["type"] == "extra_forbidden":
        parent, _, name = where.rpartition(".")
        siblings = _children(parent, tree)
        near = [f"{parent}.{n}" if parent else n for n in suggest(name, siblings)]
        near = near or [field for field in field_places() if field.endswith(f".{name}")]
        return Unusable(
            f"{source}: unknown field {where}{more}; known here are {', '.join(siblings)}",
            f"did you mean {near[0]}?" if near else "",
        )
    text = _text_at(written, _written(same[0]["loc"]))
    message = messages.describe(same, text)
    return Unusable(f"{source}: {where + ': ' if where else ''}{message}{more}", messages.yaml_hint(same, text))


def _written(location: tuple[Any, ...]) -> list[Any]:
    """`location` as it is in the file, without the names of types that pydantic adds."""
    return [part for part in location if part not in _UNION_PARTS and "[" not in str(part)]


def _text_at(tree: Any, location: list[Any]) -> str | None:
    for part in location:
        try:
            tree = tree[part]
        except (LookupError, TypeError):
            return None
    return tree if isinstance(tree, str) else None


def _children(parent: str, tree: Mapping[str, Any]) -> list[str]:
    """Names of the fields directly below `parent` ("" for the top); below a head, those of its kind."""
    here = parent.split(".") if parent else []
    spec = head_schema.spec_of(tree["heads"].get(here[1])) if here[:1] == ["heads"] and len(here) == 2 else None
    if spec is not None:
        return list(spec.model_fields)
    out: dict[str, None] = {}
    for name in field_places(deep=True):
        parts = name.split(".")
        if len(parts) > len(here) and all(a in (b, "*") for a, b in zip(parts, here, strict=False)):
            out[parts[len(here)]] = None
    return list(out)
