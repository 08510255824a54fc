"""Owns which images heads of each size are fitted on, and who judges them. Not the heads, nor their figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from stages.data.manifest import Row
from stages.metrics import bootstrap, kfold
from stages.metrics.kfold import Strata

FOLDS = 5
"""Each image is judged by heads that were fitted on images of the other folds."""

SIZES = 5
"""Steps of a curve: as many factors apart from each other, the largest at most SPAN times the smallest."""

SPAN = 16
LEAST = 10

Fit = Callable[[np.ndarray, np.ndarray, int], np.ndarray]
"""fit(fitted, judged, step): what a head of that step, fitted on those rows, predicts of the others, (n, columns)."""


def choose_sizes(top: int, least: int) -> list[int]:
    """Numbers of images, ascending, up to `top`, from `least` or LEAST on; evenly on a log scale."""
    first = max(least, LEAST, round(top / SPAN))
    return sorted({round(size) for size in np.geomspace(min(first, top), top, SIZES)})


def judge(
    fit: Fit, rows: Sequence[Row], strata: Strata, sizes: Sequence[int], repeats: int, seed: int
) -> list[list[np.ndarray]]:
    """By repeat and step: predictions (n, columns) of each row by heads that were fitted without its fold.

    A subset holds the smaller ones, is stratified, and has groups whole: so it may have a few images more or fewer.
    Raises Unusable where the rows are too few for folds.
    """
    found = []
    for repeat in range(repeats):
        folds = kfold.assign_folds(rows, FOLDS, seed + repeat, strata)
        steps: list[np.ndarray | None] = [None] * len(sizes)
        for fold in range(FOLDS):
            judged, outside = np.flatnonzero(folds == fold), folds != fold
            order, ends = nested_order([row for row, here in zip(rows, outside, strict=True) if here],
                                       strata.some(outside), np.random.default_rng([seed + repeat, fold]))  # fmt: skip
            fitted = np.flatnonzero(outside)[order]
            for step, size in enumerate(sizes):
                end = int(ends[np.abs(ends - size).argmin()])
                predicted = fit(np.sort(fitted[:end]), judged, step)
                whole = steps[step]
                if whole is None:
                    whole = steps[step] = np.empty((len(rows), predicted.shape[1]))
                whole[judged] = predicted
        found.append([whole for whole in steps if whole is not None])
    return found


def nested_order(rows: Sequence[Row], strata: Strata, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The rows in an order whose beginnings are stratified samples, (n,) int, and where groups in it end, ascending.

    Units, images or groups, of a stratum and split are spread evenly over the order. Of strata that each head needs,
    two units come first.
    """
    units = bootstrap.resampling_units([row.group for row in rows])
    members: dict[int, list[int]] = {}
    for number, unit in enumerate(units.tolist()):
        members.setdefault(unit, []).append(number)
    rarity = {name: len(of) for name, of in strata.members.items()}
    of_kind: dict[tuple[str, str], list[int]] = {}
    for unit in random.permutation(list(members)).tolist():
        first = members[unit][0]
        rarest = min(strata.names[first], key=lambda name: rarity[name], default="")
        of_kind.setdefault((rows[first].split or "", rarest), []).append(unit)
    places = {}
    for kind in sorted(of_kind):
        start = random.random()
        for rank, unit in enumerate(of_kind[kind]):
            early = strata.needed and rank < 2
            places[unit] = (not early, (rank + start) / len(of_kind[kind]))
    ordered = [members[unit] for unit in sorted(places, key=places.__getitem__)]
    return np.concatenate(ordered), np.cumsum([len(unit) for unit in ordered])
