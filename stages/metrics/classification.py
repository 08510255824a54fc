"""Owns the figures of a classifier's predictions. Not their intervals (intervals.py)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from stages.metrics.figures import Figures

NAMES = ("accuracy", "balanced_accuracy", "macro_f1", "auroc", "average_precision", "log_loss", "brier", "ece")
"""The figures, in the order they are shown."""

MOST_RANKED = 1000
"""Up to this many classes there are AUROC and average precision: each class costs a sort of all rows."""

MOST_CONFUSED = 100
"""Up to this many classes the confusion matrix is stored."""

BINS = 15
"""Of the top probability, for the ECE."""


def metrics(
    labels: Sequence[str], probabilities: np.ndarray, classes: Sequence[str], shares: np.ndarray | None = None
) -> Figures:
    """Figures for n rows.

    Parameters
    ----------
    labels : n class names, each one of `classes`.
    probabilities : ndarray of shape (n, len(classes)), rows sum to 1.
    classes : class names in column order; with two, the second is the positive one.
    shares : what log_loss and brier are against where that is not the label alone: (n, len(classes)), rows sum to 1.

    AUROC is one-vs-rest, macro, for more than two classes; it and average_precision are None where `labels` lack a
    class, and above MOST_RANKED classes. ece: 15 equal bins of the top probability (Guo et al. 2017); a perfectly
    calibrated model scores about 0.04 to 0.05 on a few hundred rows, so read log_loss and brier first (Roelofs et al.
    2022). All None but n where there is no row.
    """
    if len(labels) == 0:
        return Figures(0, dict.fromkeys(NAMES))
    truth, p = label_columns(labels, classes), np.asarray(probabilities, dtype=np.float64)
    graded, guess = truth if shares is None else shares, p.argmax(axis=1)
    present = np.unique(truth)
    support, hits, guesses = _counts(truth, guess, len(classes))
    ranked = len(present) == len(classes) <= MOST_RANKED
    columns = (1,) if len(classes) == 2 else range(len(classes))
    pairs = [ranking(truth == c, p[:, c]) for c in columns] if ranked else []
    values = {
        "accuracy": float((guess == truth).mean()),
        "balanced_accuracy": float((hits / np.maximum(support, 1))[present].mean()),
        "macro_f1": float((2 * hits / np.maximum(support + guesses, 1))[present].mean()),
        "auroc": float(np.mean([auroc for auroc, _ in pairs])) if ranked else None,
        "average_precision": float(np.mean([precision for _, precision in pairs])) if ranked else None,
        "log_loss": log_loss(graded, p),
        "brier": float(brier(graded, p).mean()),
        "ece": ece(guess == truth, p.max(axis=1)),
    }
    return Figures(len(truth), values)


def label_columns(labels: Sequence[str], classes: Sequence[str]) -> np.ndarray:
    """The column of each label: (n,) int."""
    column = {name: i for i, name in enumerate(classes)}
    return np.array([column[label] for label in labels], dtype=np.intp)


def softmax(logits: np.ndarray) -> np.ndarray:
    """logits (n, 1) of two classes, or (n, classes) -> (n, classes), rows sum to 1."""
    if logits.shape[1] == 1:
        logits = np.concatenate([-logits / 2, logits / 2], axis=1)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def log_loss(truth: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean of `row_losses`."""
    return float(row_losses(truth, probabilities).mean())


