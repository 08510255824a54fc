"""selection.py: what folds choose is judged by others. Labels that mean nothing, and copies in a group, never help.

benchmarks/leaks.py does so on real rows, with 50 shuffles.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from pipeline.config.head_schema import HEAD_KINDS, Logistic
from stages.data.manifest import Row
from stages.heads import auto
from stages.heads.fitted import Head
from stages.heads.selection import Selection
from tests.support.problems import columns, features, names, rows

KINDS = ["logistic", "ridge", "knn"]  # a dense head starts as a logistic one, and takes seconds


class Sweep:
    """A grid over C as candidates of one choice, as sweeps.py judges its points."""

    folds, seed = 5, 0
    candidates: ClassVar = {f"C={c}": ("stages.heads.logistic", Logistic(C=c)) for c in (1e-4, 1e-2, 1.0)}


def fit_kind(kind: str, x: np.ndarray, samples: Sequence[Row]) -> Head:
    if kind == "sweep":
        return auto.fit(Sweep(), features(x), samples, names(2))
    row = HEAD_KINDS[kind]
    head: Head = importlib.import_module(row.module).fit(row.spec(kind=kind), features(x), samples, names(2))
    return head


def mean_auroc(head: Head, samples: Sequence[Row]) -> float:
    """Out of fold, averaged over folds: across folds a score need not mean the same."""
    found, truth = head.out_of_fold, columns(samples)
    assert found is not None
    folds = [found.folds == fold for fold in np.unique(found.folds)]
    return float(np.mean([roc_auc_score(truth[fold], found.predictions[fold, 1]) for fold in folds]))


def noise(n: int, dim: int, seed: int) -> tuple[np.ndarray, list[Row]]:
    """Rows and labels, half of each class, that have nothing to do with each other."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) % 2)
    return rng.normal(size=(n, dim)).astype(np.float32), rows([f"c{label}" for label in labels], ["train"] * n)


def error(scores: Sequence[float]) -> float:
    """Standard error of their mean."""
    return float(np.std(scores, ddof=1)) / len(scores) ** 0.5


@pytest.mark.parametrize("kind", [*KINDS, "auto", "sweep"])
def test_shuffled_labels_teach_nothing_out_of_fold(kind: str) -> None:
    scores = [mean_auroc(fit_kind(kind, x, samples), samples) for x, samples in (noise(300, 64, s) for s in range(6))]
    assert np.mean(scores) < 0.5 + 2 * error(scores)
    assert (
        error(scores) < 0.03
    )  # that of guesses, 0.014 by the variance of Mann and Whitney's U, or the bound says little


@pytest.mark.parametrize("kind", KINDS)
def test_a_near_copy_in_its_group_never_helps(kind: str) -> None:
    """Each row has a near-copy with its label; otherwise labels mean nothing. Without groups, copies give them away."""
    grouped, alone = [], []
    for seed in range(4):
        x, samples = noise(150, 300, seed)
        twice = np.concatenate([x, x + np.float32(0.01) * noise(150, 300, 99)[0]])
        copies = rows([row.label or "" for row in samples * 2], ["train"] * 300)
        alone.append(mean_auroc(fit_kind(kind, twice, copies), copies))
        copies = [row._replace(group=f"g{i % 150}") for i, row in enumerate(copies)]
        grouped.append(mean_auroc(fit_kind(kind, twice, copies), copies))
    assert min(alone) > 0.7
    assert np.mean(grouped) < 0.5 + 2 * error(grouped)


def test_the_best_of_many_settings_is_judged_by_others() -> None:
    """30 settings that guess: the best by all rows seems to be right too often, cross-fitted it isn't."""
    flattered, honest = [], []
    for seed in range(20):
        x, samples = noise(100, 30, seed)
        right = x > 0  # of each setting
        selection = Selection.of(Logistic(), samples, names(2))

        def judge(others: np.ndarray, right: np.ndarray = right) -> Callable[[np.ndarray], np.ndarray]:
            best = int(right[others].mean(axis=0).argmax())
            return lambda here: right[here][:, [best]]

        found = selection.cross_fit(judge)
        assert found is not None
        flattered.append(float(right.mean(axis=0).max()))
        honest.append(float(found.predictions.mean()))
    assert np.mean(flattered) > 0.55
    assert np.mean(honest) < 0.5 + 2 * error(honest)
