"""Owns pipeline.yaml: its fields, defaults and checks. Not which are in a key (keyed.py), nor what they do."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from cache.errors import Unusable
from pipeline import head_config
from pipeline.finetune_config import FineTune
from pipeline.head_config import AnyHead, Logistic
from stages import bases, engine
from stages.bases import Base, Preprocess
from stages.engine import Engine
from stages.extract_key import Numerics, Pooling, StoredDtype
from stages.images import Decode, Fit, Resize

Share = Annotated[float, Field(ge=0, lt=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Columns(_Strict):
    path: str = "path"
    label: str = "label"
    split: str = "split"
    group: str = "group"


class Split(_Strict):
    method: Literal["hash"] = "hash"
    val: Share = 0.15
    test: Share = 0.15
    seed: int = 0

    @model_validator(mode="after")
    def _leaves_train(self) -> Split:
        if self.val + self.test >= 1:
            raise ValueError(f"val {self.val} and test {self.test} leave nothing to train on")
        return self


class Data(_Strict):
    root: str = "images"
    table: str | None = None
    columns: Columns = Columns()
    group_from: str | None = None
    classes: list[str] | None = None
    split: Split = Split()
    on_bad: Literal["fail", "skip"] = "fail"
    on_leak: Literal["fail", "warn"] = "fail"


Number = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class PreprocessConfig(_Strict):
    """What a model of one's own does to RGB pixels x of 0 to 255: (x * scale - mean) / std, channels in `order`."""

    scale: Positive = 1.0
    mean: tuple[Number, Number, Number] = (0.0, 0.0, 0.0)
    std: tuple[Positive, Positive, Positive] = (1.0, 1.0, 1.0)
    order: Literal["rgb", "bgr"] = "rgb"


class BaseChoice(_Strict):
    name: str = "efficientnet_lite0"
    weights: str = "imagenet"
    trust: bool = False
    preprocess: PreprocessConfig | None = None

    @property
    def base(self) -> Base:
        """Raises Unusable where there is none of that name."""
        numbers = None if self.preprocess is None else Preprocess(**self.preprocess.model_dump())
        return bases.chosen(self.name, self.trust, numbers)

    @property
    def file(self) -> str:
        """The path of its file, as it is written."""
        return self.name if bases.is_file(self.name) else self.weights

    @property
    def setting(self) -> str:
        """What says which weights: a word, a digest or a path. A model of one's own has its weights in its file."""
        return self.name if bases.is_file(self.name) and self.weights == "imagenet" else self.weights

    @model_validator(mode="after")
    def _an_own_model_or_not(self) -> BaseChoice:
        if not bases.is_file(self.name):
            if self.preprocess is not None:
                raise ValueError(f"preprocess: {self.name} has its own; it is for a model file as base.name")
        elif self.weights != "imagenet" and not self.weights.startswith("sha256:"):
            raise ValueError(f"weights: {self.name} has its weights in it; leave weights out, or give sha256:DIGEST")
        return self


class TapConfig(_Strict):
    layer: str = "output"
    pooling: Pooling = "avg"


class Extract(_Strict):
    size: Annotated[int, Field(ge=16, le=4096)] = 224
    fit: Fit = "squash"
    resize: Resize = "bilinear"
    decode: Decode = "scaled"
    taps: Annotated[dict[str, TapConfig], Field(min_length=1)] = {"pooled": TapConfig()}
    numerics: Numerics = "f32"
    engine: Engine = "auto"
    batch: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"
    shard_rows: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"
    dtype: StoredDtype = "float32"

    @model_validator(mode="after")
    def _engine_can(self) -> Extract:
        reason = engine.conflict(self.engine, self.numerics)
        if reason is not None:
            raise ValueError(reason)
        return self


class Cluster(_Strict):
    workers: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"
    scheduler: str | None = None


class CacheConfig(_Strict):
    dir: str | None = None


class RunConfig(_Strict):
    """The whole of pipeline.yaml, every field with its default."""

    data: Data = Data()
    base: BaseChoice = BaseChoice()
    extract: Extract = Extract()
    heads: dict[str, AnyHead] = {"logistic": Logistic()}
    finetune: dict[str, FineTune] = {}
    cluster: Cluster = Cluster()
    cache: CacheConfig = CacheConfig()

    @field_validator("heads", "finetune")
    @classmethod
    def _names_are_folders(cls, named: dict[str, Any]) -> dict[str, Any]:
        for name in named:
            if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name):
                raise ValueError(f"the name {name!r} cannot be a folder's; use letters, digits, - and _")
        return named

    @model_validator(mode="after")
    def _taps_exist(self) -> RunConfig:
        for name, head in self.heads.items():
            for tap in (tap for point in head.points().values() for tap in point.taps):
                if tap not in self.extract.taps:
                    known = ", ".join(self.extract.taps)
                    raise ValueError(f"heads.{name}.tap: no tap {tap!r} in extract.taps; there are {known}")
        if bases.is_file(self.base.name) and self.extract.numerics != "f32":
            raise ValueError("extract.numerics: a model of one's own computes as it was saved; leave it at f32")
        for name, tuned in self.finetune.items():
            if tuned.head not in self.heads:
                raise ValueError(f"finetune.{name}.head: no head {tuned.head!r}; there are {', '.join(self.heads)}")
        return self