def row_losses(truth: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Negative log-probability, in nats, of each row's true class, (n,); a certain mistake costs that of 1e-15.

    truth: (n,) int, or shares of classes (n, classes), over which the mean is taken.
    """
    if truth.ndim == 2:
        return np.asarray(-(truth * np.log(np.clip(probabilities, 1e-15, None))).sum(axis=1))
    return np.asarray(-np.log(np.clip(probabilities[np.arange(len(truth)), truth], 1e-15, None)))


def brier(truth: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Squared distance of each row's probabilities from its true class, (n,); with two classes, that of one of them.

    truth: as for `row_losses`.
    """
    p = probabilities
    if truth.ndim == 2:
        distance = ((p - truth) ** 2).sum(axis=1)
    else:
        distance = np.einsum("ij,ij->i", p, p) - 2 * p[np.arange(len(truth)), truth] + 1
    return np.asarray(distance / (2 if p.shape[1] == 2 else 1))


def ece(right: np.ndarray, confidence: np.ndarray) -> float:
    """Expected calibration error over bins of equal width (Guo et al. 2017), of (n,) hits and top probabilities."""
    which = confidence_bins(confidence)
    gap = np.bincount(which, right, BINS) - np.bincount(which, confidence, BINS)
    return float(np.abs(gap).sum() / len(which))


def confidence_bins(confidence: np.ndarray) -> np.ndarray:
    """The bin of each top probability, (n,) int below BINS."""
    return np.minimum((confidence * BINS).astype(np.intp), BINS - 1)


def details(
    labels: Sequence[str], probabilities: np.ndarray, classes: Sequence[str], groups: Sequence[str | None]
) -> dict[str, Any]:
    """What lies behind the figures, as JSON.

    confusion: rows are true classes, columns guesses; None above MOST_CONFUSED classes. per_class: precision, recall,
    f1, support, and auroc of the class against the rest, each None where it is 0 / 0 or as in `metrics`. per_group: n
    and accuracy of each group, where there are any.
    """
    truth, p = label_columns(labels, classes), np.asarray(probabilities, dtype=np.float64)
    guess, k = p.argmax(axis=1), len(classes)
    out: dict[str, Any] = {"confusion": None, "per_class": _per_class(truth, p, guess, classes)}
    if k <= MOST_CONFUSED:
        out["confusion"] = np.bincount(truth * k + guess, minlength=k * k).reshape(k, k).tolist()
    if any(group is not None for group in groups):
        out["per_group"] = _per_group(guess == truth, groups)
    return out


def _per_class(
    truth: np.ndarray, p: np.ndarray, guess: np.ndarray, classes: Sequence[str]
) -> dict[str, dict[str, float | int | None]]:
    support, hits, guesses = (count.tolist() for count in _counts(truth, guess, len(classes)))
    out: dict[str, dict[str, float | int | None]] = {}
    for c, name in enumerate(classes):
        ranked = len(classes) <= MOST_RANKED and 0 < support[c] < len(truth)
        out[name] = {
            "precision": hits[c] / guesses[c] if guesses[c] else None,
            "recall": hits[c] / support[c] if support[c] else None,
            "f1": 2 * hits[c] / (support[c] + guesses[c]) if support[c] + guesses[c] else None,
            "support": support[c],
            "auroc": ranking(truth == c, p[:, c])[0] if ranked else None,
        }
    return out


def _per_group(right: np.ndarray, groups: Sequence[str | None]) -> dict[str, dict[str, float | int]]:
    named = np.array([group is not None for group in groups])
    names, which = np.unique(np.array([group for group in groups if group is not None]), return_inverse=True)
    n, hits = np.bincount(which), np.bincount(which, right[named])
    return {str(name): {"n": int(n[i]), "accuracy": float(hits[i] / n[i])} for i, name in enumerate(names)}


def _counts(truth: np.ndarray, guess: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of each class, those of them that are guessed right, and guesses of each class: (k,) int each."""
    return (
        np.bincount(truth, minlength=k),
        np.bincount(truth[truth == guess], minlength=k),
        np.bincount(guess, minlength=k),
    )


def ranking(positive: np.ndarray, scores: np.ndarray) -> tuple[float, float]:
    """AUROC and average precision of (n,) bool and float, some of either; equal scores count as one threshold.

    AUROC is the share of pairs in the right order (Hanley and McNeil 1982); average precision the step-wise area that
    scikit-learn has under that name.
    """
    order = np.argsort(-scores, kind="stable")
    last = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    hits = np.cumsum(positive[order])[last].astype(np.float64)
    misses = last + 1 - hits
    new = np.diff(hits, prepend=0)
    before = misses - np.diff(misses, prepend=0) / 2
    return (
        float((new * (misses[-1] - before)).sum() / (hits[-1] * misses[-1])),
        float((new * hits / (last + 1)).sum() / hits[-1]),
    )
