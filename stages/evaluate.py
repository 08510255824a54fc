"""Owns the figures a classifier is judged by. Not fitting it, nor which rows are for what."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_BINS = 15


def metrics(labels: Sequence[str], probabilities: np.ndarray, classes: Sequence[str]) -> dict[str, float | int | None]:
    """Figures for n rows.

    Parameters
    ----------
    labels : n class names, each one of `classes`.
    probabilities : ndarray of shape (n, len(classes)), rows sum to 1.
    classes : class names in column order; with two, the second is the positive one.

    AUROC is one-vs-rest, macro, for more than two classes; it and average_precision are None where `labels` lack a
    class. ece: 15 equal bins of the top probability (Guo et al. 2017); a perfectly calibrated model scores about 0.04
    to 0.05 on a few hundred rows, so read log_loss and brier first. All None but n where there is no row.
    """
    names = ("accuracy", "balanced_accuracy", "macro_f1", "auroc", "average_precision", "log_loss", "brier", "ece")
    if len(labels) == 0:
        return {"n": 0, **dict.fromkeys(names)}
    from sklearn import metrics as sk  # here: a second is too long to wait for --help

    column = {name: i for i, name in enumerate(classes)}
    truth = np.array([column[label] for label in labels])
    p = np.asarray(probabilities, dtype=np.float64)
    guess = p.argmax(axis=1)
    one_hot = np.eye(len(classes))[truth]
    present = np.unique(truth)
    complete = len(present) == len(classes)
    recalls = [float((guess[truth == c] == c).mean()) for c in present]
    scores, targets = (p[:, 1], truth) if len(classes) == 2 else (p, one_hot)
    return {
        "n": len(truth),
        "accuracy": float((guess == truth).mean()),
        "balanced_accuracy": float(np.mean(recalls)),
        "macro_f1": float(sk.f1_score(truth, guess, labels=present, average="macro", zero_division=0)),
        "auroc": float(sk.roc_auc_score(targets, scores, average="macro")) if complete else None,
        "average_precision": float(sk.average_precision_score(targets, scores)) if complete else None,
        "log_loss": log_loss(truth, p),
        "brier": float(((p - one_hot) ** 2).sum(axis=1).mean()) / (2 if len(classes) == 2 else 1),
        "ece": _ece(guess == truth, p.max(axis=1)),
    }


def log_loss(truth: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean negative log-probability, in nats, of the true class: `truth` (n,) int, `probabilities` (n, classes)."""
    chosen = probabilities[np.arange(len(truth)), truth]
    return float(-np.log(np.clip(chosen, 1e-15, None)).mean())


def _ece(right: np.ndarray, confidence: np.ndarray) -> float:
    """Expected calibration error over bins of equal width."""
    which = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    count = np.bincount(which, minlength=_BINS)
    gap = np.bincount(which, right, _BINS) - np.bincount(which, confidence, _BINS)
    return float(np.abs(gap).sum() / count.sum())
