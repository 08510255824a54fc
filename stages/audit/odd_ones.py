"""Owns how far each image is from its own kind, by rows. Not which kinds there are, nor reading rows."""

from __future__ import annotations

import numpy as np

from stages.heads.matrix import FeatureMatrix
from stages.heads.neighbours import TILE, nearest, unit_rows

NEIGHBOURS = 5
"""Of its own kind, whose mean distance an image is judged by; fewer where there are fewer."""

AT_ONCE = TILE // 4
"""Rows that are compared with a tile: their cosines and the order of these are some 200 MB."""

ODD = 2.5
"""Modified z-score from which on an image is worth a look. One picture of another data set among those of a class was
first in 59 of 60 trials, with scores from 2.4 to 5.3; of four clean sets 0.5 to 5 % of the images are above."""

LEAST = 10
"""Images of a kind, below which none is odd."""


def find_nearest(features: FeatureMatrix, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k most similar others of each row, by cosine, the nearest first: cosines and numbers, (n, k).

    Exact. Rows are read in blocks, again for each block that is compared with them, so memory doesn't grow with them.
    """
    everything, found = np.arange(len(features)), []
    for own in (everything[start : start + AT_ONCE] for start in range(0, len(everything), AT_ONCE)):
        blocks = (everything[start : start + TILE] for start in range(0, len(everything), TILE))
        parts = ((int(block[0]), unit_rows(features.take(block))) for block in blocks)
        found.append(nearest(unit_rows(features.take(own)), parts, min(k, len(features) - 1), own))
    return np.concatenate([cosines for cosines, _ in found]), np.concatenate([numbers for _, numbers in found])


def find_odd(features: FeatureMatrix, kinds: np.ndarray) -> np.ndarray:
    """The modified z-score of each row's distance from its own kind, (n,); NaN where there are fewer than LEAST.

    (Iglewicz and Hoaglin 1993, How to Detect and Handle Outliers.)

    kinds (n,): what each row is. The distance is 1 - the mean cosine of the NEIGHBOURS nearest rows of its kind; its
    logarithm is compared with the median of its kind, in units of the median absolute deviation / 0.6745, or of 1.2533
    times the mean one where that is 0.
    """
    scores = np.full(len(kinds), np.nan)
    for kind in np.unique(kinds):
        members = np.flatnonzero(kinds == kind)
        if len(members) < LEAST:
            continue
        cosines, _ = find_nearest(features.some(members), NEIGHBOURS)
        distance = np.log(np.maximum(1 - cosines.mean(axis=1, dtype=np.float64), 1e-6))
        median = np.median(distance)
        apart = np.abs(distance - median)
        spread = float(np.median(apart)) / 0.6745 or 1.2533 * float(apart.mean()) or 1.0  # more than half are the same
        scores[members] = (distance - median) / spread
    return scores
