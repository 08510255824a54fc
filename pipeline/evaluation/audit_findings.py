"""Owns what an audit finds, as objects, JSON and a table. Not finding it (audit.py)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.results.csv_parquet import Columns
from stages.data.manifest import Row


@dataclass(frozen=True)
class Copy:
    """Two images that are copies of each other, altered or not, and how alike they are, up to 1."""

    image: Row
    of: Row
    likeness: float


@dataclass(frozen=True)
class Copies:
    """The most alike first, above a threshold of likeness, and how many groups they make.

    found_of: of copies that were made of some of the images, by kind, the share above the threshold.
    """

    pairs: Sequence[Copy]
    groups: int
    threshold: float
    found_of: Mapping[str, float]

    @property
    def across_splits(self) -> int:
        return sum(pair.image.split != pair.of.split for pair in self.pairs)

    @property
    def of_two_labels(self) -> int:
        return sum(None not in (p.image.label, p.of.label) and p.image.label != p.of.label for p in self.pairs)


@dataclass(frozen=True)
class SuspectLabel:
    """An image that is confidently said to be of another class: both probabilities, out of fold.

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
class Labels:
    """The suspect ones of `images`, the least probable first.

    accuracy: of the heads that judged them, with copies in one fold; across_copies: without regard to copies.
    """

    images: int
    suspects: Sequence[SuspectLabel]
    accuracy: float
    across_copies: float


@dataclass(frozen=True)
class OddOne:
    """An image unlike the others of its class, or of all, by its modified z-score."""

    image: Row
    score: float


@dataclass(frozen=True)
class Audit:
    """What the rows of a tap, and the pictures, tell of `images`. left_out: what was not done, and why; then None.

    by_class: whether odd ones are unlike others of their class, not of all images.
    """

    tap: str
    images: int
    copies: Copies | None
    labels: Labels | None
    odd_ones: Sequence[OddOne]
    by_class: bool
    left_out: Sequence[str]

    def to_json(self) -> dict[str, Any]:
        return {name: _plain(value) for name, value in vars(self).items()}

    def columns(self) -> Columns:
        """A row for each finding; score: likeness, the probability of its label, z; other: the copy, or the class."""
        rows = [("copy", one.image, one.likeness, one.of.path) for one in (self.copies.pairs if self.copies else ())]
        suspects = self.labels.suspects if self.labels else ()
        rows += [("suspect label", one.image, one.own, one.instead) for one in suspects]
        rows += [("odd one", one.image, one.score, "") for one in self.odd_ones]
        return {
            "finding": [finding for finding, *_ in rows],
            **{name: [getattr(image, name) for _, image, *_ in rows] for name in Row._fields},
            "score": np.array([score for *_, score, _ in rows], dtype=np.float64),
            "other": [other for *_, other in rows],
        }


def _plain(value: Any) -> Any:
    """Findings as JSON."""
    if isinstance(value, Row):
        return value._asdict()
    if isinstance(value, Copy | Copies | SuspectLabel | Labels | OddOne):
        return {name: _plain(part) for name, part in vars(value).items()}
    return [_plain(part) for part in value] if isinstance(value, list) else value