def load(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read pipeline.yaml (`path`, or in the folder `path`), put `a.b=value` overrides on top, and check it all.

    Raises Unusable, naming the file or --set, the field, what was found and the nearest known field.
    """
    path = path / "pipeline.yaml" if path.is_dir() else path
    tree = _read(path)
    if not overrides:
        return validate(tree, str(path))
    for override in overrides:
        _override(tree, override)
    return validate(tree, f"{path} with --set")


def _read(path: Path) -> dict[str, Any]:
    try:
        tree = yaml.load(path.read_text("utf-8"), Loader=_Loader) or {}
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
    return tree


def fields(model: type[BaseModel] = RunConfig, prefix: str = "", deep: bool = False) -> list[str]:
    """Dotted names of all fields; `*` stands for a name that the user chooses.

    A group that may be null is one field, or with `deep` those in it.
    """
    names = []
    for name, info in model.model_fields.items():
        annotation = info.annotation
        parts: tuple[Any, ...] = getattr(annotation, "__args__", ())
        inner = parts[-1] if getattr(annotation, "__origin__", None) is dict else None
        candidates = (annotation, *parts) if deep else (annotation,)
        group = [part for part in candidates if isinstance(part, type) and issubclass(part, BaseModel)]
        if name == "heads":
            names += [f"{prefix}{name}.*.{field}" for field in head_config.fields()]
        elif isinstance(inner, type) and issubclass(inner, BaseModel):
            names += fields(inner, f"{prefix}{name}.*.", deep)
        elif group:
            names += fields(group[0], f"{prefix}{name}.", deep)
        else:
            names.append(prefix + name)
    return names


_UNION_PARTS = ("int", "str", "literal['auto']", "constrained-int", "constrained-float", "float")
"""What pydantic puts into a location for the ways a field may be written; others begin with a word and a bracket."""


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


def _override(tree: dict[str, Any], text: str) -> None:
    path, equals, value = text.partition("=")
    if not equals or not path:
        raise Unusable(f"--set {text!r}: expected FIELD=VALUE", "for example --set extract.size=160")
    *parents, last = path.split(".")
    for parent in parents:
        child = tree.get(parent)
        tree[parent] = tree = dict(child) if isinstance(child, dict) else {}
    try:
        tree[last] = yaml.load(value, Loader=_Loader)
    except yaml.YAMLError as error:
        raise Unusable(f"--set {text!r}: the value is not valid YAML") from error


def validate(tree: Mapping[str, Any], source: str) -> RunConfig:
    """The settings in `tree`. Raises Unusable, naming `source`, the field and what was found."""
    try:
        return RunConfig.model_validate(tree)
    except ValidationError as error:
        raise _explain(source, error) from error


def _explain(source: str, error: ValidationError) -> Unusable:
    """The first problem, as one sentence; the ways a field may be written are one problem."""
    problems: dict[str, list[Any]] = {}
    for problem in error.errors():
        where = ".".join(str(part) for part in _written(problem["loc"]))
        problems.setdefault(where, []).append(problem)
    where, same = next(iter(problems.items()))
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    if same[0]["type"] == "extra_forbidden":
        parent, _, name = where.rpartition(".")
        siblings = _children(parent, same[0]["loc"])
        near = [f"{parent}.{n}" if parent else n for n in difflib.get_close_matches(name, siblings, n=1)]
        near = near or [field for field in fields() if field.endswith(f".{name}")]
        return Unusable(
            f"{source}: unknown field {where}{more}; known here are {', '.join(siblings)}",
            f"did you mean {near[0]}?" if near else "",
        )
    message = (
        " or ".join(problem["msg"].removeprefix("Value error, ") for problem in same)
        .replace("or Input", "or input")
        .replace("or List", "or list")
    )
    found = "" if same[0]["type"] == "value_error" else f", got {same[0]['input']!r}"
    return Unusable(f"{source}: {where + ': ' if where else ''}{message[:1].lower()}{message[1:]}{found}{more}")


def _written(location: tuple[Any, ...]) -> list[Any]:
    """`location` as it is in the file: pydantic's names for a kind of head, or for a way to write a field, left out."""
    parts = [*location[:2], *location[3:]] if location[:1] == ("heads",) else list(location)
    return [part for part in parts if part not in _UNION_PARTS and "[" not in str(part)]


def _children(parent: str, location: tuple[Any, ...] = ()) -> list[str]:
    """Names of the fields directly below `parent` ("" for the top); of a head, those of its kind."""
    here = parent.split(".") if parent else []
    if here[:1] == ["heads"] and len(here) == 2:
        return list(head_config.KINDS[location[2]].model_fields)
    out: dict[str, None] = {}
    for name in fields(deep=True):
        parts = name.split(".")
        if len(parts) > len(here) and all(a in (b, "*") for a, b in zip(parts, here, strict=False)):
            out[parts[len(here)]] = None
    return list(out)
