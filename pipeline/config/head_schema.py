"""Owns the kinds of heads: their fields and defaults, the points of a sweep, and what each kind can do. Not fitting."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, PlainValidator, SerializeAsAny, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from pipeline.config import messages
from pipeline.config.fields import Count, Different, Fraction, Keyed, Positive, Real, Section, Whole
from stages.heads.fitted import Activation, Form, Layers
from stages.heads.neighbours import Neighbours

MOST_POINTS = 10_000
DEFAULT_RATE = 0.05
"""Of false alarms, at which an image is said to be unknown; also of heads that were made before there was a field."""


class HeadConfig(Section, keyed="head"):
    """Fields of all kinds. `tap` is one name or several, whose features are joined in that order.

    choose: whether val, or folds of train and val together, choose settings; auto is one of both (train_heads.py).
    unknown: the rate of false alarms at which an image is said to be none of what the head knows; 0: none is.
    """

    kind: str
    """What is fitted."""
    choose: Literal["auto", "folds", "val"] = "auto"
    """What chooses settings: folds of train and val together, or val. auto is val where you made a val set, and
    above 5,000 images."""
    folds: Annotated[Whole, Field(ge=2, le=20)] = 5
    """How many folds."""
    tap: Annotated[str | Annotated[list[str], Field(min_length=1), Different], Keyed("head", by_value=False)] = "pooled"
    """The tap whose rows it is fitted on; of several, the features are joined in that order."""
    sweep: Annotated[dict[str, Annotated[list[Any], Field(min_length=1)]] | None, Keyed("head", by_value=False)] = None
    """Fields to vary, each with a list of values: a head for each point of the grid."""
    seed: Whole = 0
    """The seed of all that is random."""
    unknown: Fraction = DEFAULT_RATE
    """The rate of false alarms at which an image is said to be none of what the head knows; 0: it is never said."""

    @property
    def taps(self) -> list[str]:
        """Names of its taps, in order."""
        return [self.tap] if isinstance(self.tap, str) else self.tap

    @property
    def settings(self) -> dict[str, Any]:
        """The fields that enter a head's key by value; taps enter by their extract keys."""
        default = {"unknown"} if self.unknown == DEFAULT_RATE else set()
        return self.model_dump(exclude=self.not_by_value() | default)  # older heads' keys have no such field

    @property
    def packages(self) -> tuple[str, ...]:
        """What such a head is fitted with, beside scikit-learn and numpy."""
        return HEAD_KINDS[self.kind].packages

    def effective(self) -> dict[str, Any]:
        """Its fields, those without effect at these settings as None: equal ones give the same head."""
        return self.model_dump(exclude={"sweep", *(["folds"] if self.choose == "val" else [])})

    def settled(self, chosen: Mapping[str, Any]) -> HeadConfig:
        """The same with what a head of these settings `chosen` for itself, as C, alpha or k: there is less to try."""
        found = {name: value for name, value in chosen.items() if name in type(self).model_fields and name != "kind"}
        return self.model_copy(update=found)

    def points(self) -> dict[str, HeadConfig]:
        """Each point of the grid that `sweep` spans, named like `C=0.1 tap=early`; without a sweep, itself as ''.

        Of points that give the same head, the first.
        """
        if self.sweep is None:
            return {"": self}
        grid, own = self.sweep, self.model_dump(exclude={"sweep"})
        found: dict[str, HeadConfig] = {}
        seen = []
        for values in itertools.product(*grid.values()):
            changed = dict(zip(grid, values, strict=True))
            name = " ".join(f"{field}={format_setting(value)}" for field, value in changed.items())
            point = type(self).model_validate({**own, **changed})
            if point.effective() not in seen:
                seen.append(point.effective())
                found[name] = point
        return found

    @model_validator(mode="after")
    def _sweep_fits(self) -> HeadConfig:
        places = self.places().items()
        known = [name for name, place in places if place.stage == "head" and name not in ("kind", "sweep")]
        for field in self.sweep or {}:
            if field not in known:
                raise ValueError(f"sweep: no field {field!r} can vary; expected one of {', '.join(known)}")
        points = math.prod(map(len, (self.sweep or {}).values()))
        if points > MOST_POINTS:
            raise ValueError(f"sweep: {points:,} points; at most {MOST_POINTS:,} are possible")
        try:
            self.points()
        except ValidationError as error:
            where = error.errors()[0]["loc"][:1]
            same = [problem for problem in error.errors() if problem["loc"][:1] == where]
            raise ValueError(f"sweep.{'.'.join(map(str, where))}: {messages.describe(same)}") from error
        return self


class Logistic(HeadConfig):
    kind: Literal["logistic"] = "logistic"
    C: Positive | None = None
    """The inverse of the L2 penalty; null: it is chosen."""


class Ridge(HeadConfig):
    kind: Literal["ridge"] = "ridge"
    alpha: Positive | None = None
    """The L2 penalty; null: it is chosen."""


class Knn(HeadConfig):
    kind: Literal["knn"] = "knn"
    k: Count | Annotated[list[Count], Field(min_length=1)] = [5, 10, 20, 50, 100, 200]
    """How many neighbours vote; of several, one is chosen."""
    temperature: Annotated[Real, Field(ge=0.001)] = 0.07
    """A neighbour's weight is exp(cosine / temperature)."""

    def effective(self) -> dict[str, Any]:
        candidates = sorted({self.k} if isinstance(self.k, int) else {*self.k})
        alone = {"temperature": None} if candidates == [1] else {}  # a single vote has no weight
        return {**super().effective(), "k": candidates, **alone}


