"""Owns which pictures are copies of each other, altered or not, by thumbnails and rows. Not reading them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from stages.audit.likeness import coarse, is_flat, likeness, make_copies, mirror, thumbnail, views
from stages.audit.odd_ones import AT_ONCE
from stages.heads.neighbours import TILE, nearest
from stages.runtime.parallel import run_in_threads

CANDIDATES = 4
"""Pictures that each is compared with: so many by its coarse thumbnail, as many by that mirrored; and its NEAREST."""

NEAREST = 5
"""Copies are among each other's so many nearest rows: two dark shapes before a sky agree as pictures, not as rows."""

LEAST = 0.5
"""Of the likeness of copies: of five altered kinds on six data sets, 99 % were above."""

_RANK, _SHARE, _SIGMAS, _MANY = 2, 0.999, 3.72, 1000
"""The threshold is what one picture in a thousand reaches with its third most similar one, which is seldom a copy; or,
where many have several copies, what chance would give one in ten thousand, judged by the most similar ones of the
middle of all pictures. Of fewer pictures than _MANY it is what chance would give the third ones, if that is higher."""


class Copies(NamedTuple):
    """Pairs (n, 2) int of pictures, the lower number first, the most alike first; how alike each is, (n,).

    threshold: above which they are copies.
    """

    pairs: np.ndarray
    likeness: np.ndarray
    threshold: float


def find_copies(thumbnails: np.ndarray, near: np.ndarray) -> Copies:
    """thumbnails (n, SIDE, SIDE) uint8; near (n, k) int: the nearest rows of each. Pictures of one colour are none."""
    flat = is_flat(thumbnails)
    candidates = np.concatenate([near[:, :NEAREST], *_candidates(thumbnails)], axis=1)
    compared: dict[tuple[int, int], float] = {}

    def compare(i: int) -> tuple[np.ndarray, np.ndarray]:
        others = np.unique(candidates[i])
        others = others[~flat[others] & (others != i)]
        return others, likeness(views(thumbnails[i]), thumbnails[others])

    pictures = np.flatnonzero(~flat).tolist()
    for i, (others, alike) in zip(pictures, run_in_threads(compare, pictures), strict=True):
        for j, value in zip(others.tolist(), alike.tolist(), strict=True):
            pair = (i, j) if i < j else (j, i)
            compared[pair] = max(value, compared.get(pair, -1.0))
    if not compared:
        return Copies(np.empty((0, 2), int), np.empty(0), 1.0)
    pairs, alike = np.array(list(compared)), np.array(list(compared.values()))
    threshold = _choose_threshold(pairs, alike, len(thumbnails))
    rows = {(i, j) for i, others in enumerate(near[:, :NEAREST].tolist()) for j in others}
    among = np.array([(i, j) in rows or (j, i) in rows for i, j in pairs.tolist()])
    found = np.flatnonzero((alike > threshold) & among)
    found = found[np.argsort(-alike[found], kind="stable")]
    return Copies(pairs[found], alike[found], threshold)


def shares_found(pictures: Sequence[np.ndarray], threshold: float) -> dict[str, float]:
    """Of copies made of these pictures, (h, w, 3) uint8 each, by kind: the share that is above the threshold."""
    found: dict[str, list[bool]] = defaultdict(list)
    for pixels in pictures:
        own = thumbnail(pixels)
        if is_flat(own[None])[0]:
            continue
        for kind, copy in make_copies(pixels):
            small = thumbnail(copy)
            alike = max(likeness(views(own), small[None])[0], likeness(views(small), own[None])[0])
            found[kind].append(alike > threshold)
    return {kind: float(np.mean(some)) for kind, some in found.items()}


def join_groups(pairs: np.ndarray, n: int) -> np.ndarray:
    """The group of each of n pictures, (n,) int: the lowest number of those that pairs join it with, or its own."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    joined = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    _, component = connected_components(joined, directed=False)
    first = np.full(component.max(initial=-1) + 1, n)
    np.minimum.at(first, component, np.arange(n))
    return np.asarray(first[component])


def _candidates(thumbnails: np.ndarray) -> list[np.ndarray]:
    """(n, CANDIDATES) each: by the coarse thumbnails, and by them mirrored."""
    starts, found = range(0, len(thumbnails), TILE), []
    small = np.concatenate([coarse(thumbnails[at : at + TILE]) for at in starts])
    for view in (lambda part: part, mirror):
        parts = []
        for start in range(0, len(small), AT_ONCE):
            own = np.arange(start, min(start + AT_ONCE, len(small)))
            tiles = ((at, view(small[at : at + TILE])) for at in starts)
            parts.append(nearest(small[own], tiles, min(CANDIDATES, len(small) - 1), own)[1])
        found.append(np.concatenate(parts))
    return found


def _choose_threshold(pairs: np.ndarray, alike: np.ndarray, n: int) -> float:
    """By how alike each picture is to its best and to its third best, in Fisher's z, which is nearly normal."""
    ranked: list[list[float]] = [[] for _ in range(n)]
    for (i, j), value in zip(pairs.tolist(), np.arctanh(np.clip(alike, -0.9999, 0.9999)).tolist(), strict=True):
        ranked[i].append(value)
        ranked[j].append(value)
    best = [sorted(values, reverse=True) for values in ranked if values]
    third = np.array([values[min(_RANK, len(values) - 1)] for values in best])
    reached = np.quantile(third, _SHARE)
    if len(best) < _MANY:
        threshold = max(reached, _by_chance(third))
    else:
        threshold = min(reached, _by_chance(np.array([values[0] for values in best])))
    return max(LEAST, float(np.tanh(threshold)))


def _by_chance(z: np.ndarray) -> float:
    """What one in ten thousand would reach if these were normal, by their median and upper quartile."""
    middle, upper = np.quantile(z, [0.5, 0.75])
    return float(middle + (upper - middle) / 0.6745 * _SIGMAS)
