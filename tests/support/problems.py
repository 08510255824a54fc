"""Feature rows with labels and splits, for heads to be fitted on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from string import ascii_lowercase

import numpy as np

from stages.data.manifest import Row
from stages.heads.matrix import FeatureMatrix
from stages.targets.classes import Classes


@dataclass
class InMemory:
    """A source of rows that notes how many were read at once."""

    x: np.ndarray
    taken: list[int] = field(default_factory=list)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.x.shape

    def __getitem__(self, where: np.ndarray) -> np.ndarray:
        self.taken.append(len(where))
        return np.array(self.x[where])


def features(*arrays: np.ndarray) -> FeatureMatrix:
    return FeatureMatrix([InMemory(x) for x in arrays])


def rows(labels: Sequence[str], splits: Sequence[str]) -> list[Row]:
    names = [hashlib.sha256(str(i).encode()).hexdigest() for i in range(len(labels))]
    return [Row(name, "", label, split) for name, label, split in zip(names, labels, splits, strict=True)]


def problem(n_classes: int, n: int = 400, signal: float = 1.0, seed: int = 0) -> tuple[np.ndarray, list[Row]]:
    """Gaussian classes in 12 dimensions of different scales, one of them constant."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, n_classes, n)
    x = rng.normal(size=(n, 12)) + signal * rng.normal(size=(n_classes, 12))[truth]
    x = x * np.logspace(-0.5, 0.5, 12) + np.logspace(0.5, -0.5, 12)
    x[:, 5] = 7.0
    parts = [("train", "val", "test")[i] for i in rng.choice(3, n, p=(0.6, 0.2, 0.2))]
    return x.astype(np.float32), rows([f"c{i}" for i in truth], parts)


def scaled(x: np.ndarray, fitted: np.ndarray) -> np.ndarray:
    """The rows x of one tap with few features, as heads scale them: by the variances of `fitted`, shrunk by 5 %."""
    wide = fitted.astype(np.float64)
    variance = wide.var(axis=0)
    varies = variance > 1e-12
    shrunk = np.where(varies, 0.95 * variance + 0.05 * variance[varies].mean(), np.inf)
    return (x.astype(np.float64) - wide.mean(axis=0)) / np.sqrt(shrunk)


def in_train(samples: Sequence[Row]) -> list[Row]:
    """The same rows without val and test, so that folds choose."""
    return [row._replace(split="train") for row in samples]


def names(n_classes: int) -> Classes:
    return Classes(f"c{i}" for i in range(n_classes))


def part(samples: Sequence[Row], split: str) -> np.ndarray:
    """Which rows are of that split: (n,) bool."""
    return np.array([row.split == split for row in samples])


def columns(samples: Sequence[Row]) -> np.ndarray:
    return np.array([int((row.label or "c0")[1:]) for row in samples])


def hard_shares(samples: Sequence[Row], target: Classes) -> list[Row]:
    """The same rows with shares of classes that are all 0 or 1."""
    return [row._replace(label=shares_of([float(row.label == name) for name in target], target)) for row in samples]


def shares_of(shares: Sequence[float], target: Sequence[str]) -> str:
    return json.dumps(dict(zip(target, shares, strict=True)))


def labels_of(y: np.ndarray, target: Sequence[str]) -> list[str]:
    """The text of rows y (n, labels) of 0, 1 and NaN, as tables give it."""
    marks = [[(n, None if np.isnan(v) else int(v)) for n, v in zip(target, row, strict=True) if v != 0] for row in y]
    return [json.dumps(dict(found), sort_keys=True) for found in marks]


def numbers_of(y: np.ndarray) -> list[str]:
    """The same of numbers a, b, c and so on, (n, numbers)."""
    return [json.dumps(dict(zip(ascii_lowercase, row, strict=False))) for row in y.tolist()]


def labels_problem(n_labels: int, n: int = 400, unknown: float = 0.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features as of `problem`, and what each row has of labels that depend on them: (n, labels), some NaN."""
    x, _ = problem(2, n, seed=seed)
    rng = np.random.default_rng(seed + 1)
    scores = scaled(x, x) @ rng.normal(size=(12, n_labels)) + rng.normal(size=n_labels)
    y = (scores + rng.logistic(size=scores.shape) > 0).astype(np.float64)
    return x, np.where(rng.random(y.shape) < unknown, np.nan, y)


def numbers_problem(n_numbers: int, n: int = 400, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features as of `problem`, and numbers that depend on them: (n, numbers)."""
    x, _ = problem(2, n, seed=seed)
    rng = np.random.default_rng(seed + 1)
    return x, scaled(x, x) @ rng.normal(size=(12, n_numbers)) + rng.normal(size=(n, n_numbers))


def parts(n: int, seed: int = 0) -> list[str]:
    """A split for each of n rows."""
    return [("train", "val", "test")[i] for i in np.random.default_rng(seed + 2).choice(3, n, p=(0.6, 0.2, 0.2))]
