"""Owns fitting a distance to rows of train, and its distances out of fold. Not where rows are, nor what a rate is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from cache.errors import Unusable
from stages.data.manifest import Row
from stages.heads.matrix import FeatureMatrix, unit_spans
from stages.metrics import kfold
from stages.metrics.kfold import Strata
from stages.runtime.parallel import run_in_threads
from stages.targets.target import Target
from stages.unknown.distance import VERSION, ByClass, Distance

DIRECTIONS = 128
"""In which rows of one class differ most; along the others, all are taken to differ alike."""

PROTOTYPES = 64
"""Of all classes together; more where there are more than half as many classes, two for each, up to MOST_PROTOTYPES."""

POWER = 0.25
"""A direction is divided by its variance to this power: 0.5 would be Mahalanobis's distance, 0 the cosine of rows.
Chosen, as the numbers above, on other sets than those that benchmarks/unknown.py is judged on (docs/benchmarks.md)."""

MOST_FEATURES, MOST_PROTOTYPES = 20_000, 1_024
"""Above so many features, as whole maps have, there is no distance: its arrays would outgrow the base. Of more classes
than prototypes at most, there is the distance to prototypes alone."""

FOLDS, LEAST = 5, 10
MOST_ROWS, MOST_SQUARE = 10_000, 2_560
"""Rows that are fitted at most; of wider taps than MOST_SQUARE features, so many. Of more, evenly spaced ones are."""

_ROUNDS = 15
_ROWS_FOR_ONE = 5
"""Rows that a prototype stands for, at least."""


def fit(features: FeatureMatrix, rows: Sequence[Row], target: Target, version: int = VERSION) -> Distance | None:
    """A distance from the labelled rows of train, as that version fits it; line i of features is rows[i].

    None where there are fewer than LEAST of them, where all are of one group, and above MOST_FEATURES. Variances along
    directions are shrunk to their mean, as Ledoit and Wolf (2004) do; of targets whose columns exclude each other, they
    are those within classes, as in Lee et al. (2018, arXiv:1807.03888).
    """
    train = np.flatnonzero([row.split == "train" for row in rows])
    most = MOST_ROWS if features.dim <= MOST_SQUARE else MOST_SQUARE
    if len(train) > most:
        train = train[np.linspace(0, len(train) - 1, most).round().astype(int)]
    if len(train) < LEAST or features.dim > MOST_FEATURES:
        return None
    chosen = [rows[i] for i in train.tolist()]
    strata = target.strata([row.label or "" for row in chosen])
    kinds = np.zeros(len(chosen), np.intp)
    if target.exclusive:
        kinds = np.unique([names[0] for names in strata.names], return_inverse=True)[1]
    try:
        folds = _folds(chosen, strata)
    except Unusable:  # one group
        return None
    by_class = target.exclusive and version > 1 and kinds.max() < MOST_PROTOTYPES
    spans = np.array(unit_spans(features.widths), np.int64).reshape(-1, 2)
    x, parts = features.unit_rows().take(train), np.empty((len(train), 3 if by_class else 1))

    def judge(fold: int | None) -> Distance | None:
        if fold is None:
            return _fit(x, kinds, spans, by_class)
        here = folds == fold
        distance = _fit(x[~here], kinds[~here], spans, by_class)
        parts[here] = distance.parts(x[here])  # their length is 1 already
        return None

    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):  # the same to the last bit on any number of cores
        *_, whole = run_in_threads(judge, [*np.unique(folds).tolist(), None])
    assert whole is not None
    return _weighed(whole, parts)


def _folds(rows: Sequence[Row], strata: Strata) -> np.ndarray:
    loose = Strata(strata.names, needed=False)  # a class of one image is as far out of fold as one that is not there
    return kfold.assign_folds(rows, kfold.most_folds(rows, FOLDS, loose), 0, loose)


def _weighed(whole: Distance, parts: np.ndarray) -> Distance:
    """With its distances out of fold, of their parts (n, parts): each counts by its deviation, which makes them alike.

    One that hardly varies, as that of equal rows, tells nothing.
    """
    held = parts[:, 0]
    if whole.by_class is not None:
        spread = parts.std(axis=0)
        tells = spread > 1e-6 * np.abs(parts).mean(axis=0)
        weights = np.divide(1, spread, out=np.zeros(len(spread)), where=tells).astype(np.float32)
        whole = replace(whole, by_class=replace(whole.by_class, weights=weights))
        held = parts @ weights.astype(np.float64)
    return replace(whole, held=np.sort(held).astype(np.float32))


def _fit(x: np.ndarray, kinds: np.ndarray, spans: np.ndarray, by_class: bool) -> Distance:
    """Of rows (n, dim) float32 that were divided by their lengths; `kinds` (n,) are their classes."""
    mean = x.mean(axis=0, dtype=np.float64)
    within, centred = np.empty_like(x), (x - mean).astype(np.float32)
    for kind in np.unique(kinds):
        here = kinds == kind
        within[here] = x[here] - x[here].mean(axis=0, dtype=np.float64)
    n, dim = within.shape
    scatter = within.T @ within if n >= dim else None  # of fewer rows, products of rows are the smaller matrix
    directions, variances, rest = _metric(within, scatter, len(np.unique(kinds)))
    gains = ((variances / rest) ** (-2 * POWER) - 1).astype(np.float32)
    applied = np.sqrt(gains + 1) - 1
    shortened = _unit(centred + (centred @ directions * applied) @ directions.T)
    found = _unit(_prototypes(shortened, len(np.unique(kinds))))
    prototypes = found + (found @ directions * applied) @ directions.T
    told = _by_class(centred, scatter, kinds, directions, rest / variances - 1, rest) if by_class else None
    nothing = np.empty(0, np.float32)
    return Distance(spans, mean.astype(np.float32), directions, gains, prototypes.T.copy(), nothing, told)


def _by_class(
    centred: np.ndarray, scatter: np.ndarray | None, kinds: np.ndarray, directions: np.ndarray, gains: np.ndarray,
    rest: float,
) -> ByClass:  # fmt: skip
    """Of centred rows (n, dim) float32, and their scatter within classes, where it is at hand.

    All penalties that were tried, from 0.3 to 3 times the mean square of a row, do about as well (docs/benchmarks.md).
    """
    from scipy import linalg

    truth = (kinds[:, None] == np.unique(kinds)).astype(np.float32)
    shares = truth.mean(axis=0)
    counts = truth.sum(axis=0)
    means = (truth / counts).T @ centred
    metric = means + (means @ directions * gains) @ directions.T
    wide = scatter is None  # then in coordinates of the rows, which are fewer
    products = centred @ centred.T if scatter is None else scatter + (means.T * counts) @ means
    penalty = np.einsum("ij,ij->", centred, centred, dtype=np.float64) / len(centred)
    products[np.diag_indices(len(products))] += max(penalty, 1e-12)
    right = truth - shares if wide else centred.T @ (truth - shares)
    solved = linalg.solve(products, right, assume_a="pos", overwrite_a=True, check_finite=False)
    answers = centred.T @ solved if wide else solved
    offsets = np.einsum("ij,ij->i", metric, means)
    found = (gains, np.float64(rest), -2 * metric.T, offsets, answers, shares, np.ones(3))
    return ByClass(*(np.array(part, np.float32) for part in found))


def _metric(within: np.ndarray, scatter: np.ndarray | None, classes: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Directions (dim, r) float32, variances along them (r,), and that along others, of rows less the means of their
    classes, and their products (dim, dim) where rows are as many as features."""
    from scipy import linalg

    n, dim = within.shape
    squares = np.einsum("ij,ij->i", within, within, dtype=np.float64)
    total, rank = squares.mean(), min(DIRECTIONS, dim - 1, n - classes - 1)
    if rank < 1 or total < 1e-12:
        return np.zeros((dim, 0), np.float32), np.zeros(0), float(max(total / dim, 1e-24))
    products = (within @ within.T if scatter is None else scatter).astype(np.float64) / n
    # of the smaller matrix: what is not 0 is the same of both
    several = [len(products) - rank, len(products) - 1]
    variances, vectors = linalg.eigh(products.astype(np.float32), subset_by_index=several)
    along = np.maximum(variances.astype(np.float64)[: -rank - 1 : -1], 1e-9 * total)
    directions = vectors[:, : -rank - 1 : -1]
    if n < dim:
        directions = within.T @ directions / np.sqrt(along * n)
    rest = max(total - along.sum(), 0) / (dim - rank)
    norm = (products**2).sum()  # of the covariance, Frobenius's squared
    spread = max(norm - total**2 / dim, 1e-24)
    shrink = float(np.clip(((squares**2).mean() - norm) / n / spread, 0, 1))
    along, rest = (np.maximum((1 - shrink) * part + shrink * total / dim, 1e-9 * total) for part in (along, rest))
    return directions.astype(np.float32), along, float(rest)


