"""Owns the figures of several labels at once, and the thresholds of labels. Not the bootstrap."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from stages.metrics import bootstrap, resampled
from stages.metrics.figures import Calibration, Compared, Figures

FORMS: resampled.Forms = {
    "macro_ap": "share", "micro_ap": "share", "macro_auroc": "share", "macro_f1": "share", "micro_f1": "share",
    "exact_match": "share", "log_loss": "size", "brier": "size",
}  # fmt: skip
"""The figures, in the order they are shown."""

LEAST_OF_LABEL = 5
"""Images with a label, and without it, for a threshold of its own; else it is 0.5."""

_AT_THRESHOLD = ("macro_f1", "micro_f1", "exact_match")

Rows = tuple[np.ndarray, np.ndarray]
"""What n rows have, 0, 1 or NaN where it is unknown, and probabilities: (n, labels) each."""


def losses(truth: np.ndarray, p: np.ndarray) -> np.ndarray:
    """The mean over the known labels of each row of the negative log-probability of what it has, (n,), in nats."""
    known = np.isfinite(truth)
    right = np.where(np.where(known, truth, 0) > 0.5, p, 1 - p)
    lost = np.where(known, -np.log(np.clip(right, 1e-15, None)), 0)
    return np.asarray(lost.sum(axis=1) / np.maximum(known.sum(axis=1), 1))


def metrics(truth: np.ndarray, p: np.ndarray, thresholds: np.ndarray | float = 0.5) -> Figures:
    """Figures of n rows, truth and p (n, labels); unknown labels are left out of all.

    macro_ap, macro_auroc: means over the labels that some known rows have and others don't; micro_ap: average precision
    of all (image, label) pairs together; macro_f1, micro_f1 and exact_match (all known labels right): of labels whose
    probability is at least the threshold. None where there is no such label.
    """
    return resampled.metrics(FORMS, partial(Weighted, thresholds=thresholds), truth, p)


def judge(truth: np.ndarray, p: np.ndarray, names: Sequence[str], groups: Sequence[str | None], seed: int) -> Figures:
    """The same with intervals; `details` has the figures of each label."""
    details = {"per_label": dict(_per_label(truth, p, names))} if len(truth) else {}
    return replace(resampled.judge(FORMS, Weighted, truth, p, groups, seed), details=details)


def compare(truth: np.ndarray, a: np.ndarray, b: np.ndarray, groups: Sequence[str | None]) -> Compared:
    """Figures with intervals of both, and each figure of b less that of a."""
    return resampled.compare(FORMS, Weighted, truth, a, b, groups)


class Weighted:
    """A model's predictions, prepared so that the figures of weighted rows are a few products."""

    def __init__(self, truth: np.ndarray, p: np.ndarray, thresholds: np.ndarray | float = 0.5) -> None:
        known = np.isfinite(truth)
        has, guess = known & (np.nan_to_num(truth) > 0.5), p >= thresholds
        counted = np.concatenate([has, known & guess, has & guess], axis=1)
        self.counts = np.ascontiguousarray(counted.T, dtype=np.float64)  # (3 labels, n)
        self.rows = np.stack([(~known | (has == guess)).all(axis=1), losses(truth, p), _brier(truth, p)])
        split = [label for label in range(p.shape[1]) if 0 < has[:, label].sum() < known[:, label].sum()]
        rows = [np.flatnonzero(known[:, label]) for label in split]
        self.labels = [(here, bootstrap.Ranking(has[here, i], p[here, i])) for i, here in zip(split, rows, strict=True)]
        cells = np.flatnonzero(known)
        self.row_of_cell = cells // p.shape[1]
        pairs = has.ravel()[cells]
        self.micro = bootstrap.Ranking(pairs, p.ravel()[cells]) if pairs.any() else None

    @property
    def sorts(self) -> int:
        return 2 * len(self.labels)

    def figures(self, weights: np.ndarray, ranking: bool) -> dict[str, np.ndarray]:
        """weights (n, r) -> each figure (r,), NaN where undefined or not asked for."""
        has, guessed, hits = (self.counts @ weights).reshape(3, -1, weights.shape[1])
        exact, loss, brier = (self.rows @ weights) / weights.sum(axis=0)
        undefined = np.full((1, weights.shape[1]), np.nan)
        pairs = [ranked.figures(weights[here]) for here, ranked in self.labels] if ranking else []
        with np.errstate(invalid="ignore", divide="ignore"):
            f1 = np.where(has > 0, 2 * hits / (has + guessed), np.nan)
            micro_f1 = 2 * hits.sum(axis=0) / (has + guessed).sum(axis=0)
        micro = self._micro(weights) if self.micro is not None and ranking else undefined[0]
        return {
            "macro_ap": bootstrap.mean_of_defined(np.array([precision for _, precision in pairs] or undefined)),
            "micro_ap": micro,
            "macro_auroc": bootstrap.mean_of_defined(np.array([auroc for auroc, _ in pairs] or undefined)),
            "macro_f1": bootstrap.mean_of_defined(f1),
            "micro_f1": micro_f1,
            "exact_match": exact,
            "log_loss": loss,
            "brier": brier,
        }

    def _micro(self, weights: np.ndarray) -> np.ndarray:
        """Average precision of all pairs, some resamples at a time: each has a weight for every pair."""
        assert self.micro is not None
        step = max(1, bootstrap.CHUNK // len(self.row_of_cell))
        starts = range(0, weights.shape[1], step)
        parts = (self.micro.figures(weights[self.row_of_cell, start : start + step]) for start in starts)
        return np.concatenate([precision for _, precision in parts])


def _brier(truth: np.ndarray, p: np.ndarray) -> np.ndarray:
    """The mean over the known labels of each row of the squared error, (n,)."""
    known = np.isfinite(truth)
    squares = np.where(known, (p - np.nan_to_num(truth)) ** 2, 0)
    return np.asarray(squares.sum(axis=1) / np.maximum(known.sum(axis=1), 1))


def _per_label(truth: np.ndarray, p: np.ndarray, names: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    for i, name in enumerate(names):
        found = metrics(truth[:, [i]], p[:, [i]]).values
        known = np.isfinite(truth[:, i])
        counts = {"known": int(known.sum()), "support": int((truth[known, i] > 0.5).sum())}
        yield name, {**counts, "ap": found["macro_ap"], "auroc": found["macro_auroc"], "f1": found["macro_f1"]}


def calibrate(splits: Mapping[str, Rows], names: Sequence[str], folds: np.ndarray | None) -> Calibration:
    """The threshold of each label with the best F1 on splits["val"] or "folds", and the figures of each split at these.

    folds (n,): of the rows of splits["folds"], where each fold has the thresholds that the others prefer.
    """
    own = "folds" if "folds" in splits else "val"
    thresholds = fit_thresholds(*splits[own])
    found = {}
    for split, (truth, p) in splits.items():
        limits = np.tile(thresholds, (len(truth), 1))
        for fold in np.unique(folds) if split == "folds" and folds is not None else ():
            here = folds == fold
            limits[here] = fit_thresholds(truth[~here], p[~here])
        values = metrics(truth, p, limits).values
        found[split] = Figures(len(truth), {}, details={"at_threshold": {name: values[name] for name in _AT_THRESHOLD}})
    by_name = {name: float(limit) for name, limit in zip(names, thresholds, strict=True)}
    return Calibration(thresholds=by_name, threshold_maximises="f1", notes=[], splits=found)


def fit_thresholds(truth: np.ndarray, p: np.ndarray) -> np.ndarray:
    """The cut with the best F1 for each label, (labels,): halfway between two probabilities; 0.5 of rare labels."""
    out = np.full(p.shape[1], 0.5)
    for label in range(p.shape[1]):
        known = np.isfinite(truth[:, label])
        has, scores = truth[known, label] > 0.5, p[known, label]
        if min(has.sum(), (~has).sum()) < LEAST_OF_LABEL:
            continue
        order = np.argsort(-scores, kind="stable")
        hits = np.cumsum(has[order])
        last = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
        f1 = 2 * hits[last] / (last + 1 + has.sum())
        best = int(f1.argmax())
        below = scores[order][last[best] + 1] if last[best] + 1 < len(scores) else 0.0
        at = scores[order][last[best]]
        halfway = (at + below) / 2
        out[label] = halfway if halfway > below else at
    return out
