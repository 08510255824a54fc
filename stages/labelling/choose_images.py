"""Owns which unlabelled images to label next, by what a head predicts of them and their rows. Not the head, nor copies.

BADGE (Ash et al. 2020, Deep Batch Active Learning by Diverse, Uncertain Gradient Lower Bounds): of each image the
gradient of the loss by the last layer, as if what is predicted were true. It is long where the head is unsure, and
images whose gradients differ teach different things; k-means++ draws images with gradients that are long and apart. No
gradient at all counts as drawn: else, with the first sure image, one would be drawn to stand for all of them.
"""

from __future__ import annotations

import numpy as np

from stages.targets.target import Target


def unsure(predictions: np.ndarray, target: Target) -> np.ndarray:
    """What is predicted less what would be true if the head were right: (n, columns) -> the same, or (n, 1).

    Of numbers, whose predictions don't tell how sure they are, 1: images are drawn that are unlike each other.
    """
    if not target.probabilities:
        return np.ones((len(predictions), 1))
    if not target.exclusive:
        return np.asarray(predictions - (predictions >= 0.5))
    sure = np.zeros_like(predictions)
    sure[np.arange(len(predictions)), predictions.argmax(axis=1)] = 1
    return np.asarray(predictions - sure)


def choose(gaps: np.ndarray, rows: np.ndarray, count: int, seed: int) -> np.ndarray:
    """The numbers of `count` images, or all, in the order they are drawn, the least sure one first: (count,) int.

    gaps: those of `unsure`, (n, columns); rows (n, dim), of length 1. The gradient is their outer product, which is
    never made: distances follow from products of either.
    """
    random = np.random.default_rng(seed)
    squares = np.einsum("ij,ij->i", gaps, gaps) * np.einsum("ij,ij->i", rows, rows)
    chosen = [int(squares.argmax())]
    apart = squares.copy()
    while len(chosen) < min(count, len(rows)):
        last = chosen[-1]
        products = (gaps @ gaps[last]) * (rows @ rows[last])
        apart = np.minimum(apart, np.maximum(squares + squares[last] - 2 * products, 0))
        apart[chosen] = 0
        total = apart.sum()
        left = np.setdiff1d(np.arange(len(rows)), chosen) if total <= 0 else None
        chosen.append(int(left[0]) if left is not None else int(random.choice(len(rows), p=apart / total)))
    return np.array(chosen)
