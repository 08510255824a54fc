"""Owns the figures of predicted numbers, and the width of their prediction intervals. Not the bootstrap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from stages.metrics import resampled
from stages.metrics.figures import Calibration, Compared, Figures

FORMS: resampled.Forms = {
    "relative_error": "size", "mae": "size", "rmse": "size", "r2": "score", "spearman": "correlation",
}  # fmt: skip
"""The figures, in the order they are shown."""

COVERED = 0.95
"""The share of images whose number a prediction interval is to hold."""

Rows = tuple[np.ndarray, np.ndarray]
"""Numbers of n rows, and what is predicted for them: (n, numbers) each."""


def metrics(truth: np.ndarray, predicted: np.ndarray) -> Figures:
    """Figures of n rows, truth and predicted (n, numbers); of several numbers, the mean of each figure over them.

    relative_error: RMSE over that of predicting the mean of these rows, so a number's unit doesn't count; it is
    sqrt(1 - r2). mae and rmse: in the number's unit, None of several numbers. spearman: correlation of ranks. All but
    mae and rmse are None where a number is the same in all rows.
    """
    return resampled.metrics(FORMS, Weighted, truth, predicted)


def judge(
    truth: np.ndarray, predicted: np.ndarray, names: Sequence[str], groups: Sequence[str | None], seed: int
) -> Figures:
    """The same with intervals; `details` has the figures of each number where there are several."""
    found, details = resampled.judge(FORMS, Weighted, truth, predicted, groups, seed), {}
    if len(names) > 1 and found.n:
        parts = (metrics(truth[:, [i]], predicted[:, [i]]) for i in range(len(names)))
        details["per_number"] = {name: {"n": part.n, **part.values} for name, part in zip(names, parts, strict=True)}
    return replace(found, details=details)


def compare(truth: np.ndarray, a: np.ndarray, b: np.ndarray, groups: Sequence[str | None]) -> Compared:
    """Figures with intervals of both, and each figure of b less that of a."""
    return resampled.compare(FORMS, Weighted, truth, a, b, groups)


class Weighted:
    """A model's predictions, prepared so that the figures of weighted rows are a few products."""

    sorts = 1  # of ranks, once for all resamples

    def __init__(self, truth: np.ndarray, predicted: np.ndarray) -> None:
        wrong = predicted - truth
        self.several = truth.shape[1] > 1
        centred = truth - truth.mean(axis=0)  # far from 0, squares would leave no digits for the spread
        self.sums = np.stack([np.abs(wrong), wrong**2, centred, centred**2])  # (4, n, numbers)
        self.ranks = np.stack([_ranks(truth), _ranks(predicted)])

    def figures(self, weights: np.ndarray, ranking: bool) -> dict[str, np.ndarray]:
        """weights (n, r) -> each figure (r,), NaN where undefined."""
        total = weights.sum(axis=0)
        mae, square, mean, mean_square = np.einsum("fnt,nr->ftr", self.sums, weights, optimize=True) / total
        with np.errstate(invalid="ignore", divide="ignore"):
            spread = np.where(mean_square - mean**2 > 1e-12 * mean_square, mean_square - mean**2, np.nan)
            share = square / spread
            spearman = self._spearman(weights / total)
        return {
            "relative_error": np.sqrt(share).mean(axis=0),
            "mae": np.full(len(total), np.nan) if self.several else mae[0],
            "rmse": np.full(len(total), np.nan) if self.several else np.sqrt(square[0]),
            "r2": (1 - share).mean(axis=0),
            "spearman": spearman.mean(axis=0),
        }

    def _spearman(self, weights: np.ndarray) -> np.ndarray:
        """The weighted correlation of the ranks in all rows: (numbers, r)."""
        a, b = self.ranks
        mean_a, mean_b = (np.einsum("nt,nr->tr", of, weights) for of in (a, b))
        products = ((a, b), (a, a), (b, b))
        both, aa, bb = (np.einsum("nt,nr->tr", one * two, weights) for one, two in products)
        spread = np.maximum(aa - mean_a**2, 0) * np.maximum(bb - mean_b**2, 0)
        return np.asarray((both - mean_a * mean_b) / np.sqrt(np.where(spread > 1e-18, spread, np.nan)))


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks in each column (n, numbers), of 0 to 1; equal values share the mean of theirs."""
    from scipy.stats import rankdata

    return np.asarray(rankdata(values, axis=0) / len(values))


def calibrate(splits: Mapping[str, Rows], names: Sequence[str], folds: np.ndarray | None) -> Calibration:
    """Half the width of a prediction interval, by number, fitted on splits["val"] or "folds"; the coverage of each.

    Split conformal prediction (Vovk et al. 2005; Lei et al. 2018): the quantile of the absolute errors that holds
    COVERED of new images if they are like these. None for fewer than 19 rows, which no such quantile can tell. folds
    (n,): of the rows of splits["folds"], where each fold is covered by what the others give.
    """
    own = "folds" if "folds" in splits else "val"
    truth, predicted = splits[own]
    errors = np.abs(predicted - truth)
    widths = _half_widths(errors)
    if widths is None:
        where = "val" if own == "val" else "train and val"
        note = f"no prediction interval: 19 images in {where} are needed; there are {len(truth)}"
        return Calibration(
            notes=[note], splits={split: Figures(len(t), {"coverage": None}) for split, (t, _) in splits.items()}
        )
    found = {}
    for split, (truth, predicted) in splits.items():
        wide = np.tile(widths, (len(truth), 1))
        for fold in np.unique(folds) if split == "folds" and folds is not None else ():
            here = folds == fold
            others = _half_widths(errors[~here])
            wide[here] = widths if others is None else others
        inside = np.abs(predicted - truth) <= wide
        found[split] = Figures(len(truth), {"coverage": float(inside.mean()) if len(truth) else None})
    by_name = {name: float(width) for name, width in zip(names, widths, strict=True)}
    return Calibration(half_widths=by_name, notes=[], splits=found)


def _half_widths(errors: np.ndarray) -> np.ndarray | None:
    """Of (n, numbers) absolute errors, the one of rank ceil((n + 1) * COVERED) in each column."""
    rank = int(np.ceil((len(errors) + 1) * COVERED))
    return None if rank > len(errors) else np.sort(errors, axis=0)[rank - 1]
