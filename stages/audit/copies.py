"""Owns which pictures are copies of each other, altered or not, by thumbnails and rows. Not reading them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import numpy as np

from stages.audit.likeness import is_flat, likeness, make_copies, mirror, thumbnail, views
from stages.audit.neighbour_search import Search
from stages.heads.matrix import FeatureMatrix, Source
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


_PART = 64
"""Pictures that a thread compares before it reports."""

Report = Callable[[str, int], AbstractContextManager[Callable[[int], object]]]
"""report(title, total) -> context that gives advance(n)."""


def no_report(title: str, total: int) -> AbstractContextManager[Callable[[int], object]]:
    """A Report that tells nobody."""
    return nullcontext(lambda n: None)


class Copies(NamedTuple):
    """Pairs (n, 2) int of pictures, the lower number first, the most alike first; how alike each is, (n,).

    threshold: above which they are copies.
    """

    pairs: np.ndarray
    likeness: np.ndarray
    threshold: float


def find_copies(thumbnails: np.ndarray, small: Source, near: np.ndarray, report: Report = no_report) -> Copies:
    """thumbnails (n, SIDE, SIDE) uint8, of which few are read at a time; small (n, COARSE ** 2): `coarse` of each.

    near (n, k) int: the nearest rows of each. Pictures of one colour are none. report: told of progress.
    """
    n, nearest_rows = len(thumbnails), near[:, :NEAREST]
    candidates = np.concatenate([nearest_rows, *_candidates(small, report)], axis=1).astype(np.int32)
    candidates.sort(axis=1)
    alike = np.full(candidates.shape, np.nan, np.float32)
    flat = np.concatenate([is_flat(thumbnails[at : at + _PART]) for at in range(0, n, _PART)])

    def compare(start: int) -> None:
        for i in (i for i in range(start, min(start + _PART, n)) if not flat[i]):
            others, places = np.unique(candidates[i], return_index=True)
            there = (others >= 0) & (others != i) & ~flat[others]
            if there.any():
                alike[i, places[there]] = likeness(views(thumbnails[i]), thumbnails[others[there]])
        advance(min(_PART, n - start))

    with report("comparing pictures", n) as advance:
        run_in_threads(compare, range(0, n, _PART))
    compared = np.isfinite(alike)
    if not compared.any():
        return Copies(np.empty((0, 2), int), np.empty(0), 1.0)
    one, other = np.nonzero(compared)[0], candidates[compared]
    codes, values = _best(np.minimum(one, other).astype(np.int64) * n + np.maximum(one, other), alike[compared])
    threshold = _choose_threshold(codes, values, n)
    above = values > threshold
    pairs, values = np.stack(np.divmod(codes[above], n), axis=1), values[above].astype(np.float64)
    i, j = pairs.T
    among = (nearest_rows[i] == j[:, None]).any(axis=1) | (nearest_rows[j] == i[:, None]).any(axis=1)
    found = np.flatnonzero(among)[np.argsort(-values[among], kind="stable")]
    return Copies(pairs[found], values[found], threshold)


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


def _candidates(small: Source, report: Report) -> list[np.ndarray]:
    """(n, CANDIDATES) each: by the coarse thumbnails, and by them mirrored; -1 for none."""
    found, kinds = [], np.zeros(small.shape[0], np.int8)
    for title, view in (("comparing thumbnails", None), ("comparing mirrored ones", mirror)):
        search = Search(FeatureMatrix([small]), CANDIDATES, kinds, 1, view)
        with report(title, search.pairs) as advance:
            found.append(search.run(advance)[0].numbers)
    return found


def _best(codes: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each of the codes once, ascending, with the largest of its values."""
    order = np.lexsort((-values, codes))
    codes = codes[order]
    first = np.flatnonzero(np.concatenate([[True], codes[1:] != codes[:-1]]))
    return codes[first], values[order][first]


def _choose_threshold(codes: np.ndarray, alike: np.ndarray, n: int) -> float:
    """By how alike each picture is to its best and to its third best, in Fisher's z, which is nearly normal.

    codes: lower number * n + higher number of each pair.
    """
    z = np.tile(np.arctanh(np.clip(alike, -0.9999, 0.9999)), 2)
    picture = np.concatenate(np.divmod(codes, n))
    order = np.lexsort((-z, picture))
    z, picture = z[order], picture[order]
    first = np.flatnonzero(np.concatenate([[True], picture[1:] != picture[:-1]]))
    many = np.diff(np.concatenate([first, [len(picture)]]))
    best, third = z[first], z[first + np.minimum(_RANK, many - 1)]
    reached = np.quantile(third, _SHARE)
    few = len(best) < _MANY
    threshold = max(reached, _by_chance(third)) if few else min(reached, _by_chance(best))
    return max(LEAST, float(np.tanh(threshold)))


def _by_chance(z: np.ndarray) -> float:
    """What one in ten thousand would reach if these were normal, by their median and upper quartile."""
    middle, upper = np.quantile(z, [0.5, 0.75])
    return float(middle + (upper - middle) / 0.6745 * _SIGMAS)
