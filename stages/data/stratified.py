"""Owns the stratified draw: the split of each new image or group, by class. Not which are drawn as one (splits.py)."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

_OVERALL = 1 / 12
"""How much the sum of all classes may outweigh a class, in images: so little that no class is off by more than one."""

Counts = Mapping[str, Mapping[str, int]]
"""Images per class and split: {label: {split: n}}."""


class Unit(NamedTuple):
    """What is drawn as one, an image or a group: its name, and how many images of each class it has."""

    name: str
    classes: Mapping[str, int]


def draw(
    units: Sequence[Unit], there: Counts, shares: Mapping[str, float], seed: int, each: bool = True
) -> dict[str, str]:
    """The split of each unit, by name, after the images that are `there` already.

    A unit goes where its classes are furthest below their shares; the largest first, and those of one size in an order
    by (seed, name). While there are just enough units of a class for the splits that lack it, they go there, in the
    order of `shares`. So a class of single images is within one image of its shares in val and test, and from three
    images on is in all three, however many draws they came in. each: False where not every class is to be in every
    split, but some image; else rare classes would crowd into the first.
    """
    drawing = _Drawing(units, there, shares, each)
    ordered = sorted(units, key=lambda unit: (-sum(unit.classes.values()), _order(seed, unit.name)))
    return {unit.name: drawing.place(unit) for unit in ordered}


def _order(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"stratified:{seed}:{name}".encode("utf-8", "surrogatepass")).digest()


class _Drawing:
    """Images per class and split while they are drawn, and how many units of each class are left."""

    def __init__(self, units: Sequence[Unit], there: Counts, shares: Mapping[str, float], each: bool) -> None:
        self.each, self.units_left = each, len(units)
        self.shares = {split: share for split, share in shares.items() if share > 0}
        labels = {*there, *(label for unit in units for label in unit.classes)}
        # not those in a split whose share is 0: what the user put there takes nothing from the shares of the others
        self.counts = {label: {split: there.get(label, {}).get(split, 0) for split in self.shares} for label in labels}
        self.totals = {label: sum(by_split.values()) for label, by_split in self.counts.items()}
        self.overall = {split: sum(by_split[split] for by_split in self.counts.values()) for split in self.shares}
        self.total = sum(self.totals.values())
        self.left = Counter(label for unit in units for label in unit.classes)

    def place(self, unit: Unit) -> str:
        split = self._urgent(unit)
        if split is None:
            scores = self._scores(unit)
            split = max(scores, key=scores.__getitem__)
        for label, n in unit.classes.items():
            self.counts[label][split] += n
            self.totals[label] += n
            self.overall[split] += n
            self.total += n
            self.left[label] -= 1
        self.units_left -= 1
        return split

    def _urgent(self, unit: Unit) -> str | None:
        """The first split that lacks a class of the unit, if that class has no more units than such splits."""
        of_classes = ((self.left[label], self.counts[label]) for label in unit.classes)
        for left, counts in of_classes if self.each else [(self.units_left, self.overall)]:
            if left <= len(self.shares):
                lacking = [split for split, n in counts.items() if not n]
                if lacking and left <= len(lacking):
                    return lacking[0]
        return None

    def _scores(self, unit: Unit) -> dict[str, float]:
        """How many images each split is below its share: the mean of the unit's classes, where rare ones count more."""
        lacks, weights = dict.fromkeys(self.shares, 0.0), 0.0
        for label in sorted(unit.classes):  # sums of decimals depend on their order
            after = self.totals[label] + unit.classes[label]
            weight = unit.classes[label] / after
            weights += weight
            for split, n in self.counts[label].items():
                lacks[split] += weight * (self.shares[split] * after - n)
        after = self.total + sum(unit.classes.values())
        for split, share in self.shares.items():
            overall = share * after - self.overall[split]
            lacks[split] = lacks[split] / weights + min(_OVERALL, max(-_OVERALL, overall))
        return lacks
