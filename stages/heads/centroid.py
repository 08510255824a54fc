"""Owns the nearest centroid, and its mixture with another linear classifier. Not what it is mixed with (logistic.py).

With few images of many classes the direction of a class's mean row is a better classifier than what is fitted to them
(SimpleShot, Wang et al. 2019); with more, or where classes overlap, it is not. So the logits of both are summed, each
times a weight that is chosen on rows that neither was fitted on (stacking, Wolpert 1992). Of two images a class, folds
fit on one and judge by the other, so what they choose is noise: there the weights are pulled towards FEW instead.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.sparse import csr_array

from stages.heads.matrix import Rows, Spans, divide_by_length, row_parts
from stages.metrics.classification import row_losses, softmax

TEMPERATURE = 10.0
"""Logits of the centroid at weight 1 are this times the cosine to each class's mean row."""

LEAST_ROWS = 20
"""Rows of val that choose the weights, at least. Folds choose on as few as there are."""

PULL = 0.1
"""Nats, of all rows together, for a weight that is 1 away from ALONE: it matters on a few dozen rows only."""

PULL_FEW = 20.0
"""Nats for a weight that is 1 away from FEW, over the square of the rows a class: 5 at two, 0.2 at ten, soon none."""

Mix = tuple[float, float]
"""Weights of the classifier's logits, and of the centroid's."""

ALONE: Mix = (1.0, 0.0)

FEW: Mix = (0.75, 1.0)
"""What does well where classes have two images each, before any of them has been judged."""


def class_sums(x: Rows, y: np.ndarray, classes: int) -> np.ndarray:
    """Of the rows x (n, dim) by their y, (n,) int, or shares (n, classes): (classes, dim), of the dtype of x.

    Classes are summed in the order of the rows, so it is the same to the last bit whether they are in memory.
    """
    sums, first = np.zeros((classes, x.shape[1]), x.dtype), 0
    for part in row_parts(x):
        of = y[first : first + len(part)]
        if y.ndim > 1:
            sums += of.T.astype(x.dtype) @ part
        else:
            rows, where = (part, of) if not first else (np.concatenate([sums, part]), np.append(range(classes), of))
            sums = csr_array((np.ones(len(rows), x.dtype), (where, np.arange(len(rows)))), (classes, len(rows))) @ rows
        first += len(part)
    return sums


def centroid_weights(sums: np.ndarray, spans: Spans) -> np.ndarray:
    """Weights (dim, outputs) on rows of length 1 in each span, from the sum of those of each class (classes, dim).

    Features outside of spans have no weight.
    """
    directions = np.zeros(sums.shape)
    for start, stop in spans:
        directions[:, start:stop] = sums[:, start:stop]
    directions = divide_by_length(directions, spans) * (TEMPERATURE / max(1, len(spans)))
    if len(directions) == 2:
        directions = directions[1:] - directions[:1]
    return np.asarray(directions.T)


def choose_mix(logits: np.ndarray, centroid: np.ndarray, y: np.ndarray, a_class: float) -> Mix:
    """The weights, none negative, with the least log-loss on rows that neither was fitted on, pulled to ALONE and FEW.

    logits and centroid: (repeats, n, outputs); y: (n,) int, or shares (n, classes). a_class: rows that the head is
    fitted on, by classes.
    """
    repeats, n, outputs = logits.shape
    pulls = ((PULL, ALONE), (PULL_FEW / a_class**2, FEW))
    both = np.stack([logits, centroid], axis=-1).reshape(-1, outputs, 2).astype(np.float64)
    truth = np.tile(y, repeats) if y.ndim == 1 else np.tile(y, (repeats, 1))

    def penalised(weights: np.ndarray) -> tuple[float, np.ndarray]:
        loss, gradient = _loss(weights, both, truth)
        for nats, prior in pulls:
            apart = weights - prior
            loss, gradient = loss + nats / n * float(apart @ apart), gradient + 2 * nats / n * apart
        return loss, gradient

    found: Any = minimize(penalised, np.array([0.8, 0.2]), jac=True, bounds=[(0, None)] * 2, method="L-BFGS-B")
    return float(found.x[0]), float(found.x[1])


def mix(weights: Mix, logits: np.ndarray, centroid: np.ndarray) -> np.ndarray:
    return np.asarray(weights[0] * logits + weights[1] * centroid)


def _loss(weights: np.ndarray, both: np.ndarray, truth: np.ndarray) -> tuple[float, np.ndarray]:
    """Mean log-loss of the mixture, and its gradient (2,)."""
    p = softmax(both @ weights)
    loss = float(row_losses(truth, p).mean())
    wrong = p
    if truth.ndim == 1:
        wrong[np.arange(len(truth)), truth] -= 1
    else:
        wrong -= truth
    if both.shape[1] == 1:
        wrong = wrong[:, 1:]
    return loss, np.einsum("no,now->w", wrong, both) / len(truth)
