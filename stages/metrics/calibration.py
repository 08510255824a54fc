"""Owns the temperature, and with two classes the threshold, fitted on val after the head. Not the head itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from stages.metrics import classification
from stages.metrics.figures import Calibration, Figures

LEAST_IMAGES = 50
"""Of val, for a temperature. On 50, it improved the log-loss of 93 % of simulated heads with logits of half or double
size, and cost calibrated ones 0.01; on 20, of 80 %, and 0.05."""

LEAST_OF_CLASS = 20
"""Images of each class in val, for a threshold. On 20, it cost simulated heads that needed none 0.01 of balanced
accuracy; on 5, 0.02, and more than that for a third of them."""

_LOWEST, _HIGHEST = 0.1, 10.0
"""Bounds of the temperature: on a val set without a mistake, lower is always better."""

_CELLS = 5_000_000
"""Probabilities in memory at a time."""

Rows = tuple[Sequence[str], np.ndarray]
"""Labels and probabilities (n, classes) of a split."""


def fit_calibration(
    splits: Mapping[str, Rows],
    classes: Sequence[str],
    folds: np.ndarray | None = None,
    graded: Mapping[str, np.ndarray] | None = None,
) -> Calibration:
    """A temperature and a threshold fitted on `splits["val"]`, or "folds", and the figures of every split with them.

    temperature: what the logits are to be divided by; None below LEAST_IMAGES. threshold: with two classes, the
    probability (as predicted, before any temperature) from which the second is the better guess; None below
    LEAST_OF_CLASS of one of them. For each split, `n`, log_loss, brier and ece at that temperature, and under
    `at_threshold` accuracy, balanced_accuracy, and f1 of the second class. folds (n,): of the rows of splits["folds"],
    whose figures have each fold at what is fitted on the others. graded: by split, what log_loss, brier and the
    temperature are against where that is not the labels alone: as `truth` of classification.row_losses.
    """
    own = "folds" if "folds" in splits else "val"
    truths = {split: classification.label_columns(labels, classes) for split, (labels, _) in splits.items()}
    graded = graded or truths
    temperature, limit, notes = _fit(truths[own], graded[own], splits[own][1], classes, own)
    figures = {}
    for split, (_, p) in splits.items():
        truth, against = truths[split], graded[split]
        temperatures, limits = np.full(len(truth), temperature or 1.0), np.full(len(truth), limit or 0.0)
        for fold in np.unique(folds) if split == "folds" and folds is not None else ():
            here = folds == fold
            found = _fit(truth[~here], against[~here], p[~here], classes, own)
            temperatures[here], limits[here] = found[0] or 1.0, found[1] if found[1] is not None else 0.5
        at_threshold = None if limit is None else _at_threshold(truth == 1, p[:, 1] >= limits)
        figures[split] = replace(
            _at_temperature(temperatures, truth, against, p), details={"at_threshold": at_threshold}
        )
    return Calibration(temperature, limit, notes=notes, splits=figures)


def _fit(
    truth: np.ndarray, graded: np.ndarray, p: np.ndarray, classes: Sequence[str], own: str
) -> tuple[float | None, float | None, list[str]]:
    """Temperature and threshold for these rows, and notes on what they are too few for."""
    where = "val" if own == "val" else "train and val"
    temperature, limit, notes = None, None, []
    if len(truth) < LEAST_IMAGES:
        notes.append(f"no temperature: {LEAST_IMAGES} images in {where} are needed; there are {len(truth)}")
    else:
        temperature = fit_temperature(graded, p)
    if len(classes) == 2:
        positive = int(truth.sum())
        if min(positive, len(truth) - positive) < LEAST_OF_CLASS:
            there = f"{len(truth) - positive} of {classes[0]}, {positive} of {classes[1]}"
            need = f"{LEAST_OF_CLASS} images of each class in {where} are needed"
            notes.append(f"no threshold: {need}; there are {there}")
        else:
            limit = fit_threshold(truth == 1, p[:, 1])
    return temperature, limit, notes


def describe_limits(found: Calibration | None) -> list[str]:
    """A sentence for each of temperature and threshold that is at a limit of its range."""
    notes = []
    if found and found.temperature is not None and not 1.01 * _LOWEST < found.temperature < 0.99 * _HIGHEST:
        notes.append(f"the temperature is at its limit, {found.temperature:.3g}: confidence means little")
    if found and found.threshold == 0:
        notes.append("the threshold is at its limit, 0: it puts all images into the second class")
    return notes


def fit_temperature(truth: np.ndarray, probabilities: np.ndarray) -> float:
    """The T that minimises the mean log-loss of softmax(logits / T); `truth` as for classification.row_losses.

    Temperature scaling (Guo et al. 2017, On Calibration of Modern Neural Networks). The loss is convex in 1 / T, which
    is searched between 0.1 and 10, on evenly spaced rows where there are more than 5 million probabilities; T = 1 stays
    where nothing is better on all of them, so the loss never rises.
    """
    from scipy.optimize import minimize_scalar

    some = np.arange(0, len(truth), max(1, -(-probabilities.size // _CELLS)))
    logits = _logits(probabilities[some])
    graded = truth[some]
    chosen = (logits * graded).sum(axis=1) if truth.ndim == 2 else logits[np.arange(len(some)), graded]

    def loss(inverse: float) -> float:
        return float((np.log(np.exp(logits * inverse).sum(axis=1)) - chosen * inverse).mean())

    bounds = (1 / _HIGHEST, 1 / _LOWEST)
    found = 1 / float(minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-6}).x)
    rounded = truth.argmax(axis=1) if truth.ndim == 2 else truth
    after = _at_temperature(np.full(len(truth), found), rounded, truth, probabilities).values["log_loss"]
    return found if after is not None and after < classification.log_loss(truth, probabilities) else 1.0


def apply_temperature(probabilities: np.ndarray, temperature: float | np.ndarray) -> np.ndarray:
    """Probabilities (n, classes) as they would be of logits divided by `temperature` (or (n, 1)); no guess changes."""
    powers = np.exp(_logits(probabilities) / temperature)
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def _logits(probabilities: np.ndarray) -> np.ndarray:
    """Logits (n, classes) of which the greatest of each row is 0."""
    logits = np.log(np.maximum(probabilities, np.finfo(np.float64).tiny))
    return np.asarray(logits - logits.max(axis=1, keepdims=True))


def _at_temperature(
    temperatures: np.ndarray, truth: np.ndarray, graded: np.ndarray, probabilities: np.ndarray
) -> Figures:
    """Figures at the temperature of each row, computed a few rows at a time; None where there is no row."""
    n, step = len(truth), max(1, _CELLS // probabilities.shape[1])
    if n == 0:
        return Figures(0, {"log_loss": None, "brier": None, "ece": None})
    parts = []
    for start in range(0, n, step):
        here = slice(start, start + step)
        t, g, p = truth[here], graded[here], apply_temperature(probabilities[here], temperatures[here, None])
        parts.append(
            [classification.row_losses(g, p), classification.brier(g, p), p.argmax(axis=1) == t, p.max(axis=1)]
        )
    loss, brier, right, confidence = np.concatenate(parts, axis=1)
    figures = {"log_loss": float(loss.mean()), "brier": float(brier.mean())}
    return Figures(n, {**figures, "ece": classification.ece(right, confidence)})


def fit_threshold(positive: np.ndarray, scores: np.ndarray) -> float | None:
    """The cut of `scores` with the best balanced accuracy: positive (n,) bool, scores (n,) float in 0 to 1.

    Balanced accuracy (its maximum is Youden's 1950 index) rather than F1, since it does not move with the share of
    positives, which in use is seldom that of val. Halfway between two scores; of equally good cuts the nearest to 0.5.
    None where one class is absent.
    """
    if positive.all() or not positive.any():
        return None
    order = np.argsort(scores, kind="stable")
    ascending, hits = scores[order], positive[order]
    cut = np.flatnonzero(np.diff(ascending)) + 1
    halfway = (ascending[cut - 1] + ascending[cut]) / 2  # which between neighbouring floats is the lower one
    limits = np.concatenate([[0.0], np.where(halfway > ascending[cut - 1], halfway, ascending[cut])])
    below = np.concatenate([[0], cut])
    missed = np.concatenate([[0], np.cumsum(hits)])[below]
    balanced = (1 - missed / hits.sum() + (below - missed) / (~hits).sum()) / 2
    best = np.flatnonzero(balanced >= balanced.max() - 1e-12)
    return float(limits[best[np.argmin(np.abs(limits[best] - 0.5))]])


def _at_threshold(positive: np.ndarray, guess: np.ndarray) -> dict[str, float | None]:
    """Figures of guesses `guess` (n,) bool that are the second class, where `positive` are."""
    if not len(guess):
        return dict.fromkeys(("accuracy", "balanced_accuracy", "f1"))
    recalls = [float((guess == side)[positive == side].mean()) for side in (False, True) if (positive == side).any()]
    guessed_or_true = int(guess.sum() + positive.sum())
    return {
        "accuracy": float((guess == positive).mean()),
        "balanced_accuracy": sum(recalls) / len(recalls),
        "f1": 2 * int((guess & positive).sum()) / guessed_or_true if guessed_or_true else None,
    }
