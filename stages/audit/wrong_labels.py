"""Owns which labels are probably wrong, by predictions out of fold. Not the predictions, nor what to do about it.

Confident learning (Northcutt, Jiang and Chuang 2021, Journal of Artificial Intelligence Research 70).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Suspects:
    """Of n images: the probability of its own label, which other class it may be of, and whether that is confident.

    own (n,) float64; instead (n,) int, the column of the class that makes it suspect, of others of the most probable
    other one; confident (n,) bool. order: all images, the least probable own label first; of equal ones the first.
    """

    own: np.ndarray
    instead: np.ndarray
    confident: np.ndarray

    @property
    def order(self) -> np.ndarray:
        return np.argsort(self.own, kind="stable")


def find_suspects(p: np.ndarray, y: np.ndarray) -> Suspects:
    """p (n, classes): predictions of heads that did not see the image; y (n,) int: its column.

    A label is confidently wrong where another class is as probable as for the average image that is labelled so, or
    more, and of all such classes the label is not the most probable one. Classes without images are none.
    """
    here, columns = np.arange(len(y)), range(p.shape[1])
    average = np.array([p[y == column, column].mean() if (y == column).any() else np.inf for column in columns])
    reached = np.where(p >= average, p, -1)
    best = reached.argmax(axis=1)
    others = p.copy()
    others[here, y] = -1
    confident = reached[here, best] > reached[here, y]
    return Suspects(p[here, y], np.where(confident, best, others.argmax(axis=1)), confident)
