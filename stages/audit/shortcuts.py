"""Owns whether the class can be told without looking at the picture: from size, format, bytes or folder. Not the facts.

A classifier that sees only these, and is as good as what the pictures show, says that a head may learn them instead
(shortcut learning, Geirhos et al. 2020, Nature Machine Intelligence 2).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.sparse import coo_array

from cache.errors import Unusable
from stages.data.manifest import Row
from stages.metrics import intervals, kfold
from stages.metrics.figures import Figure

FOLDS = 5
LEAST, _SIGMAS = 0.02, 3.0
"""Of accuracy above the majority's, at the lower end of an interval of so many standard errors, since several are tried
on each data set; less says little to a head."""

_LEAF, _LEAVES = 5, 64
_MOST_CLASSES = 1000


class Shortcut(NamedTuple):
    """What tells the class, its accuracy out of fold, and that of always saying the most frequent class."""

    by: str
    accuracy: Figure
    majority: Figure


def clues(facts: np.ndarray) -> dict[str, np.ndarray]:
    """What FACTS (n,) say of pictures without their pixels: numbers (n, columns), or kinds of something (n,) int."""
    width, height = facts["width"].astype(np.float64), facts["height"].astype(np.float64)
    return {
        "size": np.stack([width, height, width / height, width * height], axis=1),
        "format": _numbered([f"{one['format']} {one['mode']}" for one in facts]),
        "bytes per pixel": (facts["bytes"] / (width * height))[:, None],
    }


def folders(rows: Sequence[Row]) -> np.ndarray | None:
    """Which folder each image is in, (n,) int; None where they have the names of classes, as somebody sorted them."""
    names = [row.path.rpartition("/")[0] for row in rows]
    parts = ((row.label or "").casefold() in name.casefold().split("/") for row, name in zip(rows, names, strict=True))
    return None if sum(parts) > len(rows) / 2 else _numbered(names)


def find_shortcuts(columns: Mapping[str, np.ndarray], rows: Sequence[Row]) -> list[Shortcut]:
    """Those that tell the labels of n rows better than always saying the most frequent class; the best first.

    columns: by what they say, as `clues` gives them. Out of FOLDS folds, groups in one fold each: by decision trees, or
    the most frequent class of each kind. Raises Unusable where there are too few images for folds, or too many classes.
    """
    labels = [row.label or "" for row in rows]
    classes = sorted(set(labels))
    if len(classes) > _MOST_CLASSES:
        raise Unusable(f"{len(classes):,} classes are more than {_MOST_CLASSES:,}")
    folds = kfold.assign_folds(rows, kfold.most_folds(rows, FOLDS), 0)
    y, groups = np.searchsorted(classes, labels), [row.group for row in rows]
    usual = _right(np.zeros(len(rows), int), y, folds)
    found = []
    for by, x in columns.items():
        if (x == x[0]).all():
            continue
        right = _right(x, y, folds)
        gain, error = intervals.mean_of_groups(right.astype(np.float64) - usual, groups)
        if gain - _SIGMAS * error > LEAST:
            shares = [intervals.share_with_interval(some, groups) for some in (right, usual)]
            found.append(Shortcut(by, *shares))
    return sorted(found, key=lambda one: -(one.accuracy.value or 0.0))


def _right(x: np.ndarray, y: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Whether what is fitted on the other folds says y, (n,) bool."""
    right = np.zeros(len(y), bool)
    for fold in np.unique(folds):
        here = folds == fold
        predict = _most_frequent if x.ndim == 1 else _tree
        right[here] = predict(x[~here], y[~here], x[here]) == y[here]
    return right


def _most_frequent(kinds: np.ndarray, y: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """The most frequent class of each kind; of a kind that is new, of all."""
    classes = int(y.max()) + 1
    counts = coo_array((np.ones(len(y)), (kinds, y)), shape=(int(max(kinds.max(), asked.max())) + 1, classes)).tocsr()
    best = np.full(counts.shape[0], np.bincount(y).argmax())
    seen = np.unique(kinds)
    best[seen] = np.asarray(counts[seen].argmax(axis=1)).ravel()
    return np.asarray(best[asked])


def _tree(x: np.ndarray, y: np.ndarray, asked: np.ndarray) -> np.ndarray:
    from sklearn.tree import DecisionTreeClassifier

    leaves = max(_LEAVES, 2 * (int(y.max()) + 1))
    tree = DecisionTreeClassifier(max_leaf_nodes=leaves, min_samples_leaf=_LEAF, random_state=0)
    return np.asarray(tree.fit(x, y).predict(asked))


def _numbered(values: Sequence[str]) -> np.ndarray:
    return np.unique(values, return_inverse=True)[1]
