"""Owns what an audit finds, as objects, JSON and a table. Not finding it (audit.py)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.results.csv_parquet import Columns
from stages.data.manifest import Row
from stages.metrics.figures import Interval


@dataclass(frozen=True)
class Copy:
    """Two images that are copies of each other, altered or not, and how alike they are, up to 1."""

    image: Row
    of: Row
    likeness: float

    @property
    def of_two_labels(self) -> bool:
        return None not in (self.image.label, self.of.label) and self.image.label != self.of.label


def find_contradictions(rows: Sequence[Row]) -> list[Copy]:
    """Of images with byte-identical files under two labels, or in two splits: the first file, and each that differs."""
    files: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        files[row.id].append(row)
    found = []
    for same in files.values():
        known = next((row.label for row in same if row.label is not None), None)
        told = {(row.label or known, row.split): row for row in reversed(same)}  # no label contradicts none
        first = told.pop((same[0].label or known, same[0].split))
        found += [Copy(first, row, 1.0) for row in reversed(told.values())]
    return found


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
        return sum(pair.of_two_labels for pair in self.pairs)


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

    accuracy: of the heads that judged them, with copies in one fold; across_copies: without regard to copies; each with
    its interval. copied: whether there are any, else both are the same.
    """

    images: int
    suspects: Sequence[SuspectLabel]
    accuracy: float
    across_copies: float
    accuracy_ci: Interval | None
    across_copies_ci: Interval | None
    copied: bool


@dataclass(frozen=True)
class OutOfFold:
    """A figure of heads that never saw the image, of `images` without a class of their own: with copies in one fold,
    and where they may be in two; each with its interval."""

    images: int
    figure: str
    value: float | None
    across_copies: float | None
    ci: Interval | None
    across_copies_ci: Interval | None


@dataclass(frozen=True)
class OddPicture:
    """An image that is odd as a picture: its kind (of one colour, tiny, ...), and what was found, beside the usual."""

    image: Row
    kind: str
    found: str


@dataclass(frozen=True)
class Shortcut:
    """Something besides the picture that tells the class: accuracy out of fold, and that of the most frequent class."""

    by: str
    accuracy: float
    accuracy_ci: Interval | None
    majority: float
    majority_ci: Interval | None


@dataclass(frozen=True)
class OddOne:
    """An image unlike the others of its class, or of all, by its modified z-score."""

    image: Row
    score: float


@dataclass(frozen=True)
class Audit:
    """What the rows of a tap, and the pictures, tell of `images` out of `of`, a sample if these are more.

    left_out: what was not done, and why; then None.

    identical: files of the same bytes under two labels, or in two splits. by_class: whether odd ones are unlike others
    of their class, not of all images. out_of_fold: of several labels and of numbers, where there are copies; what
    `labels` has of classes.
    """

    tap: str
    images: int
    of: int
    identical: Sequence[Copy]
    copies: Copies | None
    labels: Labels | None
    odd_ones: Sequence[OddOne]
    odd_pictures: Sequence[OddPicture] | None
    shortcuts: Sequence[Shortcut] | None
    by_class: bool
    left_out: Sequence[str]
    out_of_fold: OutOfFold | None = None

    def to_json(self) -> dict[str, Any]:
        return {name: _plain(value) for name, value in vars(self).items()}

    def columns(self) -> Columns:
        """A row for each finding about an image; score: likeness, the probability of its label, z, or nothing (NaN).

        other: the copy, the class, or what is odd.
        """
        rows = [("identical", one.image, one.likeness, one.of.path) for one in self.identical]
        pairs = self.copies.pairs if self.copies else ()
        rows += [("copy", one.image, one.likeness, one.of.path) for one in pairs]
        suspects = self.labels.suspects if self.labels else ()
        rows += [("suspect label", one.image, one.own, one.instead) for one in suspects]
        rows += [("odd one", one.image, one.score, "") for one in self.odd_ones]
        odd = self.odd_pictures or ()
        rows += [("odd picture", one.image, np.nan, f"{one.kind}: {one.found}".removesuffix(": ")) for one in odd]
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
    if isinstance(value, Copy | Copies | SuspectLabel | Labels | OutOfFold | OddOne | OddPicture | Shortcut):
        return {name: _plain(part) for name, part in vars(value).items()}
    return [_plain(part) for part in value] if isinstance(value, list) else value