class Dense(HeadConfig):
    kind: Literal["dense"] = "dense"
    units: list[Count] = [256]
    """The width of each hidden layer; []: none."""
    activation: Activation = "relu"
    """What follows each hidden layer."""
    dropout: Fraction = 0.5
    """The share of units that is dropped in training."""
    standardise: bool = True
    """Whether features are centred and divided by their deviations first."""
    optimizer: Literal["adam", "rmsprop", "sgd"] = "adam"
    """The optimiser."""
    lr: Positive = 1e-3
    """The learning rate."""
    weight_decay: Annotated[Real, Field(ge=0)] = 0.0
    """Decoupled weight decay."""
    label_smoothing: Fraction = 0.0
    """The share of each label that is spread over all classes."""
    class_weight: Literal["none", "balanced"] = "none"
    """`balanced` weighs each class by the inverse of its share."""
    batch: Count = 32
    """Rows in a batch."""
    epochs: Count = 100
    """The most epochs."""
    patience: Count | None = 5
    """Epochs without a lower val loss after which training ends; null: it never ends early."""
    log_dir: Annotated[str | None, Keyed("none")] = None
    """A folder for logs of TensorBoard."""

    def effective(self) -> dict[str, Any]:
        found = super().effective()
        if not self.units:  # no hidden layer
            found |= {"activation": None, "dropout": None}
        if self.patience is not None and self.patience >= self.epochs:
            found["patience"] = None
        return found


class Auto(HeadConfig):
    """The first of several kinds with their defaults, or another that is clearly better.

    Which kinds is in the key, so it can't depend on what is installed.
    """

    kind: Literal["auto"] = "auto"
    kinds: Annotated[list[Literal["logistic", "ridge", "knn", "dense"]], Field(min_length=1)] = [
        "logistic",
        "ridge",
        "knn",
    ]
    """The kinds that are tried; the first is kept unless another is clearly better."""

    @property
    def packages(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(package for kind in self.kinds for package in HEAD_KINDS[kind].packages))

    @property
    def candidates(self) -> dict[str, tuple[str, HeadConfig]]:
        """Kind -> the module that fits it, and its settings."""
        shared = {"choose": self.choose, "folds": self.folds, "seed": self.seed}
        rows = {kind: HEAD_KINDS[kind] for kind in self.kinds}
        return {kind: (row.module, row.spec.model_validate(shared)) for kind, row in rows.items()}

    def settled(self, chosen: Mapping[str, Any]) -> HeadConfig:
        """The kind that was chosen, with what it chose."""
        _, best = self.candidates[chosen["kind"]]
        return best.settled(chosen).model_copy(update={"tap": self.tap})


@dataclass(frozen=True)
class HeadKind:
    """A kind of head: all that other modules know of it.

    module: has fit(spec, features, rows, target) -> Head; imported when a head is fitted. form: what its heads
    consist of. packages: those it is fitted with, beside scikit-learn and numpy. parallel: whether several may be
    fitted at the same time. exportable, finetunable: whether its layers can be written to a file, or trained further.
    numbers: whether it can predict numbers.
    folds: whether it can choose by folds, where there are no rows of val. nests: whether its module also has
    nest(spec, features, rows, target) -> OutOfFold | None, which judges a choice among heads that it makes by folds.
    choosing: version of how a kind chooses among heads, and of how that is judged; it is in the keys of its heads.
    """

    spec: type[HeadConfig]
    module: str
    form: type[Form] = Layers
    packages: tuple[str, ...] = ()
    parallel: bool = True
    exportable: bool = True
    finetunable: bool = False
    numbers: bool = True
    folds: bool = False
    nests: bool = False
    choosing: int | None = None


HEAD_KINDS = {
    "logistic": HeadKind(Logistic, "stages.heads.logistic", finetunable=True, numbers=False, folds=True),
    "ridge": HeadKind(Ridge, "stages.heads.ridge", finetunable=True, folds=True),
    "knn": HeadKind(Knn, "stages.heads.knn", form=Neighbours, exportable=False, folds=True),
    "dense": HeadKind(  # Keras has one seed for the process, and uses all cores by itself
        Dense, "stages.heads.dense", packages=("tensorflow", "keras"), parallel=False, finetunable=True, folds=True
    ),
    "auto": HeadKind(Auto, "stages.heads.auto", parallel=False, folds=True, nests=True, choosing=4),
}
"""A new kind is a row here and the module it names."""


def spec_of(value: Any) -> type[HeadConfig] | None:
    """The fields of the kind that `value` (as in pipeline.yaml) names, by default logistic; None for no such kind."""
    kind = value.get("kind", "logistic") if isinstance(value, dict) else None
    row = HEAD_KINDS.get(kind) if isinstance(kind, str) else None
    return None if row is None else row.spec


def _validate(value: Any) -> HeadConfig:
    if isinstance(value, HeadConfig):
        return value
    spec = spec_of(value)
    if spec is None:
        raise PydanticCustomError("unknown_kind", "kind should be one of {kinds}", {"kinds": ", ".join(HEAD_KINDS)})
    return spec.model_validate(value)


AnyHead = Annotated[SerializeAsAny[HeadConfig], PlainValidator(_validate)]
"""A head of any kind in HEAD_KINDS."""


def head_places() -> dict[str, Keyed]:
    """Where the fields of all kinds enter keys, each name once."""
    return {name: place for kind in HEAD_KINDS.values() for name, place in kind.spec.places().items()}


def format_setting(value: Any) -> str:
    """A value of a setting, shortened."""
    if isinstance(value, float):
        return format(value, "g")
    return str(value).replace(" ", "").replace("'", "")
