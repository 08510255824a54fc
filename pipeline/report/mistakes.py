"""Owns the section of the worst mistakes: pictures, nearest images, and where the guess comes from (activation.py)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cache.errors import PipelineError
from pipeline.report import activation, pictures
from pipeline.report.material import Material
from pipeline.report.page import Section
from stages.heads.neighbours import nearest_rows, unit_rows
from stages.targets.target import describe_label

MOST = 12
NEIGHBOURS = 5
_LARGE, _SMALL = 192, 72


@dataclass(frozen=True)
class Near:
    """An image of train near to a mistake: its label, cosine, and picture, "" where that isn't here."""

    path: str
    label: str
    cosine: float
    agrees: bool
    picture: str


@dataclass(frozen=True)
class Mistake:
    """p: the probability of the guess, and of the true class; None of numbers. activation: a picture, or ""."""

    path: str
    truth: str
    guess: str
    p: tuple[float, float] | None
    loss: float
    picture: str
    activation: str
    near: Sequence[Near]


def section(material: Material, with_maps: bool = True) -> Section:
    """Those of the set that is shown, by their loss; of numbers, the largest errors."""
    judged = material.shown
    numbers = worst_first(material, judged.numbers)
    n = len(numbers)
    some = numbers[:MOST]
    notes: list[str] = []
    near = _neighbours(material, some, notes)
    ids = [material.predicted.rows[i].id for i in some]
    large = pictures.read_squares(material, ids, _LARGE, "reading mistakes")
    small = pictures.read_squares(material, [row[0] for rows in near for row in rows], _SMALL, "reading neighbours")
    drawn = activation.Drawn({}, "")
    if with_maps and len(some):
        drawn = activation.draw(material, some)
    if lacking := len({*ids} - large.keys()):
        notes.append(f"{lacking} of these pictures are not here, or were changed since, so they are left out")
    found = [
        _mistake(material, number, large, small, drawn.pictures, rows) for number, rows in zip(some, near, strict=True)
    ]
    content = {"judged": judged, "mistakes": found, "all": n, "activation": drawn, "side": _LARGE, "small": _SMALL,
               "of_numbers": material.wrong is None}  # fmt: skip
    return Section("mistakes", "Worst mistakes", "mistakes.html", content, notes, drawn.passing)


def worst_first(material: Material, numbers: np.ndarray) -> list[int]:
    """The mistakes among these predictions, the highest loss first; of numbers all, as none is simply right."""
    here = numbers if material.wrong is None else numbers[material.wrong[numbers]]
    return [int(i) for i in here[np.argsort(-material.losses[here], kind="stable")]]


def _mistake(
    material: Material, number: int, large: pictures.Pixels, small: pictures.Pixels, drawn: Mapping[str, str],
    near: Sequence[tuple[str, str, float]],
) -> Mistake:  # fmt: skip
    row = material.predicted.rows[number]
    p = None
    if material.classes is not None:
        of = material.predicted.probabilities[number]
        p = (float(of.max()), float(of[material.classes[number]]))
    truth = material.truth(number)
    return Mistake(
        material.names.get(row.id, row.path),
        truth,
        material.guess(number),
        p,
        float(material.losses[number]),
        _uri(large, row.id),
        drawn.get(row.id, ""),
        [Near(material.names.get(i, ""), label, cosine, label == truth, _uri(small, i)) for i, label, cosine in near],
    )


def _uri(found: pictures.Pixels, image: str) -> str:
    return pictures.data_uri(found[image]) if image in found else ""


def _neighbours(material: Material, some: Sequence[int], notes: list[str]) -> list[list[tuple[str, str, float]]]:
    """Of each image (id, label, cosine) of the nearest in train; nothing, with a note, where rows are missing."""
    train = [row for row in material.manifest.samples if row.split == "train"]
    try:
        if not some or not train:
            return [[] for _ in some]
        stored = material.rows([row.id for row in train])
        own = material.rows([material.predicted.rows[i].id for i in some])
    except PipelineError as why:
        notes.append(f"no nearest images: {why.message}")
        return [[] for _ in some]
    place = {row.id: i for i, row in enumerate(train)}
    itself = np.array([place.get(material.predicted.rows[i].id, -1) for i in some])
    x = unit_rows(own.take(np.arange(len(some))))
    cosines, numbers = nearest_rows(x, stored, min(NEIGHBOURS, len(train) - 1) or 1, itself)
    return [
        [
            (train[j].id, describe_label(train[j].label), float(cosine))
            for cosine, j in zip(of, rows, strict=True)
            if np.isfinite(cosine)
        ]
        for of, rows in zip(cosines.tolist(), numbers.tolist(), strict=True)
    ]
