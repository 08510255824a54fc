"""Owns the fields of pipeline.yaml on what is predicted. Not what heads make of it (stages/targets)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from pipeline.config.fields import Keyed, Section
from stages.data.cells import TargetKind

Name = Annotated[str, Field(min_length=1)]


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
