"""Whether figures of folds flatter: python -m benchmarks.leaks [--set NAME] [--shuffles N] [--draws N].

First, rows whose labels are shuffled: nothing is to be learnt, so AUROC out of fold is 0.5 but for chance. Then the
same heads' figures three ways: shared, at the settings that all folds prefer; cross-fitted, as they are told; nested,
by heads that saw nothing of the fold, neither to be fitted nor to be chosen. The folds are the same.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar
from unittest.mock import patch

import numpy as np

from benchmarks.few_images import figures
from benchmarks.small_sets import LAY_OUT, Rows, features, stratified
from pipeline.config.head_schema import HEAD_KINDS, Knn
from stages.data.manifest import Row
from stages.heads.fitted import Head, OutOfFold
from stages.heads.matrix import FeatureMatrix
from stages.heads.selection import Selection
from stages.targets.classes import Classes

SHUFFLED_IMAGES = 300
SIZES = (40, 100, 300)
FIGURES = ("accuracy", "auroc", "log_loss")
CHOOSES = {"logistic": "stages.heads.logistic", "auto": "stages.heads.auto", "sweep": "stages.heads.auto"}
"""Contenders of the second table, and whose choice is shared in it: of C and the mixture, of a kind, of a point."""


class Sweep:
    """12 points of kNN heads, chosen among as sweeps.py does."""

    folds, seed = 5, 0
    candidates: ClassVar = {
        f"k={k} temperature={temperature}": ("stages.heads.knn", Knn(k=k, temperature=temperature))
        for k in (1, 3, 10, 30, 100, 200)
        for temperature in (0.03, 0.1)
    }


def fit(contender: str, x: np.ndarray, y: np.ndarray) -> Head:
    """On all of these rows, chosen by folds of them."""
    ids = [hashlib.sha256(values.tobytes()).hexdigest() for values in x]
    rows = [Row(name, "", str(label), "train") for name, label in zip(ids, y.tolist(), strict=True)]
    kind = "auto" if contender == "sweep" else contender
    spec: Any = Sweep() if contender == "sweep" else HEAD_KINDS[kind].spec.model_validate({"kind": kind})
    classes = Classes(str(label) for label in range(y.max() + 1))
    head: Head = import_module(HEAD_KINDS[kind].module).fit(spec, FeatureMatrix([x]), rows, classes)
    return head


def judge(y: np.ndarray, found: OutOfFold) -> np.ndarray:
    """Accuracy, AUROC and log-loss, averaged over folds."""
    parts = [figures(y[here], found.predictions[here]) for here in _folds(found)]
    return np.asarray(np.mean([[part[name] for name in FIGURES] for part in parts], axis=0))


def _folds(found: OutOfFold) -> list[np.ndarray]:
    return [found.folds == fold for fold in np.unique(found.folds)]


def draw(rows: Rows, n: int, number: int, shuffled: bool) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng([n, number])
    chosen = stratified(rows.y, n, 5, rng)
    return rows.x[chosen], rng.permutation(rows.y[chosen]) if shuffled else rows.y[chosen]


@contextmanager
def shared(module: str) -> Iterator[None]:
    """What that module chooses, it chooses by all folds, and judges on them."""
    honest = Selection.cross_fit

    def cross_fit(self: Selection, judge: Callable[[np.ndarray], Callable[[np.ndarray], np.ndarray]]) -> Any:
        if self.folds is None or judge.__module__ != module:
            return honest(self, judge)
        every = np.arange(len(self.folds))
        return OutOfFold(judge(every)(every), self.folds)

    with patch.object(Selection, "cross_fit", cross_fit):
        yield


def three_ways(contender: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Figures (3, 3): shared, cross-fitted and nested."""
    found = fit(contender, x, y).out_of_fold
    with shared(CHOOSES[contender]):
        flattered = fit(contender, x, y).out_of_fold
    assert found is not None
    assert flattered is not None
    nested = np.empty_like(found.predictions)
    for here in _folds(found):
        nested[here] = fit(contender, x[~here], y[~here]).predict(x[here])
    return np.stack([judge(y, way) for way in (flattered, found, OutOfFold(nested, found.folds))])


def spread(values: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Mean, and two standard errors of it."""
    return np.mean(values, axis=0), 2 * np.std(values, axis=0, ddof=1) / len(values) ** 0.5


def show_shuffled(rows: Rows, shuffles: int) -> None:
    print(f"\n| {SHUFFLED_IMAGES} images, labels shuffled, {shuffles} times | AUROC | at most | |\n|---|---|---|---|")
    for contender in ("logistic", "ridge", "knn", "auto", "sweep"):
        scores = []
        for number in range(shuffles):
            x, y = draw(rows, SHUFFLED_IMAGES, number, shuffled=True)
            found = fit(contender, x, y).out_of_fold
            assert found is not None
            scores.append(judge(y, found)[1])
        mean, error = spread(scores)
        print(f"| {contender} | {mean:.4f} | {0.5 + error:.4f} | {'holds' if mean <= 0.5 + error else '**fails**'} |")


def show_three_ways(rows: Rows, draws: int, fewer: int) -> None:
    print(
        "\n| | labels | n | draws | nested: accuracy, AUROC, log-loss | shared less nested | cross-fitted less nested |"
    )
    print(f"|{'---|' * 7}")
    for contender in CHOOSES:
        number = fewer if contender == "auto" else draws
        if number < 2:
            continue
        for shuffled in (True, False):
            for n in SIZES:
                found = [three_ways(contender, *draw(rows, n, i, shuffled)) for i in range(number)]
                nested = ", ".join(f"{value:.3f}" for value in np.mean(found, axis=0)[2])
                cells = []
                for way in (0, 1):
                    apart = zip(*spread([each[way] - each[2] for each in found]), strict=True)
                    cells.append(", ".join(f"{mean:+.3f} ± {error:.3f}" for mean, error in apart))
                labels = "shuffled" if shuffled else "true"
                print(f"| {contender} | {labels} | {n} | {number} | {nested} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument(
        "--folder", type=Path, default=Path("bench-out/few_images"), help="of few_images, for features"
    )
    options.add_argument("--set", choices=tuple(LAY_OUT), default="elpv")
    options.add_argument("--shuffles", type=int, default=50, help="0: the second table alone")
    options.add_argument("--draws", type=int, default=20, help="of the second table")
    options.add_argument("--fewer", type=int, default=5, help="draws of auto there, which takes longest; 0: none")
    asked = options.parse_args()
    rows = features(asked.folder, asked.set)
    if asked.shuffles:
        show_shuffled(rows, asked.shuffles)
    show_three_ways(rows, asked.draws, asked.fewer)


if __name__ == "__main__":
    main()
