"""Owns the fields of pipeline.yaml, their defaults, checks and places in keys. Not reading it (yaml_file.py)."""

from __future__ import annotations

import re
from typing import Any, get_args, get_origin

from pydantic import field_validator, model_validator

from pipeline.config import head_schema
from pipeline.config.data_schema import Data
from pipeline.config.extract_schema import BaseChoice, Extract, ProjectBase, TapConfig
from pipeline.config.fields import Keyed, Section
from pipeline.config.finetune_schema import FineTune
from pipeline.config.head_schema import HEAD_KINDS, AnyHead, Auto, Logistic
from pipeline.config.unkeyed_schema import CacheConfig, Card, Cluster
from stages.bases import catalogue
from stages.bases.formats import BUILT
from stages.data.images import PixelSpec
from stages.engines import select
from stages.targets.kinds import KINDS


class RunConfig(Section):
    """The whole of pipeline.yaml, every field with its default."""

    data: Data = Data()
    """The images, their labels and splits."""
    base: ProjectBase = ProjectBase()
    """The frozen network."""
    extract: Extract = Extract()
    """How images become rows of features."""
    heads: dict[str, AnyHead] = {"logistic": Logistic()}
    """Classifiers (or regressors) on cached rows, by a name of your choice."""
    finetune: dict[str, FineTune] = {}
    """Trainings of the last blocks of the base together with a head, by a name of your choice."""
    cluster: Cluster = Cluster()
    """Processes that extract."""
    cache: CacheConfig = CacheConfig()
    """Where rows are kept."""
    card: Card = Card()
    """What a report's model card says that only people know."""

    @property
    def bases(self) -> list[BaseChoice]:
        """The different bases of its taps, with their weights."""
        return list(dict.fromkeys(tap.base or self.base for tap in self.extract.taps.values()))

    def numerics(self, tap: str) -> str:
        """Those in which the base of that tap computes."""
        return self.extract.taps[tap].numerics or self.extract.numerics

    def deciding_fields(self, stage: str, name: str) -> list[Any]:
        """The settings that decide what a head or fine-tuning of that name is made of, and how; not places of files."""
        heads: dict[str, Any] = dict(self.heads)
        tuned = self.finetune.get(name) if stage == "finetune" else None
        own = [heads.get(name if tuned is None else tuned.head), tuned]
        extract = self.extract.model_dump(exclude=self.extract.not_by_value() - {"taps"})
        places = {field for field, place in self.data.places().items() if place == Keyed("none")}
        data = self.data.model_dump(exclude=places - {"split", "target"})
        return [*own, data, self.base.model_dump(exclude={"trust"}), extract]

    @model_validator(mode="before")
    @classmethod
    def _default_heads(cls, written: Any) -> Any:
        """The linear head that the target takes, where that isn't the default of `heads`."""
        data = written.get("data") if isinstance(written, dict) else None
        target = data.get("target") if isinstance(data, dict) else None
        kind = target.get("kind") if isinstance(target, dict) else None
        linear = KINDS[kind].linear if isinstance(kind, str) and kind in KINDS else Logistic().kind
        if "heads" in written or linear == Logistic().kind:
            return written
        return {**written, "heads": {linear: {"kind": linear}}}

    @model_validator(mode="after")
    def _heads_fit_the_target(self) -> RunConfig:
        if self.data.predicted.probabilities:
            return self
        fit = [kind for kind, row in HEAD_KINDS.items() if row.numbers]
        for name, head in self.heads.items():
            if head.kind not in fit:
                expected = f"expected {', '.join(fit)}"
                raise ValueError(f"heads.{name}: a {head.kind} head gives probabilities, no numbers; {expected}")
            if isinstance(head, Auto) and "kinds" not in head.model_fields_set:
                self.heads[name] = head.model_copy(update={"kinds": [kind for kind in head.kinds if kind in fit]})
        return self

    @model_validator(mode="after")
    def _weights_fit_the_target(self) -> RunConfig:
        if self.data.predicted.exclusive:  # shares may be those of one class each
            return self
        specs: list[tuple[str, Any]] = [(f"finetune.{name}", spec) for name, spec in self.finetune.items()]
        specs += [(f"heads.{name}", spec) for name, head in self.heads.items() for spec in head.points().values()]
        if wrong := [name for name, spec in specs if getattr(spec, "class_weight", "none") == "balanced"]:
            kind = self.data.target.kind
            raise ValueError(f"{wrong[0]}.class_weight: balanced weighs classes; data.target.kind is {kind}")
        return self

    @field_validator("heads", "finetune")
    @classmethod
    def _names_are_folders(cls, named: dict[str, Any]) -> dict[str, Any]:
        for name in named:
            if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name):
                raise ValueError(f"{name!r} cannot name a folder; use letters, digits, - and _")
        return named

    @model_validator(mode="after")
    def _taps_exist(self) -> RunConfig:
        for name, head in self.heads.items():
            for tap in (tap for point in head.points().values() for tap in point.taps):
                if tap not in self.extract.taps:
                    known = ", ".join(self.extract.taps)
                    raise ValueError(f"heads.{name}.tap: no tap {tap!r} in extract.taps; there are {known}")
        for named, settings in self.extract.taps.items():
            self._check_pixels(named, settings)
            kind = catalogue.find_format((settings.base or self.base).name)
            conflict = select.find_conflict(self.extract.engine, self.numerics(named), kind)
            if kind is BUILT and settings.pooling not in ("avg", "max", "none"):
                fitting = "avg, max or none"
                raise ValueError(f"extract.taps.{named}.pooling: {settings.pooling} is for tokens; expected {fitting}")
            if conflict is not None:
                own = settings.base or settings.numerics
                raise ValueError(f"extract.taps.{named}: {conflict}" if own else conflict)
        for name, tuned in self.finetune.items():
            if tuned.head not in self.heads:
                raise ValueError(f"finetune.{name}.head: no head {tuned.head!r}; there are {', '.join(self.heads)}")
        return self

    def _check_pixels(self, tap: str, own: TapConfig) -> None:
        pixels = self.pixels(tap)
        side, size = pixels.resize_to, (pixels.height, pixels.width)
        if side is not None and (pixels.fit != "crop" or side < max(size)):
            where = f"extract.taps.{tap}.resize_to" if own.resize_to else "extract.resize_to"
            raise ValueError(f"{where}: with fit: crop, and at least {max(size)}, the larger side of size; got {side}")

    def pixels(self, tap: str) -> PixelSpec:
        """How images become pixels for that tap."""
        own, project = self.extract.taps[tap], self.extract
        size = own.size or project.size
        height, width = (size, size) if isinstance(size, int) else size
        resize_to = own.resize_to if own.size or own.fit or own.resize_to else project.resize_to
        fit, resize = own.fit or project.fit, own.resize or project.resize
        return PixelSpec(height, width, fit, resize, project.decode, self.data.max_pixels, resize_to)


def field_places(model: type[Section] = RunConfig, prefix: str = "", deep: bool = False) -> dict[str, Keyed]:
    """Where each field enters keys, by its dotted name; `*` stands for a name that the user chooses.

    A group that may be null is one field, or with `deep` those in it.
    """
    found: dict[str, Keyed] = {}
    for name, info in model.model_fields.items():
        parts = get_args(info.annotation)
        candidates = (info.annotation, *parts) if deep else (info.annotation,)
        group = [part for part in candidates if isinstance(part, type) and issubclass(part, Section)]
        if name == "heads":
            found |= {f"{prefix}{name}.*.{field}": place for field, place in head_schema.head_places().items()}
        elif get_origin(info.annotation) is dict and isinstance(parts[-1], type):
            found |= field_places(parts[-1], f"{prefix}{name}.*.", deep)
        elif group:
            found |= field_places(group[0], f"{prefix}{name}.", deep)
        else:
            found[prefix + name] = model.places()[name]
    return found