def _prototypes(x: np.ndarray, classes: int) -> np.ndarray:
    """Means of clusters of the rows (n, dim), whose length is 1: (k, dim).

    Lloyd's algorithm from rows drawn at random. Not scikit-learn's, whose import takes longer than all of this.
    """
    from scipy.sparse import csr_array

    wanted = min(max(PROTOTYPES, 2 * classes), MOST_PROTOTYPES, max(1, len(x) // _ROWS_FOR_ONE))
    centres = x[np.sort(np.random.default_rng(0).permutation(len(x))[:wanted])]
    for _ in range(_ROUNDS):
        nearest = (x @ centres.T - (centres**2).sum(axis=1) / 2).argmax(axis=1)
        counts = np.bincount(nearest, minlength=wanted)
        shares = 1 / np.maximum(counts, 1)[nearest].astype(np.float32)
        means = csr_array((shares, (nearest, np.arange(len(x)))), shape=(wanted, len(x))) @ x
        centres = np.where(counts[:, None] > 0, means, centres)  # of copies, there are fewer clusters
    return np.asarray(centres)


def _unit(x: np.ndarray) -> np.ndarray:
    """Rows of length 1; those of zeros stay."""
    lengths = np.linalg.norm(x, axis=1, keepdims=True)
    return np.asarray(x / np.where(lengths > 0, lengths, 1))
