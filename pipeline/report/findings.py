"""Owns the section of what an audit finds. Not finding it (evaluation/audit.py)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cache.errors import NotAvailable, PipelineError
from pipeline.evaluation.audit_findings import Audit
from pipeline.report import pictures
from pipeline.report.material import Material
from pipeline.report.page import Section
from stages.targets.target import describe_label

MOST_AUDITED = 20_000
"""Images; of more, a sample is looked at, since an exact search takes the square of their number."""

_MOST = 8
_SIDE = 72

_ABOUT = {
    "identical": "The same bytes under two labels, or in two splits.",
    "copy": "Pictures that agree all over, though resized, recompressed, brighter or mirrored. Where they lie in two "
    "splits, figures are too good.",
    "suspect label": "Heads that never saw the image confidently say another class.",
    "odd one": "Much farther from their nearest neighbours of their class than others are.",
    "odd picture": "Of one colour, tiny, of an odd shape, blurred, dark or pale, beside the others of the data set.",
}
"""Of each kind of finding; one that is not here is shown without."""

_OTHERS = {"identical": "also", "copy": "like", "suspect label": "rather"}
"""What a finding's other, a path or a class, is to it."""

_SCORES = {"copy": "alike", "suspect label": "p of its label", "odd one": "z"}


@dataclass(frozen=True)
class Finding:
    path: str
    label: str
    split: str
    score: float
    other: str
    pictures: Sequence[str]


@dataclass(frozen=True)
class Kind:
    """Findings of one kind, the first few of `all`; word: what the other of each is to it."""

    name: str
    about: str
    word: str
    score: str
    findings: Sequence[Finding]
    all: int


def look(material: Material) -> Audit:
    """The audit of today's images, by the tap of the model where pipeline.yaml has it.

    Raises PipelineError where there can be none.
    """
    from pipeline.evaluation.audit import audit  # with it scipy's filters

    tap = material.tap if material.tap in material.today.config.extract.taps else None
    many = len(material.today.manifest.ids) > MOST_AUDITED
    return audit(material.today, tap, sample=MOST_AUDITED if many else None)


def section(material: Material, found: Audit | PipelineError) -> Section:
    """The first of each kind in its table, with pictures."""
    if isinstance(found, PipelineError):
        notes, passing = [f"no audit: {found.message}"], isinstance(found, NotAvailable)
        return Section("findings", "What the images hide", notes=notes, passing=passing)
    kinds = _kinds(material, found)
    content = {"audit": found, "kinds": kinds, "side": _SIDE}
    return Section("findings", "What the images hide", "findings.html", content, list(found.left_out))


def _kinds(material: Material, found: Audit) -> list[Kind]:
    columns: Mapping[str, Any] = found.columns()
    ids = {path: image for image, path in material.names.items()}
    ids |= dict(zip(columns["path"], columns["id"], strict=True))
    of: dict[str, list[int]] = defaultdict(list)
    for i, kind in enumerate(columns["finding"]):
        of[kind].append(i)
    some = {kind: numbers[:_MOST] for kind, numbers in of.items()}
    named = [columns[name][i] for numbers in some.values() for i in numbers for name in ("path", "other")]
    seen = pictures.read_squares(material, [ids[one] for one in named if one in ids], _SIDE, "reading findings")

    def finding(i: int) -> Finding:
        path, other = columns["path"][i], columns["other"][i]
        shown = [pictures.data_uri(seen[ids[one]]) for one in (path, other) if ids.get(one) in seen]
        label, split = describe_label(columns["label"][i]), columns["split"][i] or ""
        return Finding(path, label, split, float(columns["score"][i]), other, shown)

    return [
        Kind(
            kind,
            _ABOUT.get(kind, ""),
            _OTHERS.get(kind, ""),
            _SCORES.get(kind, "score"),
            [finding(i) for i in numbers],
            len(of[kind]),
        )
        for kind, numbers in some.items()
    ]


def across_splits(found: Audit | PipelineError | None) -> int:
    """Pairs of copies of which one is in another split."""
    return found.copies.across_splits if isinstance(found, Audit) and found.copies is not None else 0
