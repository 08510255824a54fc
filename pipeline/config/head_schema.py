"""Owns the kinds of heads as pipeline.yaml has them: fields, defaults, and the points of a sweep. Not fitting them."""

from __future__ import annotations

import itertools
import math
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, ValidationError, model_validator

from pipeline.config import messages
from stages.heads.fitted import Activation

Real = Annotated[float, BeforeValidator(messages.reject_bool), Field(allow_inf_nan=False)]
Whole = Annotated[int, BeforeValidator(messages.reject_bool)]
Positive = Annotated[Real, Field(gt=0)]
Count = Annotated[Whole, Field(ge=1)]
Fraction = Annotated[Real, Field(ge=0, lt=1)]

MOST_POINTS = 10_000

ELSEWHERE = frozenset({"tap", "sweep", "log_dir"})
"""Fields that are not in a head's key as they stand: taps are there by their extract keys."""


class HeadConfig(BaseModel):
    """What all kinds share. `tap` is one name or several, whose features are joined in that order."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    _fixed: ClassVar[frozenset[str]] = frozenset({"kind", "sweep", "log_dir"})

    kind: str
    tap: str | Annotated[list[str], Field(min_length=1)] = "pooled"
    sweep: dict[str, Annotated[list[Any], Field(min_length=1)]] | None = None
    seed: Whole = 0

    @property
    def taps(self) -> list[str]:
        """Names of its taps, in order."""
        return [self.tap] if isinstance(self.tap, str) else self.tap

    @property
    def settings(self) -> dict[str, Any]:
        """What of it enters a key."""
        return self.model_dump(exclude=set(ELSEWHERE))

    def points(self) -> dict[str, HeadConfig]:
        """Each point of the grid that `sweep` spans, under a name like `C=0.1 tap=early`; without one, itself as ''."""
        if self.sweep is None:
            return {"": self}
        grid, own = self.sweep, self.model_dump(exclude={"sweep"})
        found = {}
        for values in itertools.product(*grid.values()):
            changed = dict(zip(grid, values, strict=True))
            name = " ".join(f"{field}={format_setting(value)}" for field, value in changed.items())
            found[name] = type(self).model_validate({**own, **changed})
        return found

    @model_validator(mode="after")
    def _sweep_fits(self) -> HeadConfig:
        known = [field for field in type(self).model_fields if field not in self._fixed]
        for field in self.sweep or {}:
            if field not in known:
                raise ValueError(f"sweep: there is no varying {field!r}; expected one of {', '.join(known)}")
        points = math.prod(map(len, (self.sweep or {}).values()))
        if points > MOST_POINTS:
            raise ValueError(f"sweep: {points:,} points; at most {MOST_POINTS:,} are possible")
        try:
            self.points()
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"][:1])
            raise ValueError(f"sweep.{where}: {messages.describe([first])}") from error
        return self


class Logistic(HeadConfig):
    kind: Literal["logistic"] = "logistic"
    C: Positive | None = None


class Ridge(HeadConfig):
    kind: Literal["ridge"] = "ridge"
    alpha: Positive | None = None
    folds: Annotated[Whole, Field(ge=2, le=20)] = 5


class Knn(HeadConfig):
    kind: Literal["knn"] = "knn"
    k: Count | Annotated[list[Count], Field(min_length=1)] = [5, 10, 20, 50, 100, 200]
    temperature: Annotated[Real, Field(ge=0.001)] = 0.07


class Dense(HeadConfig):
    kind: Literal["dense"] = "dense"
    units: list[Count] = [256]
    activation: Activation = "relu"
    dropout: Fraction = 0.5
    standardise: bool = True
    optimizer: Literal["adam", "rmsprop", "sgd"] = "adam"
    lr: Positive = 1e-3
    weight_decay: Annotated[Real, Field(ge=0)] = 0.0
    label_smoothing: Fraction = 0.0
    class_weight: Literal["none", "balanced"] = "none"
    batch: Count = 32
    epochs: Count = 100
    patience: Count | None = 5
    log_dir: str | None = None


KINDS: dict[str, type[HeadConfig]] = {"logistic": Logistic, "ridge": Ridge, "knn": Knn, "dense": Dense}


def _kind(value: Any) -> str | None:
    """The kind that is meant; where none is told, logistic."""
    found = value.get("kind", "logistic") if isinstance(value, dict) else getattr(value, "kind", None)
    return found if isinstance(found, str) else None


AnyHead = Annotated[
    Annotated[Logistic, Tag("logistic")]
    | Annotated[Ridge, Tag("ridge")]
    | Annotated[Knn, Tag("knn")]
    | Annotated[Dense, Tag("dense")],
    Discriminator(
        _kind,
        custom_error_type="unknown_kind",
        custom_error_message=f"kind should be one of {', '.join(KINDS)}",
    ),
]


def head_fields() -> list[str]:
    """Names of the fields of all kinds, once each."""
    return list(dict.fromkeys(name for kind in KINDS.values() for name in kind.model_fields))


def format_setting(value: Any) -> str:
    """A value of a setting, shortly."""
    if isinstance(value, float):
        return format(value, "g")
    return str(value).replace(" ", "").replace("'", "")
