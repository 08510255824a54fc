"""Owns the audit of a project's cached rows: what is found, of which image. Not how (stages/audit), nor its tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cache.errors import Unusable
from pipeline.config.head_schema import HEAD_KINDS
from pipeline.project.project import Project
from pipeline.results.csv_parquet import Columns
from pipeline.runs import train_heads
from pipeline.serving import dataset
from stages.audit import odd_ones, wrong_labels
from stages.data.manifest import Row
from stages.heads import labelled_rows
from stages.heads.matrix import FeatureMatrix
from stages.metrics import kfold
from stages.targets.classes import Classes

NEIGHBOURS = 10
"""Of each image, whose labels are set against its own."""

_SHOWN = 3


@dataclass(frozen=True)
class WrongLabel:
    """An image whose label is probably wrong: the class it is more probably of, and both probabilities, out of fold.

    against: of its `neighbours` nearest images, those with another label. near: paths of the nearest of them.
    """

    image: Row
    instead: str
    own: float
    other: float
    against: int
    neighbours: int
    near: Sequence[str]


@dataclass(frozen=True)
class OddOne:
    """An image unlike the others of its class, or of all, by its modified z-score."""

    image: Row
    score: float


@dataclass(frozen=True)
class Audit:
    """What the rows of a tap tell of `images`; findings begin with the worst.

    judged: labelled images whose labels were judged, 0 where that has no meaning, with the accuracy of the heads that
    did. left_out: why some were not.
    """

    tap: str
    images: int
    judged: int
    accuracy: float | None
    wrong_labels: Sequence[WrongLabel]
    odd_ones: Sequence[OddOne]
    left_out: Sequence[str]

    def to_json(self) -> dict[str, Any]:
        def listed(findings: Sequence[Any]) -> list[dict[str, Any]]:
            return [
                {**found.image._asdict(), **{k: v for k, v in vars(found).items() if k != "image"}}
                for found in findings
            ]

        return {**vars(self), "wrong_labels": listed(self.wrong_labels), "odd_ones": listed(self.odd_ones)}

    def columns(self) -> Columns:
        """A row for each finding."""
        wrong, odd = self.wrong_labels, self.odd_ones
        images, nothing = [*(one.image for one in wrong), *(one.image for one in odd)], [None] * len(odd)
        names = ("id", "path", "label", "split", "group")
        return {
            "finding": ["wrong label"] * len(wrong) + ["odd one"] * len(odd),
            **{name: [getattr(image, name) for image in images] for name in names},
            "instead": [*(found.instead for found in wrong), *nothing],
            "p_label": np.array([found.own for found in wrong] + [np.nan] * len(odd)),
            "p_instead": np.array([found.other for found in wrong] + [np.nan] * len(odd)),
            "against": [*(f"{found.against} of {found.neighbours}" for found in wrong), *nothing],
            "near": [*(";".join(found.near) for found in wrong), *nothing],
            "z": np.array([np.nan] * len(wrong) + [found.score for found in odd]),
        }


def audit(project: Project, tap: str | None = None) -> Audit:
    """What cached rows of a tap (None: the first) tell of all images; copies count once. No forward pass is made.

    Raises Unusable where there are too few images, or the same bytes have two labels; NotAvailable where a row is
    missing.
    """
    tap = next(iter(project.config.extract.taps)) if tap is None else tap
    dataset.check_request(project, tap, None)
    manifest = dataset.images_with_rows(project, [tap])
    manifest.check_labels()
    images = [*{row.id: row for row in reversed(manifest.rows)}.values()]
    if len(images) < odd_ones.LEAST:
        raise Unusable(f"{len(images)} images are too few to audit", f"{odd_ones.LEAST} or more are compared")
    features = FeatureMatrix([project.store(tap).rows([image.id for image in images])])
    kind = project.target_kind
    names = [kind.counted(image.label)[0] if kind.exclusive and image.label is not None else "" for image in images]
    odd, lone = _find_odd(images, np.array(names), features)
    left_out = (
        [f"{lone:,} images are of classes with fewer than {odd_ones.LEAST}, so none of them is odd"] if lone else []
    )
    if not kind.exclusive:
        left_out.append(f"labels are judged where an image has one class; here data.target.kind is {kind.kind}")
        return Audit(tap, len(images), 0, None, [], odd, left_out)
    judged = _judged(images, names)
    if not judged:
        left_out.append("labels are not judged: that takes two classes with two images, or groups, each")
        return Audit(tap, len(images), 0, None, [], odd, left_out)
    wrong, accuracy = _find_wrong(tap, images, names, judged, features)
    return Audit(tap, len(images), len(judged), accuracy, wrong, odd, left_out)


def _find_odd(images: Sequence[Row], names: np.ndarray, features: FeatureMatrix) -> tuple[list[OddOne], int]:
    """The odd ones, and how many images are of classes too small to tell."""
    scores = odd_ones.find_odd(features, names)
    worst = [i for i in np.argsort(-scores, kind="stable") if scores[i] >= odd_ones.ODD]
    return [OddOne(images[i], round(float(scores[i]), 3)) for i in worst], int(np.isnan(scores).sum())


def _judged(images: Sequence[Row], names: Sequence[str]) -> list[int]:
    """The numbers of the images with a class that folds can judge; none where that leaves one class."""
    judged = [i for i, name in enumerate(names) if name]
    while alone := kfold.find_unfoldable([images[i]._replace(label=names[i]) for i in judged]):
        judged = [i for i in judged if names[i] != alone]
    return judged if len({names[i] for i in judged}) > 1 else []


def _find_wrong(
    tap: str, images: Sequence[Row], names: Sequence[str], judged: Sequence[int], features: FeatureMatrix
) -> tuple[list[WrongLabel], float]:
    """The labels that are confidently wrong by logistic heads out of fold, on images of all splits; their accuracy."""
    target = Classes(sorted({names[i] for i in judged}))
    rows = [images[i]._replace(label=names[i], split="train") for i in judged]
    some = features.some(np.array(judged))
    spec = HEAD_KINDS["logistic"].spec.model_validate({"tap": tap, "choose": "folds"})
    found = train_heads.fit_kind(spec, some, rows, target).out_of_fold
    assert found is not None
    y = labelled_rows.encode(rows, target)
    suspects, (_, near) = wrong_labels.find_suspects(found.predictions, y), odd_ones.find_nearest(some, NEIGHBOURS)
    wrong = []
    for i in (i for i in suspects.order if suspects.confident[i]):
        others = [j for j in near[i] if y[j] != y[i]]
        own, other = float(suspects.own[i]), float(found.predictions[i, suspects.instead[i]])
        paths = [images[judged[j]].path for j in others[:_SHOWN]]
        name = target[suspects.instead[i]]
        wrong.append(WrongLabel(images[judged[i]], name, own, other, len(others), near.shape[1], paths))
    return wrong, float((found.predictions.argmax(axis=1) == y).mean())
