"""Owns which kinds of targets there are, and which one the labelled images have. Not what they do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from cache.errors import Unusable
from stages.data.cells import TargetKind
from stages.data.manifest import Manifest
from stages.targets.classes import Classes
from stages.targets.labels import Labels
from stages.targets.numbers import Numbers
from stages.targets.soft import Soft
from stages.targets.target import Labelled, Target

KINDS: Mapping[str, type[Target]] = {kind.kind: kind for kind in (Classes, Labels, Numbers, Soft)}


def load_target(names: Sequence[str], written: Mapping[str, Any] | None) -> Target:
    """The target with those columns that a head's file has; None: classes. Raises Unusable where its kind is newer."""
    if written is None:
        return Classes(names)
    settings = dict(written)
    kind = settings.pop("kind", None)
    if kind not in KINDS:
        raise Unusable(f"the target is of kind {kind!r}; this version reads {', '.join(KINDS)}", "use a newer version")
    return KINDS[kind].load(names, settings)


def kind_of(head: Mapping[str, Any]) -> type[Target]:
    """What a head predicts whose head.json has that content. Raises Unusable where its kind is newer."""
    return type(load_target((), head.get("target")))


class Settings(Protocol):
    """As in pipeline.yaml."""

    @property
    def kind(self) -> TargetKind: ...

    @property
    def units(self) -> Sequence[str]: ...


def find_target(manifest: Manifest, settings: Settings, columns: Sequence[str], order: Sequence[str] | None) -> Target:
    """The target of the labelled images; columns: those of the table that have it. order: of classes, else sorted.

    Raises Unusable where no head can be trained on these rows: no labels, one class, an image with two labels.
    """
    manifest.check_labels()
    labels = [(row.label or "", row.split) for row in manifest.samples]
    if not labels:
        raise Unusable(
            "no image has a label, and a head needs them",
            "put them in one folder per class, or name a table (data.table); features alone: pipeline run extract",
        )
    everything = [label for label, _ in labels]
    learnt = [label for label, split in labels if split != "test"] or everything
    return KINDS[settings.kind].find(Labelled(everything, learnt, columns, order, settings.units))
