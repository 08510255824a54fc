"""Owns the fields of pipeline.yaml, their defaults and checks. Not reading it (yaml_file.py), nor keys (keyed.py)."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from pipeline.config import head_schema
from pipeline.config.finetune_schema import FineTune
from pipeline.config.head_schema import AnyHead, Count, Fraction, Logistic, Positive, Real, Whole
from stages.bases import catalogue
from stages.bases.catalogue import Base, Preprocess
from stages.bases.recipe import Numerics, Pooling, StoredDtype
from stages.data.images import MAX_PIXELS, Decode, Fit, Resize
from stages.data.scan import FollowLinks
from stages.engines import select
from stages.engines.select import Engine


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Columns(_Strict):
    path: str = "path"
    label: str = "label"
    split: str = "split"
    group: str = "group"


class Split(_Strict):
    method: Literal["hash"] = "hash"
    val: Fraction = 0.15
    test: Fraction = 0.15
    seed: Whole = 0

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
    max_pixels: Count = MAX_PIXELS
    follow_links: FollowLinks = "inside"


class PreprocessConfig(_Strict):
    """What a model of one's own does to RGB pixels x of 0 to 255: (x * scale - mean) / std, channels in `order`."""

    scale: Positive = 1.0
    mean: tuple[Real, Real, Real] = (0.0, 0.0, 0.0)
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
        return catalogue.choose_base(self.name, self.trust, numbers)

    @property
    def file(self) -> str:
        """The path of its file, as it is written."""
        return self.name if catalogue.is_model_file(self.name) else self.weights

    @property
    def setting(self) -> str:
        """What says which weights: a word, a digest or a path. A model of one's own has its weights in its file."""
        return self.name if catalogue.is_model_file(self.name) and self.weights == "imagenet" else self.weights

    @model_validator(mode="after")
    def _an_own_model_or_not(self) -> BaseChoice:
        if not catalogue.is_model_file(self.name):
            if self.preprocess is not None:
                raise ValueError(f"preprocess: {self.name} has its own; it is for a model file as base.name")
        elif self.weights != "imagenet" and not self.weights.startswith("sha256:"):
            raise ValueError(f"weights: {self.name} has its weights in it; leave weights out, or give sha256:DIGEST")
        return self


class TapConfig(_Strict):
    layer: str = "output"
    pooling: Pooling = "avg"


class Extract(_Strict):
    size: Annotated[Whole, Field(ge=16, le=4096)] = 224
    fit: Fit = "squash"
    resize: Resize = "bilinear"
    decode: Decode = "scaled"
    taps: Annotated[dict[str, TapConfig], Field(min_length=1)] = {"pooled": TapConfig()}
    numerics: Numerics = "f32"
    engine: Engine = "auto"
    batch: Literal["auto"] | Count = "auto"
    shard_rows: Literal["auto"] | Count = "auto"
    dtype: StoredDtype = "float32"

    @model_validator(mode="after")
    def _engine_can(self) -> Extract:
        reason = select.find_conflict(self.engine, self.numerics)
        if reason is not None:
            raise ValueError(reason)
        return self


class Cluster(_Strict):
    workers: Literal["auto"] | Count = "auto"
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
        if catalogue.is_model_file(self.base.name) and self.extract.numerics != "f32":
            raise ValueError("extract.numerics: a model of one's own computes as it was saved; leave it at f32")
        for name, tuned in self.finetune.items():
            if tuned.head not in self.heads:
                raise ValueError(f"finetune.{name}.head: no head {tuned.head!r}; there are {', '.join(self.heads)}")
        return self


def field_names(model: type[BaseModel] = RunConfig, prefix: str = "", deep: bool = False) -> list[str]:
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
            names += [f"{prefix}{name}.*.{field}" for field in head_schema.head_fields()]
        elif isinstance(inner, type) and issubclass(inner, BaseModel):
            names += field_names(inner, f"{prefix}{name}.*.", deep)
        elif group:
            names += field_names(group[0], f"{prefix}{name}.", deep)
        else:
            names.append(prefix + name)
    return names
