"""Owns which kinds of targets there are, and which one the labelled images have. Not what they do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from cache.errors import Unusable
from stages.data.cells import TargetKind
from stages.data.manifest import Manifest
from stages.targets.classes import Classes
from stages.targets.labels import Labels
from stages.targets.numbers import Numbers
from stages.targets.soft import Soft
from stages.targets.target import Target, written

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
    samples = [row for row in manifest.samples if row.split != "test"] or list(manifest.samples)
    if not samples:
        raise Unusable(
            "no image has a label, and a head needs them",
            "put them in one folder per class, or name a table (data.table); features alone: pipeline run extract",
        )
    if settings.kind == Numbers.kind:
        return _numbers(columns, settings.units, [row.label or "" for row in samples])
    counts = _count(settings.kind, [row.label or "" for row in manifest.samples])
    if settings.kind == Labels.kind and len(columns) > 1:
        counts = dict(sorted((dict.fromkeys(columns, 0) | counts).items()))
    if order is not None and sorted(order) != sorted(counts):
        raise Unusable(f"data.classes is {sorted(order)}, but the images have {sorted(counts)}", "list each class once")
    names = tuple(order or counts)
    if settings.kind == Labels.kind:
        _check_labels(counts, [row.label or "" for row in manifest.samples])
        return Labels(names)
    if len(counts) == 1:
        raise Unusable(
            f"there is one class only, {names[0]!r}; a head needs two or more",
            "check data.root: it should hold one folder per class",
        )
    return Soft(names) if settings.kind == Soft.kind else Classes(names)


def _count(kind: str, labels: Sequence[str]) -> dict[str, int]:
    """Images by class or label, sorted by name; of shares, those that have any."""
    found = Counter[str]()
    for label, n in Counter(labels).items():
        if kind == Classes.kind:
            found[label] += n
        else:
            found.update({name: n if share else 0 for name, share in _shares(kind, label).items()})
    return dict(sorted(found.items()))


def _shares(kind: str, label: str) -> Mapping[str, Any]:
    found = written(label)
    if found is not None:
        return found
    raise Unusable(
        f"the label {label!r} is none of data.target.kind: {kind}",
        "name the table and its columns (data.table, data.target.columns), or use kind: classes",
    )


def _check_labels(counts: Mapping[str, int], labels: Sequence[str]) -> None:
    unknown = Counter(name for label in labels for name, has in _shares(Labels.kind, label).items() if has is None)
    for name, n in counts.items():
        if n in (0, len(labels) - unknown[name]):
            raise Unusable(
                f"{'no image' if n == 0 else 'every image'} has the label {name!r}, so there is nothing to learn",
                "leave that label out of the table, or of data.target.columns",
            )


def _numbers(names: Sequence[str], units: Sequence[str], labels: Sequence[str]) -> Numbers:
    target = Numbers(names)
    if wrong := [label for label in labels if not target.knows(label)]:
        raise Unusable(
            f"the label {wrong[0]!r} has no number {' and '.join(names)}",
            "name a table with data.table, and its column with data.columns.label or data.target.columns",
        )
    values = target.numbers(labels)
    scale, same = values.std(axis=0), (values == values[0]).all(axis=0)
    for name, constant, value in zip(names, same, values[0], strict=True):
        if constant:
            raise Unusable(f"{name} is {value:g} for all images, so there is nothing to learn", "check that column")
    return Numbers(names, values.mean(axis=0).tolist(), scale.tolist(), units)
