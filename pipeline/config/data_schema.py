"""Owns the fields of pipeline.yaml on images and what is predicted of them. Not what heads make of it (targets)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from pipeline.config.fields import Count, Fraction, Keyed, Section, Whole
from stages.buckets import address
from stages.data.cells import Cells, TargetKind
from stages.data.images import MAX_PIXELS
from stages.sources.listing import FollowLinks
from stages.targets.kinds import KINDS
from stages.targets.target import Target

Name = Annotated[str, Field(min_length=1)]


class Columns(Section, keyed="none"):
    path: str = "path"
    label: str = "label"
    split: str = "split"
    group: str = "group"


class Split(Section, keyed="samples"):
    method: Literal["hash", "stratified"] = "hash"
    """The default is that of files without this field, whose splits must not move; `init` writes stratified."""
    val: Fraction = 0.15
    test: Fraction = 0.15
    seed: Whole = 0

    @model_validator(mode="after")
    def _leaves_train(self) -> Split:
        if self.val + self.test >= 1:
            raise ValueError(f"val {self.val} and test {self.test} leave nothing to train on")
        return self


class TargetConfig(Section, keyed="samples"):
    """What an image's label is: one class, several labels, numbers, or a share of each class.

    columns: those of the table that have it, where it isn't `data.columns.label` alone.
    """

    kind: Annotated[TargetKind, Keyed("head")] = "classes"
    columns: Annotated[list[Name], Field(min_length=1)] | None = None
    separator: Name = ";"
    units: Annotated[list[str], Keyed("none")] = []

    @model_validator(mode="after")
    def _fits_kind(self) -> TargetConfig:
        if self.kind == "classes" and self.columns is not None:
            raise ValueError("columns: a class is in one column, data.columns.label; set kind: labels, number or soft")
        if self.columns is not None and len({*self.columns}) < len(self.columns):
            raise ValueError(f"columns: {', '.join(self.columns)} has a name twice")
        if self.units and self.kind != "number":
            raise ValueError(f"units: only numbers have any; kind is {self.kind}")
        if self.units and len(self.units) != len(self.columns or [1]):
            raise ValueError(f"units: {len(self.units)} for {len(self.columns or [1])} numbers; give one for each")
        return self


class Data(Section, keyed="none"):
    root: str = "images"
    table: str | None = None
    columns: Columns = Columns()
    target: TargetConfig = TargetConfig()
    group_from: Annotated[str | None, Keyed("samples")] = None
    classes: Annotated[list[str] | None, Keyed("head")] = None
    split: Split = Split()
    on_bad: Literal["fail", "skip"] = "fail"
    on_leak: Literal["fail", "warn"] = "fail"
    max_pixels: Count = MAX_PIXELS
    follow_links: FollowLinks = "inside"

    @field_validator("root")
    @classmethod
    def _holds_no_secret(cls, root: str) -> str:
        if "://" in root:
            address.check_url(root)
        return root

    @property
    def predicted(self) -> type[Target]:
        """The kind of target."""
        return KINDS[self.target.kind]

    @property
    def names(self) -> list[str]:
        """The columns of the table that have what is predicted."""
        return self.target.columns or [self.columns.label]

    @property
    def cells(self) -> Cells | None:
        """How these are read; None: one of them has the class."""
        target, two = self.target, self.classes or ()
        named = (two,) if target.kind == "soft" and len(two) == 2 and len(self.names) == 1 else ()
        return None if target.kind == "classes" else Cells(target.kind, self.names, target.separator, *named)

    @field_validator("classes")
    @classmethod
    def _are_different(cls, named: list[str] | None) -> list[str] | None:
        if named is not None and (len({*named}) < len(named) or "" in named):
            raise ValueError(f"{', '.join(map(repr, named))}: each class is listed once, by its name")
        return named

    @model_validator(mode="after")
    def _has_a_table(self) -> Data:
        if self.target.kind != "classes" and self.table is None:
            raise ValueError(
                f"target.kind: {self.target.kind} is in a table; name it with table (folders give classes)"
            )
        return self
